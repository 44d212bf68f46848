//! CAIRN: what Redis has no command for. A file for each thing that is asked of the server, its rows here.

mod key;
mod ready;

use super::help;
use crate::spec::{Categories, CommandSpec, Keys, exactly};

const NONE: Categories = Categories::NONE;

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    help::group_row("cairn"),
    CommandSpec { name: "cairn|key",   arity: exactly(3), flags: key::FLAGS,   keys: Keys::None, acl: NONE, handler: key::key },
    CommandSpec { name: "cairn|ready", arity: exactly(2), flags: ready::FLAGS, keys: Keys::None, acl: NONE, handler: ready::ready },
    help::row("cairn|help", NONE),
];
