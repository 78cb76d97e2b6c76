//! What a person sees beside one accuracy: how much the draw of the examples
//! matters, and what adding a class does.

use serde::Serialize;

use super::{DemoArgs, make, name, speed};
use crate::{
    classify_stream::Reply,
    connect::Connection,
    documents::VersionMadeDocument,
    evaluate,
    examples::Examples,
    failure::Failure,
    head::MethodArg,
    labelled::{Labelled, SourceClass},
    screen::Screen,
    version_call::{self, UploadOptions},
};
use tipserve_api::v1::{AddExamplesSpec, RejectOptions};

/// Held-out pictures of a further draw, in all.
const DRAW_PICTURES: usize = 60;

/// Share of pictures of known classes that count as such, and how many examples
/// a threshold for that takes.
const ACCEPT: f64 = 0.9;
const ENOUGH: usize = 20;

/// The automatic choice on one draw of examples.
#[derive(Debug, Serialize)]
pub(super) struct Draw {
    pub(super) seed: u64,
    pub(super) shots: u32,
    pub(super) zero_shot_top1: Option<f64>,
    pub(super) top1: f64,
}

/// How pictures of an added class are classified.
#[derive(Debug, Serialize)]
pub(super) struct AddedClass {
    pub(super) display_name: String,
    /// What they were mostly taken for before, and the mean probability of
    /// that: a classifier that does not know a class is still sure.
    pub(super) taken_for: String,
    pub(super) confidence: f64,
    /// The share of them that was said to be none of these, at a threshold that
    /// accepts nine in ten pictures of the known classes.
    pub(super) none_of_these: Option<f64>,
    pub(super) pictures: usize,
    /// The share of them that is right afterwards.
    pub(super) right: f64,
    pub(super) seconds: f64,
}

/// Makes and measures a version of one draw; `all` is everything there is, the
/// draw's own pictures are left out of what it is measured on.
pub(super) async fn draw(
    connection: &Connection,
    args: &DemoArgs,
    all: &Labelled,
    (seed, shots): (u64, u32),
    screen: &Screen,
) -> Result<Draw, Failure> {
    let (train, rest) = all.clone().split(seed, shots as usize);
    let each = DRAW_PICTURES.div_ceil(train.classes.len().max(1));
    let (test, _) = rest.split(seed, each);
    let drawn = DemoArgs {
        cache: format!("{}-draws", args.cache),
        seed,
        ..args.clone()
    };
    let (version, _) = make(connection, &drawn, MethodArg::Auto, &train, screen).await?;
    let scores = evaluate::evaluate(connection, &[name(&version)], test, screen).await?;
    Ok(Draw {
        seed,
        shots,
        zero_shot_top1: scores.zero_shot_top1,
        top1: scores.top1,
    })
}

/// Makes a version without the last class, asks it about that class's pictures,
/// and adds the class. None if fewer than two classes would be left.
pub(super) async fn added_class(
    connection: &Connection,
    args: &DemoArgs,
    (train, test): (&Labelled, &Labelled),
    screen: &Screen,
) -> Result<Option<AddedClass>, Failure> {
    let Some(last) = train.classes.len().checked_sub(1).filter(|last| *last >= 2) else {
        return Ok(None);
    };
    let Some(class) = train.classes.get(last) else {
        return Ok(None);
    };
    let without = DemoArgs {
        cache: format!("{}-grows", args.cache),
        ..args.clone()
    };
    let mut known = train.clone();
    known.examples.retain(|example| example.class != last);
    known.classes.truncate(last);
    let (base, _) = make(connection, &without, MethodArg::Auto, &known, screen).await?;

    let of_class = |labelled: &Labelled| {
        let mut labelled = labelled.clone();
        labelled.examples.retain(|example| example.class == last);
        labelled
    };
    let pictures = of_class(test);
    // A threshold is read off the examples, and takes enough of them.
    let reject = (known.examples.len() >= ENOUGH).then_some(RejectOptions {
        accept: Some(ACCEPT),
        threshold: None,
        precision: None,
    });
    let (before, _) =
        speed::classify(connection, &name(&base), 16, pictures.clone(), reject).await?;
    let (taken_for, confidence) = mostly(&before, &known);
    let refused = |reply: &&Reply| {
        let answer = reply.outcome.as_ref().ok();
        answer.and_then(|answer| answer.accepted) == Some(false)
    };
    let none_of_these =
        reject.map(|_| before.iter().filter(refused).count() as f64 / before.len().max(1) as f64);

    let examples = of_class(train);
    let made = add(connection, args, &base.name, class, examples, screen).await?;
    let (after, _) =
        speed::classify(connection, &name(&made.version), 16, pictures.clone(), None).await?;
    let best = after.iter().filter_map(|reply| {
        let best = reply.outcome.as_ref().ok()?.top.first()?;
        usize::try_from(best.index).ok()
    });
    let right = best.filter(|index| *index == last).count();
    Ok(Some(AddedClass {
        display_name: class.display_name.clone(),
        taken_for,
        confidence,
        none_of_these,
        pictures: pictures.examples.len(),
        right: right as f64 / after.len().max(1) as f64,
        seconds: made.seconds,
    }))
}

/// Adds a class with its examples to the version named.
async fn add(
    connection: &Connection,
    args: &DemoArgs,
    base: &str,
    class: &SourceClass,
    examples: Labelled,
    screen: &Screen,
) -> Result<VersionMadeDocument, Failure> {
    let spec = AddExamplesSpec {
        base: base.to_owned(),
        new_classes: version_call::class_specs(std::slice::from_ref(class), false),
        prompt_templates: args.template.clone(),
        seed: args.seed,
        ..AddExamplesSpec::default()
    };
    let options = UploadOptions {
        doing: format!("adding the class {:?}", class.display_name),
        id_prefix: String::new(),
        strict: false,
        screen,
    };
    let examples = Examples::drawn(examples);
    version_call::run(connection, spec, examples, &options).await
}

/// The class that most replies name, and the mean probability of each reply's
/// best.
fn mostly(replies: &[Reply], known: &Labelled) -> (String, f64) {
    let mut counts = vec![0_usize; known.classes.len()];
    let (mut sum, mut answers) = (0.0, 0_usize);
    for reply in replies {
        let Some(best) = reply.outcome.as_ref().ok().and_then(|it| it.top.first()) else {
            continue;
        };
        sum += f64::from(best.probability);
        answers += 1;
        let index = usize::try_from(best.index).ok();
        if let Some(count) = index.and_then(|index| counts.get_mut(index)) {
            *count += 1;
        }
    }
    let most = counts.iter().enumerate().max_by_key(|(_, count)| **count);
    let class = most.and_then(|(index, _)| known.classes.get(index));
    let name = class.map_or_else(String::new, |class| class.display_name.clone());
    (name, sum / answers.max(1) as f64)
}
