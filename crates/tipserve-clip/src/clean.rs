//! CLIP's cleaning of a text before its tokens: ftfy, HTML entities, white
//! space, lower case, each as Python has it.

use std::{borrow::Cow, collections::HashMap, sync::LazyLock};

use entities::ENTITIES;
use regex::{Captures, Regex};

/// `whitespace_clean(html.unescape(html.unescape(ftfy.fix_text(text)))).lower()`,
/// what OpenAI's and open_clip's tokenizers do first.
///
/// The ftfy is plsfix, whose tables are an older ftfy's: text that was decoded
/// in the wrong encoding twice over, or in windows-1257, and characters that
/// only by chance could be UTF-8 in such an encoding (`ã¶` before a space) may
/// come out otherwise than from Python. Other text does not.
pub fn clean(text: &str) -> String {
    single_spaced(&repaired(text)).to_lowercase()
}

/// `canonicalize_text(html.unescape(html.unescape(ftfy.fix_text(text))))`, what
/// open_clip does to the texts of SigLIP: underscores become spaces, Python's
/// `string.punctuation` goes, letters become lower case.
///
/// The repair has the limits that [`clean`] names.
pub fn canonical(text: &str) -> String {
    let spaced = repaired(text).replace('_', " ");
    single_spaced(&without_punctuation(&spaced).to_lowercase())
}

/// What `transformers`' `SiglipTokenizer` does before its SentencePiece model:
/// `canonicalize_text` of the text in lower case, with the ▁ that the model
/// wants in front, and spaces for any other.
pub fn siglip(text: &str) -> String {
    let text = format!("\u{2581}{}", text.replace('\u{2581}', " "));
    let bare = without_punctuation(&text.to_lowercase());
    let mut spaced = String::with_capacity(bare.len());
    for (at, word) in bare.split(is_python_space).enumerate() {
        if at > 0 && !spaced.ends_with(' ') {
            spaced.push(' ');
        }
        spaced.push_str(word);
    }
    spaced.trim_end_matches(' ').to_owned()
}

/// Stands for an ampersand that plsfix must not see: for private use, of no
/// script, and left as it is.
const AMPERSAND: &str = "\u{f8f0}";

/// ftfy's repairs and two rounds of HTML unescaping.
fn repaired(text: &str) -> String {
    let text = mend_plsfix(text);
    // ftfy resolves no HTML entities from the first line with a tag on; plsfix
    // 0.1.8 resolves them all the same, and composes what then follows letters.
    let line = match text.find('<') {
        None => text.len(),
        Some(tag) => {
            (text.get(..tag).and_then(|before| before.rfind('\n'))).map_or(0, |end| end + 1)
        }
    };
    let (plain, tagged) = text.split_at_checked(line).unwrap_or((&text, ""));
    let mut fixed = plsfix::fix_text(plain, None);
    if tagged.contains(AMPERSAND) {
        fixed += &plsfix::fix_text(tagged, None);
    } else {
        let kept = plsfix::fix_text(&tagged.replace('&', AMPERSAND), None);
        fixed += &kept.replace(AMPERSAND, "&");
    }
    let once = unescape(&fixed);
    unescape(&once).into_owned()
}

/// As Python's `" ".join(text.split())` does.
fn single_spaced(text: &str) -> String {
    let words: Vec<&str> = text
        .split(is_python_space)
        .filter(|word| !word.is_empty())
        .collect();
    words.join(" ")
}

/// Without Python's `string.punctuation`, which is ASCII's.
fn without_punctuation(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_punctuation()).collect()
}

static TERMINAL_ESCAPE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"\x1b\[[\d;]*[a-zA-Z]").ok());

/// Two of ftfy's repairs that plsfix 0.1.8 misses: terminal escapes (its
/// pattern has an octal escape, which Rust does not know), and the full-width
/// macron, which becomes two characters.
fn mend_plsfix(text: &str) -> Cow<'_, str> {
    let text = match TERMINAL_ESCAPE.as_ref() {
        Some(escape) if text.contains('\x1b') => escape.replace_all(text, ""),
        _ => text.into(),
    };
    if text.contains('\u{ffe3}') {
        text.replace('\u{ffe3}', " \u{304}").into()
    } else {
        text
    }
}

/// Python's `str.isspace`: Unicode's white space and four old separators.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\x1c'..='\x1f')
}

/// Entities without the ampersand, `amp;` as well as `amp`.
static NAMED: LazyLock<HashMap<&'static str, &'static str>> = LazyLock::new(|| {
    ENTITIES
        .iter()
        .filter_map(|entity| Some((entity.entity.strip_prefix('&')?, entity.characters)))
        .collect()
});

static REFERENCE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"&(?:#([0-9]+);?|#[xX]([0-9a-fA-F]+);?|([^\t\n\x0C <&#;]{1,32};?))").ok()
});

/// HTML5's character references, as Python's `html.unescape`: the semicolon
/// may be missing, and the longest name that is known counts.
pub fn unescape(text: &str) -> Cow<'_, str> {
    let Some(reference) = REFERENCE.as_ref().filter(|_| text.contains('&')) else {
        return text.into();
    };
    reference.replace_all(text, |found: &Captures<'_>| {
        if let Some(digits) = found.get(1) {
            numbered(digits.as_str(), 10)
        } else if let Some(digits) = found.get(2) {
            numbered(digits.as_str(), 16)
        } else {
            named(found.get(3).map_or("", |name| name.as_str()))
        }
    })
}

fn named(name: &str) -> String {
    if let Some(characters) = NAMED.get(name) {
        return (*characters).into();
    }
    // Prefixes of two characters and more, the longest first.
    for (end, _) in name.char_indices().skip(2).collect::<Vec<_>>().iter().rev() {
        let (known, rest) = name.split_at(*end);
        if let Some(characters) = NAMED.get(known) {
            return format!("{characters}{rest}");
        }
    }
    format!("&{name}")
}

fn numbered(digits: &str, radix: u32) -> String {
    /// What HTML5 takes 0x80 to 0x9F for: Windows-1252, and if that has
    /// nothing, the number itself.
    const WINDOWS_1252: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž',
        '\u{8f}', '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}',
        'ž', 'Ÿ',
    ];
    let number = u32::from_str_radix(digits, radix).unwrap_or(u32::MAX);
    match number {
        0 => '\u{fffd}'.into(),
        0x80..=0x9f => WINDOWS_1252
            .get(number as usize - 0x80)
            .map(char::to_string)
            .unwrap_or_default(),
        0x01..=0x08 | 0x0b | 0x0e..=0x1f | 0x7f | 0xfdd0..=0xfdef => String::new(),
        // Every plane's last two are no characters.
        number if number <= 0x10_ffff && number & 0xfffe == 0xfffe => String::new(),
        number => char::from_u32(number).unwrap_or('\u{fffd}').into(),
    }
}
