//! Where the keys of each class lie in the panels.

/// A run of keys of one class inside a panel.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Index of the class that the run's keys belong to.
    pub class: u32,
    /// First key in the panel.
    pub start: u8,
    /// One past the last row of the run within its panel.
    pub end: u8,
}

/// Where the runs of each class lie, for keys sorted by class.
pub struct Segments {
    /// Per panel, its first entry in `runs`; one more at the end.
    first: Vec<u32>,
    runs: Vec<Segment>,
}

impl Segments {
    /// From labels in ascending order.
    pub fn new(labels: &[u32], panel: usize) -> Self {
        let mut first = vec![0];
        let mut runs: Vec<Segment> = Vec::new();
        for labels in labels.chunks(panel) {
            let mut start = 0;
            for same in labels.chunk_by(|a, b| a == b) {
                let end = start + same.len();
                // A panel is at most 48 wide, a chunk never empty.
                runs.push(Segment {
                    class: same[0],
                    start: start as u8,
                    end: end as u8,
                });
                start = end;
            }
            first.push(runs.len() as u32);
        }
        Self { first, runs }
    }

    /// The runs in a panel.
    pub fn of(&self, panel: usize) -> &[Segment] {
        &self.runs[self.first[panel] as usize..self.first[panel + 1] as usize]
    }

    /// Heap bytes of the segment lists.
    pub fn size_bytes(&self) -> usize {
        self.first.len() * 4 + self.runs.len() * size_of::<Segment>()
    }
}
