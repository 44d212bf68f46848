//! Sets. Where chance would choose, all members are asked for.

use super::{Template, exact, items, scan};

pub(super) const TEMPLATES: &[Template] = &[
    exact("SADD k m*"),
    exact("SREM k m*"),
    items("SMEMBERS k"),
    exact("SISMEMBER k m"),
    exact("SMISMEMBER k m*"),
    exact("SCARD k"),
    exact("SMOVE k k m"),
    items("SINTER k k"),
    items("SUNION k*"),
    items("SDIFF k k"),
    exact("SINTERSTORE k k k"),
    exact("SUNIONSTORE k k k"),
    exact("SDIFFSTORE k k k"),
    exact("SADD k w+"),
    exact("SADD k n*"),
    exact("SINTERCARD 2 k k"),
    exact("SINTERCARD 2 k k LIMIT 2"),
    exact("SPOP k 0"),
    exact("SRANDMEMBER k 0"),
    items("SPOP k 1000"),
    items("SRANDMEMBER k 1000"),
    items("SINTER k"),
    items("SDIFF k k k"),
    scan("SSCAN k 0 COUNT 100000"),
    scan("SSCAN k 0 MATCH f? COUNT 100000"),
];
