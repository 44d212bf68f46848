//! Strings: <https://redis.io/docs/latest/commands/?group=string>

use cairn_keyspace::Entry;

use super::compare::Condition;
use crate::args::{TimeUnit, float, integer, is};
use crate::context::{Context, Data};
use crate::error::{CommandError, CommandResult};
use crate::hub::Interest;
use crate::keys::Access;
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least, exactly};

const STRING: Categories = Categories::STRING;
const SET_ACCESS: Access = Access::RW.access().update().variable(set_access);

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    CommandSpec { name: "get",         arity: exactly(2),  flags: Flags::READ.fast(),             keys: Keys::one(1),          acl: STRING, handler: get },
    CommandSpec { name: "set",         arity: at_least(3), flags: Flags::WRITE.deny_oom(),        keys: Keys::one(1).access(SET_ACCESS), acl: STRING, handler: set },
    CommandSpec { name: "setnx",       arity: exactly(3),  flags: Flags::WRITE.deny_oom().fast(), keys: Keys::one(1).access(Access::OW.insert()), acl: STRING, handler: setnx },
    CommandSpec { name: "setex",       arity: exactly(4),  flags: Flags::WRITE.deny_oom(),        keys: Keys::one(1).access(Access::OW.update()), acl: STRING, handler: setex },
    CommandSpec { name: "psetex",      arity: exactly(4),  flags: Flags::WRITE.deny_oom(),        keys: Keys::one(1).access(Access::OW.update()), acl: STRING, handler: psetex },
    CommandSpec { name: "getex",       arity: at_least(2), flags: Flags::WRITE.fast(),            keys: Keys::one(1),          acl: STRING, handler: getex },
    CommandSpec { name: "getdel",      arity: exactly(2),  flags: Flags::WRITE.fast(),            keys: Keys::one(1).access(Access::RW.access().delete()), acl: STRING, handler: getdel },
    CommandSpec { name: "getset",      arity: exactly(3),  flags: Flags::WRITE.deny_oom().fast(), keys: Keys::one(1),          acl: STRING, handler: getset },
    CommandSpec { name: "mget",        arity: at_least(2), flags: Flags::READ.fast(),             keys: Keys::every(1, -1, 1), acl: STRING, handler: mget },
    CommandSpec { name: "mset",        arity: at_least(3), flags: Flags::WRITE.deny_oom(),        keys: Keys::every(1, -1, 2).access(Access::OW.update()), acl: STRING, handler: mset },
    CommandSpec { name: "msetnx",      arity: at_least(3), flags: Flags::WRITE.deny_oom(),        keys: Keys::every(1, -1, 2).access(Access::OW.insert()), acl: STRING, handler: msetnx },
    CommandSpec { name: "append",      arity: exactly(3),  flags: Flags::WRITE.deny_oom().fast(), keys: Keys::one(1).access(Access::RW.insert()), acl: STRING, handler: append },
    CommandSpec { name: "strlen",      arity: exactly(2),  flags: Flags::READ.fast(),             keys: Keys::one(1).access(Access::RO), acl: STRING, handler: strlen },
    CommandSpec { name: "getrange",    arity: exactly(4),  flags: Flags::READ,                    keys: Keys::one(1),          acl: STRING, handler: getrange },
    CommandSpec { name: "substr",      arity: exactly(4),  flags: Flags::READ,                    keys: Keys::one(1),          acl: STRING, handler: getrange },
    CommandSpec { name: "setrange",    arity: exactly(4),  flags: Flags::WRITE.deny_oom(),        keys: Keys::one(1).access(Access::RW.update()), acl: STRING, handler: setrange },
    CommandSpec { name: "incr",        arity: exactly(2),  flags: Flags::WRITE.deny_oom().fast(), keys: Keys::one(1),          acl: STRING, handler: incr },
    CommandSpec { name: "decr",        arity: exactly(2),  flags: Flags::WRITE.deny_oom().fast(), keys: Keys::one(1),          acl: STRING, handler: decr },
    CommandSpec { name: "incrby",      arity: exactly(3),  flags: Flags::WRITE.deny_oom().fast(), keys: Keys::one(1),          acl: STRING, handler: incrby },
    CommandSpec { name: "decrby",      arity: exactly(3),  flags: Flags::WRITE.deny_oom().fast(), keys: Keys::one(1),          acl: STRING, handler: decrby },
    CommandSpec { name: "incrbyfloat", arity: exactly(3),  flags: Flags::WRITE.deny_oom().fast(), keys: Keys::one(1),          acl: STRING, handler: incrbyfloat },
];

