//! Cleaning and tokens: those of ftfy, Python's `html` and open_clip.

use serde::Deserialize;
use tipserve::clip::{
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
