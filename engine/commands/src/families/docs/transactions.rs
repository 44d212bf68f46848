//! What COMMAND DOCS says of the group `transactions`.

use super::{Doc, doc};

#[rustfmt::skip]
pub(super) const DOCS: &[Doc] = &[
    doc("discard", "2.0.0", "O(N)", "Gives up a transaction."),
    doc("exec", "1.2.0", "", "Runs the commands that were queued, as one."),
    doc("multi", "1.2.0", "O(1)", "Begins a transaction: the commands that follow are queued."),
    doc("unwatch", "2.2.0", "O(1)", "Forgets all watched keys."),
    doc("watch", "2.2.0", "O(1)", "Watches keys: EXEC runs only if none of them has changed."),
];
