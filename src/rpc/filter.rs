//! Filters of lists: the part of AIP-160 that lists of caches and examples
//! need. Restrictions (`FIELD OPERATOR VALUE`) joined by `AND`; no `OR`, `NOT`
//! or parentheses.

use std::cmp::Ordering;

use chrono::{DateTime, Utc};

use super::request::RequestError;

/// Longest filter, bytes.
pub const MAX_BYTES: usize = 4096;
/// Characters of a token that an error quotes.
const SHOWN: usize = 40;
/// What ends a bare word.
const MARKS: &[char] = &['=', '!', '<', '>', ':', '(', ')', '"', '\''];

/// What a field's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Texts: every operator; `:` is "contains".
    Text,
    /// Whole numbers.
    Number,
    /// Times, written as RFC 3339 has it.
    Time,
    /// `true` or `false`.
    Flag,
    /// One of the API's methods; `METHOD_` may be left out.
    Method,
    /// A map of texts: `labels.KEY = VALUE`, `labels:KEY`.
    Labels,
}

/// The fields that a list can be filtered by.
pub type Schema = [(&'static str, Kind)];

/// What an entry has in a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// A text.
    Text(&'a str),
    /// A number.
    Number(i64),
    /// A time.
    Time(DateTime<Utc>),
    /// Yes or no.
    Flag(bool),
    /// There is no such label.
    Absent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Has,
}

/// Longest first, so that `<=` is not read as `<`.
const OPERATORS: [(&str, Operator); 7] = [
    ("!=", Operator::NotEqual),
    ("<=", Operator::LessOrEqual),
    (">=", Operator::GreaterOrEqual),
    ("=", Operator::Equal),
    ("<", Operator::Less),
    (">", Operator::Greater),
    (":", Operator::Has),
];

impl Operator {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Operator::Equal | Operator::Has => order.is_eq(),
            Operator::NotEqual => order.is_ne(),
            Operator::Less => order.is_lt(),
            Operator::LessOrEqual => order.is_le(),
            Operator::Greater => order.is_gt(),
            Operator::GreaterOrEqual => order.is_ge(),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Wanted {
    Text(Pattern),
    Number(i64),
    Time(DateTime<Utc>),
    Flag(bool),
    /// `labels:KEY`.
    Present,
}

/// A text that may begin or end in anything.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    text: String,
    any_start: bool,
    any_end: bool,
}

impl Pattern {
    fn fits(&self, text: &str) -> bool {
        match (self.any_start, self.any_end) {
            (false, false) => text == self.text,
            (true, false) => text.ends_with(&self.text),
            (false, true) => text.starts_with(&self.text),
            (true, true) => text.contains(&self.text),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Restriction {
    field: &'static str,
    /// Of a label.
    key: Option<String>,
    operator: Operator,
    wanted: Wanted,
}

/// A filter; the empty one lets everything through.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter(Vec<Restriction>);

impl Filter {
    /// Reads a filter over these fields.
    ///
    /// # Errors
    /// Where it is none: the position (in characters, from 1), the token, and
    /// what could stand there.
    pub fn parse(text: &str, schema: &Schema) -> Result<Filter, RequestError> {
        RequestError::check("filter", "max_filter_bytes", MAX_BYTES, text.len())?;
        let mut scanner = Scanner { text, at: 0 };
        let mut restrictions = Vec::new();
        scanner.skip_space();
        while !scanner.rest().is_empty() {
            restrictions.push(scanner.restriction(schema)?);
            scanner.skip_space();
            if scanner.rest().is_empty() {
                break;
            }
            let at = scanner.at;
            if scanner.word() != "AND" {
                scanner.at = at;
                return Err(scanner.error("expected AND (OR, NOT and parentheses are not taken)"));
            }
            scanner.skip_space();
            if scanner.rest().is_empty() {
                return Err(scanner.error("expected a restriction after AND"));
            }
        }
        Ok(Filter(restrictions))
    }

    /// Whether everything is let through.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an entry is let through. `look` gives what it has in a field,
    /// with the key where the field is a map; none where that is not known:
    /// then it is not let through.
    pub fn lets_through<'a>(
        &self,
        look: impl Fn(&'static str, Option<&str>) -> Option<Value<'a>>,
    ) -> bool {
        self.0.iter().all(|restriction| {
            look(restriction.field, restriction.key.as_deref())
                .is_some_and(|value| restriction.holds(value))
        })
    }
}

impl Restriction {
    fn holds(&self, value: Value<'_>) -> bool {
        match (&self.wanted, value) {
            // What is not there is not equal to anything.
            (_, Value::Absent) => self.operator == Operator::NotEqual,
            (Wanted::Present, _) => true,
            (Wanted::Text(pattern), Value::Text(text)) => match self.operator {
                Operator::Equal => pattern.fits(text),
                Operator::NotEqual => !pattern.fits(text),
                Operator::Has => text.contains(&pattern.text),
                other => other.holds(text.cmp(pattern.text.as_str())),
            },
            (Wanted::Number(wanted), Value::Number(number)) => {
                self.operator.holds(number.cmp(wanted))
            }
            (Wanted::Time(wanted), Value::Time(time)) => self.operator.holds(time.cmp(wanted)),
            (Wanted::Flag(wanted), Value::Flag(flag)) => self.operator.holds(flag.cmp(wanted)),
            _ => false,
        }
    }
}

struct Scanner<'a> {
    text: &'a str,
    /// In bytes.
    at: usize,
}

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// The problem of what stands here.
    fn error(&self, problem: &str) -> RequestError {
        let position = self.text.get(..self.at).unwrap_or("").chars().count() + 1;
        let rest = self.rest();
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let token: String = rest.chars().take(SHOWN).collect();
        let token = match token.get(..end) {
            Some(token) if !token.is_empty() => format!("{token:?}"),
            _ if rest.is_empty() => "the end".to_owned(),
            _ => format!("{token:?}"),
        };
        RequestError::invalid(
            "filter",
            format!("character {position}, {token}: {problem}"),
        )
    }

    /// Up to the next space or mark.
    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c: char| c.is_whitespace() || MARKS.contains(&c));
        let word = rest.get(..end.unwrap_or(rest.len())).unwrap_or("");
        self.at += word.len();
        word
    }

    fn restriction(&mut self, schema: &Schema) -> Result<Restriction, RequestError> {
        let start = self.at;
        let (field, kind, key) = self.field(schema)?;
        let after = self.at;
        self.skip_space();
        let operator_at = self.at;
        let Some(&(mark, operator)) = OPERATORS
            .iter()
            .find(|(mark, _)| self.rest().starts_with(mark))
        else {
            return Err(self.error("expected one of = != < <= > >= :"));
        };
        self.at += mark.len();
        self.skip_space();
        let value_at = self.at;
        let pattern = self.value()?;
        let end = std::mem::replace(&mut self.at, value_at);
        let exact = || match pattern.any_start || pattern.any_end {
            true => self.text.get(value_at..end).unwrap_or(""),
            false => pattern.text.as_str(),
        };
        let ordered = !matches!(operator, Operator::Equal | Operator::NotEqual);
        let (key, wanted) = match kind {
            Kind::Labels if key.is_none() => {
                if operator != Operator::Has {
                    self.at = after;
                    return Err(self.error("expected labels.KEY, or labels:KEY"));
                }
                (Some(pattern.text), Wanted::Present)
            }
            Kind::Labels | Kind::Text => (key, Wanted::Text(pattern)),
            Kind::Method => {
                if ordered {
                    self.at = operator_at;
                    return Err(self.error("a method takes = and != only"));
                }
                let name = pattern.text.to_ascii_uppercase();
                let name = match name.strip_prefix("METHOD_") {
                    Some(name) => name.to_owned(),
                    None => name,
                };
                let name = format!("METHOD_{name}");
                if crate::proto::v1::Method::from_str_name(&name).is_none()
                    || exact() != pattern.text
                {
                    return Err(self.error(
                        "expected a method: ZERO_SHOT, TIP_ADAPTER, GDA, PROKER, CLASS_MEAN or \
                         TIP_ADAPTER_F",
                    ));
                }
                let text = Pattern {
                    text: name,
                    ..pattern
                };
                (None, Wanted::Text(text))
            }
            Kind::Flag => {
                if ordered {
                    self.at = operator_at;
                    return Err(self.error("true and false take = and != only"));
                }
                match exact() {
                    "true" => (None, Wanted::Flag(true)),
                    "false" => (None, Wanted::Flag(false)),
                    _ => return Err(self.error("expected true or false")),
                }
            }
            Kind::Number | Kind::Time if operator == Operator::Has => {
                self.at = operator_at;
                return Err(self.error("expected one of = != < <= > >="));
            }
            Kind::Number => match exact().parse() {
                Ok(number) => (None, Wanted::Number(number)),
                Err(_) => return Err(self.error("expected a whole number")),
            },
            Kind::Time => match DateTime::parse_from_rfc3339(exact()) {
                Ok(time) => (None, Wanted::Time(time.to_utc())),
                Err(_) => {
                    return Err(self.error("expected a time such as 2026-01-31T12:00:00Z"));
                }
            },
        };
        debug_assert!(start < end);
        self.at = end;
        Ok(Restriction {
            field,
            key,
            operator,
            wanted,
        })
    }

    /// A field of the schema, with the key of a label.
    fn field(
        &mut self,
        schema: &Schema,
    ) -> Result<(&'static str, Kind, Option<String>), RequestError> {
        let start = self.at;
        let word = self.word();
        for &(field, kind) in schema {
            if word == field {
                return Ok((field, kind, None));
            }
            let key = word.strip_prefix(field).and_then(|w| w.strip_prefix('.'));
            if let (Kind::Labels, Some(key)) = (kind, key) {
                let key = match key {
                    "" => self.value()?.text,
                    key => key.to_owned(),
                };
                return Ok((field, kind, Some(key)));
            }
        }
        self.at = start;
        let names: Vec<String> = schema
            .iter()
            .map(|(field, kind)| match kind {
                Kind::Labels => format!("{field}.KEY"),
                _ => (*field).to_owned(),
            })
            .collect();
        Err(self.error(&format!("expected one of the fields {}", names.join(", "))))
    }

    /// A value: in quotes, with `\` before a quote, a `\` or a `*` that is
    /// meant; or all up to the next space.
    fn value(&mut self) -> Result<Pattern, RequestError> {
        let rest = self.rest();
        let mut chars = rest.char_indices();
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
        let mut letters: Vec<(char, bool)> = Vec::new();
        let mut end = rest.len();
        if let Some(quote) = quote {
            chars.next();
            let mut closed = false;
            while let Some((at, c)) = chars.next() {
                match c {
                    '\\' => match chars.next() {
                        Some((_, meant)) => letters.push((meant, true)),
                        None => break,
                    },
                    c if c == quote => {
                        (closed, end) = (true, at + c.len_utf8());
                        break;
                    }
                    c => letters.push((c, false)),
                }
            }
            if !closed {
                return Err(self.error(&format!("the closing {quote} is missing")));
            }
        } else {
            for (at, c) in chars {
                if c.is_whitespace() || matches!(c, '(' | ')') {
                    end = at;
                    break;
                }
                letters.push((c, false));
            }
            if letters.is_empty() {
                return Err(self.error("expected a value"));
            }
        }
        self.at += end;
        let star = |letter: Option<&(char, bool)>| letter == Some(&('*', false));
        let any_start = star(letters.first());
        if any_start {
            letters.remove(0);
        }
        let any_end = star(letters.last());
        if any_end {
            letters.pop();
        }
        // A lone * is any text.
        let (any_start, any_end) = match letters.is_empty() && (any_start || any_end) {
            true => (true, true),
            false => (any_start, any_end),
        };
        Ok(Pattern {
            text: letters.into_iter().map(|(c, _)| c).collect(),
            any_start,
            any_end,
        })
    }
}

#[cfg(test)]
mod tests {
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
}
