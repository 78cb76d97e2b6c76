//! `CreateCache`: what its messages carry, and checking a `CacheSpec`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    super::{
        Context, cache_id,
        error::ApiError,
        heads::{self, MethodChoice},
        request::{self, RequestError, check_printable},
    },
    CreateRequest, CreateRpc, Event, Part, etag, strict,
    text::Classes,
};
use crate::{
    auth::Caller,
    catalog::{
        CatalogError, LoadedBundle, MAX_CREATED_BY_BYTES, MAX_DESCRIPTION_BYTES,
        MAX_LABEL_KEY_BYTES, MAX_LABEL_VALUE_BYTES, MAX_LABELS, MAX_MULTI_LABEL_CLASSES, MAX_VIEWS,
        Recipe, TextSource, orientation, printable,
    },
};
use tip_spec::Method;
use tipserve_api::v1::{self as pb, create_cache_request::Payload};
use tipserve_store::{CacheId, Condition, Needs, RequestKey};

/// The RPC `CreateCache`: see [`CreateRpc`].
pub struct CreateCache;

impl CreateRpc for CreateCache {
    const SPEC_FIRST: &'static str =
        "the first message of CreateCache must be its spec, not examples";
    const EXAMPLES_AFTER: &'static str =
        "every message of CreateCache but the first must carry examples";
    type Spec = pb::CacheSpec;
    type Request = pb::CreateCacheRequest;
    type Response = pb::CreateCacheResponse;

    fn part(request: Self::Request) -> Option<Part<Self::Spec>> {
        request.payload.map(|payload| match payload {
            Payload::Spec(spec) => Part::Spec(spec),
            Payload::Examples(batch) => Part::Examples(batch),
        })
    }

    fn resource(spec: &Self::Spec) -> &str {
        &spec.cache_id
    }

    fn cache(spec: &Self::Spec, caller: &Caller) -> Result<CacheId, ApiError> {
        cache_id(caller, &spec.cache_id).map_err(|error| error.field("spec.cache_id"))
    }

    async fn check(
        spec: Self::Spec,
        request: Option<RequestKey>,
        context: &Context,
        caller: &Caller,
    ) -> Result<CreateRequest, ApiError> {
        Ok(CreateRequest {
            strict: strict(spec.on_rejected)?,
            allow_empty: spec.allow_empty_classes,
            seed: spec.seed,
            keep_pictures: spec.keep_pictures,
            condition: Condition {
                etag: etag(spec.etag.clone()),
                needs: Needs::Nothing,
            },
            recipe: Recipe {
                request,
                ..recipe(spec, context, caller)?
            },
        })
    }

    fn response(event: Event) -> Self::Response {
        pb::CreateCacheResponse { event: Some(event) }
    }
}

/// The recipe of a specification.
fn recipe(spec: pb::CacheSpec, context: &Context, caller: &Caller) -> Result<Recipe, ApiError> {
    let id = CreateCache::cache(&spec, caller)?;
    let bundle = bundle(context, &spec.bundle)?;
    check_class_count(spec.classes.len(), context.limits.max_classes)?;
    check_texts(&spec.description, &spec.labels, &spec.created_by)?;
    let views = views(spec.views)?;
    let numbers = heads::Numbers {
        alpha: spec.alpha,
        beta: spec.beta,
        lambda: spec.lambda,
        grid: spec.grid,
    };
    let method = match heads::method(spec.method)? {
        MethodChoice::Default | MethodChoice::Auto => None,
        MethodChoice::This(method) => Some(method),
    };
    let exif_orientation =
        request::exif_orientation("spec.exif_orientation", spec.exif_orientation)?;
    let head = heads::request(
        method,
        numbers,
        heads::class_balance(spec.class_balance)?,
        heads::key_dtype(spec.key_dtype)?,
    )?;
    if spec.multi_label {
        check_multi_label(&spec)?;
    }
    let classes = Classes {
        field: "spec.classes",
        classes: spec.classes,
        templates: spec.prompt_templates,
        truncate: spec.truncate_prompts,
        max_prompts: context.limits.max_prompts,
        bundle: &bundle,
    }
    .canonical();
    let new_classes = classes.names()?;
    let text = text_source(classes, spec.without_text || spec.multi_label)?;
    if matches!(text, TextSource::None) && head.method == Some(Method::ZeroShot) {
        return Err(RequestError::invalid(
            "spec.method",
            "zero-shot needs text: prompts (and a bundle with a text encoder) or text weights",
        )
        .into());
    }
    Ok(Recipe {
        id,
        base: None,
        new_classes,
        text,
        head,
        multi_label: spec.multi_label,
        views: if bundle.model.image.is_none() {
            1
        } else {
            views.max(1)
        },
        exif_orientation: orientation::recorded(exif_orientation),
        description: spec.description,
        labels: spec.labels.into_iter().collect::<BTreeMap<_, _>>(),
        created_by: caller.created_by(spec.created_by),
        request: None,
        bundle,
    })
}

