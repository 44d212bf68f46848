//! Keys of any type: <https://redis.io/docs/latest/commands/?group=generic>

use cairn_keyspace::{Entry, Value};

use super::help;
use crate::args::{TimeUnit, integer, is};
use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::glob::glob_matches;
use crate::host::Host;
use crate::hub::Interest;
use crate::keys::{Access, KeySpec};
use crate::scan::{ScanOptions, cursor, reply_scan};
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least, exactly};

const KEYSPACE: Categories = Categories::KEYSPACE;
const TAKEN: KeySpec = KeySpec::one(1, Access::RW.access().delete());
const RENAME: &[KeySpec] = &[TAKEN, KeySpec::one(2, Access::OW.update())];
const RENAMENX: &[KeySpec] = &[TAKEN, KeySpec::one(2, Access::OW.insert())];
const COPY: &[KeySpec] = &[KeySpec::one(1, Access::RO.access()), KeySpec::one(2, Access::OW.update())];

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    CommandSpec { name: "del",         arity: at_least(2), flags: Flags::WRITE,            keys: Keys::every(1, -1, 1).access(Access::RM.delete()), acl: KEYSPACE, handler: del },
    CommandSpec { name: "unlink",      arity: at_least(2), flags: Flags::WRITE.fast(),     keys: Keys::every(1, -1, 1).access(Access::RM.delete()), acl: KEYSPACE, handler: del },
    CommandSpec { name: "exists",      arity: at_least(2), flags: Flags::READ.fast(),      keys: Keys::every(1, -1, 1).access(Access::RO), acl: KEYSPACE, handler: exists },
    CommandSpec { name: "touch",       arity: at_least(2), flags: Flags::READ.fast(),      keys: Keys::every(1, -1, 1).access(Access::RO), acl: KEYSPACE, handler: touch },
    CommandSpec { name: "type",        arity: exactly(2),  flags: Flags::READ.fast(),      keys: Keys::one(1).access(Access::RO), acl: KEYSPACE, handler: type_of },
    CommandSpec { name: "expire",      arity: at_least(3), flags: Flags::WRITE.fast(),     keys: Keys::one(1).access(Access::RW.update()), acl: KEYSPACE, handler: expire },
    CommandSpec { name: "pexpire",     arity: at_least(3), flags: Flags::WRITE.fast(),     keys: Keys::one(1).access(Access::RW.update()), acl: KEYSPACE, handler: pexpire },
    CommandSpec { name: "expireat",    arity: at_least(3), flags: Flags::WRITE.fast(),     keys: Keys::one(1).access(Access::RW.update()), acl: KEYSPACE, handler: expireat },
    CommandSpec { name: "pexpireat",   arity: at_least(3), flags: Flags::WRITE.fast(),     keys: Keys::one(1).access(Access::RW.update()), acl: KEYSPACE, handler: pexpireat },
    CommandSpec { name: "ttl",         arity: exactly(2),  flags: Flags::READ.fast(),      keys: Keys::one(1),          acl: KEYSPACE, handler: ttl },
    CommandSpec { name: "pttl",        arity: exactly(2),  flags: Flags::READ.fast(),      keys: Keys::one(1),          acl: KEYSPACE, handler: pttl },
    CommandSpec { name: "expiretime",  arity: exactly(2),  flags: Flags::READ.fast(),      keys: Keys::one(1),          acl: KEYSPACE, handler: expiretime },
    CommandSpec { name: "pexpiretime", arity: exactly(2),  flags: Flags::READ.fast(),      keys: Keys::one(1),          acl: KEYSPACE, handler: pexpiretime },
    CommandSpec { name: "persist",     arity: exactly(2),  flags: Flags::WRITE.fast(),     keys: Keys::one(1).access(Access::RW.update()), acl: KEYSPACE, handler: persist },
    CommandSpec { name: "keys",        arity: exactly(2),  flags: Flags::READ,             keys: Keys::Whole,           acl: KEYSPACE.and(Categories::DANGEROUS), handler: keys },
    CommandSpec { name: "scan",        arity: at_least(2), flags: Flags::READ,             keys: Keys::Whole,           acl: KEYSPACE, handler: scan },
    CommandSpec { name: "randomkey",   arity: exactly(1),  flags: Flags::READ,             keys: Keys::Whole,           acl: KEYSPACE, handler: randomkey },
    CommandSpec { name: "rename",      arity: exactly(3),  flags: Flags::WRITE,            keys: Keys::specs(RENAME),    acl: KEYSPACE, handler: rename },
    CommandSpec { name: "renamenx",    arity: exactly(3),  flags: Flags::WRITE.fast(),     keys: Keys::specs(RENAMENX),  acl: KEYSPACE, handler: renamenx },
    CommandSpec { name: "copy",        arity: at_least(3), flags: Flags::WRITE.deny_oom(), keys: Keys::specs(COPY),     acl: KEYSPACE, handler: copy },
    CommandSpec { name: "move",        arity: exactly(3),  flags: Flags::WRITE.fast(),     keys: Keys::one(1),          acl: KEYSPACE, handler: move_key },
    help::group_row("object"),
    CommandSpec { name: "object|encoding", arity: exactly(3), flags: Flags::READ, keys: Keys::one(2).access(Access::RO), acl: KEYSPACE, handler: object },
    CommandSpec { name: "object|refcount", arity: exactly(3), flags: Flags::READ, keys: Keys::one(2).access(Access::RO), acl: KEYSPACE, handler: object },
    CommandSpec { name: "object|idletime", arity: exactly(3), flags: Flags::READ, keys: Keys::one(2).access(Access::RO), acl: KEYSPACE, handler: object },
    CommandSpec { name: "object|freq",     arity: exactly(3), flags: Flags::READ, keys: Keys::one(2).access(Access::RO), acl: KEYSPACE, handler: object },
    help::row("object|help", KEYSPACE),
];

