//! Sets: <https://redis.io/docs/latest/commands/?group=set>

use cairn_keyspace::types::{Item, Set};
use cairn_resp::Reply;

use crate::args::{is, natural, positive, sample_size};
use crate::context::{Collection, Context, Data, bulk_item};
use crate::error::{CommandError, CommandResult};
use crate::hub::Interest;
use crate::keys::{Access, KeySpec};
use crate::scan::{ScanOptions, cursor, reply_scan};
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least, exactly};

const SET: Categories = Categories::SET;
const SOURCES: KeySpec = KeySpec::range(2, -1, Access::RO.access());
const STORE: &[KeySpec] = &[KeySpec::one(1, Access::OW.update()), SOURCES];
const STORE_INTER: &[KeySpec] = &[KeySpec::one(1, Access::RW.update()), SOURCES];

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    CommandSpec { name: "sadd",        arity: at_least(3), flags: Flags::WRITE.deny_oom().fast(), keys: Keys::one(1).access(Access::RW.insert()), acl: SET, handler: sadd },
    CommandSpec { name: "srem",        arity: at_least(3), flags: Flags::WRITE.fast(),            keys: Keys::one(1).access(Access::RW.delete()), acl: SET, handler: srem },
    CommandSpec { name: "sismember",   arity: exactly(3),  flags: Flags::READ.fast(),             keys: Keys::one(1).access(Access::RO), acl: SET, handler: sismember },
    CommandSpec { name: "smismember",  arity: at_least(3), flags: Flags::READ.fast(),             keys: Keys::one(1),          acl: SET, handler: smismember },
    CommandSpec { name: "smembers",    arity: exactly(2),  flags: Flags::READ,                    keys: Keys::one(1),          acl: SET, handler: smembers },
    CommandSpec { name: "scard",       arity: exactly(2),  flags: Flags::READ.fast(),             keys: Keys::one(1).access(Access::RO), acl: SET, handler: scard },
    CommandSpec { name: "spop",        arity: at_least(2), flags: Flags::WRITE.fast(),            keys: Keys::one(1).access(Access::RW.access().delete()), acl: SET, handler: spop },
    CommandSpec { name: "srandmember", arity: at_least(2), flags: Flags::READ,                    keys: Keys::one(1),          acl: SET, handler: srandmember },
    CommandSpec { name: "smove",       arity: exactly(4),  flags: Flags::WRITE.fast(),            keys: Keys::MOVE,              acl: SET, handler: smove },
    CommandSpec { name: "sinter",      arity: at_least(2), flags: Flags::READ,                    keys: Keys::every(1, -1, 1), acl: SET, handler: sinter },
    CommandSpec { name: "sunion",      arity: at_least(2), flags: Flags::READ,                    keys: Keys::every(1, -1, 1), acl: SET, handler: sunion },
    CommandSpec { name: "sdiff",       arity: at_least(2), flags: Flags::READ,                    keys: Keys::every(1, -1, 1), acl: SET, handler: sdiff },
    CommandSpec { name: "sinterstore", arity: at_least(3), flags: Flags::WRITE.deny_oom(),        keys: Keys::specs(STORE_INTER), acl: SET, handler: sinterstore },
    CommandSpec { name: "sunionstore", arity: at_least(3), flags: Flags::WRITE.deny_oom(),        keys: Keys::specs(STORE),      acl: SET, handler: sunionstore },
    CommandSpec { name: "sdiffstore",  arity: at_least(3), flags: Flags::WRITE.deny_oom(),        keys: Keys::specs(STORE),      acl: SET, handler: sdiffstore },
    CommandSpec { name: "sintercard",  arity: at_least(3), flags: Flags::READ,                    keys: Keys::counted(1),      acl: SET, handler: sintercard },
    CommandSpec { name: "sscan",       arity: at_least(3), flags: Flags::READ,                    keys: Keys::one(1),          acl: SET, handler: sscan },
];

fn sadd(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let limits = ctx.data.limits;
    let added = ctx.data.edit_or_create(args[1], |set: &mut Set| {
        args[2..].iter().filter(|member| set.add(member, limits)).count()
    })?;
    if added > 0 {
        ctx.data.notify(Interest::SET, "sadd", args[1]);
    }
    ctx.reply.integer(added as i64);
    Ok(())
}

fn srem(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let removed = ctx
        .data
        .edit(args[1], |set: &mut Set| args[2..].iter().filter(|member| set.remove(member)).count())?;
    if removed > 0 {
        ctx.data.notify_taken(Interest::SET, "srem", args[1]);
    }
    ctx.reply.integer(removed as i64);
    Ok(())
}

