//! Runs of classes that have equally many keys: their sums are those of rows of
//! equal length.

/// Runs of classes with equally many keys above which tiles are fewer.
const RUNS: usize = 256;

/// `classes` columns from `column` on, each of `each` keys, the first of them
/// `start`.
pub(super) struct Run {
    pub start: i64,
    pub column: i64,
    pub classes: i64,
    pub each: i64,
}

impl Run {
    /// Itself in parts of at most `most` keys: some classes, or, where a class
    /// has more, some keys of one.
    pub fn cut(&self, most: i64) -> impl Iterator<Item = Run> {
        let classes = (most / self.each).clamp(1, self.classes);
        let each = self.each.min(most);
        (0..self.classes)
            .step_by(classes as usize)
            .flat_map(move |class| {
                (0..self.each).step_by(each as usize).map(move |key| Run {
                    start: self.start + class * self.each + key,
                    column: self.column + class,
                    classes: classes.min(self.classes - class),
                    each: each.min(self.each - key),
                })
            })
    }
}

/// Keys sorted by how many their class has, then by class.
pub(super) struct ByCount {
    /// Where each key was among those sorted by class.
    pub order: Vec<i64>,
    /// The class of each key.
    pub labels: Vec<i64>,
    pub runs: Vec<Run>,
    /// The classes, in the order of the runs.
    pub columns: Vec<i64>,
    /// Too many runs to be of use: the keys stay in the order of their classes.
    pub sorted: bool,
}

impl ByCount {
    pub fn new(sorted_labels: &[u32]) -> Self {
        // (count, class, first key) of every class that has one.
        let mut classes: Vec<(i64, i64, i64)> = Vec::new();
        for (at, &class) in sorted_labels.iter().enumerate() {
            match classes.last_mut() {
                Some((count, last, _)) if *last == i64::from(class) => *count += 1,
                _ => classes.push((1, i64::from(class), at as i64)),
            }
        }
        let by_class = classes.clone();
        classes.sort_unstable();
        let mut runs: Vec<Run> = Vec::new();
        let mut start = 0;
        for (column, &(each, ..)) in classes.iter().enumerate() {
            match runs.last_mut() {
                Some(run) if run.each == each => run.classes += 1,
                _ => runs.push(Run {
                    start,
                    column: column as i64,
                    classes: 1,
                    each,
                }),
            }
            start += each;
        }
        let sorted = runs.len() > RUNS;
        if sorted {
            classes = by_class;
        }
        Self {
            order: (classes.iter())
                .flat_map(|&(count, _, first)| first..first + count)
                .collect(),
            labels: (classes.iter())
                .flat_map(|&(count, class, _)| std::iter::repeat_n(class, count as usize))
                .collect(),
            columns: classes.iter().map(|&(_, class, _)| class).collect(),
            runs,
            sorted,
        }
    }
}
