//! The seeded draw of shots.
//!
//! Within a class, examples are ordered by SHA-256 of "SEED/ID" (the seed in
//! decimal, the id in UTF-8), and the first K are taken. So the draw depends
//! on nothing but seed and ids: not on the order of files, the platform, or a
//! generator's version; any language repeats it in one line, and a file that
//! is added changes at most one shot of its class.

use sha2::{Digest as _, Sha256};

/// Something that can be drawn.
pub trait Drawable {
    /// Its id, unique in its source.
    fn id(&self) -> &str;
    /// Its class.
    fn class(&self) -> usize;
}

/// Splits `examples` into `count` a class and the rest, both in the order of
/// `examples`. A class that has fewer gives all.
pub fn split<T: Drawable>(examples: Vec<T>, seed: u64, count: usize) -> (Vec<T>, Vec<T>) {
    let mut order: Vec<(usize, [u8; 32], usize)> = examples
        .iter()
        .enumerate()
        .map(|(place, example)| {
            let hash = Sha256::digest(format!("{seed}/{}", example.id()));
            (example.class(), hash.into(), place)
        })
        .collect();
    order.sort_unstable();
    let mut taken = vec![false; examples.len()];
    let (mut class, mut rank) = (None, 0);
    for (of_class, _, place) in order {
        if class != Some(of_class) {
            (class, rank) = (Some(of_class), 0);
        }
        if let Some(slot) = taken.get_mut(place) {
            *slot = rank < count;
        }
        rank += 1;
    }
    let (drawn, rest): (Vec<_>, Vec<_>) = examples
        .into_iter()
        .zip(taken)
        .partition(|(_, taken)| *taken);
    let strip = |list: Vec<(T, bool)>| list.into_iter().map(|(example, _)| example).collect();
    (strip(drawn), strip(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct One(String, usize);

    impl Drawable for One {
        fn id(&self) -> &str {
            &self.0
        }
        fn class(&self) -> usize {
            self.1
        }
    }

    fn some() -> Vec<One> {
        (0..30)
            .map(|i| One(format!("c{}/{i}.png", i % 3), i % 3))
            .collect()
    }

    #[test]
    fn a_draw_is_exact_repeatable_and_free_of_order() {
        let (drawn, rest) = split(some(), 7, 4);
        assert_eq!((drawn.len(), rest.len()), (12, 18));
        for class in 0..3 {
            assert_eq!(drawn.iter().filter(|one| one.1 == class).count(), 4);
        }
        let mut backwards = some();
        backwards.reverse();
        let (mut again, _) = split(backwards, 7, 4);
        again.reverse();
        assert_eq!(drawn, again);
        assert_ne!(drawn, split(some(), 8, 4).0);
        // More shots keep those of fewer.
        let (more, _) = split(some(), 7, 5);
        assert!(drawn.iter().all(|one| more.contains(one)));
    }

    #[test]
    fn a_small_class_gives_all() {
        let (drawn, rest) = split(some(), 1, 99);
        assert_eq!((drawn, rest), (some(), vec![]));
    }

    #[test]
    fn the_documented_formula() {
        // python3 -c 'import hashlib
        // ids = [f"x/{i}" for i in range(8)]
        // print(sorted(ids, key=lambda i: hashlib.sha256(f"3/{i}".encode()).digest())[:3])'
        let ids = (0..8).map(|i| One(format!("x/{i}"), 0)).collect();
        let (drawn, _) = split(ids, 3, 3);
        let drawn: Vec<_> = drawn.iter().map(|one| one.0.as_str()).collect();
        assert_eq!(drawn, ["x/1", "x/2", "x/6"]);
    }
}
