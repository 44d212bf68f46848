//! Sorted sets: <https://redis.io/docs/latest/commands/?group=sorted-set>

mod blocking;
mod combine;
mod range;

use cairn_keyspace::types::{Item, Zset};
use cairn_resp::{Protocol, Reply, format_double};

use super::pop_many::PopMany;
use super::set::scan_collection;
use crate::args::{float, is, natural, sample_options};
use crate::context::{Context, bulk_item};
use crate::error::{CommandError, CommandResult};
use crate::hub::Interest;
use crate::keys::{Access, KeySpec};
use crate::scan::{cursor, reply_scan};
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least, exactly};

const ZSET: Categories = Categories::SORTED_SET;
const STORED_RANGE: &[KeySpec] =
    &[KeySpec::one(1, Access::OW.update()), KeySpec::one(2, Access::RO.access())];
const BLOCKING: Flags = Flags::WRITE.blocking();
const TAKEN: Access = Access::RW.access().delete();
const DESTINATION: Keys = Keys::destination_and_counted(1, 2);
const ADD: Flags = Flags::WRITE.deny_oom().fast();
const STORE: Flags = Flags::WRITE.deny_oom().movable_keys();

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    CommandSpec { name: "zadd",             arity: at_least(4), flags: ADD,                         keys: Keys::one(1).access(Access::RW.update()), acl: ZSET, handler: zadd },
    CommandSpec { name: "zincrby",          arity: exactly(4),  flags: ADD,                         keys: Keys::one(1),         acl: ZSET, handler: zincrby },
    CommandSpec { name: "zrem",             arity: at_least(3), flags: Flags::WRITE.fast(),         keys: Keys::one(1).access(Access::RW.delete()), acl: ZSET, handler: zrem },
    CommandSpec { name: "zcard",            arity: exactly(2),  flags: Flags::READ.fast(),          keys: Keys::one(1).access(Access::RO), acl: ZSET, handler: zcard },
    CommandSpec { name: "zscore",           arity: exactly(3),  flags: Flags::READ.fast(),          keys: Keys::one(1),         acl: ZSET, handler: zscore },
    CommandSpec { name: "zmscore",          arity: at_least(3), flags: Flags::READ.fast(),          keys: Keys::one(1),         acl: ZSET, handler: zmscore },
    CommandSpec { name: "zrank",            arity: exactly(3),  flags: Flags::READ.fast(),          keys: Keys::one(1),         acl: ZSET, handler: zrank },
    CommandSpec { name: "zrevrank",         arity: exactly(3),  flags: Flags::READ.fast(),          keys: Keys::one(1),         acl: ZSET, handler: zrevrank },
    CommandSpec { name: "zrange",           arity: at_least(4), flags: Flags::READ,                 keys: Keys::one(1),         acl: ZSET, handler: range::zrange },
    CommandSpec { name: "zrevrange",        arity: at_least(4), flags: Flags::READ,                 keys: Keys::one(1),         acl: ZSET, handler: range::zrevrange },
    CommandSpec { name: "zrangebyscore",    arity: at_least(4), flags: Flags::READ,                 keys: Keys::one(1),         acl: ZSET, handler: range::zrangebyscore },
    CommandSpec { name: "zrevrangebyscore", arity: at_least(4), flags: Flags::READ,                 keys: Keys::one(1),         acl: ZSET, handler: range::zrevrangebyscore },
    CommandSpec { name: "zrangebylex",      arity: at_least(4), flags: Flags::READ,                 keys: Keys::one(1),         acl: ZSET, handler: range::zrangebylex },
    CommandSpec { name: "zrevrangebylex",   arity: at_least(4), flags: Flags::READ,                 keys: Keys::one(1),         acl: ZSET, handler: range::zrevrangebylex },
    CommandSpec { name: "zrangestore",      arity: at_least(5), flags: Flags::WRITE.deny_oom(),     keys: Keys::specs(STORED_RANGE), acl: ZSET, handler: range::zrangestore },
    CommandSpec { name: "zcount",           arity: exactly(4),  flags: Flags::READ.fast(),          keys: Keys::one(1),         acl: ZSET, handler: range::zcount },
    CommandSpec { name: "zlexcount",        arity: exactly(4),  flags: Flags::READ.fast(),          keys: Keys::one(1),         acl: ZSET, handler: range::zlexcount },
    CommandSpec { name: "zremrangebyrank",  arity: exactly(4),  flags: Flags::WRITE,                keys: Keys::one(1).access(Access::RW.delete()), acl: ZSET, handler: range::zremrangebyrank },
    CommandSpec { name: "zremrangebyscore", arity: exactly(4),  flags: Flags::WRITE,                keys: Keys::one(1).access(Access::RW.delete()), acl: ZSET, handler: range::zremrangebyscore },
    CommandSpec { name: "zremrangebylex",   arity: exactly(4),  flags: Flags::WRITE,                keys: Keys::one(1).access(Access::RW.delete()), acl: ZSET, handler: range::zremrangebylex },
    CommandSpec { name: "zpopmin",          arity: at_least(2), flags: Flags::WRITE.fast(),         keys: Keys::one(1).access(Access::RW.access().delete()), acl: ZSET, handler: zpopmin },
    CommandSpec { name: "zpopmax",          arity: at_least(2), flags: Flags::WRITE.fast(),         keys: Keys::one(1).access(Access::RW.access().delete()), acl: ZSET, handler: zpopmax },
    CommandSpec { name: "zmpop",            arity: at_least(4), flags: Flags::WRITE,                keys: Keys::counted(1).access(Access::RW.access().delete()), acl: ZSET, handler: zmpop },
    CommandSpec { name: "zunion",           arity: at_least(3), flags: Flags::READ,                 keys: Keys::counted(1),     acl: ZSET, handler: combine::zunion },
    CommandSpec { name: "zinter",           arity: at_least(3), flags: Flags::READ,                 keys: Keys::counted(1),     acl: ZSET, handler: combine::zinter },
    CommandSpec { name: "zdiff",            arity: at_least(3), flags: Flags::READ,                 keys: Keys::counted(1),     acl: ZSET, handler: combine::zdiff },
    CommandSpec { name: "zunionstore",      arity: at_least(4), flags: STORE,                       keys: DESTINATION,          acl: ZSET, handler: combine::zunionstore },
    CommandSpec { name: "zinterstore",      arity: at_least(4), flags: STORE,                       keys: DESTINATION,          acl: ZSET, handler: combine::zinterstore },
    CommandSpec { name: "zdiffstore",       arity: at_least(4), flags: STORE,                       keys: DESTINATION,          acl: ZSET, handler: combine::zdiffstore },
    CommandSpec { name: "zintercard",       arity: at_least(3), flags: Flags::READ,                 keys: Keys::counted(1),     acl: ZSET, handler: combine::zintercard },
    CommandSpec { name: "zscan",            arity: at_least(3), flags: Flags::READ,                 keys: Keys::one(1),         acl: ZSET, handler: zscan },
    CommandSpec { name: "zrandmember",      arity: at_least(2), flags: Flags::READ,                 keys: Keys::one(1),         acl: ZSET, handler: zrandmember },
    CommandSpec { name: "bzpopmin",         arity: at_least(3), flags: BLOCKING.no_script().fast(), keys: Keys::every(1, -2, 1).access(TAKEN), acl: ZSET, handler: blocking::bzpopmin },
    CommandSpec { name: "bzpopmax",         arity: at_least(3), flags: BLOCKING.no_script().fast(), keys: Keys::every(1, -2, 1).access(TAKEN), acl: ZSET, handler: blocking::bzpopmax },
    CommandSpec { name: "bzmpop",           arity: at_least(5), flags: BLOCKING,                    keys: Keys::counted(2).access(TAKEN), acl: ZSET, handler: blocking::bzmpop },
];

