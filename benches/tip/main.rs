//! `cargo bench --bench tip [-- accuracy auto]`: what the mathematics of
//! `tipserve::tip` must reach, as a table, and as JSON rows in
//! `target/bench/tip.json`.

use std::{path::Path, process::ExitCode};

use anyhow::{Context, Result};
use serde::Serialize;

mod accuracy;
mod auto_time;
mod features;
mod finetune_accuracy;
mod speed;

/// A figure beside what it must reach.
#[derive(Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub row: String,
    /// The figure.
    pub value: f64,
    /// What it must reach, in words.
    pub goal: String,
    /// Whether it does.
    pub ok: bool,
}

fn main() -> Result<ExitCode> {
    // cargo adds --bench.
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let wants = |part: &str| wanted.is_empty() || wanted.iter().any(|w| w == part);

    let mut rows = Vec::new();
    if wants("accuracy") {
        rows.extend(accuracy::rows()?);
    }
    if wants("finetune_accuracy") {
        rows.extend(finetune_accuracy::rows()?);
    }
    if wants("speed") {
        rows.extend(speed::rows());
    }
    if wants("auto") {
        rows.extend(auto_time::rows()?);
    }

    println!();
    for row in &rows {
        let mark = if row.ok { "ok" } else { "MISSED" };
        println!(
            "{:<70} {:>10.3}  {:<28} {mark}",
            row.row, row.value, row.goal
        );
    }
    write(&rows)?;
    let missed = rows.iter().any(|row| !row.ok);
    Ok(if missed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn write(rows: &[Row]) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/tip.json");
    let folder = path.parent().context("no folder")?;
    std::fs::create_dir_all(folder)?;
    std::fs::write(&path, serde_json::to_string_pretty(rows)?)
        .with_context(|| path.display().to_string())?;
    println!("\n{} rows in {}", rows.len(), path.display());
    Ok(())
}
