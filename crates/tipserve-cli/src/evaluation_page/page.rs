//! The page: plain HTML and SVG, which fetches nothing and runs nothing.

use std::fmt::Write as _;

use super::{Judged, charts, escaped};
use crate::{documents::EvaluationDocument, screen::percent};

/// Wrong answers that are shown, the most certain ones first.
const WORST: usize = 36;

const HEAD: &str = "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\
<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; \
style-src 'unsafe-inline'\"><meta name=\"viewport\" content=\"width=device-width\">\
<style>body{font:15px/1.45 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;\
color:#222;background:#fff}table{border-collapse:collapse}td,th{padding:.15rem .5rem;\
text-align:left}.n{text-align:right}.matrix td,.matrix th{padding:.1rem .3rem;text-align:center;\
font-size:12px}.matrix .name{text-align:left;white-space:nowrap}.wide{overflow-x:auto}\
.bar{background:#4a7fb5;height:.8em}figure{display:inline-block;vertical-align:top;width:11rem;\
margin:0 1rem 1rem 0;font-size:13px}figure img{max-width:11rem;max-height:9rem}\
figcaption{overflow-wrap:anywhere}svg text{font-size:12px;fill:currentColor}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#1b1b1b}}</style>";

/// The page of an evaluation; `picture` gives the element that shows an item.
pub(super) fn page(
    evaluation: &EvaluationDocument,
    judged: &[Judged],
    picture: impl Fn(&str) -> Option<String>,
) -> String {
    let classes = evaluation.classes.iter();
    let names: Vec<&str> = classes.map(|class| class.display_name.as_str()).collect();
    let title = escaped(&evaluation.version);
    let mut text = format!("{HEAD}<title>{title}</title><h1>{title}</h1>");
    text += &figures(evaluation);
    let _ = write!(
        text,
        "<h2>Can its probabilities be believed?</h2><p>Of the answers with a confidence within a \
         tenth, the share that was right. On the dashed line a probability is what it says; below \
         it, it promises too much. Expected calibration error {}.</p>{}",
        percent(evaluation.expected_calibration_error),
        charts::reliability(judged)
    );
    let _ = write!(
        text,
        "<h2>What is taken for what?</h2>{}{}",
        charts::confused(&names, judged),
        charts::heat_map(&names, &evaluation.confusion)
    );
    text += &worst(&names, judged, picture);
    text += &by_class(evaluation);
    text + "</html>\n"
}

fn figures(evaluation: &EvaluationDocument) -> String {
    let mut rows = vec![
        ("examples", evaluation.count.to_string()),
        ("right (top-1)", percent(evaluation.top1)),
        ("among the best five", percent(evaluation.top5)),
        ("cross-entropy", format!("{:.4}", evaluation.cross_entropy)),
    ];
    if let Some(zero_shot) = evaluation.zero_shot_top1 {
        rows.insert(2, ("by text alone (zero-shot)", percent(zero_shot)));
    }
    let mut text = String::from("<table>");
    for (name, value) in rows {
        let _ = write!(text, "<tr><th>{name}</th><td class=\"n\">{value}</td></tr>");
    }
    text + "</table>"
}

fn worst(names: &[&str], judged: &[Judged], picture: impl Fn(&str) -> Option<String>) -> String {
    let mut wrong: Vec<&Judged> = judged.iter().filter(|one| !one.right()).collect();
    wrong.sort_by(|a, b| (b.confidence - b.own).total_cmp(&(a.confidence - a.own)));
    let mut text = format!(
        "<h2>The worst of {} wrong answers</h2><p>Those that were most certain first: look for \
         wrong labels, for pictures that are of neither class, and for what they have in \
         common.</p>",
        wrong.len()
    );
    let name = |index: usize| escaped(names.get(index).copied().unwrap_or(""));
    for one in wrong.into_iter().take(WORST) {
        let _ = write!(
            text,
            "<figure>{}<figcaption>{}<br>is <b>{}</b> ({})<br>taken for <b>{}</b> ({})</figcaption>\
             </figure>",
            picture(&one.id).unwrap_or_default(),
            escaped(&one.id),
            name(one.class),
            percent(one.own),
            name(one.best),
            percent(one.confidence)
        );
    }
    text
}

fn by_class(evaluation: &EvaluationDocument) -> String {
    let mut classes: Vec<_> = evaluation.classes.iter().collect();
    classes.sort_by(|a, b| a.accuracy.total_cmp(&b.accuracy));
    let mut text = String::from(
        "<h2>Class by class</h2><table><tr><th>class</th><th class=\"n\">examples</th>\
         <th class=\"n\">right</th><th></th></tr>",
    );
    for class in classes.into_iter().filter(|class| class.count > 0) {
        let _ = write!(
            text,
            "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td style=\"width:12em\"><div class=\"bar\" style=\"width:{:.1}%\"></div></td></tr>",
            escaped(&class.display_name),
            class.count,
            percent(class.accuracy),
            100.0 * class.accuracy.clamp(0.0, 1.0)
        );
    }
    text + "</table>"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::ClassEvaluationDocument;

    fn judged(id: &str, class: usize, best: usize, confidence: f64) -> Judged {
        Judged {
            id: id.to_owned(),
            class,
            best,
            confidence,
            own: if class == best { confidence } else { 0.1 },
        }
    }

    #[test]
    fn the_page_shows_the_worst_first_and_escapes_what_it_shows() {
        let class = |index: i32, name: &str| ClassEvaluationDocument {
            index,
            display_name: name.to_owned(),
            count: 2,
            accuracy: 0.5,
        };
        let evaluation = EvaluationDocument {
            multi_label: None,
            unknown: None,
            version: "caches/x/versions/1".to_owned(),
            count: 4,
            top1: 0.5,
            top5: 1.0,
            zero_shot_top1: Some(0.25),
            cross_entropy: 0.75,
            expected_calibration_error: 0.125,
            classes: vec![class(0, "<cat>"), class(1, "dog \"a\"")],
            confusion: vec![vec![1, 1], vec![1, 1]],
        };
        let items = [
            judged("right", 0, 0, 0.9),
            judged("unsure<script>", 0, 1, 0.55),
            judged("sure & wrong", 1, 0, 0.97),
        ];
        let page = page(&evaluation, &items, |id| {
            (id != "right").then(|| "<img>".to_owned())
        });
        assert!(!page.contains("<script") && !page.contains("<cat>"));
        let at = |text: &str| {
            page.find(text)
                .unwrap_or_else(|| panic!("no {text} in {page}"))
        };
        assert!(at("sure &amp; wrong") < at("unsure&lt;script&gt;"));
        assert!(at("&lt;cat&gt;") > 0 && at("dog &quot;a&quot;") > 0);
        assert_eq!(page.matches("<img>").count(), 2);
        // Two of the three are sure, and share the uppermost bin.
        assert!(at("<title>1 item; 0.00 % right") < at("<title>2 items; 50.00 % right"));
        assert!(at("12.50 %") > 0 && at("25.00 %") > 0);
    }
}
