//! The mathematics of Tip-Adapter and its relatives: tensors in, tensors out.
//!
//! [`make::make`] turns a [`material::Material`] (keys, labels, text weights,
//! views, validation examples) into a head's numbers ([`spec::HeadSpec`]) and
//! tensors ([`head::HeadTensors`]). [`formula::plain_logits`] is the head's
//! formula as written; [`evaluate::Evaluator`] says how well a head does.

// Shapes are checked where tensors come in.
#![allow(clippy::indexing_slicing)]

pub mod analysis;
pub mod answer;
pub mod best;
mod class_mean;
pub mod contrast;
pub mod drift;
pub mod error;
pub mod evaluate;
pub mod evaluate_labels;
pub mod finetune;
mod folds;
pub mod formula;
mod gda;
mod gda_left_out;
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
mod unit;
pub mod unknown;
mod unlabelled;
pub mod unseen;
mod watch;
