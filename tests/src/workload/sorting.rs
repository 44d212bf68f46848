//! SORT, over numbers and words, with weights beside them.

use super::{Template, exact};

pub(super) const TEMPLATES: &[Template] = &[
    exact("RPUSH k n*"),
    exact("RPUSH k n*"),
    exact("LPUSH k f*"),
    exact("SADD k n*"),
    exact("ZADD k n,n*"),
    exact("SET weight:1 n"),
    exact("SET weight:-3 n"),
    exact("SET weight:20 n"),
    exact("HSET object:2 f1 v"),
    exact("DEL k"),
    exact("SORT k"),
    exact("SORT k DESC"),
    exact("SORT k ALPHA"),
    exact("SORT k ALPHA DESC LIMIT 1 3"),
    exact("SORT k LIMIT 0 2"),
    exact("SORT k BY weight:*"),
    exact("SORT k BY weight:* DESC GET # GET weight:*"),
    exact("SORT k GET object:*->f1 GET #"),
    exact("SORT k STORE k"),
    exact("SORT k ALPHA GET weight:* STORE k"),
    exact("SORT_RO k ALPHA"),
    exact("SORT_RO k STORE k"),
];
