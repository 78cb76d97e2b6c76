//! `cargo bench -p tip-adapter --bench tip [-- accuracy auto]`: what the mathematics of
//! `tip_adapter` must reach, as a table, and as JSON rows in
//! `target/bench/tip.json`.

// A measurement stops where something is not as it should be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{path::Path, process::ExitCode};

use anyhow::{Context, Result};
use serde::Serialize;

mod accuracy;
mod auto_time;
mod baselines;
mod calibration;
mod comparison;
mod draws;
mod features;
mod finetune_accuracy;
mod knowing;
mod pools;
mod sets;
mod shots;
mod speed;
mod stack_speed;
mod tuning;

/// A figure beside what it must reach.
#[derive(Debug, Serialize)]
pub struct Row {
    /// What was measured, and at which size.
    pub row: String,
    /// The figure, in the row's unit.
    pub value: f64,
    /// What it must reach, in words.
    pub goal: String,
    /// Whether the figure reaches the goal.
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
    if wanted.iter().any(|part| part == "shots") {
        return shots::write().map(|()| ExitCode::SUCCESS);
    }
    if wants("accuracy") {
        rows.extend(accuracy::rows()?);
    }
    if wants("draws") {
        rows.extend(draws::rows()?);
    }
    if wants("comparison") {
        rows.extend(comparison::rows()?);
    }
    if wants("calibration") {
        rows.extend(calibration::rows()?);
    }
    if wants("pools") {
        rows.extend(pools::rows()?);
    }
    if wants("finetune_accuracy") {
        rows.extend(finetune_accuracy::rows()?);
    }
    if wants("knowing") {
        rows.extend(knowing::rows()?);
    }
    if wants("tuning") {
        rows.extend(tuning::rows()?);
    }
    if wants("speed") {
        rows.extend(speed::rows());
    }
    if wants("stack") {
        rows.extend(stack_speed::rows()?);
    }
    if wants("auto") {
        rows.extend(auto_time::rows()?);
    }

    println!(
        "\ncommand: cargo bench -p tip-adapter --bench tip {}",
        wanted.join(" ")
    );
    println!("machine: {}", machine());
    println!("date:    {}\n", chrono::Local::now().format("%Y-%m-%d"));
    for row in &rows {
        let mark = if row.ok { "ok" } else { "MISSED" };
        println!(
            "{:<70} {:>10}  {:<28} {mark}",
            row.row,
            figure(row.value),
            row.goal
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

/// A figure with as many digits as say something.
fn figure(value: f64) -> String {
    if value != 0.0 && value.abs() < 1e-2 {
        format!("{value:.2e}")
    } else {
        format!("{value:.3}")
    }
}

/// The processor's name, as far as the system tells, and its cores.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let told = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = told
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("an unnamed processor", |(_, name)| name.trim());
    format!("{name}, {cores} cores")
}

fn write(rows: &[Row]) -> Result<()> {
    let path =
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("target/bench/tip.json");
    let folder = path.parent().context("no folder")?;
    std::fs::create_dir_all(folder)?;
    std::fs::write(&path, serde_json::to_string_pretty(rows)?)
        .with_context(|| path.display().to_string())?;
    println!("\n{} rows in {}", rows.len(), path.display());
    Ok(())
}
