//! The page's two charts: how far probabilities can be believed, and what is
//! taken for what.

use std::fmt::Write as _;

use super::{Judged, escaped};
use crate::screen::percent;

/// Bins of the reliability diagram, and its side in pixels.
const BINS: usize = 10;
const SIDE: f64 = 320.0;

/// Classes up to which the confusion matrix is drawn.
const MOST_CLASSES: usize = 60;

/// Pairs of classes that are listed as the most confused ones.
const PAIRS: usize = 12;

/// Of the items whose best class has a probability within a bin.
#[derive(Clone, Copy, Default)]
struct Bin {
    count: usize,
    right: usize,
    confidence: f64,
}

fn bins(judged: &[Judged]) -> [Bin; BINS] {
    let mut bins = [Bin::default(); BINS];
    for one in judged {
        let at = ((one.confidence * BINS as f64) as usize).min(BINS - 1);
        if let Some(bin) = bins.get_mut(at) {
            bin.count += 1;
            bin.right += usize::from(one.right());
            bin.confidence += one.confidence;
        }
    }
    bins
}

/// A reliability diagram (Guo et al., ICML 2017) as SVG: for each tenth of
/// confidence the share that was right. On the diagonal probabilities are what
/// they say.
pub(super) fn reliability(judged: &[Judged]) -> String {
    let mut svg = format!(
        "<svg viewBox=\"-34 -8 {} {}\" width=\"{}\" role=\"img\" aria-label=\"reliability\">",
        SIDE + 44.0,
        SIDE + 44.0,
        SIDE + 44.0
    );
    let width = SIDE / BINS as f64;
    let most = bins(judged).iter().map(|bin| bin.count).max().unwrap_or(0);
    for (at, bin) in bins(judged)
        .iter()
        .enumerate()
        .filter(|(_, bin)| bin.count > 0)
    {
        let accuracy = bin.right as f64 / bin.count as f64;
        let confidence = bin.confidence / bin.count as f64;
        // Paler for fewer answers.
        let opacity = 0.35 + 0.65 * bin.count as f64 / most.max(1) as f64;
        let height = SIDE * accuracy;
        let _ = write!(
            svg,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"#4a7fb5\" \
             fill-opacity=\"{opacity:.2}\"><title>{}; {} right at a mean confidence of \
             {}</title></rect>",
            at as f64 * width + 1.0,
            SIDE - height,
            width - 2.0,
            items(bin.count),
            percent(accuracy),
            percent(confidence)
        );
    }
    let _ = write!(
        svg,
        "<path d=\"M0 {SIDE} L{SIDE} 0\" stroke=\"#b33\" stroke-dasharray=\"4 3\" fill=\"none\"/>\
         <path d=\"M0 0 V{SIDE} H{SIDE}\" stroke=\"currentColor\" fill=\"none\"/>"
    );
    for tenth in [0, 5, 10] {
        let share = f64::from(tenth) / 10.0;
        let _ = write!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{share}</text>\
             <text x=\"-8\" y=\"{:.0}\" text-anchor=\"end\">{share}</text>",
            SIDE * share,
            SIDE + 16.0,
            SIDE * (1.0 - share) + 4.0
        );
    }
    svg + &format!(
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">confidence</text></svg>",
        SIDE / 2.0,
        SIDE + 32.0
    )
}

/// A confusion matrix as a heat map, rows being the true classes; above
/// [`MOST_CLASSES`] only its list of pairs is of use.
pub(super) fn heat_map(names: &[&str], confusion: &[Vec<i64>]) -> String {
    if names.len() > MOST_CLASSES || confusion.is_empty() {
        return format!("<p>{} classes are too many for a matrix.</p>", names.len());
    }
    let mut text = String::from("<div class=\"wide\"><table class=\"matrix\"><tr><th></th>");
    for (index, name) in names.iter().enumerate() {
        let _ = write!(text, "<th title=\"{}\">{index}</th>", escaped(name));
    }
    text += "</tr>";
    for ((index, name), row) in names.iter().enumerate().zip(confusion) {
        let _ = write!(
            text,
            "<tr><th class=\"name\">{index} {}</th>",
            escaped(name)
        );
        let total = row.iter().sum::<i64>().max(1);
        for (column, count) in row.iter().enumerate() {
            let colour = if column == index {
                "74,127,181"
            } else {
                "200,70,60"
            };
            let share = *count as f64 / total as f64;
            let shown = match count {
                0 => String::new(),
                count => count.to_string(),
            };
            let _ = write!(
                text,
                "<td style=\"background:rgba({colour},{share:.2})\">{shown}</td>"
            );
        }
        text += "</tr>";
    }
    text + "</table></div>"
}

/// What is most often taken for what.
pub(super) fn confused(names: &[&str], judged: &[Judged]) -> String {
    let mut pairs = std::collections::BTreeMap::<(usize, usize), usize>::new();
    for one in judged.iter().filter(|one| !one.right()) {
        *pairs.entry((one.class, one.best)).or_default() += 1;
    }
    let mut pairs: Vec<_> = pairs.into_iter().collect();
    pairs.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    if pairs.is_empty() {
        return "<p>Nothing was taken for anything else.</p>".to_owned();
    }
    let name = |index: usize| escaped(names.get(index).copied().unwrap_or(""));
    let mut text = String::from("<table><tr><th>is</th><th>taken for</th><th>times</th></tr>");
    for ((is, taken), count) in pairs.into_iter().take(PAIRS) {
        let _ = write!(
            text,
            "<tr><td>{}</td><td>{}</td><td class=\"n\">{count}</td></tr>",
            name(is),
            name(taken)
        );
    }
    text + "</table>"
}

fn items(count: usize) -> String {
    match count {
        1 => "1 item".to_owned(),
        many => format!("{many} items"),
    }
}
