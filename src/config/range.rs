//! What values the settings may have.

use super::ConfigError;

/// A value in its range.
pub(super) fn within<T: PartialOrd + ToString>(
    name: &'static str,
    value: T,
    low: T,
    high: T,
    range: &'static str,
) -> Result<T, ConfigError> {
    // Not a number is in no range.
    if !(low..=high).contains(&value) {
        return Err(ConfigError::Range {
            name,
            value: value.to_string(),
            range,
        });
    }
    Ok(value)
}

const SOME: &str = "1 to 1,000,000,000";
const BYTES: &str = "1 KiB to 1 PiB";

/// A number of things, at least one.
pub(super) fn count(
    name: &'static str,
    given: Option<usize>,
    default: usize,
) -> Result<usize, ConfigError> {
    within(name, given.unwrap_or(default), 1, 1_000_000_000, SOME)
}

/// A number of bytes, at least a kibibyte.
pub(super) fn bytes(
    name: &'static str,
    given: Option<usize>,
    default: usize,
) -> Result<usize, ConfigError> {
    within(name, given.unwrap_or(default), 1 << 10, 1 << 50, BYTES)
}

/// A number of threads, absent if the device decides.
pub(super) fn threads(
    name: &'static str,
    given: Option<usize>,
) -> Result<Option<usize>, ConfigError> {
    given
        .map(|value| within(name, value, 1, 1024, "1 to 1024"))
        .transpose()
}
