//! From a text to the ids that the text encoder takes.

use std::{path::PathBuf, sync::LazyLock};

use regex::Regex;
use thiserror::Error;
use tokenizers::{Model as _, PostProcessor as _, TruncationDirection};

use super::{
    bundle::Bundle,
    clean::{canonical, clean, siglip},
    text_spec::{PadSide, TextRules},
};

/// Longest text that is tokenised, in bytes. Any context is full long before.
pub const MAX_TEXT_BYTES: usize = 64 << 10;

/// Why a tokenizer cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TokenizerError {
    /// The bundle has no text encoder.
    #[error("the bundle {bundle} has no text encoder")]
    NoText {
        /// The bundle's `name`, from `bundle.toml`.
        bundle: String,
    },
    /// The file does not load.
    #[error("the tokenizer {} cannot be loaded: {reason}", path.display())]
    Unreadable {
        /// The path of `tokenizer.json`.
        path: PathBuf,
        /// What the reader says, with the position if it has one.
        reason: String,
    },
    /// CLIP's rules need a start and an end token.
    #[error("the tokenizer {} has no {token}, which CLIP's rules need", path.display())]
    NoToken {
        /// The path of `tokenizer.json`.
        path: PathBuf,
        /// The token that is missing.
        token: &'static str,
    },
    /// The file's own special tokens leave no room for a text.
    #[error(
        "the tokenizer {} adds {added} special tokens, the context has {context_length}",
        path.display()
    )]
    NoRoom {
        /// The path of `tokenizer.json`.
        path: PathBuf,
        /// Special tokens added to each text.
        added: usize,
        /// Tokens in a row, from `bundle.toml`.
        context_length: usize,
    },
}

/// Why a text has no ids.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TextError {
    /// More tokens than the context holds, and no leave to cut.
    #[error("the text has {found} tokens, start and end included; the limit is {limit}")]
    TooLong {
        /// Tokens that the encoder's context holds.
        limit: usize,
        /// The text's tokens, start and end included.
        found: usize,
    },
    /// A text that nobody meant to encode.
    #[error("the text has {found} bytes; the limit is {limit}")]
    TooManyBytes {
        /// [`MAX_TEXT_BYTES`], the limit on a text.
        limit: usize,
        /// Bytes of the text, UTF-8.
        found: usize,
    },
    /// The tokenizer itself failed on the text.
    #[error("the text cannot be tokenized: {reason}")]
    Tokenizer {
        /// The tokenizer's reason, in its own words.
        reason: String,
    },
}

/// A bundle's tokenizer. Cheap to share between threads.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    rules: Rules,
    context_length: usize,
    pad_id: i64,
    pad_side: PadSide,
}

#[derive(Debug)]
enum Rules {
    Clip {
        start: u32,
        end: u32,
    },
    /// `tokenizer.json`, on what `clean` makes of the text.
    File {
        clean: Option<fn(&str) -> String>,
        added: usize,
    },
}

impl Tokenizer {
    /// Loads the bundle's tokenizer.
    ///
    /// # Errors
    /// [`TokenizerError`], naming the file.
    pub fn load(bundle: &Bundle) -> Result<Self, TokenizerError> {
        let spec = bundle.text.as_ref().ok_or_else(|| TokenizerError::NoText {
            bundle: bundle.name.clone(),
        })?;
        let path = bundle.dir.join(&spec.tokenizer);
        let mut inner = tokenizers::Tokenizer::from_file(&path).map_err(|error| {
            TokenizerError::Unreadable {
                path: path.clone(),
                reason: error.to_string(),
            }
        })?;
        // Padding and cutting are done here, so that both are refusable.
        inner.with_padding(None);
        inner
            .with_truncation(None)
            .map_err(|error| TokenizerError::Unreadable {
                path: path.clone(),
                reason: error.to_string(),
            })?;
        let rules = match spec.rules {
            TextRules::Clip => {
                let model = inner.get_model();
                let find = |names: [&'static str; 2]| {
                    names
                        .iter()
                        .find_map(|name| model.token_to_id(name))
                        .ok_or_else(|| TokenizerError::NoToken {
                            path: path.clone(),
                            token: names[0],
                        })
                };
                Rules::Clip {
                    start: find(["<|startoftext|>", "<start_of_text>"])?,
                    end: find(["<|endoftext|>", "<end_of_text>"])?,
                }
            }
            TextRules::Plain | TextRules::Canonical | TextRules::Siglip => {
                let added = inner
                    .get_post_processor()
                    .map_or(0, |processor| processor.added_tokens(false));
                if added >= spec.context_length {
                    return Err(TokenizerError::NoRoom {
                        path,
                        added,
                        context_length: spec.context_length,
                    });
                }
                let clean: Option<fn(&str) -> String> = match spec.rules {
                    TextRules::Canonical => Some(canonical),
                    TextRules::Siglip => Some(siglip),
                    TextRules::Plain | TextRules::Clip => None,
                };
                Rules::File { clean, added }
            }
        };
        Ok(Self {
            inner,
            rules,
            context_length: spec.context_length,
            pad_id: spec.pad_id,
            pad_side: spec.pad_side,
        })
    }

