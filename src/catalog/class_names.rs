//! References to classes, by index or by display name.

use std::collections::HashMap;

use tipserve_api::text::{canonical, into_canonical};

/// A client's reference to a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClassRef {
    /// By its index among the version's classes.
    Index(i32),
    /// By its display name, in canonical form.
    Name(String),
}

impl ClassRef {
    /// The reference of a message with both fields: the name, if there is one;
    /// an index besides it is an error.
    ///
    /// # Errors
    /// If both are given.
    pub fn of(index: i32, name: String) -> Result<ClassRef, String> {
        match (index, name.is_empty()) {
            (index, true) => Ok(ClassRef::Index(index)),
            (0, false) => Ok(ClassRef::Name(into_canonical(name))),
            (_, false) => Err("class_index and class_name exclude each other".to_owned()),
        }
    }
}

/// Classes by their display names. Names need not be unique: one that several
/// classes share refers to none of them.
#[derive(Clone, Debug, Default)]
pub struct ClassNames {
    by_name: HashMap<String, Named>,
    count: usize,
}

#[derive(Clone, Copy, Debug)]
enum Named {
    One(usize),
    Several,
}

impl ClassNames {
    /// The names of the classes, in the order of their indices.
    pub fn new<'a>(names: impl Iterator<Item = &'a str>) -> ClassNames {
        let mut classes = ClassNames::default();
        for name in names {
            let index = classes.count;
            classes.count += 1;
            classes
                .by_name
                .entry(canonical(name).into_owned())
                .and_modify(|named| *named = Named::Several)
                .or_insert(Named::One(index));
        }
        classes
    }

    /// The index of a class.
    ///
    /// # Errors
    /// The problem, in words, if there is no such class.
    pub fn find(&self, class: &ClassRef) -> Result<usize, String> {
        match class {
            ClassRef::Index(index) => usize::try_from(*index)
                .ok()
                .filter(|class| *class < self.count)
                .ok_or_else(|| format!("{index} is not in 0..{}", self.count)),
            ClassRef::Name(name) => match self.by_name.get(name) {
                Some(Named::One(index)) => Ok(*index),
                Some(Named::Several) => Err(format!(
                    "several classes are called {name:?}: say its class_index"
                )),
                None => Err(format!("no class is called {name:?}")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ClassNames, ClassRef};

    #[test]
    fn a_class_is_found_by_index_and_by_any_form_of_its_name() {
        let classes = ClassNames::new(["cat", "caf\u{e9}", "cat"].into_iter());
        let named = |name: &str| ClassRef::of(0, name.to_owned()).and_then(|c| classes.find(&c));
        assert_eq!(classes.find(&ClassRef::Index(2)), Ok(2));
        assert_eq!(named("cafe\u{301}"), Ok(1), "names are compared in NFC");
        assert!(named("cat").unwrap_err().contains("several classes"));
        assert!(
            named("dog")
                .unwrap_err()
                .contains("no class is called \"dog\"")
        );
        for index in [-1, 3] {
            let problem = classes.find(&ClassRef::Index(index)).unwrap_err();
            assert_eq!(problem, format!("{index} is not in 0..3"));
        }
        assert!(ClassRef::of(1, "cat".to_owned()).is_err());
    }
}
