//! Any text through cleaning and the two kinds of tokenizer: CLIP's, whose
//! words are found by Oniguruma (C), and a file's own. A row of ids of the
//! context's length, or an error.

#![no_main]

use std::{fs, path::Path, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tipserve_clip::{Bundle, tokenize::Tokenizer};

const CONTEXT: usize = 16;

/// OpenAI's pattern of words, as open_clip's tokenizer.json has it.
const WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// One tokenizer for each set of rules of a bundle.
static TOKENIZERS: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
    let clip = json!({
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "post_processor": null,
        "decoder": null,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>", "fuse_unk": false, "byte_fallback": false,
            "vocab": vocabulary(), "merges": [],
        },
    });
    let file = json!({
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": null,
        "decoder": null,
        "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "cat": 1}},
    });
    let folder = TempDir::new().expect("a folder");
    ["clip", "plain", "canonical", "siglip"]
        .map(|rules| {
            let tokenizer = if rules == "clip" { &clip } else { &file };
            let bundle = bundle(folder.path(), rules, &tokenizer.to_string());
            Tokenizer::load(&bundle).expect("a tokenizer")
        })
        .into()
});

/// All bytes as ByteLevel writes them, within a word and at its end.
fn vocabulary() -> Value {
    let printable = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let others = (0..256).filter(|&byte| !printable(byte));
    let shown = (0..256)
        .filter(|&byte| printable(byte))
        .chain(others.enumerate().map(|(nth, _)| 256 + nth as u32));
    let mut vocabulary = Map::new();
    for letter in shown.filter_map(char::from_u32) {
        for end in ["", "</w>"] {
            let id = vocabulary.len();
            vocabulary.insert(format!("{letter}{end}"), id.into());
        }
    }
    for special in ["<|startoftext|>", "<|endoftext|>"] {
        let id = vocabulary.len();
        vocabulary.insert(special.into(), id.into());
    }
    vocabulary.into()
}

/// A bundle with this tokenizer and no encoder.
fn bundle(folder: &Path, rules: &str, tokenizer: &str) -> Bundle {
    let mut files = String::new();
    for (name, text) in [("tokenizer.json", tokenizer), ("text.pt", "none")] {
        fs::write(folder.join(name), text).expect("written");
        let digest: String = Sha256::digest(text)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        files += &format!("{name:?} = \"{digest}\"\n");
    }
    let manifest = format!(
        "format = 1\nname = \"{rules}\"\nwidth = 8\nlogit_scale = 1.0\n[text]\nfile = \"text.pt\"\n\
         tokenizer = \"tokenizer.json\"\nrules = \"{rules}\"\ncontext_length = {CONTEXT}\npad_id = 0\n\
         [files]\n{files}"
    );
    fs::write(folder.join("bundle.toml"), manifest).expect("written");
    Bundle::open(folder).expect("a bundle")
}

fuzz_target!(|text: &str| {
    for tokenizer in &*TOKENIZERS {
        if let Ok(ids) = tokenizer.encode(text, true) {
            assert_eq!(ids.len(), CONTEXT);
        }
        if let Ok((ids, count)) = tokenizer.encode_counted(text, false) {
            assert!(ids.len() == CONTEXT && count <= CONTEXT);
        }
    }
});