/// A score as the journal keeps it: it reads back as the same double.
pub(super) fn score_text(score: f64) -> Vec<u8> {
    let mut text = Vec::with_capacity(24);
    format_double(score, &mut text);
    text
}

/// How a list of members begins. With scores, version 3 of the protocol has an array of pairs, version 2 a flat one.
fn members_header(reply: &mut Reply<'_>, count: usize, with_scores: bool) {
    let flat = with_scores && reply.protocol() == Protocol::Resp2;
    reply.array(if flat { count * 2 } else { count });
}

/// A member in a list that [`members_header`] began.
fn reply_member(reply: &mut Reply<'_>, (member, score): (Item<'_>, f64), with_scores: bool) {
    if with_scores && reply.protocol() == Protocol::Resp3 {
        reply.array(2);
    }
    bulk_item(reply, member);
    if with_scores {
        reply.double(score);
    }
}

fn double_or_null(reply: &mut Reply<'_>, score: Option<f64>) {
    match score {
        Some(score) => reply.double(score),
        None => reply.null(),
    }
}

/// ZADD's options.
#[derive(Default, Clone, Copy)]
struct AddOptions {
    if_absent: bool,
    if_present: bool,
    if_greater: bool,
    if_less: bool,
    count_changed: bool,
    increment: bool,
}

