//! Bitmaps, which are strings: <https://redis.io/docs/latest/commands/?group=bitmap>
//!
//! Bit 0 is the highest bit of the first byte.

mod bits;
mod combine;
mod field;

use super::string::{check_size, edit};
use crate::args::{integer, is};
use crate::context::{Context, Data};
use crate::error::{CommandError, CommandResult};
use crate::hub::Interest;
use crate::keys::{Access, KeySpec};
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least, exactly};
use bits::{count_ones, find};

const BITMAP: Categories = Categories::BITMAP;
const COMBINE: Keys =
    Keys::specs(&[KeySpec::one(2, Access::OW.update()), KeySpec::range(3, -1, Access::RO.access())]);

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    CommandSpec { name: "getbit",      arity: exactly(3),  flags: Flags::READ.fast(),      keys: Keys::one(1),          acl: BITMAP, handler: getbit },
    CommandSpec { name: "setbit",      arity: exactly(4),  flags: Flags::WRITE.deny_oom(), keys: Keys::one(1),          acl: BITMAP, handler: setbit },
    CommandSpec { name: "bitcount",    arity: at_least(2), flags: Flags::READ,             keys: Keys::one(1),          acl: BITMAP, handler: bitcount },
    CommandSpec { name: "bitpos",      arity: at_least(3), flags: Flags::READ,             keys: Keys::one(1),          acl: BITMAP, handler: bitpos },
    CommandSpec { name: "bitop",       arity: at_least(4), flags: Flags::WRITE.deny_oom(), keys: COMBINE,               acl: BITMAP, handler: combine::bitop },
    CommandSpec { name: "bitfield",    arity: at_least(2), flags: Flags::WRITE.deny_oom(), keys: Keys::one(1).access(field::ACCESS), acl: BITMAP, handler: field::bitfield },
    CommandSpec { name: "bitfield_ro", arity: at_least(2), flags: Flags::READ.fast(),      keys: Keys::one(1),          acl: BITMAP, handler: field::bitfield_ro },
];

/// The number of a bit, which must lie in a string that may be stored. With `width`, `#2` is the place behind two fields
/// of that width.
fn bit_offset(data: &Data<'_, '_>, arg: &[u8], width: Option<u32>) -> Result<usize, CommandError> {
    let offset = match (arg.strip_prefix(b"#"), width) {
        (Some(index), Some(width)) => integer(index).ok().and_then(|at| at.checked_mul(i64::from(width))),
        _ => integer(arg).ok(),
    };
    offset
        .and_then(|offset| usize::try_from(offset).ok())
        .filter(|offset| check_size(data, offset / 8 + 1).is_ok())
        .ok_or(CommandError::other("ERR bit offset is not an integer or out of range"))
}

fn getbit(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let offset = bit_offset(&ctx.data, args[2], None)?;
    let bitmap = ctx.data.get_str(args[1])?.unwrap_or_default();
    let bit = bitmap.get(offset / 8).is_some_and(|byte| byte & mask(offset) != 0);
    ctx.reply.integer(i64::from(bit));
    Ok(())
}

/// Where a bit lies in its byte.
fn mask(offset: usize) -> u8 {
    0x80 >> (offset % 8)
}

fn setbit(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (key, offset) = (args[1], bit_offset(&ctx.data, args[2], None)?);
    let on = match integer(args[3]) {
        Ok(0) => false,
        Ok(1) => true,
        _ => return Err(CommandError::other("ERR bit is not an integer or out of range")),
    };
    let before = match ctx.data.peek(key) {
        Some(entry) => Some(entry.as_str().ok_or(CommandError::WrongType)?),
        None => None,
    };
    let was_on = before.and_then(|bitmap| bitmap.get(offset / 8)).map(|byte| byte & mask(offset) != 0);
    if was_on != Some(on) {
        with_room(&mut ctx.data, key, offset / 8 + 1, |bitmap| {
            let byte = &mut bitmap[offset / 8];
            *byte = if on { *byte | mask(offset) } else { *byte & !mask(offset) };
        });
        ctx.data.notify(Interest::STRING, "setbit", key);
    }
    ctx.reply.integer(i64::from(was_on == Some(true)));
    Ok(())
}

