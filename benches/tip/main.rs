//! `cargo bench --bench tip [-- finetune_accuracy|speed]`.

mod features;
mod finetune_accuracy;
mod speed;

/// A figure beside what it must reach.
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

fn main() -> anyhow::Result<()> {
    // cargo adds --bench.
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let wants = |part: &str| wanted.is_empty() || wanted.iter().any(|w| w == part);
    let mut rows = Vec::new();
    if wants("finetune_accuracy") {
        rows.extend(finetune_accuracy::rows()?);
    }
    if wants("speed") {
        rows.extend(speed::rows());
    }
    for row in rows {
        let mark = if row.ok { "ok" } else { "MISSED" };
        println!(
            "{:<70} {:>10.3}  {:<24} {mark}",
            row.row, row.value, row.goal
        );
    }
    Ok(())
}