/// The longest string that Redis keeps beside its header, in bytes: what OBJECT ENCODING calls embstr.
const EMBEDDED_MAX: usize = 44;

fn del(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let mut removed = 0;
    for key in &args[1..] {
        if ctx.data.delete(key) {
            ctx.data.notify(Interest::GENERIC, "del", key);
            removed += 1;
        }
    }
    ctx.reply.integer(removed);
    Ok(())
}

/// A key named twice counts twice.
fn exists(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let found = args[1..].iter().filter(|key| ctx.data.inspect(key).is_some()).count();
    ctx.reply.integer(found as i64);
    Ok(())
}

/// The one command for which CLIENT NO-TOUCH does not hold.
fn touch(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let clock = ctx.data.clock;
    if ctx.session.no_touch {
        ctx.data.clock = clock.resumed();
    }
    let found = args[1..].iter().filter(|key| ctx.data.get(key).is_some()).count();
    ctx.data.clock = clock;
    ctx.reply.integer(found as i64);
    Ok(())
}

fn type_of(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let name = match ctx.data.inspect(args[1]).map(|entry| entry.value()) {
        None => "none",
        Some(value) => type_name(value),
    };
    ctx.reply.simple(name);
    Ok(())
}

fn type_name(value: Value<'_>) -> &'static str {
    match value {
        Value::Str(_) => "string",
        Value::Object(object) => object.type_name(),
    }
}

/// The conditions of EXPIRE and its like.
#[derive(Default)]
struct ExpireOptions {
    if_none: bool,
    if_any: bool,
    if_greater: bool,
    if_less: bool,
}

impl ExpireOptions {
    fn parse(args: &[&[u8]]) -> Result<Self, CommandError> {
        let mut options = Self::default();
        for arg in args {
            match &arg.to_ascii_lowercase()[..] {
                b"nx" => options.if_none = true,
                b"xx" => options.if_any = true,
                b"gt" => options.if_greater = true,
                b"lt" => options.if_less = true,
                _ => {
                    let word = String::from_utf8_lossy(&arg[..arg.len().min(128)]);
                    return Err(CommandError::other(format!("ERR Unsupported option {word}")));
                }
            }
        }
        if options.if_none && (options.if_any || options.if_greater || options.if_less) {
            return Err(CommandError::other(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if options.if_greater && options.if_less {
            return Err(CommandError::other("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(options)
    }

    /// Whether an expiry `at` may take the place of the one that was; a key without one counts as never expiring.
    fn allow(&self, at: i64, before: Option<i64>) -> bool {
        !(self.if_none && before.is_some()
            || self.if_any && before.is_none()
            || self.if_greater && before.is_none_or(|before| at <= before)
            || self.if_less && before.is_some_and(|before| at >= before))
    }
}

fn expire(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    set_expiry(ctx, args, TimeUnit { ms: 1000, absolute: false }, "expire")
}

fn pexpire(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    set_expiry(ctx, args, TimeUnit { ms: 1, absolute: false }, "pexpire")
}

fn expireat(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    set_expiry(ctx, args, TimeUnit { ms: 1000, absolute: true }, "expireat")
}

fn pexpireat(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    set_expiry(ctx, args, TimeUnit { ms: 1, absolute: true }, "pexpireat")
}

fn set_expiry(
    ctx: &mut Context<'_, '_>,
    args: &[&[u8]],
    unit: TimeUnit,
    command: &'static str,
) -> CommandResult {
    let options = ExpireOptions::parse(&args[3..])?;
    let (key, now_ms) = (args[1], ctx.data.now_ms);
    let at = unit.at_ms(integer(args[2])?, now_ms).ok_or(CommandError::InvalidExpire(command))?;
    let Some(before) = ctx.data.peek(key).map(|entry| entry.expire_at_ms()) else {
        ctx.reply.integer(0);
        return Ok(());
    };
    if !options.allow(at, before) {
        ctx.reply.integer(0);
        return Ok(());
    }
    // While the journal is replayed a moment in the past is kept as it is: the removal has an effect of its own.
    if at <= now_ms && !ctx.data.is_replaying() {
        ctx.data.remove(key);
        ctx.data.effect(&[b"DEL", key]);
        ctx.data.notify(Interest::GENERIC, "del", key);
    } else {
        ctx.data.set_expire_at_ms(key, Some(at));
        ctx.data.effect(&[b"PEXPIREAT", key, at.to_string().as_bytes()]);
        ctx.data.notify(Interest::GENERIC, "expire", key);
    }
    ctx.reply.integer(1);
    Ok(())
}

/// Replies with what `shown` makes of the moment a key expires: -2 without a key, -1 without an expiry.
fn reply_expiry(ctx: &mut Context<'_, '_>, key: &[u8], shown: impl FnOnce(i64, i64) -> i64) -> CommandResult {
    let now_ms = ctx.data.now_ms;
    let answer = match ctx.data.inspect(key).map(|entry| entry.expire_at_ms()) {
        None => -2,
        Some(None) => -1,
        Some(Some(at)) => shown(at, now_ms),
    };
    ctx.reply.integer(answer);
    Ok(())
}

/// Milliseconds, which are not negative, as seconds, rounded to the nearest.
fn seconds(ms: i64) -> i64 {
    ((ms.unsigned_abs() + 500) / 1000) as i64
}

fn ttl(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    reply_expiry(ctx, args[1], |at, now_ms| seconds(at.saturating_sub(now_ms).max(0)))
}

fn pttl(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    reply_expiry(ctx, args[1], |at, now_ms| at.saturating_sub(now_ms).max(0))
}

fn expiretime(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    reply_expiry(ctx, args[1], |at, _| seconds(at))
}

fn pexpiretime(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    reply_expiry(ctx, args[1], |at, _| at)
}

fn persist(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let expires = ctx.data.peek(args[1]).is_some_and(|entry| entry.expire_at_ms().is_some());
    if expires {
        ctx.data.set_expire_at_ms(args[1], None);
        ctx.data.notify(Interest::GENERIC, "persist", args[1]);
    }
    ctx.reply.integer(i64::from(expires));
    Ok(())
}

fn keys(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let at = ctx.reply.deferred();
    let mut count = 0;
    for shard in ctx.data.locked().all_shards() {
        for entry in shard.database(ctx.data.db).iter() {
            if (args[1] == b"*" || glob_matches(args[1], entry.key())) && !ctx.data.is_expired(entry) {
                ctx.reply.bulk(entry.key());
                count += 1;
            }
        }
    }
    ctx.reply.finish_array(at, count);
    Ok(())
}

fn scan(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let mut next = cursor(args[1])?;
    let options = ScanOptions::parse(&args[2..], true)?;
    let data = &ctx.data;
    let (mut visited, mut found) = (0, Vec::new());
    // As many keys as asked for, but not through endless empty tables for them: those of few keys are passed in one call.
    for _ in 0..options.count.saturating_mul(10).max(cairn_keyspace::SHARDS * 10) {
        next = data.locked().scan(data.db, next, |entry| {
            visited += 1;
            let of_type = options.type_name.is_none_or(|name| is(name, type_name(entry.value())));
            if of_type && options.lets_through(entry.key()) && !data.is_expired(entry) {
                found.push(entry.key().to_vec());
            }
        });
        if next == 0 || visited >= options.count {
            break;
        }
    }
    reply_scan(&mut ctx.reply, next, |reply| {
        found.iter().for_each(|key| reply.bulk(key));
        found.len()
    });
    Ok(())
}

fn randomkey(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    let mut random = ctx.data.random_source();
    let (data, reply) = (&ctx.data, &mut ctx.reply);
    // Where most keys have expired, a hundred tries may not find one that has not; then any will do.
    let tried = (0..100)
        .find_map(|_| data.locked().sample(data.db, &mut random).filter(|entry| !data.is_expired(entry)));
    let found = tried.or_else(|| {
        let shards = data.locked().all_shards();
        shards
            .into_iter()
            .flat_map(|shard| shard.database(data.db).iter())
            .find(|entry| !data.is_expired(entry))
    });
    match found {
        Some(entry) => reply.bulk(entry.key()),
        None => reply.null(),
    }
    Ok(())
}

/// Moves a value and its expiry to another key; the value that was there goes.
fn rename_key(ctx: &mut Context<'_, '_>, from: &[u8], to: &[u8]) {
    if let Some(entry) = ctx.data.remove(from) {
        ctx.data.insert_entry_in(ctx.data.db, entry.renamed(to));
        ctx.data.notify(Interest::GENERIC, "rename_from", from);
        ctx.data.notify(Interest::GENERIC, "rename_to", to);
    }
}

fn rename(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    if !ctx.data.exists(args[1]) {
        return Err(CommandError::NoSuchKey);
    }
    if args[1] != args[2] {
        // If the target has expired, that is an effect of its own, and comes first.
        if ctx.data.peek(args[2]).is_some() {
            ctx.data.notify(Interest::NEW, "new", args[2]);
        }
        rename_key(ctx, args[1], args[2]);
    }
    ctx.reply.ok();
    Ok(())
}

fn renamenx(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    if !ctx.data.exists(args[1]) {
        return Err(CommandError::NoSuchKey);
    }
    let free = !ctx.data.exists(args[2]);
    if free {
        rename_key(ctx, args[1], args[2]);
    }
    ctx.reply.integer(i64::from(free));
    Ok(())
}

/// A database's number.
pub(super) fn database(ctx: &Context<'_, '_>, arg: &[u8]) -> Result<u16, CommandError> {
    let number = integer(arg)?;
    if i32::try_from(number).is_err() {
        return Err(CommandError::other(
            "ERR value is out of range, value must between -2147483648 and 2147483647",
        ));
    }
    let databases = ctx.data.keyspace().databases();
    u16::try_from(number).ok().filter(|db| *db < databases).ok_or(CommandError::NoSuchDatabase)
}

const SAME_OBJECT: &str = "ERR source and destination objects are the same";

fn copy(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (from, to) = (args[1], args[2]);
    let (mut db, mut replace) = (ctx.data.db, false);
    let mut rest = args[3..].iter();
    while let Some(arg) = rest.next() {
        if is(arg, "replace") {
            replace = true;
        } else if is(arg, "db") {
            db = database(ctx, rest.next().ok_or(CommandError::Syntax)?)?;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    if db == ctx.data.db && from == to {
        return Err(CommandError::other(SAME_OBJECT));
    }
    let clock = ctx.data.clock;
    let copied = ctx.data.get(from).map(|entry| entry.copied(to));
    let taken = ctx.data.peek_in(db, to).is_some();
    match copied {
        Some(mut entry) if replace || !taken => {
            if taken {
                ctx.data.notify_in(db, Interest::NEW, "new", to);
            }
            entry.set_clock(clock.of_new());
            ctx.data.insert_entry_in(db, entry);
            ctx.data.notify_in(db, Interest::GENERIC, "copy_to", to);
            ctx.reply.integer(1);
        }
        _ => ctx.reply.integer(0),
    }
    Ok(())
}

fn move_key(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let key = args[1];
    let db = database(ctx, args[2])?;
    if db == ctx.data.db {
        return Err(CommandError::other(SAME_OBJECT));
    }
    if !ctx.data.exists(key) || ctx.data.peek_in(db, key).is_some() {
        ctx.reply.integer(0);
        return Ok(());
    }
    if let Some(entry) = ctx.data.remove(key) {
        ctx.data.insert_entry_in(db, entry);
        ctx.data.notify(Interest::GENERIC, "move_from", key);
        ctx.data.notify_in(db, Interest::GENERIC, "move_to", key);
    }
    ctx.reply.integer(1);
    Ok(())
}

fn object(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let word = args[1].to_ascii_lowercase();
    let (now_ms, by_frequency) = (ctx.data.now_ms, ctx.data.clock.by_frequency());
    let access = ctx.data.keyspace().access();
    let shares_numbers = word != b"refcount" || shares_numbers(ctx.host);
    let Some(entry) = ctx.data.inspect_quietly(args[2]) else {
        ctx.reply.null();
        return Ok(());
    };
    match &word[..] {
        b"encoding" => ctx.reply.bulk(encoding(entry).as_bytes()),
        b"refcount" => ctx.reply.integer(if shares_numbers { reference_count(entry) } else { 1 }),
        b"idletime" if by_frequency => return Err(CommandError::other(NO_IDLE_TIME)),
        b"idletime" => ctx.reply.integer(i64::from(access.idle_seconds(entry.clock(), now_ms))),
        _ if by_frequency => ctx.reply.integer(i64::from(access.frequency(entry.clock(), now_ms))),
        _ => return Err(CommandError::other(NO_FREQUENCY)),
    }
    Ok(())
}

const NO_IDLE_TIME: &str = "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.";
const NO_FREQUENCY: &str = "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.";

/// Redis does not where each needs a record of its uses for itself, to be evicted by.
fn shares_numbers(host: &dyn Host) -> bool {
    let settings = host.config_get(&[b"maxmemory", b"maxmemory-policy"]);
    let is_limited = settings.iter().any(|(name, value)| name == "maxmemory" && value != "0");
    let by_use = |value: &str| value.ends_with("-lru") || value.ends_with("-lfu");
    !(is_limited && settings.iter().any(|(name, value)| name == "maxmemory-policy" && by_use(value)))
}

/// Redis keeps small numbers once for all keys, and calls their count of references the greatest there is.
const SHARED_NUMBERS: std::ops::Range<i64> = 0..10_000;

fn reference_count(entry: &Entry) -> i64 {
    let number = entry.as_str().filter(|_| !entry.is_edited()).and_then(cairn_keyspace::types::parse_i64);
    if number.is_some_and(|number| SHARED_NUMBERS.contains(&number)) { i64::from(i32::MAX) } else { 1 }
}

pub(super) fn encoding(entry: &Entry) -> &'static str {
    match entry.value() {
        Value::Str(_) if entry.is_edited() => "raw",
        Value::Str(text) if cairn_keyspace::types::parse_i64(text).is_some() => "int",
        Value::Str(text) if text.len() <= EMBEDDED_MAX => "embstr",
        Value::Str(_) => "raw",
        Value::Object(object) => object.encoding(),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Engine;

    #[test]
    fn an_expiry_is_journaled_as_the_moment_it_names() {
        let mut engine = Engine::new();
        engine.check(
            "SET k v -> +OK
             EXPIRE k 10 -> :1
             TTL k -> :10
             PEXPIRETIME k -> :1700000010000
             EXPIRE k 5 GT -> :0
             EXPIRE k 5 NX GT -> -ERR NX and XX, GT or LT options at the same time are not compatible
             EXPIRE k 9223372036854775807 -> -ERR invalid expire time in 'expire' command
             PEXPIRE k 5000 LT -> :1
             PERSIST k -> :1
             PERSIST k -> :0
             TTL k -> :-1
             EXPIRE absent 10 -> :0
             PEXPIREAT k 1 -> :1
             TTL k -> :-2",
        );
        let expected = "SET k v\nPEXPIREAT k 1700000010000\nPEXPIREAT k 1700000005000\nPERSIST k\nDEL k";
        assert_eq!(engine.effects(), expected);
    }

    #[test]
    fn a_key_that_expired_is_removed_by_an_effect_of_its_own_before_what_replaces_it() {
        let mut engine = Engine::new();
        engine.check("SET a 1 -> +OK\nSET b 2 PX 10 -> +OK\nRPUSH l x -> :1\nPEXPIRE l 10 -> :1");
        engine.effects();
        engine.now_ms += 10;
        engine.check("RENAMENX a b -> :1\nRPUSHX l y -> :0\nTYPE b -> +string\nEXISTS l -> :0");
        assert_eq!(engine.effects(), "MULTI\nDEL b\nRENAMENX a b\nEXEC\nDEL l");
    }

    #[test]
    fn what_changes_nothing_leaves_no_effect() {
        let mut engine = Engine::new();
        engine.check(
            "SET k v -> +OK
             DEL a b -> :0
             RENAME k k -> +OK
             RENAMENX k k -> :0
             RENAME a b -> -ERR no such key
             COPY a b -> :0
             COPY k k -> -ERR source and destination objects are the same
             MOVE k 0 -> -ERR source and destination objects are the same
             MOVE k 9 -> -ERR DB index is out of range
             MOVE a 1 -> :0
             EXPIRE k 10 XX -> :0",
        );
        assert_eq!(engine.effects(), "SET k v");
    }

    #[test]
    fn keys_move_between_names_and_databases_with_their_expiry() {
        let mut engine = Engine::new();
        engine.check(
            "RPUSH a 1 2 -> :2
             PEXPIRE a 1000 -> :1
             RENAME a b -> +OK
             PTTL b -> :1000
             COPY b c DB 1 -> :1
             SET c x -> +OK
             MOVE c 1 -> :0
             MOVE b 1 -> :1
             DBSIZE -> :1
             SELECT 1 -> +OK
             LRANGE c 0 -1 -> *2 $1 1 $1 2
             PTTL b -> :1000
             OBJECT ENCODING b -> $9 quicklist",
        );
        assert_eq!(engine.replayed().digest(), engine.digest());
    }

    #[test]
    fn a_scan_finds_every_key_of_the_type_and_none_that_expired() {
        let mut engine = Engine::new();
        for i in 0..300 {
            engine.say(&format!("SET key:{i} x"));
            engine.say(&format!("SADD set:{i} x"));
        }
        engine.check("PEXPIRE key:7 5 -> :1");
        engine.now_ms += 5;
        let (mut cursor, mut seen) = ("0".to_owned(), std::collections::BTreeSet::new());
        loop {
            let reply = engine.say(&format!("SCAN {cursor} COUNT 20 TYPE STRING MATCH key:*"));
            let mut words = reply.split(' ').skip(2);
            cursor = words.next().expect("a cursor").to_owned();
            seen.extend(words.filter(|word| word.starts_with("key:")).map(str::to_owned));
            if cursor == "0" {
                break;
            }
        }
        assert_eq!(seen.len(), 299);
        engine.check("KEYS key:7 -> *0\nKEYS set:17 -> *1 $6 set:17");
    }
}
