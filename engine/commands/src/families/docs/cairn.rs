//! What COMMAND DOCS says of the commands that are Cairn's own.

use super::{Doc, doc};

#[rustfmt::skip]
pub(super) const DOCS: &[Doc] = &[
    doc("cairn", "", "", "The group of commands that only Cairn has."),
    doc("cairn|help", "", "O(1)", "Lists the subcommands."),
    doc("cairn|key", "", "O(N) where N is the number of files", "Manages master keys: LIST, RELOAD, REWRAP, STATUS."),
    doc("cairn|ready", "", "O(1)", "Tells whether clients should be sent to this server, or why not.").tips(&["nondeterministic_output", "request_policy:all_nodes"]),
];
