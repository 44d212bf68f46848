//! Hashes: <https://redis.io/docs/latest/commands/?group=hash>

use cairn_keyspace::types::{Hash, Item};
use cairn_resp::{Protocol, Reply};

use super::set::scan_collection;
use crate::args::{add_decimals, float, integer, parse_float, sample_options};
use crate::context::{Context, bulk_item};
use crate::error::{CommandError, CommandResult};
use crate::hub::Interest;
use crate::keys::Access;
use crate::scan::{cursor, reply_scan};
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least, exactly};

const HASH: Categories = Categories::HASH;

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    CommandSpec { name: "hset",         arity: at_least(4), flags: Flags::WRITE.deny_oom().fast(), keys: Keys::one(1).access(Access::RW.update()), acl: HASH, handler: hset },
    CommandSpec { name: "hmset",        arity: at_least(4), flags: Flags::WRITE.deny_oom().fast(), keys: Keys::one(1).access(Access::RW.update()), acl: HASH, handler: hmset },
    CommandSpec { name: "hsetnx",       arity: exactly(4),  flags: Flags::WRITE.deny_oom().fast(), keys: Keys::one(1).access(Access::RW.insert()), acl: HASH, handler: hsetnx },
    CommandSpec { name: "hget",         arity: exactly(3),  flags: Flags::READ.fast(),             keys: Keys::one(1), acl: HASH, handler: hget },
    CommandSpec { name: "hmget",        arity: at_least(3), flags: Flags::READ.fast(),             keys: Keys::one(1), acl: HASH, handler: hmget },
    CommandSpec { name: "hgetall",      arity: exactly(2),  flags: Flags::READ,                    keys: Keys::one(1), acl: HASH, handler: hgetall },
    CommandSpec { name: "hkeys",        arity: exactly(2),  flags: Flags::READ,                    keys: Keys::one(1), acl: HASH, handler: hkeys },
    CommandSpec { name: "hvals",        arity: exactly(2),  flags: Flags::READ,                    keys: Keys::one(1), acl: HASH, handler: hvals },
    CommandSpec { name: "hlen",         arity: exactly(2),  flags: Flags::READ.fast(),             keys: Keys::one(1).access(Access::RO), acl: HASH, handler: hlen },
    CommandSpec { name: "hstrlen",      arity: exactly(3),  flags: Flags::READ.fast(),             keys: Keys::one(1).access(Access::RO), acl: HASH, handler: hstrlen },
    CommandSpec { name: "hexists",      arity: exactly(3),  flags: Flags::READ.fast(),             keys: Keys::one(1).access(Access::RO), acl: HASH, handler: hexists },
    CommandSpec { name: "hdel",         arity: at_least(3), flags: Flags::WRITE.fast(),            keys: Keys::one(1).access(Access::RW.delete()), acl: HASH, handler: hdel },
    CommandSpec { name: "hincrby",      arity: exactly(4),  flags: Flags::WRITE.deny_oom().fast(), keys: Keys::one(1), acl: HASH, handler: hincrby },
    CommandSpec { name: "hincrbyfloat", arity: exactly(4),  flags: Flags::WRITE.deny_oom().fast(), keys: Keys::one(1), acl: HASH, handler: hincrbyfloat },
    CommandSpec { name: "hscan",        arity: at_least(3), flags: Flags::READ,                    keys: Keys::one(1), acl: HASH, handler: hscan },
    CommandSpec { name: "hrandfield",   arity: at_least(2), flags: Flags::READ,                    keys: Keys::one(1), acl: HASH, handler: hrandfield },
];

/// Sets the pairs behind the key; returns how many fields are new.
fn set_pairs(
    ctx: &mut Context<'_, '_>,
    args: &[&[u8]],
    command: &'static str,
) -> Result<usize, CommandError> {
    if !args.len().is_multiple_of(2) {
        return Err(CommandError::WrongArity(command.into()));
    }
    let limits = ctx.data.limits;
    let mut added = 0;
    ctx.data.edit_or_create(args[1], |hash: &mut Hash| {
        let pairs = args[2..].chunks_exact(2);
        added = pairs.filter(|pair| hash.set(pair[0], pair[1], limits)).count();
        args.len() / 2 - 1
    })?;
    ctx.data.notify(Interest::HASH, "hset", args[1]);
    Ok(added)
}

