//! Panics of what is tried. The runtime keeps those of tasks to itself, so that nobody else would hear of them: the task
//! is gone, and whoever waits for it takes that for a server that stops.

use std::{
    cell::RefCell,
    panic::{self, AssertUnwindSafe, PanicHookInfo},
    sync::Once,
};

thread_local! {
    /// What panicked on this thread, while somebody listens.
    static HEARD: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Does this, and tells every panic that it met on this thread: its own, of which there is no result then, and those that
/// somebody else caught.
pub(crate) fn overheard<T>(work: impl FnOnce() -> T) -> (Option<T>, Vec<String>) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let otherwise = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !is_noted(info) {
                otherwise(info);
            }
        }));
    });
    HEARD.set(Some(Vec::new()));
    let done = panic::catch_unwind(AssertUnwindSafe(work)).ok();
    (done, HEARD.take().unwrap_or_default())
}

fn is_noted(info: &PanicHookInfo<'_>) -> bool {
    let noted = HEARD.try_with(|heard| {
        let mut heard = heard.try_borrow_mut().ok()?;
        let place = info.location().map_or_else(String::new, |at| format!(" at {at}"));
        let why = info.payload_as_str().unwrap_or("with no words");
        heard.as_mut()?.push(format!("it panicked{place}: {why}"));
        Some(())
    });
    matches!(noted, Ok(Some(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_whoever_caught_it() {
        let (done, heard) = overheard(|| {
            let caught = panic::catch_unwind(|| panic!("caught by somebody"));
            assert!(caught.is_err());
            5
        });
        assert_eq!(done, Some(5));
        assert!(
            matches!(heard.as_slice(), [one] if one.contains("panics.rs") && one.ends_with(": caught by somebody")),
            "{heard:?}"
        );
        let (done, heard) = overheard(|| assert_eq!(1 + 1, 3, "its own"));
        assert_eq!((done, heard.len()), (None, 1));
        let (done, heard) = overheard(|| 7);
        assert_eq!((done, heard), (Some(7), Vec::new()));
    }
}
