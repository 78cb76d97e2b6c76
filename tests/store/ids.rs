//! Ids cannot escape the store, and references read as they are written.

use proptest::prelude::*;
use tipserve_store::{AliasName, CacheId, Reference, VersionNumber, VersionSelector};

use crate::sample;

fn allowed(text: &str) -> bool {
    let bytes = text.as_bytes();
    let plain = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(plain)
        && matches!(bytes[0], b'a'..=b'z' | b'0'..=b'9')
        && !text.contains("..")
        && !text.ends_with('.')
}

/// Texts that are near to being ids, and ones that are far from it.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9._/-]{0,70}",
        "[a-z0-9]{1,3}[./\\\\~%@ A-Z]{1,3}[a-z0-9]{0,3}",
        "(\\.\\./){1,4}[a-z]{1,8}",
        any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_id_is_exactly_what_the_rule_says(text in texts()) {
        prop_assert_eq!(text.parse::<CacheId>().is_ok(), allowed(&text));
        let alias = allowed(&text)
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && !text.contains('.')
            && text != "latest";
        prop_assert_eq!(text.parse::<AliasName>().is_ok(), alias);
    }

    #[test]
    fn an_id_is_one_plain_path_segment(text in texts()) {
        if let Ok(id) = text.parse::<CacheId>() {
            let path = object_store::path::Path::from("caches").join(id.as_str());
            prop_assert_eq!(path.as_ref(), format!("caches/{text}"));
            prop_assert_eq!(path.parts().count(), 2);
            let root = std::path::Path::new("/store/caches");
            let file = root.join(id.as_str());
            prop_assert_eq!(file.parent(), Some(root));
            prop_assert_eq!(file.components().count(), root.components().count() + 1);
        }
    }

    #[test]
    fn a_reference_reads_as_it_is_written(
        cache in "[a-z0-9][a-z0-9_-]{0,20}",
        alias in "[a-z][a-z0-9_-]{0,20}",
        number in 1..=i64::MAX as u64,
    ) {
        prop_assume!(alias != "latest");
        let forms = [
            (format!("{cache}@{number}"), format!("caches/{cache}/versions/{number}")),
            (format!("{cache}@{alias}"), format!("caches/{cache}/aliases/{alias}")),
            (format!("{cache}@latest"), format!("caches/{cache}")),
            (cache.clone(), format!("caches/{cache}")),
        ];
        for (short, long) in forms {
            let parsed: Reference = short.parse()?;
            prop_assert_eq!(parsed.to_string(), long.clone());
            prop_assert_eq!(long.parse::<Reference>()?, parsed);
        }
    }

    #[test]
    fn no_reference_escapes(text in texts()) {
        if let Ok(reference) = text.parse::<Reference>() {
            prop_assert!(allowed(reference.cache.as_str()));
        }
    }
}

#[test]
fn what_a_reference_cannot_be() {
    for text in [
        "",
        "@",
        "@3",
        "x@",
        "x@0",
        "x@03",
        "x@-1",
        "x@9223372036854775808",
        "x@1.0",
        "x@Stable",
        "caches/",
        "caches/x/",
        "caches/x/versions",
        "caches/x/versions/",
        "caches/x/versions/0",
        "caches/x/versions/1/",
        "caches/x/versions/1/y",
        "caches/../versions/1",
        "x/../y",
        "caches/x/aliases/UP",
        "models/x",
        "x@1@2",
        "x\0",
        "caches/x@2",
    ] {
        let error = text.parse::<Reference>().expect_err(text);
        assert!(!error.rule.is_empty(), "{text}: {error}");
    }
    let named: Reference = "caches/x/aliases/latest".parse().expect("a reference");
    assert_eq!(named.version, VersionSelector::Latest);
    assert_eq!(VersionNumber::new(0), None);
}

#[test]
fn errors_name_the_rule_and_the_value() {
    let error = "../etc"
        .parse::<CacheId>()
        .expect_err("escapes")
        .to_string();
    assert!(
        error.contains("\"../etc\"") && error.contains("1 to 63"),
        "{error}"
    );
    let long = "x".repeat(100_000).parse::<CacheId>().expect_err("long");
    assert!(long.to_string().len() < 500);
}

#[tokio::test]
async fn everything_written_lies_below_the_store() {
    let outer = tempfile::tempdir().expect("a folder");
    let inner = outer.path().join("store");
    let store = sample::local(&inner).await;
    for text in [
        "a",
        "0",
        "a.b",
        "a-b_c.d",
        "con",
        "nul",
        "caches",
        "state",
        &"z".repeat(63),
    ] {
        let id = sample::id(text);
        let made = store
            .create_version(&id, sample::draft(1))
            .await
            .expect("made");
        sample::load_whole(&store, &id, made.version)
            .await
            .expect("loads");
        assert!(inner.join("caches").join(text).is_dir());
    }
    let beside: Vec<_> = std::fs::read_dir(outer.path()).expect("lists").collect();
    assert_eq!(beside.len(), 1, "{beside:?}");
}