impl AddOptions {
    /// The options and what follows them: scores and members in turn, at least one of each.
    fn parse<'a, 'b>(args: &'a [&'b [u8]]) -> Result<(Self, &'a [&'b [u8]]), CommandError> {
        let mut options = Self::default();
        let mut rest = args;
        while let Some((word, behind)) = rest.split_first() {
            match &word.to_ascii_lowercase()[..] {
                b"nx" => options.if_absent = true,
                b"xx" => options.if_present = true,
                b"gt" => options.if_greater = true,
                b"lt" => options.if_less = true,
                b"ch" => options.count_changed = true,
                b"incr" => options.increment = true,
                _ => break,
            }
            rest = behind;
        }
        if rest.is_empty() || !rest.len().is_multiple_of(2) {
            return Err(CommandError::Syntax);
        }
        if options.if_absent && options.if_present {
            return Err(CommandError::other("ERR XX and NX options at the same time are not compatible"));
        }
        let conditions = [options.if_greater, options.if_less, options.if_absent];
        if conditions.into_iter().filter(|set| *set).count() > 1 {
            return Err(CommandError::other(
                "ERR GT, LT, and/or NX options at the same time are not compatible",
            ));
        }
        if options.increment && rest.len() > 2 {
            return Err(CommandError::other("ERR INCR option supports a single increment-element pair"));
        }
        Ok((options, rest))
    }

    /// Whether a member may go from the score it has, if it is there, to this one.
    fn allow(&self, before: Option<f64>, score: f64) -> bool {
        match before {
            None => !self.if_present,
            Some(before) => {
                !(self.if_absent || self.if_greater && score <= before || self.if_less && score >= before)
            }
        }
    }
}

pub(super) fn zadd(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (options, pairs) = AddOptions::parse(&args[2..])?;
    if options.increment {
        return increment(ctx, args[1], float(pairs[0])?, pairs[1], options);
    }
    let scores = pairs.chunks_exact(2).map(|pair| float(pair[0])).collect::<Result<Vec<f64>, _>>()?;
    let limits = ctx.data.limits;
    let (mut added, mut updated) = (0, 0);
    ctx.data.edit_or_create(args[1], |zset: &mut Zset| {
        for (score, pair) in scores.iter().zip(pairs.chunks_exact(2)) {
            let before = zset.score(pair[1]);
            if !options.allow(before, *score) || before == Some(*score) {
                continue;
            }
            zset.add(pair[1], *score, limits);
            *if before.is_some() { &mut updated } else { &mut added } += 1;
        }
        added + updated
    })?;
    if added + updated > 0 {
        ctx.data.notify(Interest::ZSET, "zadd", args[1]);
    }
    ctx.reply.integer((if options.count_changed { added + updated } else { added }) as i64);
    Ok(())
}

