//! COCO's annotations: a picture is an example of the category that it is annotated with.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

use super::{classes, folder_of, name_of};
use crate::{
    files::readable,
    labelled::{Example, Labelled, Place, Source},
};

#[derive(Debug, Deserialize)]
struct Coco {
    images: Vec<Image>,
    annotations: Vec<Annotation>,
    categories: Vec<Category>,
}

#[derive(Debug, Deserialize)]
struct Image {
    id: Value,
    file_name: String,
}

#[derive(Debug, Deserialize)]
struct Annotation {
    image_id: Value,
    category_id: Value,
}

#[derive(Debug, Deserialize)]
struct Category {
    id: Value,
    name: String,
}

/// Lists the annotated pictures. A picture without annotations is no example; one with several
/// categories is rejected by its id: which of them it shows is not to be guessed.
pub(super) fn listed(path: &Path, text: &str) -> Result<Labelled, String> {
    // By way of a value, in which the last of two equal keys counts, as elsewhere.
    let value: serde_json::Result<Value> = serde_json::from_str(text);
    let coco: Coco = value.and_then(serde_json::from_value).map_err(|error| {
        format!("it is no COCO file ({error}): it needs images, annotations and categories")
    })?;
    let mut places: HashMap<String, usize> = HashMap::new();
    for (place, one) in coco.categories.iter().enumerate() {
        if places.insert(one.id.to_string(), place).is_some() {
            return Err(format!("two of its categories have the id {}", one.id));
        }
        if name_of(&one.name).is_empty() {
            return Err(format!("its category {} has no name", one.id));
        }
    }
    let mut pictures: HashMap<String, &str> = HashMap::new();
    for one in &coco.images {
        if pictures
            .insert(one.id.to_string(), &one.file_name)
            .is_some()
        {
            return Err(format!("two of its images have the id {}", one.id));
        }
    }
    let mut order = Vec::new();
    let mut found: HashMap<&str, BTreeSet<usize>> = HashMap::new();
    for one in &coco.annotations {
        let (Some(file), Some(class)) = (
            pictures.get(&one.image_id.to_string()),
            places.get(&one.category_id.to_string()),
        ) else {
            return Err(format!(
                "an annotation names the category {} or the image {}, which is not there",
                one.category_id, one.image_id
            ));
        };
        let categories = found.entry(file).or_insert_with(|| {
            order.push(*file);
            BTreeSet::new()
        });
        categories.insert(*class);
    }
    let folder = folder(
        path,
        coco.images.first().map_or("", |one| one.file_name.as_str()),
    )?;
    let names: Vec<String> = coco
        .categories
        .iter()
        .map(|one| name_of(&one.name))
        .collect();
    let examples = order
        .into_iter()
        .filter_map(|file| example(file, found.get(file)?, &names, &folder));
    Ok(Labelled {
        source: Source::Table(path.to_owned()),
        examples: examples.collect(),
        classes: classes(names.iter().map(String::as_str)),
    })
}

fn example(
    file: &str,
    categories: &BTreeSet<usize>,
    names: &[String],
    folder: &Path,
) -> Option<Example> {
    let place = if categories.len() > 1 {
        let listed: Vec<&str> = categories
            .iter()
            .filter_map(|index| names.get(*index).map(String::as_str))
            .collect();
        Place::Unusable {
            reason: "SEVERAL_CATEGORIES",
            message: format!(
                "{file} is annotated with {} categories ({}): crop its objects first, or list \
                 (picture, label) pairs",
                categories.len(),
                listed.join(", ")
            ),
        }
    } else {
        Place::File(folder.join(file))
    };
    Some(Example {
        id: readable(file),
        class: *categories.first()?,
        labels: None,
        place,
    })
}

/// Where the pictures lie, by where the first one is.
fn folder(path: &Path, first: &str) -> Result<PathBuf, String> {
    let here = folder_of(path);
    let above = here.join("..");
    let stem = path.file_stem().map(readable).unwrap_or_default();
    // instances_val2017.json, val2017/
    let split = stem.rsplit('_').next().unwrap_or_default();
    let tried = [
        here.clone(),
        here.join("images"),
        above.clone(),
        above.join(split),
        above.join("images"),
        above.join("images").join(split),
    ];
    tried
        .into_iter()
        .find(|folder| !first.is_empty() && folder.join(first).is_file())
        .ok_or_else(|| {
            format!("its first picture, {first:?}, is not beside it, nor in images/ or {split}/")
        })
}
