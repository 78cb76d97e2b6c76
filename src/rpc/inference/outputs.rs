//! The outputs: what each is, which are asked for, and their values.

use std::fmt::Write as _;

use super::{
    parameters::{no_shared_memory, whole},
    tensors::{Form, Values},
};
use crate::{
    catalog::Classifier,
    rpc::{answer::DEFAULT_TOP, confidence::Recognition, request::RequestError},
};
use tip_adapter::best::TopK;
use tipserve_api::inference::{
    ModelInferResponse, model_infer_request::InferRequestedOutputTensor,
};
use tipserve_engine::JobOutput;

/// The parameter of Triton's classification extension.
const CLASSIFICATION: &str = "classification";

/// A tensor that a request can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The most probable class's name, BYTES [N].
    Label,
    /// The probability of that class, FP32 [N].
    Score,
    /// The logits of all classes, FP32 [N, classes].
    Logits,
    /// The most probable classes as "probability:index:name", BYTES [N, K].
    Classification,
    /// Whether each element is of a known class, BOOL [N].
    Accepted,
    /// Each element's score of belonging to a known class, FP32 [N].
    KnownScore,
}

impl Output {
    /// Every output, in the order in which they are answered.
    pub const ALL: [Output; 6] = [
        Output::Label,
        Output::Score,
        Output::Logits,
        Output::Classification,
        Output::Accepted,
        Output::KnownScore,
    ];

    /// Whether it says if the version knows an element's class: answered only
    /// if it is asked for, by its name or by parameters.
    pub fn recognises(self) -> bool {
        matches!(self, Output::Accepted | Output::KnownScore)
    }

    /// Its name in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Output::Label => "label",
            Output::Score => "score",
            Output::Logits => "logits",
            Output::Classification => CLASSIFICATION,
            Output::Accepted => "accepted",
            Output::KnownScore => "known_score",
        }
    }

    /// The protocol's name of its type.
    pub fn datatype(self) -> &'static str {
        match self {
            Output::Label | Output::Classification => "BYTES",
            Output::Score | Output::Logits | Output::KnownScore => "FP32",
            Output::Accepted => "BOOL",
        }
    }

    /// Its dimensions but the batch's.
    pub fn dims(self, classes: usize) -> Vec<i64> {
        match self {
            Output::Label | Output::Score | Output::Accepted | Output::KnownScore => Vec::new(),
            Output::Logits => vec![i64::try_from(classes).unwrap_or(i64::MAX)],
            Output::Classification => vec![-1],
        }
    }
}

/// An output that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputRequest {
    output: Output,
    /// How many classes of it, by the classification extension; none for the
    /// tensor itself.
    ranked: Option<usize>,
}

impl OutputRequest {
    /// How many classes it ranks; none if it is the tensor itself.
    fn ranks(self) -> Option<usize> {
        match (self.output, self.ranked) {
            (Output::Classification, None) => Some(DEFAULT_TOP),
            (_, ranked) => ranked,
        }
    }

    /// Whether it is an output of recognition.
    pub fn recognises(self) -> bool {
        self.output.recognises()
    }

    /// How many of the best classes it takes.
    fn classes(self) -> usize {
        self.ranks().unwrap_or(1)
    }
}

