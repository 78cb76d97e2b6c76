//! Filters of lists: the part of AIP-160 that lists of caches and examples
//! need. Restrictions (`FIELD OPERATOR VALUE`) joined by `AND`; no `OR`, `NOT`
//! or parentheses.

mod scan;

use std::cmp::Ordering;

use chrono::{DateTime, Utc};

use super::request::RequestError;
use scan::Scanner;
use tipserve_api::text::canonical;

/// Longest filter that is parsed, in bytes.
pub const MAX_BYTES: usize = 4096;

/// What a field's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Texts: every operator; `:` is "contains".
    Text,
    /// Whole numbers, compared as such.
    Number,
    /// Times, written as RFC 3339 has it.
    Time,
    /// `true` or `false`, for `=` and `!=`.
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
    /// A text, such as a name.
    Text(&'a str),
    /// A whole number, such as a count.
    Number(i64),
    /// A time, such as that of creation.
    Time(DateTime<Utc>),
    /// Whether something holds of the entry.
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
enum Operand {
    Text(Pattern),
    Number(i64),
    Time(DateTime<Utc>),
    Flag(bool),
    /// The label is there, whatever its value (`labels:KEY`).
    Present,
}

/// A text, with or without a wildcard at its beginning or end.
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
    /// The label's key, in a restriction of `labels`.
    key: Option<String>,
    operator: Operator,
    wanted: Operand,
}

/// A filter; the empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter(Vec<Restriction>);

impl Filter {
    /// Reads a filter over these fields.
    ///
    /// # Errors
    /// If it does not parse: the position (in characters, from 1), the token,
    /// and what could stand there.
    pub fn parse(text: &str, schema: &Schema) -> Result<Filter, RequestError> {
        RequestError::check("filter", "max_filter_bytes", MAX_BYTES, text.len())?;
        // Quotes and operators are what they are in every form.
        let text = &*canonical(text);
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

    /// Whether it looks at a field.
    pub fn restricts(&self, field: &str) -> bool {
        self.0.iter().any(|one| one.field == field)
    }

    /// Whether everything is let through.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an entry matches. `look` gives its value of a field, with the
    /// key if the field is a map; none if that is unknown: then it does not
    /// match.
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
            (Operand::Present, _) => true,
            (Operand::Text(pattern), Value::Text(text)) => {
                let text = &*canonical(text);
                match self.operator {
                    Operator::Equal => pattern.fits(text),
                    Operator::NotEqual => !pattern.fits(text),
                    Operator::Has => text.contains(&pattern.text),
                    other => other.holds(text.cmp(pattern.text.as_str())),
                }
            }
            (Operand::Number(wanted), Value::Number(number)) => {
                self.operator.holds(number.cmp(wanted))
            }
            (Operand::Time(wanted), Value::Time(time)) => self.operator.holds(time.cmp(wanted)),
            (Operand::Flag(wanted), Value::Flag(flag)) => self.operator.holds(flag.cmp(wanted)),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
