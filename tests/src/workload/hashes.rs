//! Hashes. Where chance would choose, all fields are asked for.

use super::{Template, exact, items, pairs, scanpairs};

pub(super) const TEMPLATES: &[Template] = &[
    exact("HSET k f,v*"),
    exact("HSET k f"),
    exact("HMSET k f,v*"),
    exact("HSETNX k f v"),
    exact("HGET k f"),
    exact("HMGET k f*"),
    pairs("HGETALL k"),
    exact("HDEL k f*"),
    exact("HEXISTS k f"),
    exact("HLEN k"),
    items("HKEYS k"),
    items("HVALS k"),
    exact("HSTRLEN k f"),
    exact("HINCRBY k f n"),
    exact("HINCRBYFLOAT k f 1.5"),
    exact("HSET k w,n+"),
    exact("HDEL k w*"),
    exact("HRANDFIELD k 0"),
    pairs("HRANDFIELD k 1000 WITHVALUES"),
    items("HRANDFIELD k 1000"),
    scanpairs("HSCAN k 0 COUNT 100000"),
    scanpairs("HSCAN k 0 MATCH f1? COUNT 100000"),
];
