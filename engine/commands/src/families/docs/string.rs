//! What COMMAND DOCS says of the group `string`.

use super::{Doc, doc};

#[rustfmt::skip]
pub(super) const DOCS: &[Doc] = &[
    doc("append", "2.0.0", "O(1)", "Adds bytes to the end of a string; a missing key counts as empty."),
    doc("decr", "1.0.0", "O(1)", "Subtracts one from a number."),
    doc("decrby", "1.0.0", "O(1)", "Subtracts a number from a number."),
    doc("get", "1.0.0", "O(1)", "Returns a string."),
    doc("getdel", "6.2.0", "O(1)", "Returns a string and removes its key."),
    doc("getex", "6.2.0", "O(1)", "Returns a string and sets or removes its expiry.").notes(&[(0, "Its options change the expiry, which makes it a write.")]),
    doc("getrange", "2.4.0", "O(N)", "Returns a part of a string, by byte offsets."),
    doc("getset", "1.0.0", "O(1)", "Sets a string and returns the one before.").deprecated("6.2.0", "SET with GET"),
    doc("incr", "1.0.0", "O(1)", "Adds one to a number."),
    doc("incrby", "1.0.0", "O(1)", "Adds a number to a number."),
    doc("incrbyfloat", "2.6.0", "O(1)", "Adds a decimal number to a number."),
    doc("lcs", "7.0.0", "O(N*M)", "Finds the longest common subsequence of two strings."),
    doc("mget", "1.0.0", "O(N)", "Returns several strings.").tips(&["request_policy:multi_shard"]),
    doc("mset", "1.0.1", "O(N)", "Sets several strings at once.").tips(&["request_policy:multi_shard", "response_policy:all_succeeded"]),
    doc("msetnx", "1.0.1", "O(N)", "Sets several strings, if none of the keys is there.").tips(&["request_policy:multi_shard", "response_policy:agg_min"]),
    doc("psetex", "2.6.0", "O(1)", "Sets a string that expires after so many milliseconds."),
    doc("set", "1.0.0", "O(1)", "Sets a string, whatever the key held, under conditions and with an expiry where asked for.").notes(&[(0, "GET also returns the value before, which makes it a read.")]),
    doc("setex", "2.0.0", "O(1)", "Sets a string that expires after so many seconds."),
    doc("setnx", "1.0.0", "O(1)", "Sets a string, if the key is not there."),
    doc("setrange", "2.2.0", "O(1)", "Overwrites a part of a string from an offset on, lengthening it where needed."),
    doc("strlen", "2.2.0", "O(1)", "Returns the length of a string in bytes."),
    doc("substr", "1.0.0", "O(N)", "Returns a part of a string, by byte offsets.").deprecated("2.0.0", "GETRANGE"),
    doc("delex", "8.4.0", "O(1) with a value, O(N) with a digest", "Removes a key, if its string is as said."),
    doc("delifeq", "9.0.0", "O(1)", "Removes a key, if it holds the string given."),
    doc("digest", "8.4.0", "O(N)", "Returns the XXH3 digest of a string."),
];
