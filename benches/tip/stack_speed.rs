//! What a stack costs to serve beside ProKeR alone: the same dense keys, and
//! for standardised features a norm and a second linear part.

use std::time::Instant;

use anyhow::Result;
use tch::{Device, Kind, Tensor};
use tip_adapter::{
    head::{Head, HeadTensors, StandardisedPart, Values},
    standardise::{Standardise, Statistics},
};
use tip_spec::{HeadSpec, KeyDtype, Method, Selection, SelectionSource};

use super::Row;

const BATCH: i64 = 32;
const ROUNDS: usize = 15;
const SIZES: [(i64, i64); 2] = [(100, 1600), (1000, 16_000)];

/// How much longer than ProKeR's a batch may take.
const FACTOR: f64 = 1.5;

/// Times a stack at each size, one row each.
pub fn rows() -> Result<Vec<Row>> {
    let float = (Kind::Float, Device::Cpu);
    let unit = |rows: Tensor| &rows / rows.norm_scalaropt_dim(2, [-1i64].as_slice(), true);
    let mut rows = Vec::new();
    for (classes, keys) in SIZES {
        let features = unit(Tensor::randn([BATCH, 512], float));
        let dense = || Values::Dense(Tensor::randn([keys, classes], float));
        let linear = || Some(Tensor::randn([classes, 512], float));
        let plain = HeadTensors {
            classes: usize::try_from(classes)?,
            linear: linear(),
            bias: None,
            cache: Some((unit(Tensor::randn([keys, 512], float)), dense())),
            standardised: None,
        };
        let statistics = Statistics::of(&unit(Tensor::randn([500, 512], float)))?;
        let stack = HeadTensors {
            classes: usize::try_from(classes)?,
            linear: linear(),
            bias: Some(Tensor::randn([classes], float)),
            cache: Some((unit(Tensor::randn([keys, 512], float)), dense())),
            standardised: Standardise::by(&statistics)?.map(|by| StandardisedPart {
                by,
                linear: linear(),
            }),
        };
        let alone = milliseconds(&plain, Method::Proker, &features)?;
        let all = milliseconds(&stack, Method::Stack, &features)?;
        println!("N={classes} M={keys} B={BATCH}: ProKeR {alone:.2} ms, stack {all:.2} ms");
        rows.push(Row {
            row: format!("stack over ProKeR, N={classes}, M={keys}, B={BATCH}, times"),
            value: all / alone,
            goal: format!("≤ {FACTOR}"),
            ok: all <= FACTOR * alone,
        });
    }
    Ok(rows)
}

/// The quickest of some batches.
fn milliseconds(tensors: &HeadTensors, method: Method, features: &Tensor) -> Result<f64> {
    let spec = HeadSpec {
        method,
        alpha: 1.0,
        beta: 1.0,
        lambda: 0.1,
        logit_scale: 100.0,
        class_balance: tip_spec::ClassBalance::Sum,
        temperature: 1.0,
        key_dtype: KeyDtype::F32,
        standardised: None,
        selection: Selection::unsearched(SelectionSource::Given),
        unseen: None,
        unlabelled: None,
    };
    let _no_grad = tch::no_grad_guard();
    let head = Head::new(&spec, tensors, Device::Cpu)?;
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let _ = head.logits(features)?;
        best = best.min(1e3 * start.elapsed().as_secs_f64());
    }
    Ok(best)
}
