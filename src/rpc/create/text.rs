//! Where the text classifier's rows of a specification's classes come from.

use super::super::{
    error::ApiError,
    request::{self, RequestError},
};
use crate::catalog::{CatalogError, LoadedBundle, MAX_NAME_BYTES, TextSource, class_prompts};
use tipserve_api::{text::into_canonical, v1 as pb};

/// Most bytes of all prompts of a version.
pub const MAX_PROMPT_BYTES: usize = 64 << 20;

/// The classes of a specification.
pub struct Classes<'a> {
    /// The field of the specification that holds them, for errors.
    pub field: &'static str,
    /// The classes as they were sent.
    pub classes: Vec<pb::ClassSpec>,
    /// Templates for those without prompts; empty for the bundle's own.
    pub templates: Vec<String>,
    /// Truncate prompts that are too long instead of refusing them.
    pub truncate: bool,
    /// The server's limit on prompts.
    pub max_prompts: usize,
    /// The bundle that encodes their texts.
    pub bundle: &'a LoadedBundle,
}

impl Classes<'_> {
    /// The same with every text in NFC, in which texts are kept and compared.
    #[must_use]
    pub fn canonical(mut self) -> Self {
        let own = |text: &mut String| *text = into_canonical(std::mem::take(text));
        for class in &mut self.classes {
            own(&mut class.display_name);
            class.prompts.iter_mut().for_each(own);
        }
        self.templates.iter_mut().for_each(own);
        self
    }

    /// Display names, by index.
    ///
    /// # Errors
    /// One that is too long, or has control characters.
    pub fn names(&self) -> Result<Vec<String>, RequestError> {
        for (index, class) in self.classes.iter().enumerate() {
            let field = format!("{}[{index}].display_name", self.field);
            let name = &class.display_name;
            RequestError::check(&field, "max_name_bytes", MAX_NAME_BYTES, name.len())?;
            request::check_printable(&field, name)?;
        }
        let names = self.classes.iter();
        Ok(names.map(|class| class.display_name.clone()).collect())
    }

    /// How many bring a text weight.
    pub fn with_weight(&self) -> usize {
        let classes = self.classes.iter();
        classes.filter(|class| class.text_weight.is_some()).count()
    }

    /// Whether any class, or the specification itself, asks for prompts.
    pub fn asks_for_prompts(&self) -> bool {
        !self.templates.is_empty() || self.classes.iter().any(|class| !class.prompts.is_empty())
    }

    /// Rows by the weights that every class brings.
    ///
    /// # Errors
    /// One that is missing, of another width, or without a direction.
    pub fn weights(self) -> Result<TextSource, ApiError> {
        let width = self.bundle.model.width;
        let mut rows = Vec::with_capacity(self.classes.len() * width);
        for (index, class) in self.classes.into_iter().enumerate() {
            let field = format!("{}[{index}].text_weight", self.field);
            let Some(weight) = class.text_weight else {
                return Err(RequestError::missing(field).into());
            };
            rows.extend(request::unit(&field, weight.values, width)?);
        }
        Ok(TextSource::Weights(rows))
    }

    /// Bounds the prompts that classes and templates make together, before they
    /// are made.
    fn check_prompts(&self, templates: &[String]) -> Result<(), RequestError> {
        let of_templates: usize = templates.iter().map(String::len).sum();
        let (mut count, mut bytes) = (0_usize, 0_usize);
        for class in &self.classes {
            let (more, their_bytes) = match class.prompts.as_slice() {
                [] => {
                    let names = class.display_name.len().saturating_mul(templates.len());
                    (templates.len(), of_templates.saturating_add(names))
                }
                own => (own.len(), own.iter().map(String::len).sum()),
            };
            count = count.saturating_add(more);
            bytes = bytes.saturating_add(their_bytes);
        }
        let what = format!(
            "{} ({} classes with {} templates: their prompts)",
            self.field,
            self.classes.len(),
            templates.len()
        );
        RequestError::check(&what, "max_prompts", self.max_prompts, count)?;
        let what = format!("{} (bytes of their prompts)", self.field);
        RequestError::check(&what, "max_prompt_bytes", MAX_PROMPT_BYTES, bytes)?;
        let mut classes = self.classes.iter();
        let blank = classes
            .position(|class| class.prompts.is_empty() && class.display_name.trim().is_empty());
        match blank {
            Some(index) => Err(RequestError::invalid(
                format!("{}[{index}].display_name", self.field),
                "it is blank, and goes into the templates: give a name, or prompts",
            )),
            None => Ok(()),
        }
    }

    /// Rows by prompts: a class's own, by the templates given, or by the
    /// bundle's.
    ///
    /// # Errors
    /// [`CatalogError::NoTextEncoder`]; a template without "{}", and a class without a name to put
    /// there.
    pub fn prompts(self) -> Result<TextSource, ApiError> {
        let model = &self.bundle.model;
        if !model.has_text {
            return Err(CatalogError::NoTextEncoder.into());
        }
        let templates = if self.templates.is_empty() {
            &model.templates
        } else {
            &self.templates
        };
        self.check_prompts(templates)?;
        let prompts = self
            .classes
            .into_iter()
            .map(|class| class_prompts(class.prompts, &class.display_name, templates))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(TextSource::Prompts {
            prompts,
            truncate: self.truncate,
        })
    }
}
