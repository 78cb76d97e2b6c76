//! tipserve's API as Rust sees it, without a server or a client around it.
//!
//! - [`v1`] and [`inference`]: the types and clients generated from `proto/`
//!   (tipserve's own API, and the Open Inference Protocol v2), and their
//!   [`DESCRIPTORS`].
//! - [`names`]: resource names. A [`names::CacheId`] or [`names::Reference`] is
//!   made only by parsing, so that a value of these types is proof of a
//!   well-formed name.
//! - [`methods`]: every RPC with the role that it needs; [`tokens`]: how a
//!   caller's token is made.
//! - [`environment`]: variables that count as set.
//! - [`text`] and [`printable`]: the form that names are compared in, and how what
//!   others wrote is shown.
//! - [`codec`]: how messages are decoded; [`decode_cost`] bounds the memory that
//!   it takes.
//!
//! ```
//! use tipserve_api::names::{Reference, VersionSelector};
//!
//! let reference: Reference = "caches/pets/aliases/stable".parse()?;
//! assert_eq!(reference.cache.as_str(), "pets");
//! assert!(matches!(reference.version, VersionSelector::Alias(_)));
//! assert!("caches/../etc".parse::<Reference>().is_err());
//! # Ok::<(), tipserve_api::names::NameError>(())
//! ```

mod code;
pub mod codec;
pub mod decode_cost;
pub mod environment;
pub mod methods;
pub mod names;
pub mod printable;
mod proto;
pub mod text;
pub mod tokens;

pub use code::{CODES, code_name};
pub use proto::{DESCRIPTORS, inference, v1};
