//! The flags that say what a version is, who makes it, and on what condition.

use std::collections::HashMap;

use clap::Args;

/// What goes with a version, besides its numbers.
#[derive(Clone, Debug, Default, Args)]
pub struct AboutArgs {
    /// Description of the version.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub description: String,
    /// A label of your own; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub label: Vec<(String, String)>,
    /// Who makes the version [default: your login name].
    #[arg(long, value_name = "NAME")]
    pub created_by: Option<String>,
}

impl AboutArgs {
    /// The labels as a map.
    pub fn labels(&self) -> HashMap<String, String> {
        self.label.iter().cloned().collect()
    }

    /// Who makes it: as given, else the login name, else nobody.
    pub fn creator(&self) -> String {
        let login = || {
            ["USER", "LOGNAME"]
                .into_iter()
                .filter_map(|name| std::env::var(name).ok())
                .find(|name| !name.trim().is_empty())
        };
        self.created_by.clone().or_else(login).unwrap_or_default()
    }
}

/// A change that is to happen only if nobody else came first.
#[derive(Clone, Debug, Default, Args)]
pub struct ConditionArgs {
    /// Change nothing if the cache has another etag by now (`caches show` prints
    /// it); the exit code is then 6.
    #[arg(
        long,
        value_name = "ETAG",
        default_value = "",
        hide_default_value = true
    )]
    pub if_etag: String,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be KEY=VALUE".to_owned()),
    }
}
