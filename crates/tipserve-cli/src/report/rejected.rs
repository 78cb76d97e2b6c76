//! Examples that could not be used.

use crate::{documents::RejectedDocument, screen::Screen, terminal::escaped_line};

/// Rejections that are shown one by one.
const SHOWN: usize = 20;

/// Examples that could not be used, on standard error.
pub(crate) fn rejected(screen: &Screen, rejected: &[RejectedDocument], count: i64) {
    if count == 0 {
        return;
    }
    screen.error(&format!("{count} could not be used:"));
    for one in rejected.iter().take(SHOWN) {
        let reason = one.error.reason.as_deref().unwrap_or(&one.error.code);
        let text = format!("{}: {} [{reason}]", one.id, one.error.message);
        screen.error(&format!("  {}", escaped_line(&text)));
    }
    let more = count - rejected.len().min(SHOWN) as i64;
    if more > 0 {
        screen.error(&format!("  and {more} more (--json lists them)"));
    }
}
