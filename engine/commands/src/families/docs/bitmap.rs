//! What COMMAND DOCS says of the group `bitmap`.

use super::{Doc, doc};

#[rustfmt::skip]
pub(super) const DOCS: &[Doc] = &[
    doc("bitcount", "2.6.0", "O(N)", "Counts the bits that are set."),
    doc("bitfield", "3.2.0", "O(1)", "Reads and changes integers of any width within a string.").notes(&[(0, "GET reads and the other operations write.")]),
    doc("bitfield_ro", "6.0.0", "O(1)", "Reads integers of any width within a string."),
    doc("bitop", "2.6.0", "O(N)", "Combines strings bit by bit and stores the result."),
    doc("bitpos", "2.8.7", "O(N)", "Finds the first bit that is set, or clear."),
    doc("getbit", "2.2.0", "O(1)", "Returns the bit at an offset."),
    doc("setbit", "2.2.0", "O(1)", "Sets or clears the bit at an offset and returns the one before."),
];
