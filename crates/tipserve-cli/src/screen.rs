//! What a command writes: text or JSON on standard output; notes, errors and
//! progress bars on standard error.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::{
    failure::Failure,
    global::Global,
    terminal::{escaped, escaped_line},
};

/// Where a command writes, and in which form.
#[derive(Debug)]
pub struct Screen {
    /// Whether standard output carries JSON.
    pub json: bool,
    quiet: bool,
}

impl Screen {
    /// Writes as the flags say.
    pub fn new(global: &Global) -> Self {
        Self {
            json: global.json,
            quiet: global.quiet,
        }
    }

    /// The same, for work whose own report nobody needs.
    pub(crate) fn without_lines(&self) -> Self {
        Self {
            json: true,
            quiet: self.quiet,
        }
    }

    /// Writes text and a line end. Control characters other than line ends and
    /// tabs are escaped.
    ///
    /// # Errors
    /// [`Failure::Output`].
    pub fn line(&self, text: &str) -> Result<(), Failure> {
        self.raw_line(&escaped(text))
    }

    fn raw_line(&self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.write_all(b"\n")?;
        Ok(out.flush()?)
    }

    /// Writes one JSON document, indented if standard output is a terminal.
    ///
    /// # Errors
    /// [`Failure::Output`].
    pub fn document<T: Serialize>(&self, document: &T) -> Result<(), Failure> {
        let text = if io::stdout().is_terminal() {
            serde_json::to_string_pretty(document)
        } else {
            serde_json::to_string(document)
        };
        self.raw_line(&text.map_err(io::Error::from)?)
    }

    /// Writes one JSON document in one line.
    ///
    /// # Errors
    /// [`Failure::Output`].
    pub fn json_line<T: Serialize>(&self, document: &T) -> Result<(), Failure> {
        self.raw_line(&serde_json::to_string(document).map_err(io::Error::from)?)
    }

    /// A note on standard error, unless --quiet.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(io::stderr(), "{}", escaped(text));
        }
    }

    /// An error on standard error; --quiet does not silence it.
    pub fn error(&self, text: &str) {
        let _ = writeln!(io::stderr(), "{}", escaped(text));
    }

    /// The failure that ends the command: text on standard error, and a
    /// document on standard output if that carries JSON.
    pub fn failure(&self, failure: &Failure) {
        if failure.is_broken_pipe() {
            return;
        }
        // What a server says is one line, whatever names it quotes.
        let text = match failure {
            Failure::Rpc { .. } => escaped_line(&failure.to_string()).into_owned(),
            _ => failure.to_string(),
        };
        self.error(&format!("error: {text}"));
        for line in failure.detail_lines() {
            self.error(&format!("  {}", escaped_line(&line)));
        }
        if self.json {
            let _ = self.json_line(&failure.document());
        }
    }

    /// A progress bar over `total` things (a spinner if that is unknown), on
    /// standard error, shown only if that is a terminal.
    pub fn bar(&self, total: Option<u64>, unit: &str) -> ProgressBar {
        if self.quiet || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let template = match total {
            Some(_) => format!(
                "{{msg:12}} {{bar:32}} {{human_pos}}/{{human_len}} {unit} {{per_sec}} {{eta}}"
            ),
            None => format!("{{spinner}} {{msg:12}} {{human_pos}} {unit} {{per_sec}}"),
        };
        drawn(total, &template)
    }

    /// A progress bar over the bytes of a file, its length to be set once it
    /// is known.
    pub fn byte_bar(&self) -> ProgressBar {
        if self.quiet || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let template = "{bar:32} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
        drawn(Some(0), template)
    }
}

fn drawn(total: Option<u64>, template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A table without a frame; the columns of the indices `right` are aligned to
/// the right. Control characters in cells are escaped.
pub fn table(headers: &[&str], right: &[usize], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    if !headers.is_empty() {
        table.set_header(headers.iter().map(|header| escaped_line(header)));
    }
    for row in rows {
        let cells: Vec<_> = row
            .iter()
            .map(|cell| escaped_line(cell).into_owned())
            .collect();
        table.add_row(cells);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((if index == 0 { 0 } else { 2 }, 0));
        if right.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

/// A share of 0 to 1 as "62.50 %".
pub fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

/// A count of bytes for people: "1.5 MiB".
pub fn bytes(count: i64) -> String {
    indicatif::HumanBytes(count.max(0).unsigned_abs()).to_string()
}

/// A small number with up to four significant digits: "1.17", "0.001".
pub fn number(value: f64) -> String {
    if value != 0.0 && (value.abs() < 1e-3 || value.abs() >= 1e5) {
        return format!("{value:.2e}");
    }
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text.is_empty() {
        "0".to_owned()
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(number(1.0), "1");
        assert_eq!(number(5.5), "5.5");
        assert_eq!(number(100.0), "100");
        assert_eq!(number(0.0), "0");
        assert_eq!(number(0.0001), "1.00e-4");
    }

    #[test]
    fn tables_align() {
        let text = table(
            &["name", "n"],
            &[1],
            vec![
                vec!["a".into(), "100".into()],
                vec!["bb".into(), "1".into()],
            ],
        );
        assert_eq!(text, "name    n\na     100\nbb      1");
    }
}
