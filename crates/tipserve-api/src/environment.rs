//! Environment variables as settings: a blank one is not set, since Compose
//! writes `${AWS_SESSION_TOKEN:-}` as one.

use std::env;

/// A variable's value without spaces around it, if it is set and not blank.
pub fn variable(name: &str) -> Option<String> {
    let value = env::var(name).ok()?;
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

/// The variables whose names begin with `prefix`, without blank ones and those
/// that are not UTF-8.
pub fn variables(prefix: &str) -> impl Iterator<Item = (String, String)> {
    env::vars_os().filter_map(move |(name, value)| {
        let name = name.into_string().ok()?;
        let value = value.into_string().ok()?;
        (name.starts_with(prefix) && !value.trim().is_empty()).then_some((name, value))
    })
}
