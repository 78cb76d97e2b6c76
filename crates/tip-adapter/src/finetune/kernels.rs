//! Training in the CPU kernels of [`tip_kernels::training`].

use tch::{Device, Tensor};
use tip_kernels::{
    Isa,
    adamw::AdamW,
    training::{Source, Training},
};

use super::{Start, Weights};
use crate::head::{HeadError, Plain, filled};

/// Keys in training, packed for the kernels.
pub struct Kernels {
    training: Training,
    classes: usize,
    width: usize,
}

impl Kernels {
    /// `mixed`: bfloat16 products where the processor gains by them.
    pub fn new(isa: Isa, mixed: bool, start: &Start) -> Result<Self, HeadError> {
        crate::head::use_torch_threads();
        let width = start.keys.size().get(1).map_or(0, |&d| d as usize);
        let keys = Plain::new(start.keys)?;
        let linear = start.linear.map(Plain::new).transpose()?;
        let bias = start.bias.map(Plain::new).transpose()?;
        let weight = Plain::new(&start.weight)?;
        let training = Training::new(
            isa,
            mixed,
            &Source {
                classes: start.classes,
                width,
                keys: keys.values(),
                sorted_labels: &start.sorted.labels,
                order: &start.sorted.order,
                linear: linear.as_ref().map(Plain::values),
                bias: bias.as_ref().map(Plain::values),
                weight: weight.values(),
                beta: start.beta as f32,
            },
        );
        Ok(Self {
            training,
            classes: start.classes,
            width,
        })
    }
}

impl Weights for Kernels {
    fn begin(&mut self, features: &Tensor) -> Result<(), HeadError> {
        self.training.begin(Plain::new(features)?.values());
        Ok(())
    }

    fn forward(&mut self, work: usize) -> Result<bool, HeadError> {
        Ok(self.training.forward(work))
    }

    fn logits(&mut self) -> Result<Tensor, HeadError> {
        let logits = self.training.logits();
        filled([logits.len() / self.classes, self.classes], |out| {
            out.copy_from_slice(logits);
        })
    }

    fn backward(
        &mut self,
        gradient: &Tensor,
        adamw: &AdamW,
        work: usize,
    ) -> Result<bool, HeadError> {
        let gradient = Plain::new(gradient)?;
        Ok(self.training.backward(gradient.values(), adamw, work))
    }

    fn score(&self, features: &Tensor) -> Result<Tensor, HeadError> {
        let features = Plain::new(features)?;
        let rows = features.values().len() / self.width;
        filled([rows, self.classes], |out| {
            self.training.score(features.values(), out);
        })
    }

    fn own(&self, features: &Tensor, keys: &[usize]) -> Result<Tensor, HeadError> {
        let own = self.training.own(Plain::new(features)?.values(), keys);
        Ok(Tensor::f_from_slice(&own)?)
    }

    fn keys(&self) -> Result<Tensor, HeadError> {
        let keys = self.training.keys();
        let rows = (keys.len() / self.width) as i64;
        Ok(Tensor::f_from_slice(&keys)?.f_view([rows, self.width as i64])?)
    }

    fn device(&self) -> Device {
        Device::Cpu
    }
}