/// Lets `edit_bits` change a key's string, which is made where it is absent and filled up with zeros to `len` bytes. The
/// caller has checked that it is no collection.
fn with_room<R>(
    data: &mut Data<'_, '_>,
    key: &[u8],
    len: usize,
    edit_bits: impl FnOnce(&mut [u8]) -> R,
) -> R {
    let Some(entry) = data.get_mut(key) else {
        // Zeros that come from the system need not be written.
        let mut bitmap = vec![0; len];
        let result = edit_bits(&mut bitmap);
        data.insert(key, cairn_keyspace::Object::Str(bitmap), None);
        return result;
    };
    if let Some(bitmap) = entry.as_str_mut().filter(|bitmap| bitmap.len() >= len) {
        let result = edit_bits(bitmap);
        data.changed(key);
        return result;
    }
    edit(data, key, |bitmap| {
        bitmap.resize(len.max(bitmap.len()), 0);
        edit_bits(bitmap)
    })
}

/// Whether the word behind a range says that it counts bits.
fn counts_bits(word: Option<&&[u8]>) -> Result<bool, CommandError> {
    match word {
        None => Ok(false),
        Some(word) if is(word, "bit") => Ok(true),
        Some(word) if is(word, "byte") => Ok(false),
        Some(_) => Err(CommandError::Syntax),
    }
}

/// The bits between two indexes, both included, of a bitmap of `len` bytes; empty where they lie the wrong way round.
fn bit_range(start: i64, end: i64, in_bits: bool, len: usize) -> std::ops::Range<usize> {
    let unit = if in_bits { 1 } else { 8 };
    let total = (len * 8 / unit) as i64;
    let from_front = |at: i64| if at < 0 { at.saturating_add(total).max(0) } else { at };
    let (start, end) = (from_front(start), from_front(end).min(total - 1));
    if start > end { 0..0 } else { start as usize * unit..(end as usize + 1) * unit }
}

fn bitcount(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let Some(bitmap) = ctx.data.get_str(args[1])? else {
        // Nothing else is looked at where there is no key.
        ctx.reply.integer(0);
        return Ok(());
    };
    let range = match args[2..] {
        [] => 0..bitmap.len() * 8,
        [start, end, ref unit @ ..] if unit.len() < 2 => {
            let (start, end) = (integer(start)?, integer(end)?);
            if start < 0 && end < 0 && start > end {
                0..0
            } else {
                bit_range(start, end, counts_bits(unit.first())?, bitmap.len())
            }
        }
        _ => return Err(CommandError::Syntax),
    };
    ctx.reply.integer(count_ones(bitmap, range) as i64);
    Ok(())
}

