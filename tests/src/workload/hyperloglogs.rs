//! HyperLogLogs: their registers are part of the digest.

use super::{Template, exact};

pub(super) const TEMPLATES: &[Template] = &[
    exact("PFADD k"),
    exact("PFADD k f*"),
    exact("PFADD k m*"),
    exact("PFADD k v*"),
    exact("PFADD k w+"),
    exact("PFCOUNT k"),
    exact("PFCOUNT k k"),
    exact("PFMERGE k k"),
    exact("PFMERGE k k k"),
    exact("STRLEN k"),
    exact("DEL k"),
];