    /// Ids in a row: what the encoder takes.
    pub fn context_length(&self) -> usize {
        self.context_length
    }

    /// The text's ids, exactly `context_length` of them.
    ///
    /// Under CLIP's rules they are OpenAI's `SimpleTokenizer`'s (start,
    /// tokens, end, padding), with one exception, on purpose: the name of a
    /// special token in a text (`<|endoftext|>`) is text like any other.
    ///
    /// # Errors
    /// [`TextError::TooLong`] where the context does not hold them, unless
    /// `truncate`: the row is then cut, and the end token stays last.
    pub fn encode(&self, text: &str, truncate: bool) -> Result<Vec<i64>, TextError> {
        self.encode_counted(text, truncate).map(|(ids, _)| ids)
    }

    /// As [`encode`](Self::encode), with the number of ids that are not
    /// padding.
    ///
    /// # Errors
    /// Those of [`encode`](Self::encode).
    pub fn encode_counted(
        &self,
        text: &str,
        truncate: bool,
    ) -> Result<(Vec<i64>, usize), TextError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(TextError::TooManyBytes {
                limit: MAX_TEXT_BYTES,
                found: text.len(),
            });
        }
        let mut ids = match self.rules {
            Rules::Clip { start, end } => self.clip_ids(text, start, end, truncate)?,
            Rules::File { clean, added } => {
                let cleaned = clean.map(|clean| clean(text));
                self.plain_ids(cleaned.as_deref().unwrap_or(text), added, truncate)?
            }
        };
        let count = ids.len();
        let padding = self.context_length.saturating_sub(count);
        match self.pad_side {
            PadSide::Right => ids.resize(ids.len() + padding, self.pad_id),
            PadSide::Left => drop(ids.splice(0..0, std::iter::repeat_n(self.pad_id, padding))),
        }
        Ok((ids, count))
    }

    fn clip_ids(
        &self,
        text: &str,
        start: u32,
        end: u32,
        truncate: bool,
    ) -> Result<Vec<i64>, TextError> {
        let mut ids = vec![i64::from(start)];
        let text = clean(text);
        for word in WORD.iter().flat_map(|word| word.find_iter(&text)) {
            let bytes: String = word.as_str().bytes().map(byte_character).collect();
            let tokens = self.inner.get_model().tokenize(&bytes).map_err(failure)?;
            ids.extend(tokens.iter().map(|token| i64::from(token.id)));
        }
        self.check_length(ids.len() + 1, truncate)?;
        ids.truncate(self.context_length - 1);
        ids.push(end.into());
        Ok(ids)
    }

    fn plain_ids(&self, text: &str, added: usize, truncate: bool) -> Result<Vec<i64>, TextError> {
        let mut encoding = self.inner.encode(text, false).map_err(failure)?;
        self.check_length(encoding.len() + added, truncate)?;
        encoding.truncate(self.context_length - added, 0, TruncationDirection::Right);
        let encoding = self
            .inner
            .post_process(encoding, None, true)
            .map_err(failure)?;
        Ok(encoding.get_ids().iter().map(|&id| id.into()).collect())
    }

    fn check_length(&self, found: usize, truncate: bool) -> Result<(), TextError> {
        if found > self.context_length && !truncate {
            return Err(TextError::TooLong {
                limit: self.context_length,
                found,
            });
        }
        Ok(())
    }
}

fn failure(error: tokenizers::Error) -> TextError {
    TextError::Tokenizer {
        reason: error.to_string(),
    }
}

/// CLIP's pattern for lower-case text, without its alternatives for special
/// tokens. Python matches it without regard to case, which after lower-casing
/// leaves two differences: ſ counts as s, and U+0345, a mark whose upper case
/// is a letter, matches nothing at all.
static WORD: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"'[sſ]|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}\x{345}]+").ok()
});

#[expect(clippy::indexing_slicing, reason = "a byte is below 256")]
fn byte_character(byte: u8) -> char {
    BYTE_CHARACTERS[usize::from(byte)]
}

/// GPT-2's printable character for each byte.
static BYTE_CHARACTERS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut table = ['\0'; 256];
    let mut next = 0x100;
    for (character, byte) in table.iter_mut().zip(0..=u8::MAX) {
        *character = match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
            _ => {
                next += 1;
                char::from_u32(next - 1).unwrap_or('\0')
            }
        };
    }
    table
});