fn sismember(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let found = ctx.data.read::<Set>(args[1])?.is_some_and(|set| set.contains(args[2]));
    ctx.reply.integer(i64::from(found));
    Ok(())
}

fn smismember(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let set = ctx.data.read::<Set>(args[1])?;
    ctx.reply.array(args.len() - 2);
    for member in &args[2..] {
        ctx.reply.integer(i64::from(set.is_some_and(|set| set.contains(member))));
    }
    Ok(())
}

fn smembers(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    match ctx.data.read::<Set>(args[1])? {
        Some(set) => {
            ctx.reply.set(set.len());
            set.iter().for_each(|member| bulk_item(&mut ctx.reply, member));
        }
        None => ctx.reply.set(0),
    }
    Ok(())
}

fn scard(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let len = ctx.data.read::<Set>(args[1])?.map_or(0, Set::len);
    ctx.reply.integer(len as i64);
    Ok(())
}

/// Replays as the removal of the very members that chance picked.
fn spop(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (key, count) = match args {
        [_, key] => (*key, None),
        [_, key, count] => (*key, Some(natural(count, "ERR value is out of range, must be positive")?)),
        _ => return Err(CommandError::Syntax),
    };
    let mut random = ctx.data.random_source();
    let mut popped: Vec<Vec<u8>> = Vec::new();
    let mut emptied = false;
    ctx.data.edit(key, |set: &mut Set| {
        popped = match count {
            None => set.random(&mut random).iter().map(Item::to_vec).collect(),
            Some(count) => set.random_distinct(count, &mut random).iter().map(Item::to_vec).collect(),
        };
        emptied = popped.len() == set.len();
        if emptied {
            *set = Set::new();
        } else {
            popped.iter().for_each(|member| _ = set.remove(member));
        }
        popped.len()
    })?;
    match (count, popped.first()) {
        (None, Some(member)) => ctx.reply.bulk(member),
        (None, None) => ctx.reply.null(),
        (Some(_), _) => {
            ctx.reply.set(popped.len());
            popped.iter().for_each(|member| ctx.reply.bulk(member));
        }
    }
    if !popped.is_empty() {
        ctx.data.notify_taken(Interest::SET, "spop", key);
    }
    if emptied && !popped.is_empty() {
        ctx.data.effect(&[b"DEL", key]);
    } else if !popped.is_empty() {
        let words: [&[u8]; 2] = [b"SREM", key];
        let effect: Vec<&[u8]> = words.into_iter().chain(popped.iter().map(Vec::as_slice)).collect();
        ctx.data.effect(&effect);
    }
    Ok(())
}

fn srandmember(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let count = match args {
        [_, _] => None,
        [_, _, count] => Some(sample_size(count)?),
        _ => return Err(CommandError::Syntax),
    };
    let (mut random, reply_max) = (ctx.data.random_source(), ctx.reply_max());
    let set = ctx.data.read::<Set>(args[1])?;
    let reply = &mut ctx.reply;
    match (count, set) {
        (None, set) => match set.and_then(|set| set.random(&mut random)) {
            Some(member) => bulk_item(reply, member),
            None => reply.null(),
        },
        (Some(_), None) => reply.array(0),
        (Some(count), Some(set)) if count < 0 => {
            reply.array(count.unsigned_abs() as usize);
            for _ in 0..count.unsigned_abs() {
                set.random(&mut random).into_iter().for_each(|member| bulk_item(reply, member));
                if reply.len() > reply_max {
                    return ctx.give_up_reply();
                }
            }
        }
        (Some(count), Some(set)) => {
            let members = set.random_distinct(count as usize, &mut random);
            reply.array(members.len());
            members.into_iter().for_each(|member| bulk_item(reply, member));
        }
    }
    Ok(())
}

fn smove(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (from, to, member) = (args[1], args[2], args[3]);
    let Some(there) = ctx.data.look::<Set>(from)?.map(|set| set.contains(member)) else {
        ctx.reply.integer(0);
        return Ok(());
    };
    ctx.data.look::<Set>(to)?;
    if there && from != to {
        let limits = ctx.data.limits;
        ctx.data.edit(from, |set: &mut Set| usize::from(set.remove(member)))?;
        ctx.data.notify_taken(Interest::SET, "srem", from);
        let added = ctx.data.edit_or_create(to, |set: &mut Set| usize::from(set.add(member, limits)))?;
        if added > 0 {
            ctx.data.notify(Interest::SET, "sadd", to);
        }
    }
    ctx.reply.integer(i64::from(there));
    Ok(())
}

