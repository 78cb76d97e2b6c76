//! A decoder that panics on a hostile file costs that file and one log line.

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook},
    sync::Once,
};

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `decoder`; a panic in it is returned as its message and place, and not
/// printed.
///
/// The first call puts a hook before the process's panic hook, which still
/// reports every other panic.
///
/// # Errors
/// The panic's message and place in the source.
pub(super) fn contained<T>(decoder: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |panic| {
            if CONTAINED.get() {
                LAST.with(|last| *last.borrow_mut() = Some(describe(panic)));
            } else {
                others(panic);
            }
        }));
    });
    let outer = CONTAINED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(decoder));
    CONTAINED.set(outer);
    result.map_err(|_| {
        let last = LAST.with(|last| last.borrow_mut().take());
        last.unwrap_or_else(|| "a panic without a message".to_owned())
    })
}

fn describe(panic: &PanicHookInfo) -> String {
    let payload = panic.payload();
    let message = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    match panic.location() {
        Some(place) => format!("{message} ({}:{})", place.file(), place.line()),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_and_later_calls_work() {
        let error = contained(|| -> u8 { panic!("index {} of {}", 7, 3) }).expect_err("a panic");
        assert!(error.contains("index 7 of 3"), "{error}");
        assert!(error.contains("contained.rs:"), "{error}");
        assert_eq!(contained(|| 5), Ok(5));
        assert!(!CONTAINED.get(), "other panics are reported again");
    }
}
