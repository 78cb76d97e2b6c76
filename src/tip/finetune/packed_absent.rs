//! Stands in for the kernels on processors other than x86-64: training runs in
//! torch operators there.

use tch::{Device, Tensor};

use super::{AdamW, Start, Weights};
use crate::tip::head::{HeadError, packed::Isa};

pub enum Packed {}

impl Packed {
    pub fn new(isa: Isa, _: bool, _: &Start) -> Result<Self, HeadError> {
        match isa {}
    }
}

impl Weights for Packed {
    fn begin(&mut self, _: &Tensor) -> Result<(), HeadError> {
        match *self {}
    }
    fn forward(&mut self, _: usize) -> Result<bool, HeadError> {
        match *self {}
    }
    fn logits(&mut self) -> Result<Tensor, HeadError> {
        match *self {}
    }
    fn backward(&mut self, _: &Tensor, _: &AdamW, _: usize) -> Result<bool, HeadError> {
        match *self {}
    }
    fn score(&self, _: &Tensor) -> Result<Tensor, HeadError> {
        match *self {}
    }
    fn own(&self, _: &Tensor, _: &[usize]) -> Result<Tensor, HeadError> {
        match *self {}
    }
    fn keys(&self) -> Result<Tensor, HeadError> {
        match *self {}
    }
    fn device(&self) -> Device {
        match *self {}
    }
}
