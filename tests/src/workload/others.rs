//! Calls that are wrong in every state, and commands without a key.

use super::{Template, exact};

pub(super) const TEMPLATES: &[Template] = &[
    exact("GET"),
    exact("GET k k"),
    exact("NOSUCHCOMMAND k"),
    exact("OBJECT NOSUCH k"),
    exact("EXPIRE k x"),
    exact("ZADD k x m"),
    exact("LRANGE k a b"),
    exact("PUBLISH f v"),
    exact("ECHO v"),
    exact("PING v"),
    exact("SELECT 99"),
];
