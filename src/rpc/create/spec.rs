//! Checking a specification.

use std::collections::BTreeMap;

use super::super::{
    Context, convert,
    problem::{Failure, Problem},
    request::{self, RequestError},
};
use crate::{
    catalog::{CatalogError, Recipe, TextSource, class_prompts},
    proto::v1::{self as pb, cache_spec::OnRejected},
    store::CacheId,
    tip::spec::Method,
};

const MAX_VIEWS: i32 = 64;
const MAX_DESCRIPTION_BYTES: usize = 4096;
const MAX_LABELS: usize = 64;
const MAX_NAME_BYTES: usize = 1024;

/// The recipe of a specification.
pub fn check(spec: pb::CacheSpec, context: &Context) -> Result<Recipe, Failure> {
    let model = context.catalog.model();
    let limits = &context.limits;
    let id: CacheId = CacheId::parse_name(&spec.cache_id)
        .map_err(|error| Problem::from(error).field("spec.cache_id"))?;
    if spec.classes.is_empty() {
        return Err(RequestError::invalid(
            "spec.classes",
            "a cache needs at least one class, this one has 0",
        )
        .into());
    }
    RequestError::check(
        "spec.classes",
        "max_classes",
        limits.max_classes,
        spec.classes.len(),
    )?;
    RequestError::check(
        "spec.description",
        "max_description_bytes",
        MAX_DESCRIPTION_BYTES,
        spec.description.len(),
    )?;
    RequestError::check("spec.labels", "max_labels", MAX_LABELS, spec.labels.len())?;
    for (index, class) in spec.classes.iter().enumerate() {
        RequestError::check(
            &format!("spec.classes[{index}].display_name"),
            "max_name_bytes",
            MAX_NAME_BYTES,
            class.display_name.len(),
        )?;
    }
    if !(0..=MAX_VIEWS).contains(&spec.views) {
        return Err(RequestError::invalid(
            "spec.views",
            format!("{} is not in 0 to {MAX_VIEWS}", spec.views),
        )
        .into());
    }
    if OnRejected::try_from(spec.on_rejected).is_err() {
        return Err(RequestError::invalid(
            "spec.on_rejected",
            format!("{} is not an OnRejected", spec.on_rejected),
        )
        .into());
    }
    let head = convert::head_request(&spec)?;
    let names = spec
        .classes
        .iter()
        .map(|class| class.display_name.clone())
        .collect();
    let text = text_source(
        spec.classes,
        spec.prompt_templates,
        context,
        Text {
            without: spec.without_text,
            truncate: spec.truncate_prompts,
        },
    )?;
    if matches!(text, TextSource::None) && head.method == Some(Method::ZeroShot) {
        return Err(RequestError::invalid(
            "spec.method",
            "zero-shot needs text: prompts (and a bundle with a text encoder) or text weights",
        )
        .into());
    }
    Ok(Recipe {
        id,
        classes: names,
        text,
        head,
        views: if model.image_size == 0 {
            1
        } else {
            spec.views.max(1) as usize
        },
        description: spec.description,
        labels: spec.labels.into_iter().collect::<BTreeMap<_, _>>(),
        created_by: String::new(),
    })
}

struct Text {
    without: bool,
    truncate: bool,
}

fn text_source(
    classes: Vec<pb::ClassSpec>,
    templates: Vec<String>,
    context: &Context,
    text: Text,
) -> Result<TextSource, Failure> {
    let model = context.catalog.model();
    if text.without {
        return Ok(TextSource::None);
    }
    let given = classes
        .iter()
        .filter(|class| class.text_weight.is_some())
        .count();
    if given == classes.len() {
        let mut rows = Vec::with_capacity(classes.len() * model.width);
        for (index, class) in classes.into_iter().enumerate() {
            let field = format!("spec.classes[{index}].text_weight");
            let values = class.text_weight.unwrap_or_default().values;
            rows.extend(request::unit(&field, values, model.width)?);
        }
        return Ok(TextSource::Weights(rows));
    }
    if given > 0 {
        return Err(RequestError::invalid(
            "spec.classes",
            format!(
                "{given} of {} classes bring a text_weight; either all do or none",
                classes.len()
            ),
        )
        .into());
    }
    let asked = !templates.is_empty() || classes.iter().any(|class| !class.prompts.is_empty());
    if !model.has_text {
        if asked {
            return Err(CatalogError::NoTextEncoder.into());
        }
        return Ok(TextSource::None);
    }
    let templates = if templates.is_empty() {
        &model.templates
    } else {
        &templates
    };
    let prompts = classes
        .into_iter()
        .map(|class| class_prompts(class.prompts, &class.display_name, templates))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(TextSource::Prompts {
        prompts,
        truncate: text.truncate,
    })
}
