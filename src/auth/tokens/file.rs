//! The tokens file: one entry per token.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::{
    super::rates::{RateSettings, Rates},
    Token, Tokens,
    hash::TokenHash,
};
use tipserve_api::{
    methods::Role,
    tokens::{check_name, check_prefix},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub token: Vec<Entry>,
}

/// As [`RateSettings`], which `flatten` and `deny_unknown_fields` do not let
/// in whole.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub name: String,
    hash: String,
    role: Role,
    #[serde(default)]
    prefix: String,
    expires: Option<toml::value::Datetime>,
    requests_per_second: Option<f64>,
    requests_burst: Option<u32>,
    items_per_second: Option<f64>,
    items_burst: Option<u32>,
    max_streams: Option<usize>,
}

impl Entry {
    pub fn into_token(self, previous: Option<&Tokens>) -> Result<Token, String> {
        check_name(&self.name)?;
        check_prefix(&self.prefix)?;
        let hash = TokenHash::parse(&self.hash)?;
        let expires = match self.expires {
            None => None,
            Some(at) => {
                let at = at.to_string();
                let parsed = DateTime::parse_from_rfc3339(&at).map_err(|_| {
                    format!("expires = {at} needs date, time and offset, as 2027-01-31T00:00:00Z")
                })?;
                Some(parsed.with_timezone(&Utc))
            }
        };
        let settings = RateSettings {
            requests_per_second: self.requests_per_second,
            requests_burst: self.requests_burst,
            items_per_second: self.items_per_second,
            items_burst: self.items_burst,
            max_streams: self.max_streams,
        };
        // What a token has used stays used when the file changes elsewhere.
        let known = previous.and_then(|previous| previous.named(&self.name));
        let rates = match known {
            Some(known) if *known.rates.settings() == settings => Arc::clone(&known.rates),
            _ => Arc::new(Rates::new(settings)?),
        };
        Ok(Token {
            name: self.name,
            role: self.role,
            prefix: self.prefix,
            expires,
            rates,
            hash,
        })
    }
}
