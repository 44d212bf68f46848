//! What COMMAND DOCS says of the group `set`.

use super::{Doc, doc};

#[rustfmt::skip]
pub(super) const DOCS: &[Doc] = &[
    doc("sadd", "1.0.0", "O(1)", "Adds members to a set."),
    doc("scard", "1.0.0", "O(1)", "Returns how many members a set has."),
    doc("sdiff", "1.0.0", "O(N)", "Returns the members of the first set that are in none of the others.").tips(&["nondeterministic_output_order"]),
    doc("sdiffstore", "1.0.0", "O(N)", "Stores the members of the first set that are in none of the others."),
    doc("sinter", "1.0.0", "O(N*M)", "Returns the members that all sets have in common.").tips(&["nondeterministic_output_order"]),
    doc("sintercard", "7.0.0", "O(N*M)", "Counts the members that all sets have in common, up to a limit."),
    doc("sinterstore", "1.0.0", "O(N*M)", "Stores the members that all sets have in common."),
    doc("sismember", "1.0.0", "O(1)", "Tells whether a set has a member."),
    doc("smembers", "1.0.0", "O(N)", "Returns all members of a set.").tips(&["nondeterministic_output_order"]),
    doc("smismember", "6.2.0", "O(N)", "Tells of each of several members whether a set has it."),
    doc("smove", "1.0.0", "O(1)", "Moves a member from one set to another."),
    doc("spop", "1.0.0", "O(1)", "Removes and returns members chosen at random.").tips(&["nondeterministic_output"]),
    doc("srandmember", "1.0.0", "O(1)", "Returns members chosen at random.").tips(&["nondeterministic_output"]),
    doc("srem", "1.0.0", "O(N)", "Removes members from a set."),
    doc("sscan", "2.8.0", "O(1)", "Walks through the members of a set, some at a time.").tips(&["nondeterministic_output"]),
    doc("sunion", "1.0.0", "O(N)", "Returns the members of all sets together.").tips(&["nondeterministic_output_order"]),
    doc("sunionstore", "1.0.0", "O(N)", "Stores the members of all sets together."),
];
