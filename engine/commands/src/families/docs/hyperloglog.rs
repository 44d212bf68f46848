//! What COMMAND DOCS says of the group `hyperloglog`.

use super::{Doc, doc};

#[rustfmt::skip]
pub(super) const DOCS: &[Doc] = &[
    doc("pfadd", "2.8.9", "O(1)", "Adds elements to a HyperLogLog."),
    doc("pfcount", "2.8.9", "O(1)", "Estimates how many different elements HyperLogLogs have seen together.").notes(&[(0, "The cached estimate may be renewed, which is a write.")]),
    doc("pfdebug", "2.8.9", "", "Looks into a HyperLogLog, for tests.").system(),
    doc("pfmerge", "2.8.9", "O(N)", "Merges HyperLogLogs into one."),
    doc("pfselftest", "2.8.9", "", "Tests the HyperLogLog of the server.").system(),
];