/// The sets of these keys, once each has been looked at; `None` for an absent one.
fn sets<'d>(data: &'d mut Data<'_, '_>, keys: &[&[u8]]) -> Result<Vec<Option<&'d Set>>, CommandError> {
    for key in keys {
        data.read::<Set>(key)?;
    }
    let data = &*data;
    Ok(keys.iter().map(|key| data.settled_as::<Set>(key)).collect())
}

/// Calls `visit` with each member that all sets have, as long as it returns true.
fn intersect(sets: &[Option<&Set>], mut visit: impl FnMut(Item<'_>) -> bool) {
    let Some(mut sets) = sets.iter().copied().collect::<Option<Vec<&Set>>>() else { return };
    // The smallest one first: nothing beyond its members need be looked for.
    sets.sort_by_key(|set| set.len());
    let Some((smallest, others)) = sets.split_first() else { return };
    for member in smallest.iter() {
        let everywhere = member.with_bytes(|bytes| others.iter().all(|set| set.contains(bytes)));
        if everywhere && !visit(member) {
            return;
        }
    }
}

/// What SINTER, SUNION and SDIFF compute.
#[derive(Clone, Copy)]
enum Operation {
    Intersection,
    Union,
    Difference,
}

impl Operation {
    fn run(self, sets: &[Option<&Set>], limits: &cairn_keyspace::types::Limits) -> Set {
        let mut result = Set::new();
        let mut add = |member: Item<'_>| member.with_bytes(|bytes| result.add(bytes, limits));
        match self {
            Operation::Intersection => intersect(sets, |member| {
                add(member);
                true
            }),
            Operation::Union => {
                sets.iter().copied().flatten().flat_map(Set::iter).for_each(|member| _ = add(member))
            }
            Operation::Difference => {
                let Some((Some(first), others)) = sets.split_first() else { return result };
                let elsewhere =
                    |bytes: &[u8]| others.iter().copied().flatten().any(|set| set.contains(bytes));
                first
                    .iter()
                    .filter(|member| !member.with_bytes(elsewhere))
                    .for_each(|member| _ = add(member));
            }
        }
        result
    }
}

fn combine(ctx: &mut Context<'_, '_>, keys: &[&[u8]], operation: Operation) -> CommandResult {
    let limits = ctx.data.limits;
    let result = operation.run(&sets(&mut ctx.data, keys)?, limits);
    ctx.reply.set(result.len());
    result.iter().for_each(|member| bulk_item(&mut ctx.reply, member));
    Ok(())
}

fn combine_and_store(ctx: &mut Context<'_, '_>, args: &[&[u8]], operation: Operation) -> CommandResult {
    let limits = ctx.data.limits;
    let result = operation.run(&sets(&mut ctx.data, &args[2..])?, limits);
    let len = result.len();
    let event = match operation {
        Operation::Intersection => "sinterstore",
        Operation::Union => "sunionstore",
        Operation::Difference => "sdiffstore",
    };
    ctx.data.store_as(Interest::SET, event, args[1], result);
    ctx.reply.integer(len as i64);
    Ok(())
}

fn sinter(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    combine(ctx, &args[1..], Operation::Intersection)
}

fn sunion(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    combine(ctx, &args[1..], Operation::Union)
}

fn sdiff(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    combine(ctx, &args[1..], Operation::Difference)
}

fn sinterstore(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    combine_and_store(ctx, args, Operation::Intersection)
}

fn sunionstore(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    combine_and_store(ctx, args, Operation::Union)
}

fn sdiffstore(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    combine_and_store(ctx, args, Operation::Difference)
}

fn sintercard(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (keys, limit) = keys_and_limit(args)?;
    let mut count = 0;
    intersect(&sets(&mut ctx.data, keys)?, |_| {
        count += 1;
        count != limit
    });
    ctx.reply.integer(count as i64);
    Ok(())
}

/// The keys of SINTERCARD and its LIMIT, 0 for none.
fn keys_and_limit<'a, 'b>(args: &'a [&'b [u8]]) -> Result<(&'a [&'b [u8]], usize), CommandError> {
    let count = positive(args[1], "ERR numkeys should be greater than 0")?;
    if count > args.len() - 2 {
        return Err(CommandError::other("ERR Number of keys can't be greater than number of args"));
    }
    let (keys, options) = args[2..].split_at(count);
    let mut limit = 0;
    for option in options.chunks(2) {
        match option {
            [word, value] if is(word, "limit") => limit = natural(value, "ERR LIMIT can't be negative")?,
            _ => return Err(CommandError::Syntax),
        }
    }
    Ok((keys, limit))
}