fn get(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    match ctx.data.get_str(args[1])? {
        Some(value) => ctx.reply.bulk(value),
        None => ctx.reply.null(),
    }
    Ok(())
}

/// What SET's options say.
#[derive(Default)]
struct SetOptions<'a> {
    only_if_absent: bool,
    only_if_present: bool,
    only_if: Option<Condition<'a>>,
    get: bool,
    keep_ttl: bool,
    expire_at_ms: Option<i64>,
}

impl<'a> SetOptions<'a> {
    fn parse(args: &[&'a [u8]], now_ms: i64) -> Result<Self, CommandError> {
        let mut options = Self::default();
        let mut expiry: Option<(&[u8], TimeUnit)> = None;
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            if is(arg, "nx") && !options.only_if_present && options.only_if.is_none() {
                options.only_if_absent = true;
            } else if is(arg, "xx") && !options.only_if_absent && options.only_if.is_none() {
                options.only_if_present = true;
            } else if is(arg, "get") {
                options.get = true;
            } else if is(arg, "keepttl") && expiry.is_none() {
                options.keep_ttl = true;
            } else if let Some(unit) = TimeUnit::of_option(arg)
                && expiry.is_none_or(|(_, before)| before == unit)
                && !options.keep_ttl
            {
                expiry = Some((rest.next().ok_or(CommandError::Syntax)?, unit));
            } else {
                let operand = rest.next().ok_or(CommandError::Syntax)?;
                options.add_condition(arg, operand)?;
            }
        }
        // Looked at last: a mistake in the options is told first.
        options.expire_at_ms =
            expiry.map(|(amount, unit)| expire_at(amount, unit, now_ms, "set")).transpose()?;
        Ok(options)
    }

    fn add_condition(&mut self, word: &[u8], operand: &'a [u8]) -> CommandResult {
        if self.only_if_absent || self.only_if_present || self.only_if.is_some() {
            return Err(CommandError::Syntax);
        }
        self.only_if = Some(Condition::parse(word, operand)?.ok_or(CommandError::Syntax)?);
        Ok(())
    }

    /// Whether the options let a key be set in place of what is there.
    ///
    /// # Errors
    /// Where the value is asked for and is no string.
    fn allow(&self, before: Option<&Entry>) -> Result<bool, CommandError> {
        if let Some(condition) = &self.only_if {
            let value = before.map(|entry| entry.as_str().ok_or(CommandError::WrongType)).transpose()?;
            return Ok(condition.holds(value));
        }
        Ok(if before.is_some() { !self.only_if_absent } else { !self.only_if_present })
    }
}

/// A positive amount of time as the moment it names.
fn expire_at(amount: &[u8], unit: TimeUnit, now_ms: i64, command: &'static str) -> Result<i64, CommandError> {
    let amount = integer(amount)?;
    let at = if amount > 0 { unit.at_ms(amount, now_ms) } else { None };
    at.filter(|at| *at > 0).ok_or(CommandError::InvalidExpire(command))
}

/// An option may be given again with another amount, and the last counts; another option may not stand before it.
fn repeats(pairs: &[&[u8]], unit: TimeUnit) -> Result<(), CommandError> {
    let same = |pair: &[&[u8]]| matches!(pair, [option, _] if TimeUnit::of_option(option) == Some(unit));
    if pairs.chunks(2).all(same) { Ok(()) } else { Err(CommandError::Syntax) }
}

/// SET overwrites without a look at what was there, unless GET asks for it.
fn set_access(args: &[&[u8]]) -> Access {
    let words = ["get", "ifeq", "ifne", "ifdeq", "ifdne"];
    let reads = args.iter().skip(3).any(|arg| words.iter().any(|word| is(arg, word)));
    if reads { Access::RW.access().update() } else { Access::OW.update() }
}