fn zincrby(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    increment(ctx, args[1], float(args[2])?, args[3], AddOptions::default())
}

/// Replays as ZADD of the sum.
fn increment(
    ctx: &mut Context<'_, '_>,
    key: &[u8],
    by: f64,
    member: &[u8],
    options: AddOptions,
) -> CommandResult {
    let before = ctx.data.look::<Zset>(key)?.and_then(|zset| zset.score(member));
    let score = before.map_or(by, |before| before + by);
    if before.is_some() && !options.if_absent && score.is_nan() {
        return Err(CommandError::other("ERR resulting score is not a number (NaN)"));
    }
    if !options.allow(before, score) {
        ctx.reply.null();
        return Ok(());
    }
    if before != Some(score) {
        let limits = ctx.data.limits;
        ctx.data.edit_or_create(key, |zset: &mut Zset| {
            zset.add(member, score, limits);
            1
        })?;
        ctx.data.effect(&[b"ZADD", key, &score_text(score), member]);
        ctx.data.notify(Interest::ZSET, "zincr", key);
    }
    ctx.reply.double(score);
    Ok(())
}

fn zrem(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let removed = ctx.data.edit(args[1], |zset: &mut Zset| {
        args[2..].iter().filter(|member| zset.remove(member).is_some()).count()
    })?;
    if removed > 0 {
        ctx.data.notify_taken(Interest::ZSET, "zrem", args[1]);
    }
    ctx.reply.integer(removed as i64);
    Ok(())
}

fn zcard(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let len = ctx.data.read::<Zset>(args[1])?.map_or(0, Zset::len);
    ctx.reply.integer(len as i64);
    Ok(())
}

fn zscore(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let score = ctx.data.read::<Zset>(args[1])?.and_then(|zset| zset.score(args[2]));
    double_or_null(&mut ctx.reply, score);
    Ok(())
}

fn zmscore(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let zset = ctx.data.read::<Zset>(args[1])?;
    ctx.reply.array(args.len() - 2);
    for member in &args[2..] {
        double_or_null(&mut ctx.reply, zset.and_then(|zset| zset.score(member)));
    }
    Ok(())
}

fn reply_rank(
    ctx: &mut Context<'_, '_>,
    args: &[&[u8]],
    shown: impl FnOnce(&Zset, usize) -> usize,
) -> CommandResult {
    let zset = ctx.data.read::<Zset>(args[1])?;
    match zset.and_then(|zset| zset.rank(args[2]).map(|rank| shown(zset, rank))) {
        Some(rank) => ctx.reply.integer(rank as i64),
        None => ctx.reply.null(),
    }
    Ok(())
}

fn zrank(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    reply_rank(ctx, args, |_, rank| rank)
}

fn zrevrank(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    reply_rank(ctx, args, |zset, rank| zset.len() - 1 - rank)
}

/// The end of a sorted set that a command takes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Lowest,
    Highest,
}

impl End {
    /// The event of members taken from it.
    fn event(self) -> &'static str {
        if self == End::Lowest { "zpopmin" } else { "zpopmax" }
    }

    /// Takes up to `count` members, the outermost first.
    fn pop(self, zset: &mut Zset, count: usize) -> Vec<(Vec<u8>, f64)> {
        let pop = || match self {
            End::Lowest => zset.pop_min(),
            End::Highest => zset.pop_max(),
        };
        std::iter::from_fn(pop).take(count).collect()
    }

    /// The command that pops from this end.
    fn command(self) -> &'static [u8] {
        match self {
            End::Lowest => b"ZPOPMIN",
            End::Highest => b"ZPOPMAX",
        }
    }
}

