//! Stands in for the kernels on processors other than x86-64: there are none,
//! and the head runs in torch operators.

use std::sync::Arc;

pub use super::source::{CacheSource, Source};
use tip_spec::KeyDtype;

/// Stands for the instruction sets of other architectures; has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {}

impl Isa {
    pub fn detect() -> Option<Self> {
        None
    }
}

pub enum Packed {}

pub enum PackedKeys {}

impl Packed {
    pub fn new(isa: Isa, _: &Source) -> Self {
        match isa {}
    }
    pub fn keys(&self) -> Option<&PackedKeys> {
        match *self {}
    }
    pub fn describe(&self) -> String {
        match *self {}
    }
    pub fn size_bytes(&self) -> usize {
        match *self {}
    }
    pub fn small(&self, _: usize) -> bool {
        match *self {}
    }
    pub fn logits(&self, _: &[f32], _: &mut [f32], _: bool) {
        match *self {}
    }
}

impl PackedKeys {
    pub fn new(isa: Isa, _: KeyDtype, _: &[f32], _: usize, _: Option<Arc<[u32]>>) -> Self {
        match isa {}
    }
    pub fn count(&self) -> usize {
        match *self {}
    }
    pub fn size_bytes(&self) -> usize {
        match *self {}
    }
    pub fn hold(&self, _: &[f32]) -> bool {
        match *self {}
    }
    pub fn nearest(&self, _: &[f32], _: usize, _: usize) -> (Vec<i64>, Vec<f32>) {
        match *self {}
    }
}
