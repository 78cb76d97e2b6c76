//! Small heads computed together, as one concatenated head.

use tch::{Kind, Tensor};

use super::{Operators, Values};
use crate::head::HeadError;

/// Numbers in a head above which it is computed by itself.
const JOINS: i64 = 1 << 20;

impl Operators {
    /// Whether it is computed together with others: small, not dense, and on
    /// plain features.
    pub fn joins(&self) -> bool {
        self.standardised.is_none()
            && self.cache.as_ref().is_none_or(|cache| {
                matches!(cache.values, Values::OneHot { .. })
                    && cache.keys.keys.numel() as i64 <= JOINS
            })
    }

    /// Logits of `features` ([B, D]) by all of `heads`, which [`Self::joins`]
    /// and lie on one device, side by side: [B, ΣN].
    pub fn joined_logits(heads: &[&Self], features: &Tensor) -> Result<Tensor, HeadError> {
        let device = features.device();
        let float = (Kind::Float, device);
        let width = features.size()[1];
        let (mut linears, mut biases) = (Vec::new(), Vec::new());
        let (mut keys, mut labels, mut weights, mut betas) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut offsets: Vec<i64> = Vec::new();
        let mut classes = 0;
        // Launches cost more than what small heads compute: none a head.
        let nothing = Tensor::f_zeros([1, 1], float)?;
        for head in heads {
            let n = head.classes;
            linears.push(match &head.linear {
                Some(linear) => linear.shallow_clone(),
                None => nothing.f_expand([n, width], false)?,
            });
            biases.push(match &head.bias {
                Some(bias) => bias.shallow_clone(),
                None => nothing.f_view([1])?.f_expand([n], false)?,
            });
            if let Some(cache) = &head.cache
                && let Values::OneHot {
                    labels: own,
                    factors,
                    betas: beta,
                    ..
                } = &cache.values
            {
                let count = cache.keys.count() as usize;
                keys.push(cache.keys.keys.f_to_kind(Kind::Float)?);
                labels.push(own.shallow_clone());
                weights.push(factors.shallow_clone());
                betas.push(beta.shallow_clone());
                offsets.extend(std::iter::repeat_n(classes, count));
            }
            classes += n;
        }
        let linear = Tensor::f_cat(&linears, 0)?;
        let logits = Tensor::f_cat(&biases, 0)?.f_addmm(features, &linear.f_tr()?)?;
        if keys.is_empty() {
            return Ok(logits);
        }
        let labels = Tensor::f_cat(&labels, 0)?
            .f_add(&Tensor::f_from_slice(&offsets)?.f_to_device(device)?)?;
        let betas = Tensor::f_cat(&betas, 0)?;
        let mut x = features.f_mm(&Tensor::f_cat(&keys, 0)?.f_tr()?)?;
        let mut x = x.f_mul_(&betas)?.f_sub_(&betas)?.f_exp_()?;
        let x = x.f_mul_(&Tensor::f_cat(&weights, 0)?)?;
        let range = Tensor::f_arange(classes, (Kind::Int64, device))?;
        let one_hot = labels
            .f_unsqueeze(1)?
            .f_eq_tensor(&range)?
            .f_to_kind(Kind::Float)?;
        Ok(logits.f_addmm(&x, &one_hot)?)
    }
}
