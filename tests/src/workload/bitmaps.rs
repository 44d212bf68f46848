//! Strings as arrays of bits.

use super::{Template, exact};

pub(super) const TEMPLATES: &[Template] = &[
    exact("SET k v"),
    exact("SETBIT k o 1"),
    exact("SETBIT k o 0"),
    exact("SETBIT k o 2"),
    exact("GETBIT k o"),
    exact("BITCOUNT k"),
    exact("BITCOUNT k i i"),
    exact("BITCOUNT k i i BIT"),
    exact("BITPOS k 1"),
    exact("BITPOS k 0"),
    exact("BITPOS k 1 i"),
    exact("BITPOS k 0 i i"),
    exact("BITPOS k 1 i i BIT"),
    exact("BITOP AND k k k"),
    exact("BITOP OR k k k k"),
    exact("BITOP XOR k k k"),
    exact("BITOP NOT k k"),
    exact("BITFIELD k GET B o"),
    exact("BITFIELD k SET B o n"),
    exact("BITFIELD k INCRBY B o n"),
    exact("BITFIELD k SET B #1 n GET B #0"),
    exact("BITFIELD k OVERFLOW SAT INCRBY B o n OVERFLOW FAIL INCRBY B o n"),
    exact("BITFIELD_RO k GET B o GET B #2"),
    exact("BITFIELD_RO k SET B o n"),
];