fn bitpos(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let bit = match integer(args[2])? {
        0 => false,
        1 => true,
        _ => return Err(CommandError::other("ERR The bit argument must be 1 or 0.")),
    };
    let Some(bitmap) = ctx.data.get_str(args[1])? else {
        ctx.reply.integer(if bit { -1 } else { 0 });
        return Ok(());
    };
    if args.len() > 6 {
        return Err(CommandError::Syntax);
    }
    let start = args.get(3).map_or(Ok(0), |arg| integer(arg))?;
    let in_bits = counts_bits(args.get(5))?;
    let end = args.get(4).map(|arg| integer(arg)).transpose()?;
    let range = bit_range(start, end.unwrap_or(i64::MAX), in_bits, bitmap.len());
    let found = find(bitmap, range.clone(), bit);
    let position = match found {
        Some(at) => at as i64,
        // A string without an end to the search goes on in zeros.
        None if !bit && end.is_none() && !range.is_empty() => bitmap.len() as i64 * 8,
        None => -1,
    };
    ctx.reply.integer(position);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Engine;

    #[test]
    fn single_bits_are_those_of_redis() {
        let mut engine = Engine::new();
        engine.check(
            "SETBIT b 7 1 -> :0
             GET b -> $1 \u{1}
             SETBIT b 7 1 -> :1
             SETBIT b 7 0 -> :1
             GETBIT b 7 -> :0
             GETBIT b 1000 -> :0
             GETBIT no 0 -> :0
             SETBIT b 23 0 -> :0
             STRLEN b -> :3
             SETBIT b -1 1 -> -ERR bit offset is not an integer or out of range
             SETBIT b 4294967296 1 -> -ERR bit offset is not an integer or out of range
             SETBIT b 0 2 -> -ERR bit is not an integer or out of range
             GETBIT b x -> -ERR bit offset is not an integer or out of range
             LPUSH l x -> :1
             SETBIT l 0 1 -> -WRONGTYPE Operation against a key holding the wrong kind of value
             GETBIT l 0 -> -WRONGTYPE Operation against a key holding the wrong kind of value",
        );
        assert_eq!(
            engine.effects(),
            "SETBIT b 7 1\nSETBIT b 7 0\nSETBIT b 23 0\nLPUSH l x",
            "what changes nothing leaves no effect"
        );
    }

    #[test]
    fn counts_and_positions_are_those_of_redis() {
        Engine::new().check(
            "SET s foobar -> +OK
             BITCOUNT s -> :26
             BITCOUNT s 0 0 -> :4
             BITCOUNT s 1 1 -> :6
             BITCOUNT s 5 30 BIT -> :17
             BITCOUNT s 1 1 BYTE -> :6
             BITCOUNT s -2 -1 -> :7
             BITCOUNT s -1 -2 wrong -> :0
             BITCOUNT s 0 -2 wrong -> -ERR syntax error
             BITCOUNT s 0 -> -ERR syntax error
             BITCOUNT s 0 1 BIT BIT -> -ERR syntax error
             BITCOUNT s a 1 -> -ERR value is not an integer or out of range
             BITCOUNT no a -> :0
             BITPOS s 1 -> :1
             BITPOS s 0 -> :0
             BITPOS s 1 2 -> :17
             BITPOS s 1 2 -1 -> :17
             BITPOS s 1 10 20 BIT -> :10
             BITPOS s 0 9 10 BIT -> -1
             BITPOS s 2 -> -ERR The bit argument must be 1 or 0.
             BITPOS no 0 -> :0
             BITPOS no 1 -> :-1
             BITPOS s 0 5 4 -> :-1"
                .replace("-> -1\n", "-> :-1\n")
                .as_str(),
        );
        let mut engine = Engine::new();
        engine.run(&[b"SET", b"ones", &[0xff; 3]]);
        engine.run(&[b"SET", b"zeros", &[0; 3]]);
        engine.check(
            "BITPOS ones 0 -> :24
             BITPOS ones 0 0 -> :24
             BITPOS ones 0 0 -1 -> :-1
             BITPOS ones 0 3 -> :-1
             BITPOS zeros 1 -> :-1
             BITPOS ones 0 0 23 BIT -> :-1",
        );
    }

    #[test]
    fn a_large_bitmap_is_changed_in_place() {
        let mut engine = Engine::new();
        engine.say("SETBIT b 80000000 1");
        let address = |engine: &mut Engine| {
            let hash = engine.keyspace.hash(b"b");
            let locked = engine.keyspace.lock_one(hash);
            let entry = locked.shard(hash).database(0).get(hash.0, b"b").expect("it was just set");
            entry.as_str().expect("a string").as_ptr().addr()
        };
        let before = address(&mut engine);
        assert_eq!(engine.say("SETBIT b 5 1"), ":0");
        assert_eq!(address(&mut engine), before);
        assert_eq!(engine.say("BITCOUNT b"), ":2");
        assert_eq!(engine.say("BITPOS b 1 1"), ":80000000");
    }

    #[test]
    fn effects_replay_to_the_same_bits() {
        let mut engine = Engine::new();
        let mut state = 11;
        for _ in 0..600 {
            let mut below = |bound: u64| crate::context::next_random(&mut state) % bound;
            let (key, other, at) = (below(3), below(3), below(300));
            let command = match below(6) {
                0 | 1 => format!("SETBIT b{key} {at} {}", below(2)),
                2 => format!("BITOP XOR b{key} b{key} b{other}"),
                3 => format!("BITOP NOT b{key} b{other}"),
                4 => format!("BITFIELD b{key} OVERFLOW FAIL INCRBY i5 {at} {} SET u9 #3 {at}", below(9)),
                _ => format!("APPEND b{key} {at}"),
            };
            engine.say(&command);
        }
        assert_eq!(engine.replayed().digest(), engine.digest());
    }
}