/// What a request asks for; everything, if it does not say: also whether the
/// version recognises an element's class if parameters ask for that
/// (`recognise`).
///
/// # Errors
/// Unknown or repeated names, and parameters that do not fit.
pub fn wanted(
    asked: &[InferRequestedOutputTensor],
    recognise: bool,
) -> Result<Vec<OutputRequest>, RequestError> {
    let mut wanted: Vec<OutputRequest> = Vec::new();
    for asked in asked {
        let name = &asked.name;
        let field = format!("outputs.{name}");
        let output = Output::ALL
            .into_iter()
            .find(|output| output.name() == name)
            .ok_or_else(|| {
                let names = Output::ALL.map(Output::name).join(", ");
                let problem = format!("there is no output {name:?}: the outputs are {names}");
                RequestError::invalid("outputs", problem)
            })?;
        if wanted.iter().any(|wanted| wanted.output == output) {
            return Err(RequestError::invalid(field, "it is asked for twice"));
        }
        no_shared_memory(&asked.parameters)?;
        let ranked = whole(&asked.parameters, CLASSIFICATION)?
            .filter(|count| *count > 0)
            .map(|count| usize::try_from(count).unwrap_or(usize::MAX));
        if ranked.is_some() && (output == Output::Label || output.recognises()) {
            let problem =
                "it has no numbers to rank: ask for the classification of score or logits";
            return Err(RequestError::invalid(field, problem));
        }
        wanted.push(OutputRequest { output, ranked });
    }
    if wanted.is_empty() {
        let all = Output::ALL.into_iter();
        let all = all.filter(|output| recognise || !output.recognises());
        wanted.extend(all.map(|output| OutputRequest {
            output,
            ranked: None,
        }));
    }
    Ok(wanted)
}

/// Which scores the engine must return for every element.
pub fn of_each(wanted: &[OutputRequest], temperature: f64) -> tipserve_engine::ScoresRequest {
    let whole = |wanted: &OutputRequest| wanted.output == Output::Logits && wanted.ranked.is_none();
    if wanted.iter().any(whole) {
        return tipserve_engine::ScoresRequest::Logits;
    }
    let classes = wanted.iter().map(|wanted| wanted.classes()).max();
    tipserve_engine::ScoresRequest::Best(TopK {
        classes: classes.unwrap_or(1),
        temperature,
    })
}

/// The least bytes that the answers to `count` elements take.
pub fn least_bytes(wanted: &[OutputRequest], count: usize, classes: usize) -> usize {
    let per_element = |wanted: &OutputRequest| match (wanted.output, wanted.ranked) {
        (Output::Logits, None) => size_of::<f32>() * classes,
        // "0:0:".
        (_, Some(ranked)) => 8 * ranked.min(classes),
        (Output::Accepted, None) => size_of::<bool>(),
        _ => size_of::<f32>(),
    };
    wanted.iter().map(per_element).sum::<usize>() * count
}

/// The answers take more than a message may.
pub fn too_large(maximum: usize, value: usize) -> RequestError {
    RequestError::TooMuch {
        field: "outputs".to_owned(),
        limit: "max_message_bytes",
        maximum: maximum as u64,
        value: value as u64,
    }
}

/// Fills a response with the outputs of every element, in at most `limit`
/// bytes.
///
/// # Errors
/// If that is not enough.
pub fn fill(
    response: &mut ModelInferResponse,
    wanted: &[OutputRequest],
    classifier: &Classifier,
    (outcomes, recognised): (&[JobOutput], &[Recognition]),
    form: Form,
    limit: usize,
) -> Result<(), RequestError> {
    let mut left = limit;
    for wanted in wanted {
        let (values, shape) = match wanted.output {
            Output::Accepted => {
                let flags = recognised.iter().map(|one| one.accepted()).collect();
                (Values::Flags(flags), vec![recognised.len()])
            }
            Output::KnownScore => {
                let scores = recognised.iter().map(|one| one.score as f32).collect();
                (Values::Floats(scores), vec![recognised.len()])
            }
            _ => values(*wanted, classifier, outcomes, left)
                .ok_or_else(|| too_large(limit, limit.saturating_add(1)))?,
        };
        left = left
            .checked_sub(values.bytes())
            .ok_or_else(|| too_large(limit, limit - left + values.bytes()))?;
        let (tensor, raw) = values.tensor(wanted.output.name(), &shape, form);
        response.outputs.push(tensor);
        response.raw_output_contents.extend(raw);
    }
    Ok(())
}

