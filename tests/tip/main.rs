//! The mathematics, held against float64 references.

mod finetune;
mod head;
mod reference;
