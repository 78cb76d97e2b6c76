use super::*;

const SCHEMA: &Schema = &[
    ("id", Kind::Text),
    ("count", Kind::Number),
    ("made", Kind::Time),
    ("held", Kind::Flag),
    ("method", Kind::Method),
    ("labels", Kind::Labels),
];

fn look(field: &str, key: Option<&str>) -> Option<Value<'static>> {
    Some(match (field, key) {
        ("id", _) => Value::Text("textiles-7"),
        ("count", _) => Value::Number(12),
        ("made", _) => Value::Time("2026-03-01T12:00:00Z".parse().expect("a time")),
        ("held", _) => Value::Flag(true),
        ("method", _) => Value::Text("METHOD_GDA"),
        ("labels", Some("team")) => Value::Text("weaving mill"),
        ("labels", Some("a b")) => Value::Text("x*"),
        ("labels", _) => Value::Absent,
        _ => return None,
    })
}

fn holds(filter: &str) -> bool {
    let filter = Filter::parse(filter, SCHEMA).unwrap_or_else(|e| panic!("{filter}: {e}"));
    filter.lets_through(look)
}

#[test]
fn what_is_meant_is_let_through() {
    for filter in [
        "",
        "  ",
        "id=textiles-7",
        "id = \"textiles-7\"",
        "id='text*'",
        "id = *-7",
        "id = *xti*",
        "id = *",
        "id : xti",
        "id != other",
        "id != \"other*\"",
        "id > text AND id < texu",
        "count=12 AND count > 11 AND count >= 12 AND count<=12 AND count < 13",
        "count != 11",
        "made > 2026-01-01T00:00:00Z",
        "made = \"2026-03-01T13:00:00+01:00\"",
        "held = true AND held != false",
        "method = gda",
        "method = METHOD_GDA AND method != PROKER",
        "labels.team = \"weaving mill\"",
        "labels.team : mill",
        "labels.\"a b\" = \"x\\*\"",
        "labels:team AND labels.none != 3",
        "labels.team:*",
    ] {
        assert!(holds(filter), "{filter}");
    }
    for filter in [
        "id = textiles",
        "id = \"textiles-7\\*\"",
        "id != text*",
        "count > 12",
        "made < 2026-03-01T12:00:00Z",
        "held = false",
        "method = TIP_ADAPTER",
        "labels:none",
        "labels.none = x",
        "labels.none:*",
        "labels.team = weaving",
        "count = 12 AND count = 13",
    ] {
        assert!(!holds(filter), "{filter}");
    }
}

#[test]
fn an_error_names_position_token_and_what_could_stand_there() {
    for (filter, words) in [
        (
            "colour = red",
            "character 1, \"colour\": expected one of the fields id",
        ),
        ("id = a OR id = b", "character 8, \"OR\": expected AND"),
        ("id = a id = b", "character 8, \"id\": expected AND"),
        ("id = a AND", "the end: expected a restriction"),
        ("id ~ a", "character 4, \"~\": expected one of = !="),
        ("id =", "character 5, the end: expected a value"),
        (
            "id = \"a",
            "character 6, \"\\\"a\": the closing \" is missing",
        ),
        ("é = a", "character 1, \"é\""),
        (
            "id = é AND count = x",
            "character 20, \"x\": expected a whole number",
        ),
        ("count : 3", "character 7, \":\": expected one of = != <"),
        ("made > yesterday", "expected a time"),
        ("held > true", "= and != only"),
        ("held = yes", "expected true or false"),
        ("method = best", "expected a method"),
        ("labels = x", "expected labels.KEY"),
        ("(id = a)", "character 1"),
        ("NOT id = a", "character 1, \"NOT\""),
    ] {
        let error = Filter::parse(filter, SCHEMA).expect_err(filter).to_string();
        assert!(error.contains(words), "{filter}: {error}");
    }
    assert!(Filter::parse(&"x".repeat(5000), SCHEMA).is_err());
}