fn zpopmin(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    pop(ctx, args, End::Lowest)
}

fn zpopmax(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    pop(ctx, args, End::Highest)
}

fn pop(ctx: &mut Context<'_, '_>, args: &[&[u8]], end: End) -> CommandResult {
    let count = match args {
        [_, _] => None,
        [_, _, count] => Some(natural(count, "ERR value is out of range, must be positive")?),
        _ => return Err(CommandError::Syntax),
    };
    let mut popped = Vec::new();
    ctx.data.edit(args[1], |zset: &mut Zset| {
        popped = end.pop(zset, count.unwrap_or(1));
        popped.len()
    })?;
    if !popped.is_empty() {
        ctx.data.notify_taken(Interest::ZSET, end.event(), args[1]);
    }
    // Pairs of their own only where version 3 was asked for a number of members.
    let pairs = count.is_some() && ctx.reply.protocol() == Protocol::Resp3;
    ctx.reply.array(if pairs { popped.len() } else { popped.len() * 2 });
    for (member, score) in popped {
        if pairs {
            ctx.reply.array(2);
        }
        ctx.reply.bulk(&member);
        ctx.reply.double(score);
    }
    Ok(())
}

/// The end that ZMPOP and BZMPOP name.
fn end_of(word: &[u8]) -> Result<End, CommandError> {
    match word {
        word if is(word, "min") => Ok(End::Lowest),
        word if is(word, "max") => Ok(End::Highest),
        _ => Err(CommandError::Syntax),
    }
}

fn zmpop(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    if !pop_many(ctx, &PopMany::parse(&args[1..], end_of)?)? {
        ctx.reply.null_array();
    }
    Ok(())
}

/// Pops from the first of the keys that has members, and replies with them; false when none has. Replays as a pop from
/// that one.
fn pop_many(ctx: &mut Context<'_, '_>, options: &PopMany<'_, End>) -> Result<bool, CommandError> {
    let PopMany { keys, end, count } = *options;
    for key in keys {
        if ctx.data.look::<Zset>(key)?.is_none() {
            continue;
        }
        let mut popped = Vec::new();
        ctx.data.edit(key, |zset: &mut Zset| {
            popped = end.pop(zset, count);
            popped.len()
        })?;
        ctx.data.effect(&[end.command(), key, popped.len().to_string().as_bytes()]);
        ctx.data.notify_taken(Interest::ZSET, end.event(), key);
        ctx.reply.array(2);
        ctx.reply.bulk(key);
        ctx.reply.array(popped.len());
        for (member, score) in popped {
            ctx.reply.array(2);
            ctx.reply.bulk(&member);
            ctx.reply.double(score);
        }
        return Ok(true);
    }
    Ok(false)
}

fn zscan(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let from = cursor(args[2])?;
    scan_collection(ctx, args, |zset: &Zset, options, reply| {
        let mut found = Vec::new();
        let next = zset.scan(from, options.count, |member, score| {
            if member.with_bytes(|bytes| options.lets_through(bytes)) {
                found.push((member, score));
            }
        });
        reply_scan(reply, next, |reply| {
            for (member, score) in &found {
                bulk_item(reply, *member);
                reply.bulk(&score_text(*score));
            }
            found.len() * 2
        });
    })
}

