//! The pages that browsers may call from.

use std::str::FromStr;

use http::HeaderValue;

/// A page's origin that is allowed: `https://example.org`, with its port where
/// that is not the scheme's, or `*` for every page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(HeaderValue);

/// The rule that an [`Origin`] follows, for help and errors.
pub const ORIGIN_RULE: &str = "*, or scheme://host[:port] as browsers send it: lower case, no path";

impl Origin {
    /// As a browser's header has it.
    pub fn value(&self) -> &HeaderValue {
        &self.0
    }
}

impl FromStr for Origin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Origin, &'static str> {
        let is_origin = text.split_once("://").is_some_and(|(scheme, host)| {
            !scheme.is_empty()
                && !host.is_empty()
                && !host.contains(['/', '?', '#', '@', '*'])
                && !text.contains(|c: char| c.is_ascii_uppercase() || c.is_whitespace())
        });
        match HeaderValue::from_str(text) {
            Ok(value) if is_origin || text == "*" => Ok(Origin(value)),
            _ => Err(ORIGIN_RULE),
        }
    }
}
