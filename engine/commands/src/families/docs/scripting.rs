//! What COMMAND DOCS says of the group `scripting`.

use super::{Doc, doc};

#[rustfmt::skip]
pub(super) const DOCS: &[Doc] = &[
    doc("eval", "2.6.0", "", "Runs a script.").notes(&[(0, "What the script does with its keys is not known ahead.")]),
    doc("eval_ro", "7.0.0", "", "Runs a script that may not write.").notes(&[(0, "What the script reads of its keys is not known ahead.")]),
    doc("evalsha", "2.6.0", "", "Runs a script known by its SHA-1 digest."),
    doc("evalsha_ro", "7.0.0", "", "Runs a script known by its SHA-1 digest, which may not write."),
    doc("fcall", "7.0.0", "", "Calls a function of a library.").notes(&[(0, "What the function does with its keys is not known ahead.")]),
    doc("fcall_ro", "7.0.0", "", "Calls a function of a library, which may not write.").notes(&[(0, "What the function reads of its keys is not known ahead.")]),
    doc("function", "7.0.0", "", "The group of commands that manage libraries of functions."),
    doc("function|delete", "7.0.0", "O(1)", "Removes a library.").tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
    doc("function|dump", "7.0.0", "O(N)", "Returns all libraries in the form that FUNCTION RESTORE takes."),
    doc("function|flush", "7.0.0", "O(N)", "Removes all libraries.").tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
    doc("function|help", "7.0.0", "O(1)", "Lists the subcommands."),
    doc("function|kill", "7.0.0", "O(1)", "Ends the function that is running.").tips(&["request_policy:all_shards", "response_policy:one_succeeded"]),
    doc("function|list", "7.0.0", "O(N)", "Lists libraries and their functions.").tips(&["nondeterministic_output_order"]),
    doc("function|load", "7.0.0", "O(1)", "Loads a library.").tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
    doc("function|restore", "7.0.0", "O(N)", "Loads the libraries that FUNCTION DUMP returned.").tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
    doc("function|stats", "7.0.0", "O(1)", "Tells about the function that is running.").tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"]),
    doc("script", "2.6.0", "", "The group of commands that manage scripts."),
    doc("script|debug", "3.2.0", "O(1)", "Sets how scripts are debugged."),
    doc("script|exists", "2.6.0", "O(N)", "Tells which scripts are known.").tips(&["request_policy:all_shards", "response_policy:agg_logical_and"]),
    doc("script|flush", "2.6.0", "O(N)", "Forgets all scripts.").tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
    doc("script|help", "5.0.0", "O(1)", "Lists the subcommands."),
    doc("script|kill", "2.6.0", "O(1)", "Ends the script that is running.").tips(&["request_policy:all_shards", "response_policy:one_succeeded"]),
    doc("script|load", "2.6.0", "O(N)", "Takes a script to be called by its SHA-1 digest.").tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
];
