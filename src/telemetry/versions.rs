//! Versions as values of a label: a bounded number, since a series lives as
//! long as the process.

use std::{collections::HashSet, sync::LazyLock};

use parking_lot::RwLock;

/// Versions with a series of their own.
const MOST: usize = 64;

/// The label of all other versions.
pub(super) const OTHERS: &str = "other";

static NAMED: LazyLock<RwLock<HashSet<String>>> = LazyLock::new(RwLock::default);

/// The value of the label `version` of "caches/pets/versions/3": "pets@3", or
/// "other" once there are enough.
pub(super) fn label(name: &str) -> String {
    let short = short(name);
    if NAMED.read().contains(&short) {
        return short;
    }
    let mut named = NAMED.write();
    if named.len() < MOST {
        named.insert(short.clone());
    }
    match named.contains(&short) {
        true => short,
        false => OTHERS.to_owned(),
    }
}

fn short(name: &str) -> String {
    let rest = name.strip_prefix("caches/").unwrap_or(name);
    match rest.split_once("/versions/") {
        Some((cache, version)) => format!("{cache}@{version}"),
        None => rest.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_are_bounded_and_stay_with_their_version() {
        let first = label("caches/first/versions/12");
        assert_eq!(first, "first@12");
        let labels: HashSet<String> = (0..1000)
            .map(|i| label(&format!("caches/x/versions/{i}")))
            .collect();
        assert!(labels.len() <= MOST + 1 && labels.contains(OTHERS));
        assert_eq!(label("caches/first/versions/12"), first);
    }
}