fn set(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (key, value) = (args[1], args[2]);
    if args.len() == 3 {
        // Nothing to look at: whatever is there goes.
        ctx.data.set_string(key, value, None);
        ctx.data.notify(Interest::STRING, "set", key);
        ctx.reply.ok();
        return Ok(());
    }
    let options = SetOptions::parse(&args[3..], ctx.data.now_ms)?;
    let before = ctx.data.peek(key);
    let expiry_before = before.and_then(|entry| entry.expire_at_ms());
    let allowed = options.allow(before)?;
    if options.get {
        match before.map(|entry| entry.as_str().ok_or(CommandError::WrongType)).transpose()? {
            Some(old) => ctx.reply.bulk(old),
            None => ctx.reply.null(),
        }
    }
    if !allowed {
        if !options.get {
            ctx.reply.null();
        }
        return Ok(());
    }
    store(ctx, key, value, if options.keep_ttl { expiry_before } else { options.expire_at_ms });
    ctx.data.notify(Interest::STRING, "set", key);
    if options.expire_at_ms.is_some() {
        ctx.data.notify(Interest::GENERIC, "expire", key);
    }
    if !options.get {
        ctx.reply.ok();
    }
    Ok(())
}

/// Sets a string and writes the effect that sets the same value and the same moment of expiry.
fn store(ctx: &mut Context<'_, '_>, key: &[u8], value: &[u8], expire_at_ms: Option<i64>) {
    ctx.data.set_string(key, value, expire_at_ms);
    match expire_at_ms {
        Some(at) => ctx.data.effect(&[b"SET", key, value, b"PXAT", at.to_string().as_bytes()]),
        None => ctx.data.effect(&[b"SET", key, value]),
    }
}

fn setnx(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let absent = !ctx.data.exists(args[1]);
    if absent {
        ctx.data.set_string(args[1], args[2], None);
        ctx.data.notify(Interest::STRING, "set", args[1]);
    }
    ctx.reply.integer(i64::from(absent));
    Ok(())
}

fn setex(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    set_with_expiry(ctx, args, TimeUnit { ms: 1000, absolute: false }, "setex")
}

fn psetex(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    set_with_expiry(ctx, args, TimeUnit { ms: 1, absolute: false }, "psetex")
}

fn set_with_expiry(
    ctx: &mut Context<'_, '_>,
    args: &[&[u8]],
    unit: TimeUnit,
    command: &'static str,
) -> CommandResult {
    let at = expire_at(args[2], unit, ctx.data.now_ms, command)?;
    store(ctx, args[1], args[3], Some(at));
    ctx.data.notify(Interest::STRING, "set", args[1]);
    ctx.data.notify(Interest::GENERIC, "expire", args[1]);
    ctx.reply.ok();
    Ok(())
}

fn getex(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let key = args[1];
    let option = match args[2..] {
        [] => None,
        ref words if words.iter().all(|word| is(word, "persist")) => Some(None),
        [ref pairs @ .., option, amount] => {
            let unit = TimeUnit::of_option(option).ok_or(CommandError::Syntax)?;
            repeats(pairs, unit)?;
            Some(Some((unit, amount)))
        }
        _ => return Err(CommandError::Syntax),
    };
    let now_ms = ctx.data.now_ms;
    let Some(value) = ctx.data.get_str(key)? else {
        ctx.reply.null();
        return Ok(());
    };
    // The amount is looked at only where there is a key for it.
    let expiry = match option {
        Some(Some((unit, amount))) => Some(Some(expire_at(amount, unit, now_ms, "getex")?)),
        Some(None) => Some(None),
        None => None,
    };
    ctx.reply.bulk(value);
    match expiry {
        None => {}
        Some(None) if ctx.data.peek(key).is_none_or(|entry| entry.expire_at_ms().is_none()) => {}
        Some(None) => {
            ctx.data.set_expire_at_ms(key, None);
            ctx.data.effect(&[b"PERSIST", key]);
            ctx.data.notify(Interest::GENERIC, "persist", key);
        }
        Some(Some(at)) if at <= ctx.data.now_ms => {
            ctx.data.remove(key);
            ctx.data.effect(&[b"DEL", key]);
            ctx.data.notify(Interest::GENERIC, "del", key);
        }
        Some(Some(at)) => {
            ctx.data.set_expire_at_ms(key, Some(at));
            ctx.data.effect(&[b"PEXPIREAT", key, at.to_string().as_bytes()]);
            ctx.data.notify(Interest::GENERIC, "expire", key);
        }
    }
    Ok(())
}

