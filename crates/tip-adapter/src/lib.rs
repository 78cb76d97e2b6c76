//! The mathematics of Tip-Adapter and its relatives: tensors in, tensors out.
//!
//! - [`material::Material`]: what a classifier is made from: unit features of
//!   labelled examples (keys), text weights, views, validation examples.
//! - [`make::make`] chooses method and numbers, and makes the head: its numbers
//!   ([`spec::HeadSpec`]) and tensors ([`head::HeadTensors`]), which are what a
//!   version of a cache stores.
//! - [`head::Head`]: a head resident on a device, which answers features with
//!   logits. [`formula::plain_logits`] is its formula as written, and
//!   [`evaluate::Evaluator`] says how well a head does.
//!
//! [`finetune`] and [`residual`] train further, [`analysis`] and [`suggest`] say
//! what would help. Nothing here knows files, RPCs or async.
//!
//! ```
//! use tch::{Device, Tensor};
//! use tip_adapter::head::Head;
//! use tip_adapter::make::{HeadRequest, make};
//! use tip_adapter::material::Material;
//! use tip_adapter::spec::Method;
//!
//! // Two examples of each of two classes, unit features of width 2, no text.
//! let keys = Tensor::from_slice(&[1.0f32, 0.0, 0.96, 0.28, 0.0, 1.0, 0.28, 0.96]);
//! let material = Material {
//!     keys: keys.view([4, 2]),
//!     labels: Tensor::from_slice(&[0i64, 0, 1, 1]),
//!     classes: 2,
//!     views: None,
//!     text: None,
//!     validation: None,
//!     logit_scale: 100.0,
//!     statistics: None,
//!     unlabelled: None,
//! };
//! let request = HeadRequest { method: Some(Method::ClassMean), ..HeadRequest::default() };
//! let made = make(&material, &request, &|_| true)?;
//! let head = Head::new(&made.spec, &made.tensors, Device::Cpu)?;
//! let logits = head.logits(&Tensor::from_slice(&[0.8f32, 0.6]).view([1, 2]))?;
//! assert_eq!(logits.argmax(1, false).int64_value(&[0]), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

// Shapes are checked where tensors come in.
#![allow(clippy::indexing_slicing)]

pub mod analysis;
pub mod answer;
pub mod best;
mod class_mean;
pub mod contrast;
mod dimensions;
pub mod drift;
mod energy;
pub mod error;
pub mod evaluate;
pub mod evaluate_labels;
pub mod finetune;
mod folds;
pub mod formula;
mod gda;
mod gda_left_out;
mod gda_one_out;
mod grid;
pub mod grouped;
pub mod head;
mod hold_out;
mod kernel_ridge;
pub mod left_out;
mod made;
pub mod make;
pub mod material;
mod methods;
pub mod multi_label;
pub mod near;
pub mod precision;
pub mod proker;
mod request;
pub mod residual;
pub mod retune;
mod score;
mod select;
pub use grid::GridValues;
pub use tip_spec as spec;
mod spread;
mod stack;
pub mod standardise;
pub mod suggest;
mod supervised;
pub mod temperature;
mod tip_adapter;
mod told;
mod unit;
pub mod unknown;
mod unlabelled;
pub mod unseen;
mod watch;
