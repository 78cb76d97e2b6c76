//! The mathematics of `tip_adapter`, held against plain float64 references
//! in PyTorch on fresh random inputs, and against figures on real features.

// A test stops where something is not as it says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod accuracy;
mod analysis;
mod best;
mod calibration;
mod contrast;
mod drift;
mod evaluation;
mod exchange;
mod finetune;
mod formula;
mod head;
mod head_shapes;
mod material;
mod methods;
mod multi_label;
mod precision;
mod random;
mod reference;
mod residual;
mod selection;
mod stack;
mod stack_scales;
mod standardised;
mod suggest;
mod unknown;
mod unlabelled;

#[path = "../../benches/tip/features.rs"]
mod features;
