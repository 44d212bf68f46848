//! The script that runs on this thread, for the functions that the interpreter calls.
//!
//! The interpreter keeps its functions for longer than any script runs, so they cannot borrow what a script works on; they
//! find it here. This is the only unsafe code of scripts.
#![allow(unsafe_code, reason = "a borrow is lent through the interpreter, which knows no lifetimes")]

use std::cell::Cell;
use std::ptr::NonNull;

use super::run::Run;

thread_local! {
    static CURRENT: Cell<Option<NonNull<Run<'static, 'static, 'static>>>> = const { Cell::new(None) };
}

/// Lends `run` to [`with`] while `f` runs.
pub(super) fn lend<R>(run: &mut Run<'_, '_, '_>, f: impl FnOnce() -> R) -> R {
    /// However `f` ends, the loan ends with it.
    struct Return(Option<NonNull<Run<'static, 'static, 'static>>>);
    impl Drop for Return {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let _return = Return(CURRENT.replace(Some(NonNull::from(run).cast())));
    f()
}

/// Gives the script that runs to `f`; `None` where none does, or where `f` is called within another `with`.
pub(super) fn with<R>(f: impl for<'r, 'a, 'k> FnOnce(Option<&mut Run<'r, 'a, 'k>>) -> R) -> R {
    struct PutBack(Option<NonNull<Run<'static, 'static, 'static>>>);
    impl Drop for PutBack {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let taken = PutBack(CURRENT.take());
    // SAFETY: the pointer comes from the exclusive borrow that `lend` holds until it has taken the pointer away again, and
    // it is taken out of CURRENT for as long as it is used, so there is one reference at a time. `f` works for any
    // lifetimes, so it cannot keep what is only lent.
    f(taken.0.map(|mut run| unsafe { run.as_mut() }))
}
