//! Reading a filter's text, restriction by restriction.

use std::borrow::Cow;

use chrono::DateTime;

use super::{Kind, OPERATORS, Operand, Operator, Pattern, Restriction, Schema};
use crate::rpc::request::RequestError;
use tip_spec::Method;

/// Characters of a token that an error quotes.
const SHOWN: usize = 40;
/// What ends a bare word.
const MARKS: &[char] = &['=', '!', '<', '>', ':', '(', ')', '"', '\''];

pub(super) struct Scanner<'a> {
    pub text: &'a str,
    /// How far the text has been read, in bytes.
    pub at: usize,
}

impl<'a> Scanner<'a> {
    pub fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    pub fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// The problem of what stands here.
    pub fn error(&self, problem: &str) -> RequestError {
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
    pub fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c: char| c.is_whitespace() || MARKS.contains(&c));
        let word = rest.get(..end.unwrap_or(rest.len())).unwrap_or("");
        self.at += word.len();
        word
    }

    pub fn restriction(&mut self, schema: &Schema) -> Result<Restriction, RequestError> {
        let (field, kind, key) = self.field(schema)?;
        let after_field = self.at;
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
        let end = self.at;
        let written = self.text.get(value_at..end).unwrap_or("");
        let (key, wanted) = match kind {
            Kind::Labels if key.is_some() => (key, Ok(Operand::Text(pattern))),
            Kind::Labels if operator == Operator::Has => (Some(pattern.text), Ok(Operand::Present)),
            Kind::Labels => {
                let problem = "expected labels.KEY, or labels:KEY";
                (None, Err((after_field, Cow::Borrowed(problem))))
            }
            _ => {
                let wanted = wanted(kind, operator, pattern, written);
                let at = |problem| match problem {
                    Misfit::Operator(problem) => (operator_at, Cow::Borrowed(problem)),
                    Misfit::Value(problem) => (value_at, problem),
                };
                (None, wanted.map_err(at))
            }
        };
        let wanted = wanted.map_err(|(at, problem)| {
            self.at = at;
            self.error(&problem)
        })?;
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

/// What does not fit a field's kind, and why.
enum Misfit {
    Operator(&'static str),
    Value(Cow<'static, str>),
}

/// What a restriction on a field of some kind asks for. `written` is the value
/// as it stands in the filter; where it has a wildcard it is taken literally by
/// all kinds but texts.
fn wanted(
    kind: Kind,
    operator: Operator,
    pattern: Pattern,
    written: &str,
) -> Result<Operand, Misfit> {
    let exact = match pattern.any_start || pattern.any_end {
        true => written,
        false => pattern.text.as_str(),
    };
    let ordered = !matches!(operator, Operator::Equal | Operator::NotEqual);
    match kind {
        Kind::Labels | Kind::Text => Ok(Operand::Text(pattern)),
        Kind::Method if ordered => Err(Misfit::Operator("a method takes = and != only")),
        Kind::Method => method(exact, &pattern.text).map(Operand::Text),
        Kind::Flag if ordered => Err(Misfit::Operator("true and false take = and != only")),
        Kind::Flag => match exact {
            "true" => Ok(Operand::Flag(true)),
            "false" => Ok(Operand::Flag(false)),
            _ => Err(Misfit::Value("expected true or false".into())),
        },
        Kind::Number | Kind::Time if operator == Operator::Has => {
            Err(Misfit::Operator("expected one of = != < <= > >="))
        }
        Kind::Number => match exact.parse() {
            Ok(number) => Ok(Operand::Number(number)),
            Err(_) => Err(Misfit::Value("expected a whole number".into())),
        },
        Kind::Time => match DateTime::parse_from_rfc3339(exact) {
            Ok(time) => Ok(Operand::Time(time.to_utc())),
            Err(_) => Err(Misfit::Value(
                "expected a time such as 2026-01-31T12:00:00Z".into(),
            )),
        },
    }
}

/// The method of a name, with or without `METHOD_`, in either case.
fn method(exact: &str, text: &str) -> Result<Pattern, Misfit> {
    let upper = text.to_ascii_uppercase();
    let name = format!("METHOD_{}", upper.strip_prefix("METHOD_").unwrap_or(&upper));
    let known = Method::ALL.iter().any(|method| method.api_name() == name);
    if !known || exact != text {
        let names: Vec<&str> = Method::ALL
            .iter()
            .map(|method| method.api_name().trim_start_matches("METHOD_"))
            .collect();
        let names = names.join(", ");
        return Err(Misfit::Value(
            format!("expected a method: one of {names}").into(),
        ));
    }
    Ok(Pattern {
        text: name,
        any_start: false,
        any_end: false,
    })
}
