//! The rules that the values of `bundle.toml` are checked against.

/// A value that breaks a rule. `BundleError::Value` is the same with the path of
/// `bundle.toml`.
#[derive(Debug)]
pub(super) struct Violation {
    /// Dotted, as in `bundle.toml`: `image.parts[0].size`.
    pub(super) key: String,
    pub(super) value: String,
    /// What the value must be, to follow "key = value: ".
    pub(super) rule: &'static str,
}

/// `Ok` if the rule holds.
pub(super) fn ensure(
    holds: bool,
    key: &str,
    value: impl ToString,
    rule: &'static str,
) -> Result<(), Violation> {
    if holds {
        Ok(())
    } else {
        Err(Violation {
            key: key.into(),
            value: value.to_string(),
            rule,
        })
    }
}