fn hset(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let added = set_pairs(ctx, args, "hset")?;
    ctx.reply.integer(added as i64);
    Ok(())
}

fn hmset(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    set_pairs(ctx, args, "hmset")?;
    ctx.reply.ok();
    Ok(())
}

fn hsetnx(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let limits = ctx.data.limits;
    let set = ctx.data.edit_or_create(args[1], |hash: &mut Hash| {
        usize::from(!hash.contains(args[2]) && hash.set(args[2], args[3], limits))
    })?;
    if set > 0 {
        ctx.data.notify(Interest::HASH, "hset", args[1]);
    }
    ctx.reply.integer(set as i64);
    Ok(())
}

pub(super) fn bulk_or_null(reply: &mut Reply<'_>, item: Option<Item<'_>>) {
    match item {
        Some(item) => bulk_item(reply, item),
        None => reply.null(),
    }
}

fn hget(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let hash = ctx.data.read::<Hash>(args[1])?;
    bulk_or_null(&mut ctx.reply, hash.and_then(|hash| hash.get(args[2])));
    Ok(())
}

fn hmget(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let hash = ctx.data.read::<Hash>(args[1])?;
    ctx.reply.array(args.len() - 2);
    for field in &args[2..] {
        bulk_or_null(&mut ctx.reply, hash.and_then(|hash| hash.get(field)));
    }
    Ok(())
}

fn hgetall(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let hash = ctx.data.read::<Hash>(args[1])?;
    ctx.reply.map(hash.map_or(0, Hash::len));
    for (field, value) in hash.iter().flat_map(|hash| hash.iter()) {
        bulk_item(&mut ctx.reply, field);
        bulk_item(&mut ctx.reply, value);
    }
    Ok(())
}

fn hkeys(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let hash = ctx.data.read::<Hash>(args[1])?;
    ctx.reply.array(hash.map_or(0, Hash::len));
    hash.iter().flat_map(|hash| hash.iter()).for_each(|(field, _)| bulk_item(&mut ctx.reply, field));
    Ok(())
}

fn hvals(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let hash = ctx.data.read::<Hash>(args[1])?;
    ctx.reply.array(hash.map_or(0, Hash::len));
    hash.iter().flat_map(|hash| hash.iter()).for_each(|(_, value)| bulk_item(&mut ctx.reply, value));
    Ok(())
}

fn hlen(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let len = ctx.data.read::<Hash>(args[1])?.map_or(0, Hash::len);
    ctx.reply.integer(len as i64);
    Ok(())
}

fn hstrlen(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let value = ctx.data.read::<Hash>(args[1])?.and_then(|hash| hash.get(args[2]));
    ctx.reply.integer(value.map_or(0, |value| value.len()) as i64);
    Ok(())
}

fn hexists(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let found = ctx.data.read::<Hash>(args[1])?.is_some_and(|hash| hash.contains(args[2]));
    ctx.reply.integer(i64::from(found));
    Ok(())
}

fn hdel(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let removed = ctx
        .data
        .edit(args[1], |hash: &mut Hash| args[2..].iter().filter(|field| hash.remove(field)).count())?;
    if removed > 0 {
        ctx.data.notify_taken(Interest::HASH, "hdel", args[1]);
    }
    ctx.reply.integer(removed as i64);
    Ok(())
}

/// Changes one field of a hash, which is made where it is absent; the field expires when it did before.
fn set_field(ctx: &mut Context<'_, '_>, key: &[u8], field: &[u8], value: &[u8]) -> CommandResult {
    let limits = ctx.data.limits;
    ctx.data.edit_or_create(key, |hash: &mut Hash| {
        hash.set_keeping_expiry(field, value, limits);
        1
    })?;
    Ok(())
}

fn hincrby(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let by = integer(args[3])?;
    let before = match ctx.data.look::<Hash>(args[1])?.and_then(|hash| hash.get(args[2])) {
        Some(item) => item.as_i64().ok_or(CommandError::other("ERR hash value is not an integer"))?,
        None => 0,
    };
    let after = before.checked_add(by).ok_or(CommandError::Overflow)?;
    set_field(ctx, args[1], args[2], after.to_string().as_bytes())?;
    ctx.data.notify(Interest::HASH, "hincrby", args[1]);
    ctx.reply.integer(after);
    Ok(())
}