fn zrandmember(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (count, with_scores) = sample_options(args, "withscores")?;
    let reply_max = ctx.reply_max();
    let mut random = ctx.data.random_source();
    let zset = ctx.data.read::<Zset>(args[1])?;
    let reply = &mut ctx.reply;
    match (count, zset) {
        (None, zset) => match zset.and_then(|zset| zset.random(&mut random)) {
            Some((member, _)) => bulk_item(reply, member),
            None => reply.null(),
        },
        (Some(_), None) => reply.array(0),
        (Some(count), Some(zset)) if count < 0 => {
            members_header(reply, count.unsigned_abs() as usize, with_scores);
            for _ in 0..count.unsigned_abs() {
                zset.random(&mut random).into_iter().for_each(|one| reply_member(reply, one, with_scores));
                if reply.len() > reply_max {
                    return ctx.give_up_reply();
                }
            }
        }
        (Some(count), Some(zset)) => {
            let members = zset.random_distinct(count as usize, &mut random);
            members_header(reply, members.len(), with_scores);
            members.into_iter().for_each(|one| reply_member(reply, one, with_scores));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use cairn_resp::Protocol;

    use crate::testing::Engine;

    #[test]
    fn members_and_scores_reply_as_in_redis() {
        Engine::new().check(
            "ZADD z 1 a 2.5 b inf c -> :3
             ZADD z NX XX 1 a -> -ERR XX and NX options at the same time are not compatible
             ZADD z GT LT 1 a -> -ERR GT, LT, and/or NX options at the same time are not compatible
             ZADD z INCR 1 a 2 b -> -ERR INCR option supports a single increment-element pair
             ZADD z 1 a 2 -> -ERR syntax error
             ZADD z nan a -> -ERR value is not a valid float
             ZADD z CH 1 a 3 b 4 d -> :2
             ZADD z GT CH 2 b 9 d -> :1
             ZADD z NX INCR 1 a -> $-1
             ZADD z INCR 1.5 a -> $3 2.5
             ZADD no XX 1 a -> :0
             ZINCRBY z -inf c -> -ERR resulting score is not a number (NaN)
             ZINCRBY z 0.1 a -> $18 2.6000000000000001
             ZSCORE z c -> $3 inf
             ZSCORE z no -> $-1
             ZMSCORE z a no -> *2 $18 2.6000000000000001 $-1
             ZRANK z b -> :1
             ZREVRANK z b -> :2
             ZRANK z no -> $-1
             ZCARD z -> :4
             ZREM z a no -> :1
             ZSCAN z 0 MATCH c -> *2 $1 0 *2 $1 c $3 inf
             ZPOPMIN z -> *2 $1 b $1 3
             ZPOPMAX z 1 -> *2 $1 c $3 inf
             ZMPOP 2 no z MAX COUNT 9 -> *2 $1 z *1 *2 $1 d $1 9
             ZMPOP 1 z MIN -> *-1
             ZMPOP 1 z MIN COUNT COUNT 2 -> -ERR count should be greater than 0
             ZPOPMIN z -> *0
             ZRANDMEMBER z -> $-1
             EXISTS z -> :0",
        );
    }

    #[test]
    fn ranges_reply_as_in_redis() {
        Engine::new().check(
            "ZADD z 1 a 2 b 3 c 4 d -> :4
             ZRANGE z 0 1 WITHSCORES -> *4 $1 a $1 1 $1 b $1 2
             ZRANGE z 0 1 REV -> *2 $1 d $1 c
             ZREVRANGE z -1 -1 -> *1 $1 a
             ZRANGE z (1 3 BYSCORE -> *2 $1 b $1 c
             ZRANGE z 3 (1 BYSCORE REV LIMIT 1 1 -> *1 $1 b
             ZRANGE z 0 1 LIMIT 0 1 -> -ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX
             ZRANGE z [a [b BYLEX WITHSCORES -> -ERR syntax error, WITHSCORES not supported in combination with BYLEX
             ZRANGEBYSCORE z -inf +inf LIMIT 1 2 -> *2 $1 b $1 c
             ZRANGEBYSCORE z -inf +inf LIMIT -1 2 -> *0
             ZRANGEBYSCORE z 5 x -> -ERR min or max is not a float
             ZREVRANGEBYSCORE z 3 2 WITHSCORES -> *4 $1 c $1 3 $1 b $1 2
             ZCOUNT z (1 +inf -> :3
             ZRANGESTORE y z 1 2 -> :2
             ZRANGESTORE y no 1 2 -> :0
             EXISTS y -> :0
             ZREMRANGEBYRANK z -1 -1 -> :1
             ZREMRANGEBYSCORE z 1 (2 -> :1
             ZADD x 0 a 0 b 0 c -> :3
             ZRANGEBYLEX x [b + -> *2 $1 b $1 c
             ZREVRANGEBYLEX x (c - -> *2 $1 b $1 a
             ZLEXCOUNT x - (b -> :1
             ZLEXCOUNT x a + -> -ERR min or max not valid string range item
             ZREMRANGEBYLEX x - + -> :3
             ZRANGE x 0 -1 -> *0",
        );
    }

    #[test]
    fn combinations_reply_as_in_redis() {
        Engine::new().check(
            "ZADD a 1 x 2 y -> :2
             ZADD b 10 y 20 z -> :2
             SADD s x z -> :2
             ZUNION 2 a b WITHSCORES -> *6 $1 x $1 1 $1 y $2 12 $1 z $2 20
             ZUNION 2 a s WEIGHTS 2 3 AGGREGATE MAX WITHSCORES -> *6 $1 x $1 3 $1 z $1 3 $1 y $1 4
             ZINTER 2 a b -> *1 $1 y
             ZDIFF 2 a b WITHSCORES -> *2 $1 x $1 1
             ZINTERCARD 2 a b LIMIT 1 -> :1
             ZADD zero 0 m -> :1
             ZUNION 1 zero WEIGHTS -1 WITHSCORES -> *2 $1 m $2 -0
             ZUNIONSTORE d 1 zero WEIGHTS -1 -> :1
             ZRANGE d 0 -1 WITHSCORES -> *2 $1 m $1 0
             ZUNIONSTORE d 2 a b -> :3
             ZDIFFSTORE d 1 no -> :0
             EXISTS d -> :0
             ZUNION 0 a -> -ERR at least 1 input key is needed for 'zunion' command
             ZUNION 3 a b -> -ERR syntax error
             ZUNION 1 a WEIGHTS x -> -ERR weight value is not a float
             ZDIFF 1 a WEIGHTS 1 -> -ERR syntax error
             SET str v -> +OK
             ZINTERSTORE d 2 a str -> -WRONGTYPE Operation against a key holding the wrong kind of value",
        );
    }

    #[test]
    fn shapes_of_version_3() {
        let mut engine = Engine::new();
        engine.speak(Protocol::Resp3);
        engine.check(
            "ZADD z 1 a 2.5 b -> :2
             ZSCORE z b -> ,2.5
             ZRANGE z 0 0 WITHSCORES -> *1 *2 $1 a ,1
             ZUNION 1 z WITHSCORES -> *2 *2 $1 a ,1 *2 $1 b ,2.5
             ZRANDMEMBER z 5 WITHSCORES -> *2 *2 $1 a ,1 *2 $1 b ,2.5
             ZSCAN z 0 MATCH b -> *2 $1 0 *2 $1 b $3 2.5
             ZRANK z no -> _
             ZPOPMIN z -> *2 $1 a ,1
             ZPOPMIN z 1 -> *1 *2 $1 b ,2.5
             ZMPOP 1 z MIN -> _",
        );
    }

    #[test]
    fn a_sum_is_journaled_as_what_it_came_to_and_no_change_not_at_all() {
        let mut engine = Engine::new();
        engine.check(
            "ZINCRBY z 0.1 a -> $19 0.10000000000000001
             ZADD z INCR 0.2 a -> $19 0.30000000000000004
             ZADD z 0.30000000000000004 a -> :0
             ZINCRBY z 0 a -> $19 0.30000000000000004
             ZADD z XX 5 new -> :0
             ZMPOP 1 z MAX -> *2 $1 z *1 *2 $1 a $19 0.30000000000000004",
        );
        let expected = "ZADD z 0.10000000000000001 a\nZADD z 0.30000000000000004 a\nZPOPMAX z 1";
        assert_eq!(engine.effects(), expected);
    }
}
