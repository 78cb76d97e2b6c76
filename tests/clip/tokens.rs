//! Cleaning and tokens: those of ftfy, Python's `html` and open_clip.

use serde::Deserialize;
use tipserve_clip::{
    bundle::Bundle,
    clean::clean,
    tokenize::{TextError, Tokenizer},
};

use crate::reference;

#[derive(Deserialize)]
struct Case {
    text: String,
    clean: String,
    ids: Vec<i64>,
    count: usize,
}

#[test]
fn tokens_are_those_of_open_clip() {
    let seed = reference::seed();
    let folder = reference::run("clip_tokens.py", &[&seed.to_string()]);
    let cases = std::fs::read(folder.path().join("texts.json")).expect("texts");
    let cases: Vec<Case> = serde_json::from_slice(&cases).expect("cases");
    let bundle = Bundle::open(&folder.path().join("bundle")).expect("a bundle");
    let tokenizer = Tokenizer::load(&bundle).expect("a tokenizer");
    let mut failures = Vec::new();
    for case in &cases {
        let cleaned = clean(&case.text);
        if cleaned != case.clean {
            failures.push(format!(
                "{:?} → {cleaned:?}, Python: {:?}",
                case.text, case.clean
            ));
            continue;
        }
        let ids = tokenizer.encode(&case.text, true).expect("ids");
        if ids != case.ids {
            failures.push(format!("{:?} → {ids:?}, Python: {:?}", case.text, case.ids));
        }
        // Untruncated: the same, or refused with both numbers.
        match tokenizer.encode(&case.text, false) {
            Ok(ids) if case.count <= 77 && ids == case.ids => {}
            Err(TextError::TooLong { limit: 77, found }) if found == case.count => {}
            other => failures.push(format!("{:?} → {other:?}", case.text)),
        }
    }
    println!("{} texts, {} differ", cases.len(), failures.len());
    assert!(failures.is_empty(), "seed {seed}:\n{}", failures.join("\n"));
}

/// A bundle whose tokenizer.json does all the work, with its special tokens.
fn plain_bundle(folder: &std::path::Path) -> Bundle {
    use sha2::{Digest as _, Sha256};
    let tokenizer = serde_json::json!({
        "version": "1.0",
        // Padding and truncation in the file are overruled by the bundle.
        "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 50}, "direction": "Right", "pad_to_multiple_of": null,
                    "pad_id": 9, "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]},
                               "[SEP]": {"id": "[SEP]", "ids": [2], "tokens": ["[SEP]"]}}
        },
        "decoder": null,
        "model": {"type": "WordLevel", "unk_token": "[UNK]",
                  "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "cat": 3, "dog": 4}}
    })
    .to_string();
    let mut listed = String::new();
    for (name, text) in [("tokenizer.json", tokenizer.as_str()), ("text.pt", "none")] {
        std::fs::write(folder.join(name), text).expect("written");
        let digest: String = Sha256::digest(text)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        listed += &format!("{name:?} = \"{digest}\"\n");
    }
    let manifest = format!(
        "format = 1\nname = \"plain\"\nwidth = 8\nlogit_scale = 1.0\n[text]\nfile = \"text.pt\"\n\
         tokenizer = \"tokenizer.json\"\nrules = \"plain\"\ncontext_length = 6\npad_id = 7\n\
         [files]\n{listed}"
    );
    std::fs::write(folder.join("bundle.toml"), manifest).expect("written");
    Bundle::open(folder).expect("a bundle")
}

#[test]
fn plain_rules_are_the_files_own_with_its_special_tokens() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokenizer = Tokenizer::load(&plain_bundle(folder.path())).expect("a tokenizer");
    let encode = |text, truncate| tokenizer.encode(text, truncate);
    assert_eq!(encode("CAT  dog", false), Ok(vec![1, 3, 4, 2, 7, 7]));
    assert_eq!(encode("", false), Ok(vec![1, 2, 7, 7, 7, 7]));
    assert_eq!(encode("cat dog cow cat", false), Ok(vec![1, 3, 4, 0, 3, 2]));
    let error = encode("cat dog cow cat dog", false);
    assert_eq!(error, Err(TextError::TooLong { limit: 6, found: 7 }));
    assert_eq!(
        encode("cat dog cow cat dog", true),
        Ok(vec![1, 3, 4, 0, 3, 2])
    );
}

#[test]
fn special_tokens_in_a_text_are_text() {
    let folder = reference::run("clip_tokens.py", &["1"]);
    let bundle = Bundle::open(&folder.path().join("bundle")).expect("a bundle");
    let tokenizer = Tokenizer::load(&bundle).expect("a tokenizer");
    for text in [
        "a <|endoftext|> b",
        "<|startoftext|>",
        "<start_of_text> <end_of_text>",
    ] {
        let ids = tokenizer.encode(text, false).expect("ids");
        for special in [49406, 49407] {
            assert_eq!(ids.iter().filter(|&&id| id == special).count(), 1, "{text}");
        }
    }
    let long = "x".repeat(tipserve_clip::tokenize::MAX_TEXT_BYTES + 1);
    assert!(matches!(
        tokenizer.encode(&long, true),
        Err(TextError::TooManyBytes { .. })
    ));
}
