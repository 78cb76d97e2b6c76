//! The rules of settings: default and range, as the code checks them and as
//! `--help`, errors and the table in docs/operations.md show them.

use std::fmt::Display;

use super::ConfigError;

/// Range of a count: at least one.
pub(super) const COUNT: (u64, u64) = (1, 1_000_000_000);
/// Range of a size in bytes: at least a kibibyte.
pub(super) const BYTES: (u64, u64) = (1 << 10, 1 << 50);
/// Range of a thread count.
pub(super) const THREADS: (u64, u64) = (1, 1024);

/// The declaration of a setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its key in the TOML file; the flag is the same with hyphens.
    pub name: &'static str,
    /// Its environment variable.
    pub variable: &'static str,
    /// What `--help` calls its value; sizes are called "BYTES".
    pub value_name: &'static str,
    /// What it sets, in one sentence.
    pub help: &'static str,
    /// Its default and allowed values.
    pub rule: Rule,
}

/// A setting's default and allowed values.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    default: Default,
    values: Values,
    note: &'static str,
    limit: bool,
}

#[derive(Clone, Copy, Debug)]
enum Default {
    Number(u64),
    Text(&'static str),
    /// Computed at the start: how, in words.
    Decided(&'static str),
    /// What applies without it, in words that `--help` leaves out.
    Unset(&'static str),
    Required,
}

#[derive(Clone, Copy, Debug)]
enum Values {
    Range(u64, u64),
    /// In words; checked by the parser of the value.
    Words(&'static str),
}

const fn rule(default: Default, values: Values) -> Rule {
    Rule {
        default,
        values,
        note: "",
        limit: false,
    }
}

/// A whole number with a default.
pub(super) const fn number(default: u64, (low, high): (u64, u64)) -> Rule {
    rule(Default::Number(default), Values::Range(low, high))
}

/// A whole number that is computed at the start if it is not given; `how` says
/// from what.
pub(super) const fn decided(how: &'static str, (low, high): (u64, u64)) -> Rule {
    rule(Default::Decided(how), Values::Range(low, high))
}

/// A text with a default.
pub(super) const fn text(default: &'static str, values: &'static str) -> Rule {
    rule(Default::Text(default), Values::Words(values))
}

/// A value whose default depends on something else: `default` says on what.
pub(super) const fn otherwise(default: &'static str, values: &'static str) -> Rule {
    rule(Default::Decided(default), Values::Words(values))
}

/// A value that may be left out: `without` says what applies then.
pub(super) const fn optional(without: &'static str, values: &'static str) -> Rule {
    rule(Default::Unset(without), Values::Words(values))
}

/// A value that must be given.
pub(super) const fn required(values: &'static str) -> Rule {
    rule(Default::Required, Values::Words(values))
}

impl Rule {
    /// Adds a note that the documentation shows after the default.
    pub(super) const fn note(mut self, note: &'static str) -> Rule {
        self.note = note;
        self
    }

    /// Makes it one of the limits that `GetServerInfo` reports.
    pub(super) const fn limit(mut self) -> Rule {
        self.limit = true;
        self
    }
}

impl Setting {
    /// The flag without its leading hyphens.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// Whether `GetServerInfo` reports it.
    pub fn is_limit(&self) -> bool {
        self.rule.limit
    }

    /// Its default, if that is a number.
    pub fn default_number(&self) -> Option<u64> {
        match self.rule.default {
            Default::Number(number) => Some(number),
            _ => None,
        }
    }

    /// The given number, or the default.
    ///
    /// # Errors
    /// [`ConfigError::Range`]; [`ConfigError::Missing`] if it has no default.
    pub(super) fn value<T>(&self, given: Option<T>) -> Result<T, ConfigError>
    where
        T: TryFrom<u64> + TryInto<u64> + Copy + Display,
    {
        let default = || {
            self.default_number()
                .and_then(|number| T::try_from(number).ok())
        };
        let value = given.or_else(default).ok_or(ConfigError::Missing {
            name: self.name,
            env: self.variable,
        })?;
        self.check(value).map(|()| value)
    }

    /// The given number, or `None`: the default then depends on the device.
    ///
    /// # Errors
    /// [`ConfigError::Range`].
    pub(super) fn if_given<T>(&self, given: Option<T>) -> Result<Option<T>, ConfigError>
    where
        T: TryInto<u64> + Copy + Display,
    {
        given.map_or(Ok(()), |value| self.check(value))?;
        Ok(given)
    }

    fn check<T: TryInto<u64> + Copy + Display>(&self, value: T) -> Result<(), ConfigError> {
        let Values::Range(low, high) = self.rule.values else {
            return Ok(());
        };
        match value.try_into() {
            Ok(number) if (low..=high).contains(&number) => Ok(()),
            _ => Err(self.out_of_range(value)),
        }
    }

    /// The error for a value outside its range.
    pub(super) fn out_of_range(&self, value: impl Display) -> ConfigError {
        ConfigError::Range {
            name: self.name,
            value: value.to_string(),
            range: self.values(),
        }
    }

    /// Its text in `--help`.
    pub fn help_text(&self) -> String {
        let help = self.help.trim().trim_end_matches('.');
        match self.rule.default {
            Default::Required | Default::Unset(_) => help.to_owned(),
            _ => format!("{help} [default: {}]", self.default()),
        }
    }

    /// Its row in the table of docs/operations.md.
    pub fn documentation(&self) -> String {
        let default = match self.rule.default {
            Default::Text(text) => format!("`{text}`"),
            _ => self.default(),
        };
        format!(
            "| `--{}` | `{}` | `{}` | {default}{} | {} |",
            self.flag(),
            self.variable,
            self.name,
            self.rule.note,
            self.values()
        )
    }

    fn default(&self) -> String {
        match self.rule.default {
            Default::Number(number) => self.amount(number),
            Default::Text(text) | Default::Decided(text) | Default::Unset(text) => text.to_owned(),
            Default::Required => "required".to_owned(),
        }
    }

    fn values(&self) -> String {
        match self.rule.values {
            Values::Range(low, high) => format!("{} to {}", self.amount(low), self.amount(high)),
            Values::Words(words) => words.to_owned(),
        }
    }

    /// A number, or a size in the largest unit that divides it.
    fn amount(&self, number: u64) -> String {
        const UNITS: [(u64, &str); 5] = [
            (1 << 50, "PiB"),
            (1 << 40, "TiB"),
            (1 << 30, "GiB"),
            (1 << 20, "MiB"),
            (1 << 10, "KiB"),
        ];
        let unit = UNITS.into_iter().find(|(size, _)| {
            self.value_name == "BYTES" && number >= *size && number.is_multiple_of(*size)
        });
        match unit {
            Some((size, name)) => format!("{} {name}", number / size),
            None => grouped(number),
        }
    }
}

/// Digits in threes, from five digits on.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    if digits.len() < 5 {
        return digits;
    }
    let first = digits.len() % 3;
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && index % 3 == first {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(value_name: &'static str, rule: Rule) -> Setting {
        Setting {
            name: "max_things",
            variable: "TIPSERVE_MAX_THINGS",
            value_name,
            help: " Most things.",
            rule,
        }
    }

    #[test]
    fn amounts_are_written_for_people() {
        let numbers = setting("N", number(8192, COUNT).note(" at once"));
        assert_eq!(numbers.help_text(), "Most things [default: 8192]");
        assert_eq!(
            numbers.documentation(),
            "| `--max-things` | `TIPSERVE_MAX_THINGS` | `max_things` | 8192 at once | 1 to \
             1,000,000,000 |"
        );
        let sizes = setting("BYTES", number(640 << 20, (1 << 10, 1 << 40)));
        assert_eq!(sizes.help_text(), "Most things [default: 640 MiB]");
        assert!(sizes.documentation().ends_with("| 1 KiB to 1 TiB |"));
        assert_eq!(
            [grouped(64_000_000), grouped(10_000), grouped(123_456)],
            ["64,000,000", "10,000", "123,456"]
        );
    }

    #[test]
    fn a_number_is_given_or_the_default_and_in_its_range() {
        let numbers = setting("N", number(3, (1, 4)));
        assert_eq!(numbers.value(None::<usize>).expect("the default"), 3);
        assert_eq!(numbers.value(Some(4_u32)).expect("in range"), 4);
        let error = numbers.value(Some(5_u64)).expect_err("over");
        assert_eq!(
            error.to_string(),
            "max_things = 5 is outside its range 1 to 4"
        );
        let chosen = setting("N", decided("by the device", (1, 4)));
        assert_eq!(chosen.if_given(None::<usize>).expect("none"), None);
        assert!(chosen.if_given(Some(0_usize)).is_err());
        assert!(chosen.value(None::<usize>).is_err());
    }
}
