//! `AddExamples`: what its messages carry, and checking an `AddExamplesSpec`
//! against the version that it starts from.

use std::sync::Arc;

use super::{
    super::{
        Context,
        error::ApiError,
        heads::{self, MethodChoice},
        reference,
        request::RequestError,
    },
    CreateRequest, CreateRpc, Event, Part,
    create_cache::check_texts,
    etag, strict,
    text::Classes,
};
use crate::{
    auth::Caller,
    catalog::{Base, BaseChanges, ClassRef, MAX_MULTI_LABEL_CLASSES, Recipe, TextSource},
};
use tip_spec::Method;
use tipserve_api::v1::{
    self as pb, add_examples_request::Payload, add_examples_response::Event as Answer,
};
use tipserve_store::{CacheId, Condition, Needs, RequestKey};

/// The RPC `AddExamples`: see [`CreateRpc`].
pub struct AddExamples;

impl CreateRpc for AddExamples {
    const SPEC_FIRST: &'static str =
        "the first message of AddExamples must be its spec, not examples";
    const EXAMPLES_AFTER: &'static str =
        "every message of AddExamples but the first must carry examples";
    type Spec = pb::AddExamplesSpec;
    type Request = pb::AddExamplesRequest;
    type Response = pb::AddExamplesResponse;

    fn part(request: Self::Request) -> Option<Part<Self::Spec>> {
        request.payload.map(|payload| match payload {
            Payload::Spec(spec) => Part::Spec(spec),
            Payload::Examples(batch) => Part::Examples(batch),
        })
    }

    fn resource(spec: &Self::Spec) -> &str {
        &spec.base
    }

    fn cache(spec: &Self::Spec, caller: &Caller) -> Result<CacheId, ApiError> {
        let base = reference(caller, &spec.base).map_err(|error| error.field("spec.base"))?;
        Ok(base.cache)
    }

    async fn check(
        mut spec: Self::Spec,
        request: Option<RequestKey>,
        context: &Context,
        caller: &Caller,
    ) -> Result<CreateRequest, ApiError> {
        if spec.base.is_empty() {
            return Err(RequestError::missing("spec.base").into());
        }
        let reference = reference(caller, &spec.base).map_err(|error| error.field("spec.base"))?;
        check_texts(&spec.description, &spec.labels, &spec.created_by)?;
        spec.created_by = caller.created_by(spec.created_by);
        let strict = strict(spec.on_rejected)?;
        // Checked before the base is read, which may take a while.
        let asked = heads::method(spec.method)?;
        let changes = changes(&mut spec)?;
        let identity = caller.quota();
        let base = context
            .catalog
            .base(&reference, changes, identity.as_deref());
        let base = base.await?;
        Ok(CreateRequest {
            strict,
            allow_empty: spec.allow_empty_classes,
            seed: spec.seed,
            keep_pictures: spec.keep_pictures,
            condition: Condition {
                etag: etag(std::mem::take(&mut spec.etag)),
                // Not the base itself: what is needed from it is in memory.
                needs: Needs::Cache,
            },
            recipe: Recipe {
                request,
                ..recipe(spec, asked, base, context)?
            },
        })
    }

    fn response(event: Event) -> Self::Response {
        let event = match event {
            Event::Progress(progress) => Answer::Progress(progress),
            Event::Rejected(rejected) => Answer::Rejected(rejected),
            Event::Version(version) => Answer::Version(version),
        };
        pb::AddExamplesResponse { event: Some(event) }
    }
}

/// The changes to the base's examples.
fn changes(spec: &mut pb::AddExamplesSpec) -> Result<BaseChanges, RequestError> {
    let relabel = std::mem::take(&mut spec.relabel).into_iter().map(|one| {
        let class = ClassRef::of(one.class_index, one.class_name).map_err(|problem| {
            let problem = format!("example {:?}: {problem}", one.example_id);
            RequestError::invalid("spec.relabel", problem)
        })?;
        Ok((one.example_id, class))
    });
    Ok(BaseChanges {
        remove: std::mem::take(&mut spec.remove_example_ids),
        relabel: relabel.collect::<Result<_, RequestError>>()?,
        drop_unlabelled: spec.drop_unlabelled,
        new_classes: spec
            .new_classes
            .iter()
            .map(|class| class.display_name.clone())
            .collect(),
    })
}