fn getdel(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    match ctx.data.get_str(args[1])? {
        Some(value) => ctx.reply.bulk(value),
        None => {
            ctx.reply.null();
            return Ok(());
        }
    }
    ctx.data.remove(args[1]);
    ctx.data.effect(&[b"DEL", args[1]]);
    ctx.data.notify(Interest::GENERIC, "del", args[1]);
    Ok(())
}

fn getset(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    match ctx.data.get_str(args[1])? {
        Some(value) => ctx.reply.bulk(value),
        None => ctx.reply.null(),
    }
    store(ctx, args[1], args[2], None);
    ctx.data.notify(Interest::STRING, "set", args[1]);
    Ok(())
}

fn mget(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    ctx.reply.array(args.len() - 1);
    for key in &args[1..] {
        // A key of another type answers as an absent one.
        match ctx.data.get_str(key) {
            Ok(Some(value)) => ctx.reply.bulk(value),
            Ok(None) | Err(_) => ctx.reply.null(),
        }
    }
    Ok(())
}

fn pairs<'a, 'b>(
    args: &'a [&'b [u8]],
    command: &'static str,
) -> Result<std::slice::ChunksExact<'a, &'b [u8]>, CommandError> {
    if args.len().is_multiple_of(2) {
        return Err(CommandError::WrongArity(command.into()));
    }
    Ok(args[1..].chunks_exact(2))
}

fn mset(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    for pair in pairs(args, "mset")? {
        ctx.data.set_string(pair[0], pair[1], None);
        ctx.data.notify(Interest::STRING, "set", pair[0]);
    }
    ctx.reply.ok();
    Ok(())
}

fn msetnx(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let pairs = pairs(args, "msetnx")?;
    if pairs.clone().any(|pair| ctx.data.exists(pair[0])) {
        ctx.reply.integer(0);
        return Ok(());
    }
    for pair in pairs {
        ctx.data.set_string(pair[0], pair[1], None);
        ctx.data.notify(Interest::STRING, "set", pair[0]);
    }
    ctx.reply.integer(1);
    Ok(())
}

/// Lets `edit` change the string of a key, which is made where it is absent.
pub(super) fn edit<R>(data: &mut Data<'_, '_>, key: &[u8], edit: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    if !data.exists(key) {
        data.set_string(key, b"", None);
    }
    let result = data.get_mut(key).and_then(|entry| entry.edit_string(edit));
    data.changed(key);
    result.expect("the caller has checked that the key holds a string")
}

/// Refuses a string that is longer than `proto-max-bulk-len` says, unless it was let through when it was made.
pub(super) fn check_size(data: &Data<'_, '_>, bytes: usize) -> CommandResult {
    if bytes > data.limits.string_bytes && !data.is_replaying() {
        return Err(CommandError::other("ERR string exceeds maximum allowed size (proto-max-bulk-len)"));
    }
    Ok(())
}

/// The length of a string that is about to change; counts nothing.
fn len_to_change(ctx: &mut Context<'_, '_>, key: &[u8]) -> Result<usize, CommandError> {
    let value = ctx.data.peek(key).map(|entry| entry.as_str().ok_or(CommandError::WrongType)).transpose()?;
    Ok(value.map_or(0, <[u8]>::len))
}

fn append(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    if !ctx.data.exists(args[1]) {
        // Nothing is edited, so it is encoded as any string that is set.
        check_size(&ctx.data, args[2].len())?;
        ctx.data.set_string(args[1], args[2], None);
        ctx.data.notify(Interest::STRING, "append", args[1]);
        ctx.reply.integer(args[2].len() as i64);
        return Ok(());
    }
    let before = len_to_change(ctx, args[1])?;
    check_size(&ctx.data, before + args[2].len())?;
    let len = edit(&mut ctx.data, args[1], |bytes| {
        bytes.extend_from_slice(args[2]);
        bytes.len()
    });
    ctx.data.notify(Interest::STRING, "append", args[1]);
    ctx.reply.integer(len as i64);
    Ok(())
}