/// One output's values and shape; none if they take more than `limit`.
fn values(
    wanted: OutputRequest,
    classifier: &Classifier,
    outcomes: &[JobOutput],
    limit: usize,
) -> Option<(Values, Vec<usize>)> {
    let count = outcomes.len();
    let best = |outcome: &JobOutput| {
        outcome.scores.best(TopK {
            classes: wanted.classes(),
            temperature: classifier.temperature(),
        })
    };
    let first = |outcome: &JobOutput| best(outcome).into_iter().next();
    if let Some(ranked) = wanted.ranks() {
        let ranked = ranked.min(classifier.classes());
        let mut texts = Vec::new();
        let mut bytes = 0;
        for outcome in outcomes {
            for scored in best(outcome) {
                let value = match wanted.output {
                    Output::Logits => scored.logit,
                    _ => classifier.probability(&scored) as f32,
                };
                let text = ranked_class(value, scored.class, classifier.class_name(scored.class));
                bytes += size_of::<u32>() + text.len();
                if bytes > limit {
                    return None;
                }
                texts.push(text);
            }
        }
        return Some((Values::Texts(texts), vec![count, ranked]));
    }
    Some(match wanted.output {
        Output::Score => {
            let score = |outcome: &JobOutput| {
                first(outcome).map_or(0.0, |best| classifier.probability(&best) as f32)
            };
            (
                Values::Floats(outcomes.iter().map(score).collect()),
                vec![count],
            )
        }
        Output::Logits => {
            let rows = (outcomes.iter()).flat_map(|outcome| outcome.scores.logits());
            let shape = vec![count, classifier.classes()];
            (Values::Floats(rows.copied().collect()), shape)
        }
        Output::Label | Output::Classification | Output::Accepted | Output::KnownScore => {
            let label = |outcome: &JobOutput| {
                let class = first(outcome).map_or(0, |best| best.class);
                classifier.class_name(class).to_owned()
            };
            (
                Values::Texts(outcomes.iter().map(label).collect()),
                vec![count],
            )
        }
    })
}

/// "value:index:name", as the classification extension has it; the value in as
/// many digits as it takes to read the same number back.
fn ranked_class(value: f32, index: usize, name: &str) -> String {
    let mut text = format!("{value}:{index}");
    if !name.is_empty() {
        // Writing to a string does not fail.
        let _ = write!(text, ":{name}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tipserve_api::inference::{InferParameter, infer_parameter::ParameterChoice};

    fn asked(name: &str, classes: Option<i64>) -> InferRequestedOutputTensor {
        let parameters = classes.map(|count| {
            let choice = ParameterChoice::Int64Param(count);
            let parameter = InferParameter {
                parameter_choice: Some(choice),
            };
            (CLASSIFICATION.to_owned(), parameter)
        });
        InferRequestedOutputTensor {
            name: name.to_owned(),
            parameters: parameters.into_iter().collect(),
        }
    }

    #[test]
    fn no_outputs_are_all_outputs() {
        let outputs = |recognise| -> Vec<Output> {
            let all = wanted(&[], recognise).expect("all");
            all.iter().map(|w| w.output).collect()
        };
        assert_eq!(outputs(true), Output::ALL);
        assert_eq!(outputs(false), Output::ALL[..4]);
        let one = wanted(&[asked("logits", Some(3))], false).expect("one");
        assert_eq!(one.len(), 1);
        assert_eq!(one[0].ranked, Some(3));
    }

    #[test]
    fn outputs_that_cannot_be_are_refused() {
        for (outputs, words) in [
            (vec![asked("scores", None)], "there is no output \"scores\""),
            (vec![asked("score", None); 2], "it is asked for twice"),
            (vec![asked("label", Some(2))], "no numbers to rank"),
            (vec![asked("accepted", Some(2))], "no numbers to rank"),
            (vec![asked("score", Some(-2))], "-2 is negative"),
        ] {
            let error = wanted(&outputs, false).expect_err("refused").to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_ranked_class_reads_back_exactly() {
        for value in [0.1_f32, 1e-30, -25.375, f32::MIN_POSITIVE] {
            let text = ranked_class(value, 7, "a:b");
            let mut parts = text.splitn(3, ':');
            assert_eq!(parts.next().and_then(|v| v.parse().ok()), Some(value));
            assert_eq!(parts.collect::<Vec<_>>(), ["7", "a:b"]);
        }
        assert_eq!(ranked_class(0.5, 1, ""), "0.5:1");
    }
}
