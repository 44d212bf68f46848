//! What COMMAND DOCS says of the group `hash`.

use super::{Doc, doc};

#[rustfmt::skip]
pub(super) const DOCS: &[Doc] = &[
    doc("hdel", "2.0.0", "O(N)", "Removes fields and their values."),
    doc("hexists", "2.0.0", "O(1)", "Tells whether a hash has a field."),
    doc("hget", "2.0.0", "O(1)", "Returns the value of a field."),
    doc("hgetall", "2.0.0", "O(N)", "Returns all fields and values.").tips(&["nondeterministic_output_order"]),
    doc("hincrby", "2.0.0", "O(1)", "Adds a number to the number in a field."),
    doc("hincrbyfloat", "2.6.0", "O(1)", "Adds a decimal number to the number in a field."),
    doc("hkeys", "2.0.0", "O(N)", "Returns all fields.").tips(&["nondeterministic_output_order"]),
    doc("hlen", "2.0.0", "O(1)", "Returns how many fields a hash has."),
    doc("hmget", "2.0.0", "O(N)", "Returns the values of several fields."),
    doc("hmset", "2.0.0", "O(N)", "Sets several fields.").deprecated("4.0.0", "HSET"),
    doc("hrandfield", "6.2.0", "O(N)", "Returns fields chosen at random.").tips(&["nondeterministic_output"]),
    doc("hscan", "2.8.0", "O(1)", "Walks through the fields and values of a hash, some at a time.").tips(&["nondeterministic_output"]),
    doc("hset", "2.0.0", "O(1)", "Sets fields; returns how many are new."),
    doc("hsetnx", "2.0.0", "O(1)", "Sets a field, if it is not there."),
    doc("hstrlen", "3.2.0", "O(1)", "Returns the length of the value of a field."),
    doc("hvals", "2.0.0", "O(N)", "Returns all values.").tips(&["nondeterministic_output_order"]),
    doc("hexpire", "7.4.0", "O(N)", "Lets fields expire after so many seconds."),
    doc("hpexpire", "7.4.0", "O(N)", "Lets fields expire after so many milliseconds."),
    doc("hexpireat", "7.4.0", "O(N)", "Lets fields expire at a Unix time in seconds."),
    doc("hpexpireat", "7.4.0", "O(N)", "Lets fields expire at a Unix time in milliseconds."),
    doc("httl", "7.4.0", "O(N)", "Returns in how many seconds fields expire."),
    doc("hpttl", "7.4.0", "O(N)", "Returns in how many milliseconds fields expire."),
    doc("hexpiretime", "7.4.0", "O(N)", "Returns when fields expire, as Unix times in seconds."),
    doc("hpexpiretime", "7.4.0", "O(N)", "Returns when fields expire, as Unix times in milliseconds."),
    doc("hpersist", "7.4.0", "O(N)", "Removes the expiry of fields."),
    doc("hgetdel", "8.0.0", "O(N)", "Returns the values of fields and removes them."),
    doc("hgetex", "8.0.0", "O(N)", "Returns the values of fields and sets or removes their expiry."),
    doc("hsetex", "8.0.0", "O(N)", "Sets fields with an expiry."),
];
