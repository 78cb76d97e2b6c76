//! Training in torch operators: any device. The same two products a step as
//! [`super::kernels`], without autograd.

use tch::{Device, Kind, Tensor};

use super::{AdamW, Start, Weights};
use crate::head::{
    HeadError,
    operators::{Tile, linear_logits, tiles},
};

/// The keys while they are trained, and what a step computes from them.
pub struct Operators {
    device: Device,
    classes: i64,
    linear: Option<Tensor>,
    bias: Option<Tensor>,
    /// [N], the weight of each class in V.
    weight: Tensor,
    beta: f64,
    /// [M, D], sorted by class.
    keys: Tensor,
    moments: [Tensor; 2],
    labels: Tensor,
    /// The sorted place of each key.
    place: Tensor,
    tiles: Vec<Tile>,
    features: Tensor,
    logits: Tensor,
    /// The affinities of each tile, kept from the forward pass for the backward
    /// one.
    affinities: Vec<Tensor>,
    done: usize,
}

impl Operators {
    pub fn new(device: Device, start: &Start) -> Result<Self, HeadError> {
        let resident = |t: &Tensor| {
            t.f_to_device(device)?
                .f_to_kind(Kind::Float)?
                .f_contiguous()
        };
        let order = start.sorted.order_tensor()?;
        let keys = resident(
            &start
                .keys
                .f_to_device(Device::Cpu)?
                .f_index_select(0, &order)?,
        )?;
        let labels: Vec<i64> = start.sorted.labels.iter().map(|&c| i64::from(c)).collect();
        Ok(Self {
            device,
            classes: start.classes as i64,
            linear: start.linear.map(resident).transpose()?,
            bias: start.bias.map(resident).transpose()?,
            weight: resident(&start.weight)?,
            beta: start.beta,
            moments: [keys.f_zeros_like()?, keys.f_zeros_like()?],
            keys,
            labels: Tensor::f_from_slice(&labels)?.f_to_device(device)?,
            place: order.f_argsort(0, false)?.f_to_device(device)?,
            tiles: tiles(&start.sorted.labels),
            features: Tensor::new(),
            logits: Tensor::new(),
            affinities: Vec::new(),
            done: 0,
        })
    }

    fn linear_logits(&self, features: &Tensor) -> Result<Tensor, HeadError> {
        linear_logits(
            self.linear.as_ref(),
            self.bias.as_ref(),
            self.classes,
            features,
        )
    }

    /// The affinities of a tile, added to the logits.
    fn tile(&self, features: &Tensor, tile: &Tile, logits: &Tensor) -> Result<Tensor, HeadError> {
        let keys = self.keys.f_narrow(0, tile.start, tile.keys)?;
        let mut x = features.f_mm(&keys.f_tr()?)?;
        let x = x
            .f_mul_scalar_(self.beta)?
            .f_sub_scalar_(self.beta)?
            .f_exp_()?;
        let one_hot = tile.one_hot(&self.labels, &self.weight)?;
        let _ = logits
            .f_narrow(1, tile.class, tile.classes)?
            .f_add_(&x.f_mm(&one_hot)?)?;
        Ok(x)
    }

    /// One past the last tile of a slice of about `work` multiplications.
    fn slice(&self, work: usize) -> usize {
        let row = self.features.numel();
        let mut end = self.done;
        let mut sum = 0;
        while end < self.tiles.len() && (end == self.done || sum < work) {
            sum += row * self.tiles[end].keys as usize;
            end += 1;
        }
        end
    }
}

impl Weights for Operators {
    fn begin(&mut self, features: &Tensor) -> Result<(), HeadError> {
        self.features = features.f_to_device(self.device)?.f_to_kind(Kind::Float)?;
        self.logits = self.linear_logits(&self.features)?;
        self.affinities.clear();
        self.done = 0;
        Ok(())
    }

    fn forward(&mut self, work: usize) -> Result<bool, HeadError> {
        let end = self.slice(work);
        for tile in &self.tiles[self.done..end] {
            let affinities = self.tile(&self.features, tile, &self.logits)?;
            self.affinities.push(affinities);
        }
        self.done = end;
        Ok(end == self.tiles.len())
    }

    fn logits(&mut self) -> Result<Tensor, HeadError> {
        self.done = 0;
        Ok(self.logits.shallow_clone())
    }

    fn backward(
        &mut self,
        gradient: &Tensor,
        adamw: &AdamW,
        work: usize,
    ) -> Result<bool, HeadError> {
        let end = self.slice(work);
        let a = adamw;
        for (tile, affinities) in self.tiles[self.done..end]
            .iter()
            .zip(&mut self.affinities[self.done..end])
        {
            let one_hot = tile.one_hot(&self.labels, &self.weight)?;
            let g = gradient
                .f_narrow(1, tile.class, tile.classes)?
                .f_mm(&one_hot.f_tr()?)?;
            let x = affinities.f_mul_(&g)?.f_mul_scalar_(self.beta)?;
            let g = x.f_tr()?.f_mm(&self.features)?;
            let rows = |t: &Tensor| t.f_narrow(0, tile.start, tile.keys);
            let (mut keys, mut first, mut second) = (
                rows(&self.keys)?,
                rows(&self.moments[0])?,
                rows(&self.moments[1])?,
            );
            let _ = keys.f_mul_scalar_(f64::from(a.decay))?;
            let first = first.f_lerp_(&g, 1.0 - f64::from(a.beta1))?;
            let _ = second
                .f_mul_scalar_(f64::from(a.beta2))?
                .f_add_(&g.f_square()?.f_mul_scalar(1.0 - f64::from(a.beta2))?)?;
            let mut denominator = second.f_sqrt()?;
            let denominator = denominator
                .f_mul_scalar_(f64::from(a.root))?
                .f_add_scalar_(f64::from(a.epsilon))?;
            let _ = keys.f_addcdiv_(&first.f_mul_scalar(f64::from(a.size))?, &denominator)?;
        }
        self.done = end;
        Ok(end == self.tiles.len())
    }

    fn score(&self, features: &Tensor) -> Result<Tensor, HeadError> {
        let features = features.f_to_device(self.device)?.f_to_kind(Kind::Float)?;
        let logits = self.linear_logits(&features)?;
        for tile in &self.tiles {
            let _ = self.tile(&features, tile, &logits)?;
        }
        Ok(logits)
    }

    fn own(&self, features: &Tensor, keys: &[usize]) -> Result<Tensor, HeadError> {
        let features = features.f_to_device(self.device)?.f_to_kind(Kind::Float)?;
        let rows: Vec<i64> = keys.iter().map(|&key| key as i64).collect();
        let at = self
            .place
            .f_index_select(0, &Tensor::f_from_slice(&rows)?.f_to_device(self.device)?)?;
        let keys = self.keys.f_index_select(0, &at)?;
        let weight = self
            .weight
            .f_index_select(0, &self.labels.f_index_select(0, &at)?)?;
        let dot =
            features
                .f_mul(&keys)?
                .f_sum_dim_intlist([1i64].as_slice(), false, Kind::Float)?;
        let own = dot
            .f_mul_scalar(self.beta)?
            .f_sub_scalar(self.beta)?
            .f_exp()?;
        Ok(own.f_mul(&weight)?)
    }

    fn keys(&self) -> Result<Tensor, HeadError> {
        Ok(self
            .keys
            .f_index_select(0, &self.place)?
            .f_to_device(Device::Cpu)?)
    }

    fn device(&self) -> Device {
        self.device
    }
}
