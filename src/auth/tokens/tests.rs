use super::*;
use tipserve_api::tokens::{MARK, generate};

fn now() -> DateTime<Utc> {
    "2026-06-01T12:00:00Z".parse().expect("a time")
}

fn parse(text: &str) -> Tokens {
    Tokens::parse(text, None).expect("valid")
}

fn refused(text: &str) -> String {
    Tokens::parse(text, None).err().expect("refused")
}

#[test]
fn the_right_token_is_found_and_no_other() {
    let made: Vec<_> = (0..5).map(|_| generate().expect("random")).collect();
    let mut file = String::new();
    for (index, (token, hash)) in made.iter().enumerate() {
        // Either hash does.
        let hash = if index % 2 == 0 {
            hash.clone()
        } else {
            format!("blake3:{}", blake3::hash(token.as_bytes()).to_hex())
        };
        file += &format!("[[token]]\nname = 't{index}'\nhash = '{hash}'\nrole = 'write'\n");
    }
    let tokens = parse(&file);
    for (index, (token, _)) in made.iter().enumerate() {
        assert!(token.starts_with(MARK) && token.len() == MARK.len() + 64);
        assert_eq!(
            tokens.find(token, now()).expect("known").name,
            format!("t{index}")
        );
        for wrong in [
            &token[..token.len() - 1],
            &token.to_uppercase(),
            "",
            &"x".repeat(5000),
        ] {
            assert_eq!(
                tokens.find(wrong, now()).err(),
                Some(AuthError::TokenUnknown)
            );
        }
    }
    assert!(
        !file.contains(&made[0].0[MARK.len()..]),
        "the file holds a token"
    );
}

#[test]
fn a_token_ends_when_it_says() {
    let (token, hash) = generate().expect("random");
    let file =
        |at: &str| format!("[[token]]\nname='a'\nhash='{hash}'\nrole='admin'\nexpires={at}\n");
    let before = parse(&file("2026-06-01T14:00:01+02:00"));
    assert!(before.find(&token, now()).is_ok());
    let after = parse(&file("2026-06-01T14:00:00+02:00"));
    assert!(matches!(
        after.find(&token, now()),
        Err(AuthError::TokenExpired { .. })
    ));
    assert!(refused(&file("2026-06-01")).contains("needs date, time and offset"));
}

#[test]
fn a_wrong_file_is_said_so_without_its_secrets() {
    let good = format!("hash = 'sha256:{}'\nrole = 'write'\n", "0".repeat(64));
    for (text, words) in [
        (
            format!("[[token]]\nname = 'a b'\n{good}"),
            "must be 1 to 64",
        ),
        (
            format!("[[token]]\nname = 'a'\nprefix = 'A'\n{good}"),
            "the prefix",
        ),
        (
            format!("[[token]]\nname = 'a'\nsecret = 'b'\n{good}"),
            "unknown field",
        ),
        (
            "[[token]]\nname = 'a'\nhash = 'hunter2'\nrole = 'write'\n".to_owned(),
            "hash must be",
        ),
        (
            "[[token]]\nname = 'a'\nhash = 'md5:00'\nrole = 'root'\n".to_owned(),
            "unknown variant",
        ),
        (
            format!("[[token]]\nname='a'\n{good}[[token]]\nname='a'\n{good}"),
            "this name",
        ),
        (
            format!("[[token]]\nname='a'\n{good}[[token]]\nname='b'\n{good}"),
            "this hash",
        ),
        (
            format!("[[token]]\nname='a'\nmax_streams=0\n{good}"),
            "max_streams = 0",
        ),
    ] {
        let error = refused(&text);
        assert!(error.contains(words), "{text}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    let mistake = refused("[[token]]\nname = 'a'\nhash = hunter2\n");
    assert!(
        mistake.starts_with("line 3") && !mistake.contains("hunter2"),
        "{mistake}"
    );
}

#[test]
fn what_is_used_up_stays_so_over_a_reload() {
    let (token, hash) = generate().expect("random");
    let file = |rate: &str, role: &str| {
        format!(
            "[[token]]\nname='a'\nhash='{hash}'\nrole='{role}'\nrequests_per_second={rate}\n\
             requests_burst=1\n"
        )
    };
    let first = parse(&file("0.000001", "write"));
    first
        .find(&token, now())
        .expect("known")
        .rates
        .begin("a", 9)
        .expect("the first call");
    let second = Tokens::parse(&file("0.000001", "admin"), Some(&first)).expect("valid");
    let same = second.find(&token, now()).expect("known");
    assert_eq!(same.role, Role::Admin);
    assert!(
        same.rates.begin("a", 9).is_err(),
        "the bucket was filled by the reload"
    );
    let third = Tokens::parse(&file("0.000002", "admin"), Some(&second)).expect("valid");
    third
        .find(&token, now())
        .expect("known")
        .rates
        .begin("a", 9)
        .expect("a new limit");
}