/// Refuses a cache of no classes, or of more than the limit.
fn check_class_count(count: usize, limit: usize) -> Result<(), RequestError> {
    if count == 0 {
        return Err(RequestError::invalid(
            "spec.classes",
            "a cache needs at least one class, this one has 0",
        ));
    }
    RequestError::check("spec.classes", "max_classes", limit, count)
}

/// The views of each example, 0 standing for the bundle's default.
fn views(asked: i32) -> Result<usize, RequestError> {
    usize::try_from(asked)
        .ok()
        .filter(|views| *views <= MAX_VIEWS)
        .ok_or_else(|| {
            let problem = format!("{asked} is not in 0 to {MAX_VIEWS}");
            RequestError::invalid("spec.views", problem)
        })
}

/// Refuses options that versions with any number of classes per example do not
/// have.
fn check_multi_label(spec: &pb::CacheSpec) -> Result<(), RequestError> {
    RequestError::check(
        "spec.classes (with multi_label)",
        "max_multi_label_classes",
        MAX_MULTI_LABEL_CLASSES,
        spec.classes.len(),
    )?;
    let method = pb::Method::try_from(spec.method);
    let with_text =
        (spec.classes.iter()).any(|class| class.text_weight.is_some() || !class.prompts.is_empty());
    let refused = [
        (
            "spec.method",
            !matches!(method, Ok(pb::Method::Unspecified | pb::Method::Auto)),
            "with multi_label only METHOD_AUTO: the others' classes compete for one place",
        ),
        (
            "spec.classes",
            with_text || !spec.prompt_templates.is_empty(),
            "with multi_label examples alone decide: text weights, prompts and templates are not \
             taken",
        ),
        (
            "spec.alpha",
            spec.alpha.is_some() || spec.beta.is_some() || spec.lambda.is_some(),
            "with multi_label there are no numbers to give",
        ),
        (
            "spec.class_balance",
            spec.class_balance == pb::ClassBalance::Mean as i32,
            "with multi_label each class has a column of its own: there is nothing to balance",
        ),
    ];
    match refused.into_iter().find(|(_, is_there, _)| *is_there) {
        Some((field, _, problem)) => Err(RequestError::invalid(field, problem)),
        None => Ok(()),
    }
}

/// The bundle that a specification names.
fn bundle(context: &Context, given: &str) -> Result<Arc<LoadedBundle>, ApiError> {
    let named = context.catalog.bundles().named(given);
    named.map_err(|error| ApiError::from(error).field("spec.bundle"))
}

/// Checks the free texts of a specification.
///
/// # Errors
/// A text that is too long, or has control characters.
pub fn check_texts(
    description: &str,
    labels: &HashMap<String, String>,
    created_by: &str,
) -> Result<(), RequestError> {
    RequestError::check(
        "spec.description",
        "max_description_bytes",
        MAX_DESCRIPTION_BYTES,
        description.len(),
    )?;
    printable::check_lines(description)
        .map_err(|reason| RequestError::invalid("spec.description", format!("it {reason}")))?;
    RequestError::check("spec.labels", "max_labels", MAX_LABELS, labels.len())?;
    for (key, value) in labels {
        let most = MAX_LABEL_KEY_BYTES;
        RequestError::check(
            "spec.labels (a key)",
            "max_label_key_bytes",
            most,
            key.len(),
        )?;
        RequestError::check(
            &format!("spec.labels[{key:?}]"),
            "max_label_value_bytes",
            MAX_LABEL_VALUE_BYTES,
            value.len(),
        )?;
        check_printable("spec.labels", key)?;
        check_printable("spec.labels", value)?;
    }
    check_printable("spec.created_by", created_by)?;
    RequestError::check(
        "spec.created_by",
        "max_created_by_bytes",
        MAX_CREATED_BY_BYTES,
        created_by.len(),
    )
}

fn text_source(classes: Classes<'_>, without: bool) -> Result<TextSource, ApiError> {
    if without {
        return Ok(TextSource::None);
    }
    let (given, count) = (classes.with_weight(), classes.classes.len());
    if given == count {
        return classes.weights();
    }
    if given > 0 {
        return Err(RequestError::invalid(
            "spec.classes",
            format!("{given} of {count} classes bring a text_weight; either all do or none"),
        )
        .into());
    }
    if classes.bundle.model.has_text {
        return classes.prompts();
    }
    if classes.asks_for_prompts() {
        return Err(CatalogError::NoTextEncoder.into());
    }
    Ok(TextSource::None)
}
