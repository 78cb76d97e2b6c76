//! The mathematics of Tip-Adapter and its relatives: tensors in, tensors out.

pub mod finetune;
pub mod grouped;
pub mod head;
pub mod spec;