fn sscan(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let from = cursor(args[2])?;
    scan_collection(ctx, args, |set: &Set, options, reply| {
        let mut found = Vec::new();
        let next = set.scan(from, options.count, |member| {
            if member.with_bytes(|bytes| options.lets_through(bytes)) {
                found.push(member);
            }
        });
        reply_scan(reply, next, |reply| {
            found.iter().for_each(|member| bulk_item(reply, *member));
            found.len()
        });
    })
}

/// What SSCAN, HSCAN and ZSCAN share: an absent key is an empty collection, and its options are not even read.
pub(super) fn scan_collection<T: Collection>(
    ctx: &mut Context<'_, '_>,
    args: &[&[u8]],
    scan: impl FnOnce(&T, &ScanOptions<'_>, &mut Reply<'_>),
) -> CommandResult {
    match ctx.data.read::<T>(args[1])? {
        Some(value) => scan(value, &ScanOptions::parse(&args[3..], false)?, &mut ctx.reply),
        None => reply_scan(&mut ctx.reply, 0, |_| 0),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use cairn_resp::Protocol;

    use crate::testing::Engine;

    #[test]
    fn replies_are_those_of_redis() {
        Engine::new().check(
            "SADD s 3 1 2 2 -> :3
             SMEMBERS s -> *3 $1 1 $1 2 $1 3
             SMISMEMBER s 1 9 -> *2 :1 :0
             SMISMEMBER no 1 9 -> *2 :0 :0
             SREM s 9 1 -> :1
             SADD t 2 4 -> :2
             SINTER s t -> *1 $1 2
             SINTER s no -> *0
             SUNION s t -> *3 $1 2 $1 3 $1 4
             SDIFF s t -> *1 $1 3
             SINTERCARD 2 s t LIMIT 0 -> :1
             SINTERCARD 0 s -> -ERR numkeys should be greater than 0
             SINTERCARD 3 s t -> -ERR Number of keys can't be greater than number of args
             SINTERCARD 1 s LIMIT -1 -> -ERR LIMIT can't be negative
             SUNIONSTORE u s t -> :3
             SINTERSTORE u s no -> :0
             EXISTS u -> :0
             SMOVE s t 3 -> :1
             SMOVE s t 3 -> :0
             SMOVE s s 2 -> :1
             SPOP s 1 1 -> -ERR syntax error
             SPOP s -1 -> -ERR value is out of range, must be positive
             SPOP s 9 -> *1 $1 2
             SPOP s -> $-1
             SPOP s 1 -> *0
             SRANDMEMBER s 3 -> *0
             SRANDMEMBER t -9223372036854775808 -> -ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807
             SSCAN t 0 MATCH 2 -> *2 $1 0 *1 $1 2
             SSCAN no 0 BAD -> *2 $1 0 *0
             SSCAN t x -> -ERR invalid cursor
             SINTER t t str -> *0
             SET str x -> +OK
             SINTER no str -> -WRONGTYPE Operation against a key holding the wrong kind of value
             SUNIONSTORE str t -> :3
             OBJECT ENCODING str -> $6 intset",
        );
    }

    #[test]
    fn shapes_of_version_3() {
        let mut engine = Engine::new();
        engine.speak(Protocol::Resp3);
        engine.check("SMEMBERS no -> ~0\nSADD s 1 -> :1\nSINTER s -> ~1 $1 1\nSPOP s 2 -> ~1 $1 1\nSRANDMEMBER s 1 -> *0\nSPOP s -> _");
    }

    #[test]
    fn what_chance_popped_is_journaled_by_name() {
        let mut engine = Engine::new();
        engine.check("SADD s 1 2 3 -> :3");
        engine.effects();
        let popped = engine.say("SPOP s");
        assert_eq!(engine.effects(), format!("SREM s {}", popped.trim_start_matches("$1 ")));
        engine.say("SPOP s 5");
        assert_eq!(engine.effects(), "DEL s");
        engine
            .check("SPOP s -> $-1\nSPOP s 0 -> *0\nSREM s x -> :0\nSMOVE s t 1 -> :0\nSDIFFSTORE d s -> :0");
        assert_eq!(engine.effects(), "");
    }

    #[test]
    fn random_members_are_members_and_as_many_as_asked_for() {
        let mut engine = Engine::new();
        for i in 0..1_000 {
            engine.say(&format!("SADD s m{i}"));
        }
        for (asked, got) in [("10", 10), ("900", 900), ("5000", 1_000), ("-1500", 1_500)] {
            let reply = engine.say(&format!("SRANDMEMBER s {asked}"));
            let members: Vec<&str> = reply.split(' ').filter(|word| word.starts_with('m')).collect();
            assert_eq!(members.len(), got);
            let distinct: std::collections::BTreeSet<_> = members.iter().collect();
            assert!(asked.starts_with('-') || distinct.len() == got);
        }
    }
}
