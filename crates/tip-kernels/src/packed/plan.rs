//! How the work of a head is cut into items.

use std::ops::Range;

use crate::team;

/// Panels in an item of work, for heads of up to ITEMS times as many; more in
/// larger heads. Never a question of threads, so that sums never depend on them.
const ITEM_PANELS: usize = 8;
const ITEMS: usize = 256;
/// Rows in an item if there are too few panels to go round.
const ITEM_ROWS: usize = 64;

/// How panels × rows is cut into items.
pub(super) struct Plan {
    panels: usize,
    rows: usize,
    item_panels: usize,
    /// Rows of features that one work item multiplies.
    pub item_rows: usize,
    /// Items that a run of panels is cut into, by rows.
    pub row_items: usize,
}

impl Plan {
    pub fn new(panels: usize, rows: usize, alone: bool) -> Self {
        let item_panels = ITEM_PANELS.max(panels.div_ceil(ITEMS));
        let enough = alone || panels.div_ceil(item_panels) >= 4 * team::threads();
        let item_rows = if enough { rows } else { ITEM_ROWS };
        Self {
            panels,
            rows,
            item_panels,
            item_rows,
            row_items: rows.div_ceil(item_rows),
        }
    }

    pub fn panel_items(&self) -> usize {
        self.panels.div_ceil(self.item_panels)
    }

    pub fn items(&self) -> usize {
        self.panel_items() * self.row_items
    }

    pub fn panel_range(&self, p: usize) -> Range<usize> {
        p * self.item_panels..((p + 1) * self.item_panels).min(self.panels)
    }

    pub fn item(&self, i: usize) -> (Range<usize>, Range<usize>) {
        let row = i % self.row_items * self.item_rows;
        (
            self.panel_range(i / self.row_items),
            row..(row + self.item_rows).min(self.rows),
        )
    }
}
