//! The mathematics of `tipserve::tip`, held against a plain float64 reference
//! in PyTorch on fresh random inputs, and against figures on real features.

mod accuracy;
mod evaluation;
mod formula;
mod material;
mod methods;
mod random;
mod reference;
mod selection;

#[path = "../../benches/tip/features.rs"]
mod features;
