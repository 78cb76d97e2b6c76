//! How long choosing takes: AUTO, nothing given, no validation examples.

use std::time::Instant;

use anyhow::Result;
use tch::{Device, Kind, Tensor};
use tip_adapter::{
    make::{HeadRequest, make},
    material::Material,
};

use crate::Row;

/// Classes, shots, width, and the seconds that it may take.
const SIZES: [(i64, i64, i64, f64); 2] = [(100, 16, 512, 3.0), (1000, 16, 512, 30.0)];

/// Times AUTO at each size, one row each.
pub fn rows() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (classes, shots, width, limit) in SIZES {
        tch::manual_seed(1);
        let material = random(classes, shots, width);
        let start = Instant::now();
        let made = make(&material, &HeadRequest::default(), &|_| true)?;
        let value = start.elapsed().as_secs_f64();
        println!(
            "N={classes} K={shots} D={width}: {value:.1} s, {}",
            made.spec.selection.reason
        );
        rows.push(Row {
            row: format!("AUTO, N={classes}, K={shots}, D={width}, with text, seconds"),
            value,
            goal: format!("≤ {limit}"),
            ok: value <= limit,
        });
    }
    Ok(rows)
}

/// Clusters of unit vectors around one centre a class.
fn random(classes: i64, shots: i64, width: i64) -> Material {
    let options = (Kind::Float, Device::Cpu);
    let unit = |rows: Tensor| &rows / rows.norm_scalaropt_dim(2, [-1i64].as_slice(), true);
    let centres =
        unit(Tensor::randn([classes, width], options) + Tensor::randn([1, width], options));
    let labels = Tensor::arange(classes, (Kind::Int64, Device::Cpu))
        .repeat_interleave_self_int(shots, 0, None);
    let noise = Tensor::randn([classes * shots, width], options) / (width as f64).sqrt();
    Material {
        keys: unit(centres.index_select(0, &labels) + noise),
        labels,
        classes: usize::try_from(classes).unwrap_or_default(),
        views: None,
        text: Some(unit(
            &centres + Tensor::randn([classes, width], options) * 0.05,
        )),
        validation: None,
        logit_scale: 100.0,
        statistics: None,
        unlabelled: None,
    }
}