fn recipe(
    spec: pb::AddExamplesSpec,
    asked: MethodChoice,
    base: Base,
    context: &Context,
) -> Result<Recipe, ApiError> {
    let details = base.details();
    if base.is_multi_label() {
        check_multi_label(&spec, asked, &base)?;
    }
    RequestError::check(
        "spec.new_classes (with the base's)",
        "max_classes",
        context.limits.max_classes,
        details.classes.len() + spec.new_classes.len(),
    )?;
    let method = match (asked, details.head.method) {
        (MethodChoice::Auto, _) => None,
        (MethodChoice::This(method), _) => Some(method),
        // Trained keys belong to the examples that they were trained on.
        (MethodChoice::Default, Method::TipAdapterF) => Some(Method::TipAdapter),
        (MethodChoice::Default, Method::Stack) => None,
        (MethodChoice::Default, method) => Some(method),
    };
    if method == Some(Method::ZeroShot) && base.text().is_none() {
        return Err(RequestError::invalid(
            "spec.method",
            format!("zero-shot needs text, which {} has not", base.version()),
        )
        .into());
    }
    let numbers = heads::Numbers {
        alpha: spec.alpha,
        beta: spec.beta,
        lambda: spec.lambda,
        grid: spec.grid,
    };
    let head = heads::request(
        method,
        numbers,
        details.head.class_balance,
        details.head.key_dtype,
    )?;
    let classes = Classes {
        field: "spec.new_classes",
        classes: spec.new_classes,
        templates: spec.prompt_templates,
        truncate: spec.truncate_prompts,
        max_prompts: context.limits.max_prompts,
        bundle: base.bundle(),
    }
    .canonical();
    let new_classes = classes.names()?;
    let text = text_source(classes, &base)?;
    Ok(Recipe {
        id: base.cache().clone(),
        bundle: Arc::clone(base.bundle()),
        new_classes,
        text,
        head,
        multi_label: base.is_multi_label(),
        views: details.views.max(1) as usize,
        exif_orientation: details.exif_orientation,
        description: if spec.description.is_empty() {
            details.description.clone()
        } else {
            spec.description
        },
        labels: if spec.labels.is_empty() {
            details.labels.clone()
        } else {
            spec.labels.into_iter().collect()
        },
        created_by: spec.created_by,
        base: Some(Arc::new(base)),
        request: None,
    })
}

/// Refuses options that versions with any number of classes per example do not
/// have.
fn check_multi_label(
    spec: &pb::AddExamplesSpec,
    asked: MethodChoice,
    base: &Base,
) -> Result<(), RequestError> {
    RequestError::check(
        "spec.new_classes (with the base's)",
        "max_multi_label_classes",
        MAX_MULTI_LABEL_CLASSES,
        base.classes().len() + spec.new_classes.len(),
    )?;
    if !spec.relabel.is_empty() {
        let problem = format!(
            "{} was made with multi_label: its examples have no one class to change",
            base.version()
        );
        return Err(RequestError::invalid("spec.relabel", problem));
    }
    let numbers = spec.alpha.is_some() || spec.beta.is_some() || spec.lambda.is_some();
    if matches!(asked, MethodChoice::This(_)) || numbers {
        let problem = format!(
            "{} was made with multi_label: only METHOD_AUTO, without numbers",
            base.version()
        );
        return Err(RequestError::invalid("spec.method", problem));
    }
    Ok(())
}

/// The text rows of the new classes, made in the same way as the base's.
fn text_source(classes: Classes<'_>, base: &Base) -> Result<TextSource, ApiError> {
    if classes.classes.is_empty() {
        return Ok(TextSource::None);
    }
    let refuse = |problem: &str| {
        let problem = format!("{} {problem}", base.version());
        Err(RequestError::invalid("spec.new_classes", problem).into())
    };
    let has_prompts = classes
        .classes
        .iter()
        .any(|class| !class.prompts.is_empty());
    let has_weights = classes.with_weight() > 0;
    if base.text().is_none() {
        if has_prompts || has_weights {
            return refuse("was made without text: new classes cannot bring prompts or weights");
        }
        return Ok(TextSource::None);
    }
    let by_prompts = base.classes().iter().any(|class| !class.prompts.is_empty());
    if by_prompts {
        if has_weights {
            return refuse("was made with prompts: new classes cannot bring a text_weight");
        }
        return classes.prompts();
    }
    if classes.with_weight() < classes.classes.len() {
        return refuse("was made with text weights: every new class needs a text_weight");
    }
    classes.weights()
}
