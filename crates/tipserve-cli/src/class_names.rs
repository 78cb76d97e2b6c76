//! Names of classes: how they are compared, and which are refused.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use crate::{
    failure::Failure,
    terminal::{escaped_line, is_harmful},
};
use tipserve_api::text::canonical;

/// A name as names are compared: in NFC, with '_' as a space.
fn plain(name: &str) -> String {
    canonical(name).replace('_', " ")
}

/// Refuses a name with a line break or another character that does something
/// to a terminal or a table.
pub(crate) fn refuse_control_characters(name: &str) -> Result<(), String> {
    match name.chars().find(|c| is_harmful(*c)) {
        None => Ok(()),
        Some(c) => Err(format!(
            "holds the control character U+{:04X}",
            u32::from(c)
        )),
    }
}

/// How the classes of a source were matched to a version's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MatchedBy {
    /// By their display names, in canonical form.
    Name,
    /// By their indices, since a name stands for several classes.
    Index,
}

impl fmt::Display for MatchedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "name",
            Self::Index => "index",
        })
    }
}

/// For each class of `given` its index in `known`.
///
/// Equal lists match index by index. Otherwise classes match by display name
/// (see [`plain`]); an unknown name is an error that names it. If a name
/// stands for several known classes, they are matched by index, provided that
/// `by_index` allows it and both sides have equally many classes.
pub(crate) fn match_classes(
    given: &[&str],
    given_as: &str,
    known: &[&str],
    known_as: &str,
    by_index: bool,
) -> Result<(Vec<usize>, MatchedBy), Failure> {
    if given == known {
        return Ok(((0..given.len()).collect(), MatchedBy::Name));
    }
    let mut indices: HashMap<String, Vec<usize>> = HashMap::new();
    for (index, name) in known.iter().enumerate() {
        indices.entry(plain(name)).or_default().push(index);
    }
    let ambiguous = given
        .iter()
        .find(|name| {
            indices
                .get(&plain(name))
                .is_some_and(|found| found.len() > 1)
        })
        .copied()
        .or_else(|| repeated(given));
    if let Some(name) = ambiguous {
        if by_index && given.len() == known.len() {
            return Ok(((0..given.len()).collect(), MatchedBy::Index));
        }
        return Err(Failure::Input(format!(
            "the class name {name:?} of {given_as} is not unique, so classes cannot be matched by \
             name to those of {known_as}, nor by index unless both have the same classes ({} here, \
             {} there)",
            given.len(),
            known.len()
        )));
    }
    let map = given
        .iter()
        .map(|name| {
            indices
                .get(&plain(name))
                .and_then(|found| found.first().copied())
                .ok_or_else(|| {
                    Failure::Input(format!(
                        "{given_as} has the class {name:?}, which {known_as} does not have ({})",
                        listed(known)
                    ))
                })
        })
        .collect::<Result<_, _>>()?;
    Ok((map, MatchedBy::Name))
}

/// For each class of `given` its index in `known`, or none if `known` has no
/// class of that name.
///
/// Matched as [`match_classes`] does it by name. A name that stands for several
/// classes of `known`, or that `given` has twice and `known` once, is an error.
pub(crate) fn match_or_new(
    given: &[&str],
    given_as: &str,
    known: &[&str],
    known_as: &str,
) -> Result<Vec<Option<usize>>, Failure> {
    if given == known {
        return Ok((0..given.len()).map(Some).collect());
    }
    let mut indices: HashMap<String, Vec<usize>> = HashMap::new();
    for (index, name) in known.iter().enumerate() {
        indices.entry(plain(name)).or_default().push(index);
    }
    let mut taken = HashSet::new();
    let mut map = Vec::with_capacity(given.len());
    for name in given {
        let found = indices.get(&plain(name)).map_or(&[][..], Vec::as_slice);
        match found {
            [] => map.push(None),
            [index] if taken.insert(*index) => map.push(Some(*index)),
            _ => {
                return Err(Failure::Input(format!(
                    "the class name {name:?} of {given_as} is not unique, here or in {known_as}, \
                     so its examples cannot be given to a class by name"
                )));
            }
        }
    }
    Ok(map)
}

fn repeated<'a>(names: &[&'a str]) -> Option<&'a str> {
    let mut seen = HashSet::new();
    names.iter().find(|name| !seen.insert(plain(name))).copied()
}

/// "its classes: a, b, c, … 1000 in all".
fn listed(names: &[&str]) -> String {
    let first = names
        .iter()
        .take(10)
        .map(|name| escaped_line(name))
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > 10 {
        format!("its classes: {first}, … {} in all", names.len())
    } else {
        format!("its classes: {first}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched(
        given: &[&str],
        known: &[&str],
        by_index: bool,
    ) -> Result<(Vec<usize>, MatchedBy), String> {
        match_classes(given, "G", known, "K", by_index).map_err(|failure| failure.to_string())
    }

    #[test]
    fn by_name_in_any_order_and_only_some() {
        assert_eq!(
            matched(&["b", "a"], &["a", "b", "c"], false),
            Ok((vec![1, 0], MatchedBy::Name))
        );
        assert_eq!(
            matched(&["x_y"], &["a", "x y"], false),
            Ok((vec![1], MatchedBy::Name))
        );
        // The same name in NFD and NFC.
        assert_eq!(
            matched(&["cafe\u{301}"], &["a", "caf\u{e9}"], false),
            Ok((vec![1], MatchedBy::Name))
        );
        let error = matched(&["dog"], &["a", "b"], true).unwrap_err();
        assert!(
            error.contains("\"dog\"") && error.contains("a, b"),
            "{error}"
        );
    }

    #[test]
    fn repeated_names_match_by_index_or_not_at_all() {
        let twice = ["crane", "crane", "x"];
        assert_eq!(
            matched(&twice, &twice, false),
            Ok((vec![0, 1, 2], MatchedBy::Name))
        );
        let other = ["crane", "crane", "y"];
        assert_eq!(
            matched(&other, &twice, true),
            Ok((vec![0, 1, 2], MatchedBy::Index))
        );
        assert!(
            matched(&other, &twice, false)
                .unwrap_err()
                .contains("crane")
        );
        assert!(matched(&["crane"], &twice, true).is_err());
        // A name that is unique on both sides is not ambiguous.
        assert_eq!(
            matched(&["x"], &twice, true),
            Ok((vec![2], MatchedBy::Name))
        );
    }

    #[test]
    fn unknown_names_are_new_classes() {
        let matched = |given: &[&str], known: &[&str]| match_or_new(given, "A", known, "B").ok();
        assert_eq!(
            matched(&["b", "x_y", "new", "new"], &["x y", "b"]),
            Some(vec![Some(1), Some(0), None, None])
        );
        // The same list needs no unique names.
        let twice = ["crane", "crane"];
        assert_eq!(matched(&twice, &twice), Some(vec![Some(0), Some(1)]));
        assert_eq!(matched(&["crane"], &twice), None);
        assert_eq!(matched(&twice, &["crane"]), None);
    }
}