fn strlen(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let len = ctx.data.get_str(args[1])?.map_or(0, <[u8]>::len);
    ctx.reply.integer(len as i64);
    Ok(())
}

fn getrange(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (start, end) = (integer(args[2])?, integer(args[3])?);
    let value = ctx.data.get_str(args[1])?.unwrap_or_default();
    // An end before the first byte means the first byte, but for a range that runs backwards from the end.
    let end = if start < 0 && start > end { end } else { end.max(-(value.len() as i64)) };
    ctx.reply.bulk(crate::args::clamp_range(start, end, value.len()).map_or(&[][..], |range| &value[range]));
    Ok(())
}

fn setrange(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (offset, value) = (integer(args[2])?, args[3]);
    let Ok(offset) = usize::try_from(offset) else {
        return Err(CommandError::other("ERR offset is out of range"));
    };
    let before = len_to_change(ctx, args[1])?;
    if value.is_empty() {
        ctx.reply.integer(before as i64);
        return Ok(());
    }
    check_size(&ctx.data, offset.saturating_add(value.len()))?;
    let len = edit(&mut ctx.data, args[1], |bytes| {
        if bytes.len() < offset + value.len() {
            bytes.resize(offset + value.len(), 0);
        }
        bytes[offset..offset + value.len()].copy_from_slice(value);
        bytes.len()
    });
    ctx.data.notify(Interest::STRING, "setrange", args[1]);
    ctx.reply.integer(len as i64);
    Ok(())
}

fn incr(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    add(ctx, args[1], 1)
}

fn decr(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    add(ctx, args[1], -1)
}

fn incrby(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    add(ctx, args[1], integer(args[2])?)
}

fn decrby(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let by = integer(args[2])?;
    let by = by.checked_neg().ok_or(CommandError::other("ERR decrement would overflow"))?;
    add(ctx, args[1], by)
}

fn add(ctx: &mut Context<'_, '_>, key: &[u8], by: i64) -> CommandResult {
    let entry = ctx.data.peek(key);
    let expiry = entry.and_then(|entry| entry.expire_at_ms());
    let before = match entry {
        Some(entry) => integer(entry.as_str().ok_or(CommandError::WrongType)?)?,
        None => 0,
    };
    let after = before.checked_add(by).ok_or(CommandError::Overflow)?;
    let mut text = [0u8; 20];
    ctx.data.set_string(key, decimal(&mut text, after), expiry);
    ctx.data.notify(Interest::STRING, "incrby", key);
    ctx.reply.integer(after);
    Ok(())
}

fn decimal(text: &mut [u8; 20], value: i64) -> &[u8] {
    use std::io::Write;
    let mut rest = &mut text[..];
    write!(rest, "{value}").expect("twenty bytes hold any i64");
    let left = rest.len();
    &text[..20 - left]
}

fn incrbyfloat(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let key = args[1];
    let entry = ctx.data.peek(key);
    let expiry = entry.and_then(|entry| entry.expire_at_ms());
    let before = match entry {
        Some(entry) => entry.as_str().ok_or(CommandError::WrongType)?,
        None => b"0",
    };
    float(before)?;
    float(args[2])?;
    let after = crate::args::add_decimals(before, args[2])
        .ok_or(CommandError::other("ERR increment would produce NaN or Infinity"))?;
    store(ctx, key, after.as_bytes(), expiry);
    ctx.data.notify(Interest::STRING, "incrbyfloat", key);
    ctx.reply.bulk(after.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Engine;

    /// Of one that is repeated the last counts.
    #[test]
    fn options_may_be_repeated_but_not_mixed() {
        Engine::new().check(
            "SET k v EX 10 EX 20 -> +OK
             TTL k -> :20
             SET k v EX 10 PX 20 -> -ERR syntax error
             SET k v KEEPTTL KEEPTTL -> +OK
             GETEX k EX 30 EX 40 -> $1 v
             TTL k -> :40
             GETEX k EX 30 PX 40 -> -ERR syntax error
             GETEX k EX 30 PERSIST -> -ERR syntax error
             GETEX k PERSIST EX 30 -> -ERR syntax error
             GETEX k PERSIST PERSIST -> $1 v
             TTL k -> :-1",
        );
    }
}
