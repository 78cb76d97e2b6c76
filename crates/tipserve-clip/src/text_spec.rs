//! `[text]` of `bundle.toml`: the text encoder, and how a text becomes its
//! input.

use serde::Deserialize;

use super::violation::{Violation, ensure};

/// The text encoder and its preprocessing.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TextSpec {
    /// TorchScript: int64 [n, context_length] → [n, D].
    pub file: String,
    /// A Hugging Face `tokenizer.json`, relative to the bundle.
    pub tokenizer: String,
    /// How a text is cleaned and cut into tokens.
    pub rules: TextRules,
    /// Tokens in a row, the start and end tokens included.
    pub context_length: usize,
    /// What a row is filled up with.
    pub pad_id: i64,
    /// Which end of a row the padding is at.
    #[serde(default)]
    pub pad_side: PadSide,
}

/// Which end of a row is filled up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PadSide {
    /// The padding follows the text.
    #[default]
    Right,
    /// The padding precedes the text.
    Left,
}

/// How a text becomes tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextRules {
    /// CLIP's: ftfy, HTML unescaping, white space, lower case, its regular
    /// expression; of `tokenizer.json` only the vocabulary and merges.
    Clip,
    /// `tokenizer.json` as it stands, with its own normaliser.
    Plain,
    /// open_clip's canonical text, which is SigLIP's (ftfy, HTML unescaping,
    /// underscores to spaces, ASCII punctuation removed, lower case, white
    /// space), then `tokenizer.json`.
    Canonical,
    /// `transformers`' SiglipTokenizer: lower case, ASCII punctuation removed,
    /// white space, then `tokenizer.json`.
    Siglip,
}

impl TextSpec {
    pub(super) fn check(&self) -> Result<(), Violation> {
        ensure(
            (3..=8192).contains(&self.context_length),
            "text.context_length",
            self.context_length,
            "must be from 3 to 8192 tokens",
        )?;
        ensure(
            (0..=i64::from(u32::MAX)).contains(&self.pad_id),
            "text.pad_id",
            self.pad_id,
            "must be a token id",
        )
    }
}
