//! How long choosing takes: AUTO, nothing given, no validation examples.
//!
//! Processor time is what counts, over two cores: other work on the machine does
//! not change it.

use std::time::Instant;

use anyhow::{Context as _, Result};
use tch::{Device, Kind, Tensor};
use tip_adapter::{
    make::{HeadRequest, make},
    material::Material,
};

use crate::Row;

/// Classes, shots, width, and the seconds that it may take.
const SIZES: [(i64, i64, i64, f64); 2] = [(100, 16, 512, 3.0), (1000, 16, 512, 30.0)];

/// The cores that the limits are for.
const CORES: f64 = 2.0;

/// What all threads of this process have used so far.
fn processor_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name of the program, in brackets, may hold blanks.
    let (_, fields) = stat.rsplit_once(')').context("no fields")?;
    let ticks = (fields.split_whitespace().skip(11).take(2))
        .map(|ticks| ticks.parse::<f64>().context("ticks"))
        .sum::<Result<f64>>()?;
    // Linux counts hundredths of a second there on every machine.
    Ok(ticks / 100.0)
}

/// Times AUTO at each size, one row each.
pub fn rows() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (classes, shots, width, limit) in SIZES {
        tch::manual_seed(1);
        let material = random(classes, shots, width);
        let (start, before) = (Instant::now(), processor_seconds()?);
        let made = make(&material, &HeadRequest::default(), &|_| true)?;
        let spent = processor_seconds()? - before;
        let value = spent / CORES;
        println!(
            "N={classes} K={shots} D={width}: {spent:.1} s of processor time, {:.1} s by the clock, {}",
            start.elapsed().as_secs_f64(),
            made.spec.selection.reason
        );
        rows.push(Row {
            row: format!(
                "AUTO, N={classes}, K={shots}, D={width}, with text, processor seconds on {CORES} cores"
            ),
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