/// Replays as HSET (or HSETEX, which lets the field keep its expiry) of the sum, which need not depend on how a processor
/// adds.
fn hincrbyfloat(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (key, field) = (args[1], args[2]);
    if float(args[3])?.is_infinite() {
        return Err(CommandError::other("ERR value is NaN or Infinity"));
    }
    let hash = ctx.data.look::<Hash>(key)?;
    let expires = hash.is_some_and(|hash| hash.expire_at_ms(field).is_some());
    let before = match hash.and_then(|hash| hash.get(field)) {
        Some(item) => item.to_vec(),
        None => b"0".to_vec(),
    };
    parse_float(&before).ok_or(CommandError::other("ERR hash value is not a float"))?;
    let after = add_decimals(&before, args[3])
        .ok_or(CommandError::other("ERR increment would produce NaN or Infinity"))?;
    set_field(ctx, key, field, after.as_bytes())?;
    if expires {
        ctx.data.effect(&[b"HSETEX", key, b"KEEPTTL", b"FIELDS", b"1", field, after.as_bytes()]);
    } else {
        ctx.data.effect(&[b"HSET", key, field, after.as_bytes()]);
    }
    ctx.data.notify(Interest::HASH, "hincrbyfloat", key);
    ctx.reply.bulk(after.as_bytes());
    Ok(())
}

fn hscan(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let from = cursor(args[2])?;
    scan_collection(ctx, args, |hash: &Hash, options, reply| {
        let mut found = Vec::new();
        let next = hash.scan(from, options.count, |field, value| {
            if field.with_bytes(|bytes| options.lets_through(bytes)) {
                found.extend([field, value]);
            }
        });
        reply_scan(reply, next, |reply| {
            found.iter().for_each(|item| bulk_item(reply, *item));
            found.len()
        });
    })
}

fn hrandfield(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (count, with_values) = sample_options(args, "withvalues")?;
    let reply_max = ctx.reply_max();
    let mut random = ctx.data.random_source();
    let hash = ctx.data.read::<Hash>(args[1])?;
    let reply = &mut ctx.reply;
    match (count, hash) {
        (None, hash) => {
            bulk_or_null(reply, hash.and_then(|hash| hash.random(&mut random)).map(|(field, _)| field))
        }
        (Some(_), None) => reply.array(0),
        (Some(count), Some(hash)) if count < 0 => {
            pairs_header(reply, count.unsigned_abs() as usize, with_values);
            for _ in 0..count.unsigned_abs() {
                hash.random(&mut random).into_iter().for_each(|pair| bulk_pair(reply, pair, with_values));
                if reply.len() > reply_max {
                    return ctx.give_up_reply();
                }
            }
        }
        (Some(count), Some(hash)) => {
            let pairs = hash.random_distinct(count as usize, &mut random);
            pairs_header(reply, pairs.len(), with_values);
            pairs.into_iter().for_each(|pair| bulk_pair(reply, pair, with_values));
        }
    }
    Ok(())
}

/// With values, version 3 of the protocol has an array of pairs, version 2 a flat one.
fn pairs_header(reply: &mut Reply<'_>, count: usize, with_values: bool) {
    let flat = with_values && reply.protocol() == Protocol::Resp2;
    reply.array(if flat { count * 2 } else { count });
}

fn bulk_pair(reply: &mut Reply<'_>, (field, value): (Item<'_>, Item<'_>), with_values: bool) {
    if with_values && reply.protocol() == Protocol::Resp3 {
        reply.array(2);
    }
    bulk_item(reply, field);
    if with_values {
        bulk_item(reply, value);
    }
}

#[cfg(test)]
mod tests {
    use cairn_resp::Protocol;

    use crate::hub::{OutputLimit, OutputLimits};
    use crate::testing::Engine;

