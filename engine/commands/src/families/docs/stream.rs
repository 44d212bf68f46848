//! What COMMAND DOCS says of the group `stream`.

use super::{Doc, doc};

#[rustfmt::skip]
pub(super) const DOCS: &[Doc] = &[
    doc("xack", "5.0.0", "O(1)", "Marks entries as done for a consumer group."),
    doc("xadd", "5.0.0", "O(1)", "Appends an entry, and trims the stream where asked for.").tips(&["nondeterministic_output"]).notes(&[(0, "Trimming may remove entries, so it does more than add.")]),
    doc("xautoclaim", "6.2.0", "O(1)", "Takes over entries that their consumers have left pending for too long, some at a time.").tips(&["nondeterministic_output"]),
    doc("xclaim", "5.0.0", "O(log N)", "Takes over pending entries by their ids.").tips(&["nondeterministic_output"]),
    doc("xdel", "5.0.0", "O(1)", "Removes entries."),
    doc("xgroup", "5.0.0", "", "The group of commands that manage consumer groups."),
    doc("xgroup|create", "5.0.0", "O(1)", "Creates a consumer group."),
    doc("xgroup|createconsumer", "6.2.0", "O(1)", "Creates a consumer in a group."),
    doc("xgroup|delconsumer", "5.0.0", "O(1)", "Removes a consumer, and what is pending for it."),
    doc("xgroup|destroy", "5.0.0", "O(N)", "Removes a consumer group."),
    doc("xgroup|help", "5.0.0", "O(1)", "Lists the subcommands."),
    doc("xgroup|setid", "5.0.0", "O(1)", "Sets up to where a group has been delivered entries."),
    doc("xinfo", "5.0.0", "", "The group of commands that tell about streams."),
    doc("xinfo|consumers", "5.0.0", "O(1)", "Lists the consumers of a group.").tips(&["nondeterministic_output"]),
    doc("xinfo|groups", "5.0.0", "O(1)", "Lists the consumer groups of a stream."),
    doc("xinfo|help", "5.0.0", "O(1)", "Lists the subcommands."),
    doc("xinfo|stream", "5.0.0", "O(1)", "Tells about a stream."),
    doc("xlen", "5.0.0", "O(1)", "Returns how many entries a stream has."),
    doc("xpending", "5.0.0", "O(N)", "Tells which entries of a group are pending.").tips(&["nondeterministic_output"]),
    doc("xrange", "5.0.0", "O(N)", "Returns the entries within a range of ids."),
    doc("xread", "5.0.0", "O(N)", "Returns entries behind the given ids, waiting for some where asked for."),
    doc("xreadgroup", "5.0.0", "O(M)", "Returns entries as a consumer of a group, waiting for some where asked for."),
    doc("xrevrange", "5.0.0", "O(N)", "Returns the entries within a range of ids, from the last to the first."),
    doc("xsetid", "5.0.0", "O(1)", "Sets the last id of a stream."),
    doc("xtrim", "5.0.0", "O(N)", "Removes the oldest entries of a stream.").tips(&["nondeterministic_output"]),
];
