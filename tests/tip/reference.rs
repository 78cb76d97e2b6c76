//! Asks tests/reference/tip_reference.py.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    sync::{LazyLock, Mutex, PoisonError},
};

use serde_json::{Value, json};
use tch::{Kind, Tensor};
use tip_adapter::material::Material;

/// The Python whose torch this was built with.
fn python() -> PathBuf {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    std::env::var_os("VIRTUAL_ENV")
        .map(|venv| PathBuf::from(venv).join("bin/python"))
        .into_iter()
        .chain([root.join(".venv/bin/python")])
        .find(|path| path.is_file())
        .unwrap_or_else(|| PathBuf::from("python3"))
}

/// The reference's answer to a request about a material.
pub fn ask(material: &Material, features: Option<&Tensor>, more: &Value) -> Value {
    let mut request = json!({
        "keys": rows(&material.keys),
        "labels": Vec::<i64>::try_from(&material.labels).unwrap(),
        "classes": material.classes,
        "text": material.text.as_ref().map(rows),
        "views": material.views.as_ref().map(|v| {
            (0..v.size()[0]).map(|i| rows(&v.get(i))).collect::<Vec<_>>()
        }),
        "features": features.map(rows),
        "scale": material.logit_scale,
    });
    for (key, value) in more.as_object().unwrap() {
        request[key] = value.clone();
    }
    ask_raw(&request)
}

/// One Python for all tests: importing torch takes longer than they do.
#[expect(clippy::zombie_processes, reason = "it lives as long as this process")]
static PYTHON: LazyLock<Mutex<(ChildStdin, BufReader<ChildStdout>)>> = LazyLock::new(|| {
    let script = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .join("tests/reference/tip_reference.py");
    // It ends when this process does, and its standard input with it.
    let mut child = Command::new(python())
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python with torch");
    let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    Mutex::new((input, BufReader::new(output)))
});

pub fn ask_raw(request: &Value) -> Value {
    let mut python = PYTHON.lock().unwrap_or_else(PoisonError::into_inner);
    let (input, output) = &mut *python;
    writeln!(input, "{request}").unwrap();
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    serde_json::from_str(&line).expect("the reference's answer")
}

pub fn rows(tensor: &Tensor) -> Vec<Vec<f64>> {
    Vec::<Vec<f64>>::try_from(tensor.to_kind(Kind::Double)).unwrap()
}

/// The answer's logits, f64 [B, N].
pub fn logits(answer: &Value) -> Tensor {
    matrix(&answer["logits"])
}

/// Rows of numbers.
pub fn matrix(rows: &Value) -> Tensor {
    let rows: Vec<Vec<f64>> = serde_json::from_value(rows.clone()).unwrap();
    Tensor::from_slice2(&rows)
}
