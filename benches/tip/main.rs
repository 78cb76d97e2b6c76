//! `cargo bench --bench tip`: the rows of the Tip-Adapter table.

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

fn main() {
    for row in speed::rows() {
        let mark = if row.ok { "ok" } else { "MISSED" };
        println!("{:<70} {:>10.3}  {:<24} {mark}", row.row, row.value, row.goal);
    }
}
