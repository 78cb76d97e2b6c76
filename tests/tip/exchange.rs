//! Fresh random inputs, and Python references run on them.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;
use tip_spec::{ClassBalance, HeadSpec, KeyDtype, Method, Selection, SelectionSource};

/// A fresh seed; `TIPSERVE_TEST_SEED` repeats one. Printed, so that a failure
/// can be repeated.
pub fn seed() -> u64 {
    let seed = std::env::var("TIPSERVE_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            now.map_or(0, |now| now.as_nanos() as u64) % 1_000_000_007
        });
    println!("seed {seed}: repeat with TIPSERVE_TEST_SEED={seed}");
    seed
}

/// Arrays for a reference, and its answers.
pub struct Exchange {
    folder: TempDir,
    arrays: BTreeMap<String, Value>,
    numbers: Value,
}

/// Runs `tests/reference/NAME` once over all of them: starting Python with
/// torch takes longer than its work.
pub fn run(name: &str, exchanges: &[Exchange]) {
    for exchange in exchanges {
        let mut numbers = exchange.numbers.clone();
        numbers["arrays"] = json!(exchange.arrays);
        std::fs::write(
            exchange.folder.path().join("shapes.json"),
            numbers.to_string(),
        )
        .expect("written");
    }
    let script = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .join("tests/reference")
        .join(name);
    let output = Command::new("python3")
        .arg(script)
        .args(exchanges.iter().map(|exchange| exchange.folder.path()))
        .env("OMP_NUM_THREADS", "1")
        .output()
        .expect("python3 on PATH");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {errors}");
}

impl Exchange {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            arrays: BTreeMap::new(),
            numbers: json!({}),
        }
    }

    /// Writes a tensor, f32 or int64.
    pub fn give(&mut self, name: &str, t: &Tensor) {
        let flat = t.contiguous().flatten(0, -1);
        let (kind, bytes) = match t.kind() {
            Kind::Float => {
                let values = Vec::<f32>::try_from(&flat).expect("f32");
                (
                    "f32",
                    values
                        .iter()
                        .flat_map(|x| x.to_le_bytes())
                        .collect::<Vec<u8>>(),
                )
            }
            Kind::Int64 => {
                let values = Vec::<i64>::try_from(&flat).expect("int64");
                ("i64", values.iter().flat_map(|x| x.to_le_bytes()).collect())
            }
            other => panic!("{other:?}"),
        };
        std::fs::write(self.folder.path().join(name), bytes).expect("written");
        self.arrays
            .insert(name.into(), json!({"kind": kind, "shape": t.size()}));
    }

    /// Sets the numbers that go with the arrays.
    pub fn numbers(&mut self, numbers: Value) {
        self.numbers = numbers;
    }

    /// Reads an answer in float64.
    pub fn take(&self, name: &str, shape: &[i64]) -> Tensor {
        let bytes = std::fs::read(self.folder.path().join(name)).expect("the answer");
        let values: Vec<f64> = bytes
            .chunks_exact(8)
            .map(|x| f64::from_le_bytes(x.try_into().expect("8 bytes")))
            .collect();
        Tensor::from_slice(&values).view(shape)
    }
}

/// Random rows of unit length, f32 [rows, width].
pub fn unit(rows: i64, width: i64) -> Tensor {
    normalised(&Tensor::randn([rows, width], (Kind::Float, Device::Cpu)))
}

/// Rows divided by their lengths.
pub fn normalised(x: &Tensor) -> Tensor {
    x / x
        .square()
        .sum_dim_intlist([-1i64].as_slice(), true, Kind::Float)
        .sqrt()
}

/// A specification with these numbers.
pub fn spec(method: Method, alpha: f64, beta: f64, key_dtype: KeyDtype) -> HeadSpec {
    HeadSpec {
        method,
        alpha,
        beta,
        lambda: 0.0,
        logit_scale: 100.0,
        class_balance: ClassBalance::Sum,
        temperature: 1.0,
        key_dtype,
        standardised: None,
        selection: Selection::unsearched(SelectionSource::Given),
        unseen: None,
        unlabelled: None,
    }
}

/// The largest absolute difference of two tensors' elements.
pub fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    if a.numel() == 0 {
        return 0.0;
    }
    (a.to_kind(Kind::Double) - b.to_kind(Kind::Double))
        .abs()
        .max()
        .double_value(&[])
}

/// Rows whose argmax differs although the reference's margin is over `margin`.
pub fn argmax_differs(got: &Tensor, want: &Tensor, margin: f64) -> i64 {
    let (top, _) = want.topk(2.min(want.size()[1]), 1, true, true);
    let wide = if top.size()[1] < 2 {
        Tensor::ones([want.size()[0]], (Kind::Bool, Device::Cpu))
    } else {
        (top.select(1, 0) - top.select(1, 1)).gt(margin)
    };
    got.argmax(1, false)
        .not_equal_tensor(&want.argmax(1, false))
        .logical_and(&wide)
        .sum(Kind::Int64)
        .int64_value(&[])
}
