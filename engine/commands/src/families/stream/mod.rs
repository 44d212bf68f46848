//! Streams: <https://redis.io/docs/latest/commands/?group=stream>

mod add;
mod claim;
mod effect;
mod group;
mod id;
mod info;
mod pending;
mod range;
mod read;
#[cfg(test)]
mod tests;

use super::help::{group_row, row as help_row};
use crate::keys::{Access, Begin, Find, KeySpec};
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least, exactly};

const STREAM: Categories = Categories::STREAM;
const READ_MANY: Flags = Flags::NONE.blocking();
const COUNT: Keys = Keys::one(1).access(Access::RO);
const DELETE: Keys = Keys::one(1).access(Access::RW.delete());

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    CommandSpec { name: "xadd",       arity: at_least(5), flags: Flags::WRITE.deny_oom().fast(), keys: Keys::one(1).access(Access::RW.update()), acl: STREAM, handler: add::xadd },
    CommandSpec { name: "xtrim",      arity: at_least(4), flags: Flags::WRITE,                   keys: DELETE,                                   acl: STREAM, handler: add::xtrim },
    CommandSpec { name: "xdel",       arity: at_least(3), flags: Flags::WRITE.fast(),            keys: DELETE,                                   acl: STREAM, handler: add::xdel },
    CommandSpec { name: "xsetid",     arity: at_least(3), flags: Flags::WRITE.deny_oom().fast(), keys: Keys::one(1).access(Access::RW.update()), acl: STREAM, handler: add::xsetid },
    CommandSpec { name: "xlen",       arity: exactly(2),  flags: Flags::READ.fast(),             keys: COUNT,                                    acl: STREAM, handler: range::xlen },
    CommandSpec { name: "xrange",     arity: at_least(4), flags: Flags::READ,                    keys: Keys::one(1),                             acl: STREAM, handler: range::xrange },
    CommandSpec { name: "xrevrange",  arity: at_least(4), flags: Flags::READ,                    keys: Keys::one(1),                             acl: STREAM, handler: range::xrevrange },
    CommandSpec { name: "xread",      arity: at_least(4), flags: READ_MANY.readonly(),           keys: BEHIND_STREAMS,                           acl: STREAM, handler: read::xread },
    CommandSpec { name: "xreadgroup", arity: at_least(7), flags: READ_MANY.write(),              keys: BEHIND_STREAMS_AND_GROUP,                 acl: STREAM, handler: read::xreadgroup },
    CommandSpec { name: "xack",       arity: at_least(4), flags: Flags::WRITE.fast(),            keys: Keys::one(1).access(Access::RW.update()), acl: STREAM, handler: pending::xack },
    CommandSpec { name: "xpending",   arity: at_least(3), flags: Flags::READ,                    keys: Keys::one(1),                             acl: STREAM, handler: pending::xpending },
    CommandSpec { name: "xclaim",     arity: at_least(6), flags: Flags::WRITE.fast(),            keys: Keys::one(1).access(Access::RW.update()), acl: STREAM, handler: claim::xclaim },
    CommandSpec { name: "xautoclaim", arity: at_least(6), flags: Flags::WRITE.fast(),            keys: DELETE,                                   acl: STREAM, handler: claim::xautoclaim },

    group_row("xgroup"),
    CommandSpec { name: "xgroup|create",         arity: at_least(5), flags: Flags::WRITE.deny_oom(), keys: Keys::one(2).access(Access::RW.insert()), acl: STREAM, handler: group::create },
    CommandSpec { name: "xgroup|setid",          arity: at_least(5), flags: Flags::WRITE,            keys: Keys::one(2).access(Access::RW.update()), acl: STREAM, handler: group::set_id },
    CommandSpec { name: "xgroup|destroy",        arity: exactly(4),  flags: Flags::WRITE,            keys: Keys::one(2).access(Access::RW.delete()), acl: STREAM, handler: group::destroy },
    CommandSpec { name: "xgroup|createconsumer", arity: exactly(5),  flags: Flags::WRITE.deny_oom(), keys: Keys::one(2).access(Access::RW.insert()), acl: STREAM, handler: group::create_consumer },
    CommandSpec { name: "xgroup|delconsumer",    arity: exactly(5),  flags: Flags::WRITE,            keys: Keys::one(2).access(Access::RW.delete()), acl: STREAM, handler: group::delete_consumer },
    help_row("xgroup|help", STREAM),

    group_row("xinfo"),
    CommandSpec { name: "xinfo|stream",    arity: at_least(3), flags: Flags::READ, keys: Keys::one(2), acl: STREAM, handler: info::stream },
    CommandSpec { name: "xinfo|groups",    arity: exactly(3),  flags: Flags::READ, keys: Keys::one(2), acl: STREAM, handler: info::groups },
    CommandSpec { name: "xinfo|consumers", arity: exactly(4),  flags: Flags::READ, keys: Keys::one(2), acl: STREAM, handler: info::consumers },
    help_row("xinfo|help", STREAM),
];

const BEHIND_STREAMS: Keys = Keys::found(&[streams_from(1)], find_streams);
const BEHIND_STREAMS_AND_GROUP: Keys = Keys::found(&[streams_from(4)], find_streams);

/// What COMMAND shows: the first half of what is behind the word STREAMS.
const fn streams_from(at: i32) -> KeySpec {
    let find = Find::Range { last: -1, step: 1, limit: 2 };
    KeySpec { begin: Begin::Keyword("STREAMS", at), find, access: Access::RO.access() }
}

/// The streams of XREAD and XREADGROUP. A group may be named STREAMS, so the options before the word have to be read.
fn find_streams(args: &[&[u8]]) -> Vec<(usize, Access)> {
    let mut at = 1;
    loop {
        let Some(word) = args.get(at) else { return Vec::new() };
        at += match &word.to_ascii_lowercase()[..] {
            b"noack" => 1,
            b"block" | b"count" => 2,
            b"group" => 3,
            b"streams" => break,
            _ => return Vec::new(),
        };
    }
    let behind = args.len() - at - 1;
    let keys = if behind.is_multiple_of(2) { behind / 2 } else { 0 };
    (at + 1..).take(keys).map(|at| (at, Access::RO.access())).collect()
}