    #[test]
    fn a_reply_longer_than_may_wait_for_the_client_is_given_up_while_it_is_made() {
        let normal = OutputLimit { hard_bytes: 100_000, ..OutputLimit::default() };
        let limits = OutputLimits { normal, ..OutputLimits::default() };
        let many =
            ["HRANDFIELD h -999999999", "SRANDMEMBER s -999999999", "ZRANDMEMBER z -999999999 WITHSCORES"];
        for command in many {
            let mut engine = Engine::new();
            engine.check("HSET h a b -> :1\nSADD s a -> :1\nZADD z 1 a -> :1");
            engine.hub.set_output_limits(limits);
            let words: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
            assert!((100_000..101_000).contains(&engine.run(&words).len()), "{command}");
            assert!(engine.session.reply_given_up && engine.session.closing);
        }
        let mut engine = Engine::new();
        engine.check("HSET h a b -> :1");
        engine.hub.set_output_limits(limits);
        let script = format!("return redis.pcall('{}')['err']", many[0].replace(' ', "','"));
        let heard = engine.run(&[b"EVAL", script.as_bytes(), b"1", b"h"]);
        assert!(String::from_utf8_lossy(&heard).contains("longer than client-output-buffer-limit allows"));
        assert!(!engine.session.reply_given_up);
        engine.check(&format!("MULTI -> +OK\n{} -> +QUEUED\nSET k v -> +QUEUED", many[0]));
        engine.say("EXEC");
        assert!(engine.session.reply_given_up);
        engine.check("GET k -> $1 v");
    }

    #[test]
    fn replies_are_those_of_redis() {
        Engine::new().check(
            "HSET h a 1 b 2 -> :2
             HSET h a 5 c 3 -> :1
             HSET h a -> -ERR wrong number of arguments for 'hset' command
             HSET h a 1 b -> -ERR wrong number of arguments for 'hset' command
             HMSET h d x -> +OK
             HSETNX h a 9 -> :0
             HGET h a -> $1 5
             HGET h z -> $-1
             HMGET h a z -> *2 $1 5 $-1
             HMGET no a z -> *2 $-1 $-1
             HGETALL h -> *8 $1 a $1 5 $1 b $1 2 $1 c $1 3 $1 d $1 x
             HKEYS h -> *4 $1 a $1 b $1 c $1 d
             HVALS no -> *0
             HSTRLEN h a -> :1
             HEXISTS h z -> :0
             HINCRBY h a 10 -> :15
             HINCRBY h d 1 -> -ERR hash value is not an integer
             HINCRBY h a 9223372036854775807 -> -ERR increment or decrement would overflow
             HINCRBYFLOAT h a 0.1 -> $4 15.1
             HINCRBYFLOAT h d 1 -> -ERR hash value is not a float
             HINCRBYFLOAT h a x -> -ERR value is not a valid float
             HDEL h a b c z -> :3
             HSCAN h 0 -> *2 $1 0 *2 $1 d $1 x
             HRANDFIELD h -> $1 d
             HRANDFIELD h 5 WITHVALUES -> *2 $1 d $1 x
             HRANDFIELD h -2 -> *2 $1 d $1 d
             HRANDFIELD no 1 -> *0
             HDEL h d -> :1
             EXISTS h -> :0",
        );
    }

    #[test]
    fn shapes_of_version_3() {
        let mut engine = Engine::new();
        engine.speak(Protocol::Resp3);
        engine.check(
            "HGETALL h -> %0
             HSET h a 1 -> :1
             HGETALL h -> %1 $1 a $1 1
             HRANDFIELD h 1 WITHVALUES -> *1 *2 $1 a $1 1
             HGET h z -> _",
        );
    }

    #[test]
    fn a_sum_is_journaled_as_what_it_came_to() {
        let mut engine = Engine::new();
        engine.check("HINCRBYFLOAT h f 0.1 -> $3 0.1\nHINCRBYFLOAT h f 0.2 -> $3 0.3\nHINCRBY h n 2 -> :2\nHDEL h z -> :0");
        assert_eq!(engine.effects(), "HSET h f 0.1\nHSET h f 0.3\nHINCRBY h n 2");
    }

    #[test]
    fn an_error_leaves_no_empty_hash_behind() {
        let mut engine = Engine::new();
        engine.check("HINCRBYFLOAT h f x -> -ERR value is not a valid float\nHINCRBY h f x -> -ERR value is not an integer or out of range\nEXISTS h -> :0");
        assert_eq!(engine.effects(), "");
    }
}
