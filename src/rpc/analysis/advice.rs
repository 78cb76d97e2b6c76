//! One sentence: what to do next with a version.

use tip_adapter::analysis::Analysis;

/// Share of suspect examples from which labels come first: about what chance
/// gives for clean labels if classes are hard to tell apart.
const MANY_SUSPECTS: f64 = 0.02;

/// Shots of a head that says whose label to look at: with fewer, most of those that
/// it finds doubtful are merely unlike the others.
const SHOTS_TO_DOUBT: usize = 3;

/// Share of examples that are exact duplicates from which they are worth
/// mentioning.
const MANY_COPIES: f64 = 0.05;

/// Expected gain in accuracy that is worth doubling the examples.
const WORTHWHILE: f64 = 0.01;

/// Share of all errors from which a pair of classes is named.
const ONE_PAIR: f64 = 0.3;

/// Classes that the sentence names at most.
const NAMED: usize = 3;

/// What to do next. `class` names a class, `example` an example.
pub fn advice(
    analysis: &Analysis,
    class: &dyn Fn(usize) -> String,
    example: &dyn Fn(usize) -> String,
) -> String {
    if analysis.scored_count == 0 {
        let classes = analysis.classes.iter();
        return match classes.filter(|class| class.example_count > 0).count() {
            0 | 1 => "Add examples of a second class: there are not two to tell apart.".to_owned(),
            _ => "Give most classes a second example, of another picture: with one each, nothing \
                  can be said of the accuracy."
                .to_owned(),
        };
    }
    let scored = analysis.scored_count as f64;
    let left = analysis.curve.last().map(|point| point.shots);
    if let Some(first) = analysis.suspects.first()
        && left.is_none_or(|shots| shots >= SHOTS_TO_DOUBT)
        && analysis.suspect_count as f64 > MANY_SUSPECTS * scored
    {
        let begin = match analysis.suspect_count {
            1 => "Look first at the label of".to_owned(),
            count => format!("Look at the labels of {count} examples first, beginning with"),
        };
        return format!(
            "{begin} {:?}: it is labelled {:?} and looks like {:?}.",
            example(first.key),
            class(first.class),
            class(first.suggested),
        );
    }
    let copies = analysis.copy_count;
    if copies as f64 > MANY_COPIES * analysis.example_count as f64 {
        return format!(
            "{copies} pairs of examples are copies and teach nothing new: replace them by other \
             pictures."
        );
    }
    let wrong = (1.0 - analysis.accuracy) * scored;
    if let Some(worst) = analysis.confused.first()
        && wrong >= 3.0
        && worst.count + worst.reverse > 1
        && (worst.count + worst.reverse) as f64 >= ONE_PAIR * wrong
        && analysis.confused_count > 1
    {
        return format!(
            "Add examples that tell {:?} from {:?}: {} of {wrong:.0} errors are between them.",
            class(worst.class),
            class(worst.other),
            worst.count + worst.reverse,
        );
    }
    match &analysis.forecast {
        _ if wrong < 0.5 => {
            "It is right on all of its own examples: test it on new pictures.".to_owned()
        }
        Some(forecast) if forecast.accuracy - analysis.accuracy < WORTHWHILE => format!(
            "It is right on {:.1} % of its own examples, and twice as many would hardly change \
             that: test it on new pictures.",
            100.0 * analysis.accuracy
        ),
        forecast => {
            let gain = forecast.map_or(String::new(), |forecast| {
                let points = (100.0 * (forecast.accuracy - analysis.accuracy)).round();
                let unit = if points == 1.0 { "point" } else { "points" };
                format!(": twice as many of each would bring about {points} {unit} more")
            });
            format!(
                "Add examples, above all of {}{gain}.",
                weakest(analysis, class)
            )
        }
    }
}

