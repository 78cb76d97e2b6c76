//! Reading a filter's text, restriction by restriction.

use chrono::DateTime;

use super::{Kind, OPERATORS, Operator, Pattern, Restriction, Schema, Wanted};
use crate::rpc::request::RequestError;

/// Characters of a token that an error quotes.
const SHOWN: usize = 40;
/// What ends a bare word.
const MARKS: &[char] = &['=', '!', '<', '>', ':', '(', ')', '"', '\''];

pub(super) struct Scanner<'a> {
    pub text: &'a str,
    /// In bytes.
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
                if tipserve_api::v1::Method::from_str_name(&name).is_none()
                    || exact() != pattern.text
                {
                    return Err(self.error(
                        "expected a method: ZERO_SHOT, TIP_ADAPTER, GDA, PROKER, CLASS_MEAN, \
                         TIP_ADAPTER_F or STACK",
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