/// The classes that would gain most; of those that would gain alike, the ones that are
/// recognised worst.
fn weakest(analysis: &Analysis, class: &dyn Fn(usize) -> String) -> String {
    let mut order: Vec<usize> = (0..analysis.classes.len()).collect();
    let gain = |at: usize| {
        let class = analysis.classes.get(at);
        class.map_or(0.0, |class| class.expected_gain)
    };
    let right = |at: usize| analysis.classes.get(at).map_or(1.0, |class| class.accuracy);
    order.sort_by(|&a, &b| {
        let by_gain = gain(b).total_cmp(&gain(a));
        by_gain.then(right(a).total_cmp(&right(b))).then(a.cmp(&b))
    });
    let names: Vec<String> = (order.into_iter().take(NAMED))
        .map(|at| format!("{:?}", class(at)))
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tip_adapter::analysis::{ClassReport, Forecast, Suspect};
    use tip_spec::Method;

    fn analysis() -> Analysis {
        let class = |expected_gain| ClassReport {
            example_count: 10,
            scored_count: 10,
            accuracy: 0.9,
            precision: 0.9,
            expected_gain,
        };
        Analysis {
            method: Method::Stack,
            example_count: 30,
            scored_count: 30,
            accuracy: 0.9,
            accuracy_error: 0.05,
            cross_entropy: 0.3,
            expected_calibration_error: 0.02,
            curve: Vec::new(),
            forecast: Some(Forecast {
                shots: 20,
                accuracy: 0.94,
                low: 0.9,
                high: 0.97,
            }),
            classes: vec![class(0.01), class(0.09), class(0.03)],
            confusion: Vec::new(),
            confused: Vec::new(),
            confused_count: 0,
            suspects: Vec::new(),
            suspect_count: 0,
            misclassified: Vec::new(),
            duplicates: Vec::new(),
            duplicate_count: 0,
            copy_count: 0,
            duplicate_similarity: 0.98,
            reliability: Vec::new(),
            skipped: Vec::new(),
        }
    }

    fn of(analysis: &Analysis) -> String {
        let class = |at: usize| {
            ["cat", "dog", "fox"]
                .get(at)
                .map_or("", |name| name)
                .to_owned()
        };
        advice(analysis, &class, &|key| format!("picture {key}"))
    }

    #[test]
    fn the_first_thing_that_helps_is_said() {
        let mut it = analysis();
        let more = of(&it);
        assert!(
            more.contains("above all of \"dog\", \"fox\", \"cat\""),
            "{more}"
        );
        assert!(more.contains("4 points"), "{more}");
        it.forecast = None;
        assert!(of(&it).starts_with("Add examples"));
        it.forecast = analysis().forecast.map(|forecast| Forecast {
            accuracy: 0.905,
            ..forecast
        });
        assert!(of(&it).contains("hardly change"));
        // Of which the list may have fewer.
        it.copy_count = 2;
        assert!(of(&it).contains("2 pairs of examples are copies"));
        it.suspects = vec![Suspect {
            key: 7,
            class: 0,
            probability: 0.01,
            suggested: 2,
            suggested_probability: 0.9,
            suggested_logit: 4.0,
        }];
        it.suspect_count = 1;
        let labels = of(&it);
        assert!(
            labels.contains("\"picture 7\"") && labels.contains("\"fox\""),
            "{labels}"
        );
        it.scored_count = 0;
        assert!(of(&it).contains("second example"));
        it.classes.truncate(1);
        assert!(of(&it).contains("second class"), "{}", of(&it));
    }

    #[test]
    fn what_cannot_gain_is_not_named_first() {
        let mut it = analysis();
        // Two points of the curve may say that examples add nothing.
        it.forecast = None;
        for (class, accuracy) in it.classes.iter_mut().zip([1.0, 0.9, 0.4]) {
            (class.expected_gain, class.accuracy) = (0.0, accuracy);
        }
        let more = of(&it);
        assert!(more.contains("\"fox\", \"dog\", \"cat\""), "{more}");
        it.accuracy = 1.0;
        assert!(of(&it).starts_with("It is right on all"), "{}", of(&it));
    }
}
