//! Lists: <https://redis.io/docs/latest/commands/?group=list>

mod blocking;

use cairn_keyspace::types::{List, Side};

use super::pop_many::PopMany;
use crate::args::{clamp_range, integer, is, natural};
use crate::context::{Context, bulk_item};
use crate::error::{CommandError, CommandResult};
use crate::hub::Interest;
use crate::keys::Access;
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least, exactly};

const LIST: Categories = Categories::LIST;
const BLOCKING: Flags = Flags::WRITE.no_script().blocking();
const TAKEN: Access = Access::RW.access().delete();

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    CommandSpec { name: "lpush",     arity: at_least(3), flags: Flags::WRITE.deny_oom().fast(), keys: Keys::one(1).access(Access::RW.insert()), acl: LIST, handler: lpush },
    CommandSpec { name: "rpush",     arity: at_least(3), flags: Flags::WRITE.deny_oom().fast(), keys: Keys::one(1).access(Access::RW.insert()), acl: LIST, handler: rpush },
    CommandSpec { name: "lpushx",    arity: at_least(3), flags: Flags::WRITE.deny_oom().fast(), keys: Keys::one(1).access(Access::RW.insert()), acl: LIST, handler: lpushx },
    CommandSpec { name: "rpushx",    arity: at_least(3), flags: Flags::WRITE.deny_oom().fast(), keys: Keys::one(1).access(Access::RW.insert()), acl: LIST, handler: rpushx },
    CommandSpec { name: "lpop",      arity: at_least(2), flags: Flags::WRITE.fast(),            keys: Keys::one(1).access(Access::RW.access().delete()), acl: LIST, handler: lpop },
    CommandSpec { name: "rpop",      arity: at_least(2), flags: Flags::WRITE.fast(),            keys: Keys::one(1).access(Access::RW.access().delete()), acl: LIST, handler: rpop },
    CommandSpec { name: "llen",      arity: exactly(2),  flags: Flags::READ.fast(),             keys: Keys::one(1).access(Access::RO), acl: LIST, handler: llen },
    CommandSpec { name: "lrange",    arity: exactly(4),  flags: Flags::READ,                    keys: Keys::one(1),         acl: LIST, handler: lrange },
    CommandSpec { name: "lindex",    arity: exactly(3),  flags: Flags::READ,                    keys: Keys::one(1),         acl: LIST, handler: lindex },
    CommandSpec { name: "lset",      arity: exactly(4),  flags: Flags::WRITE.deny_oom(),        keys: Keys::one(1).access(Access::RW.update()), acl: LIST, handler: lset },
    CommandSpec { name: "linsert",   arity: exactly(5),  flags: Flags::WRITE.deny_oom(),        keys: Keys::one(1).access(Access::RW.insert()), acl: LIST, handler: linsert },
    CommandSpec { name: "lrem",      arity: exactly(4),  flags: Flags::WRITE,                   keys: Keys::one(1).access(Access::RW.delete()), acl: LIST, handler: lrem },
    CommandSpec { name: "ltrim",     arity: exactly(4),  flags: Flags::WRITE,                   keys: Keys::one(1).access(Access::RW.delete()), acl: LIST, handler: ltrim },
    CommandSpec { name: "rpoplpush", arity: exactly(3),  flags: Flags::WRITE.deny_oom(),        keys: Keys::MOVE,            acl: LIST, handler: rpoplpush },
    CommandSpec { name: "lmove",     arity: exactly(5),  flags: Flags::WRITE.deny_oom(),        keys: Keys::MOVE,            acl: LIST, handler: lmove },
    CommandSpec { name: "lpos",      arity: at_least(3), flags: Flags::READ,                    keys: Keys::one(1),         acl: LIST, handler: lpos },
    CommandSpec { name: "lmpop",     arity: at_least(4), flags: Flags::WRITE,                   keys: Keys::counted(1).access(Access::RW.access().delete()), acl: LIST, handler: lmpop },
    CommandSpec { name: "blpop",      arity: at_least(3), flags: BLOCKING,                     keys: Keys::every(1, -2, 1).access(TAKEN), acl: LIST, handler: blocking::blpop },
    CommandSpec { name: "brpop",      arity: at_least(3), flags: BLOCKING,                     keys: Keys::every(1, -2, 1).access(TAKEN), acl: LIST, handler: blocking::brpop },
    CommandSpec { name: "blmove",     arity: exactly(6),  flags: BLOCKING.deny_oom(),          keys: Keys::MOVE,                          acl: LIST, handler: blocking::blmove },
    CommandSpec { name: "brpoplpush", arity: exactly(4),  flags: BLOCKING.deny_oom(),          keys: Keys::MOVE,                          acl: LIST, handler: blocking::brpoplpush },
    CommandSpec { name: "blmpop",     arity: at_least(5), flags: Flags::WRITE.blocking(),      keys: Keys::counted(2).access(TAKEN),      acl: LIST, handler: blocking::blmpop },
];

fn lpush(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    push(ctx, args, Side::Front, true)
}

fn rpush(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    push(ctx, args, Side::Back, true)
}

fn lpushx(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    push(ctx, args, Side::Front, false)
}

fn rpushx(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    push(ctx, args, Side::Back, false)
}

/// The event of an element put in at an end.
fn pushed(side: Side) -> &'static str {
    if side == Side::Front { "lpush" } else { "rpush" }
}

/// The event of an element taken from an end.
fn popped(side: Side) -> &'static str {
    if side == Side::Front { "lpop" } else { "rpop" }
}

fn push(ctx: &mut Context<'_, '_>, args: &[&[u8]], side: Side, create: bool) -> CommandResult {
    let (key, elements, limits) = (args[1], &args[2..], ctx.data.limits);
    let mut len = 0;
    let edit = |list: &mut List| {
        elements.iter().for_each(|element| list.push(side, element, limits));
        len = list.len();
        elements.len()
    };
    let changes = if create { ctx.data.edit_or_create(key, edit)? } else { ctx.data.edit(key, edit)? };
    if changes > 0 {
        ctx.data.notify(Interest::LIST, pushed(side), key);
    }
    ctx.reply.integer(len as i64);
    Ok(())
}

fn lpop(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    pop(ctx, args, Side::Front, "lpop")
}

fn rpop(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    pop(ctx, args, Side::Back, "rpop")
}

fn pop(ctx: &mut Context<'_, '_>, args: &[&[u8]], side: Side, command: &'static str) -> CommandResult {
    let count = match args {
        [_, _] => None,
        [_, _, count] => Some(natural(count, "ERR value is out of range, must be positive")?),
        _ => return Err(CommandError::WrongArity(command.into())),
    };
    let reply = &mut ctx.reply;
    let mut found = false;
    let taken = ctx.data.edit(args[1], |list: &mut List| {
        found = true;
        let wanted = count.unwrap_or(1).min(list.len());
        if count.is_some() {
            reply.array(wanted);
        }
        (0..wanted).filter_map(|_| list.pop(side)).inspect(|element| reply.bulk(element)).count()
    })?;
    if taken > 0 {
        ctx.data.notify_taken(Interest::LIST, popped(side), args[1]);
    }
    match count {
        _ if found => {}
        None => reply.null(),
        Some(_) => reply.null_array(),
    }
    Ok(())
}

fn llen(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let len = ctx.data.read::<List>(args[1])?.map_or(0, List::len);
    ctx.reply.integer(len as i64);
    Ok(())
}

fn lrange(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (start, stop) = (integer(args[2])?, integer(args[3])?);
    let Some(list) = ctx.data.read::<List>(args[1])? else {
        ctx.reply.array(0);
        return Ok(());
    };
    let range = clamp_range(start, stop, list.len()).unwrap_or(0..0);
    ctx.reply.array(range.len());
    list.range(range.start, range.len()).for_each(|item| bulk_item(&mut ctx.reply, item));
    Ok(())
}

fn lindex(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let item = match ctx.data.read::<List>(args[1])? {
        Some(list) => list.get(integer(args[2])?),
        None => None,
    };
    match item {
        Some(item) => bulk_item(&mut ctx.reply, item),
        None => ctx.reply.null(),
    }
    Ok(())
}

fn lset(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    if ctx.data.look::<List>(args[1])?.is_none() {
        return Err(CommandError::NoSuchKey);
    }
    let (index, limits) = (integer(args[2])?, ctx.data.limits);
    match ctx.data.edit(args[1], |list: &mut List| usize::from(list.set(index, args[3], limits)))? {
        0 => Err(CommandError::IndexOutOfRange),
        _ => {
            ctx.data.notify(Interest::LIST, "lset", args[1]);
            ctx.reply.ok();
            Ok(())
        }
    }
}

fn linsert(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let side = match args[2] {
        word if is(word, "before") => Side::Front,
        word if is(word, "after") => Side::Back,
        _ => return Err(CommandError::Syntax),
    };
    let limits = ctx.data.limits;
    // 0 without a list, -1 without the pivot.
    let mut answer = 0;
    ctx.data.edit(args[1], |list: &mut List| {
        let len = list.insert(side, args[3], args[4], limits);
        answer = len.map_or(-1, |len| len as i64);
        usize::from(len.is_some())
    })?;
    if answer > 0 {
        ctx.data.notify(Interest::LIST, "linsert", args[1]);
    }
    ctx.reply.integer(answer);
    Ok(())
}

fn lrem(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let count = integer(args[2])?;
    let removed = ctx.data.edit(args[1], |list: &mut List| list.remove(count, args[3]))?;
    if removed > 0 {
        ctx.data.notify_taken(Interest::LIST, "lrem", args[1]);
    }
    ctx.reply.integer(removed as i64);
    Ok(())
}

fn ltrim(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (start, stop) = (integer(args[2])?, integer(args[3])?);
    let mut found = false;
    ctx.data.edit(args[1], |list: &mut List| {
        found = true;
        let before = list.len();
        let range = clamp_range(start, stop, before).unwrap_or(0..0);
        list.trim(range.start, range.len());
        before - list.len()
    })?;
    if found {
        ctx.data.notify_taken(Interest::LIST, "ltrim", args[1]);
    }
    ctx.reply.ok();
    Ok(())
}

fn rpoplpush(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    move_element(ctx, args[1], args[2], Side::Back, Side::Front)
}

fn lmove(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    move_element(ctx, args[1], args[2], end(args[3])?, end(args[4])?)
}

fn end(word: &[u8]) -> Result<Side, CommandError> {
    match word {
        word if is(word, "left") => Ok(Side::Front),
        word if is(word, "right") => Ok(Side::Back),
        _ => Err(CommandError::Syntax),
    }
}

fn move_element(ctx: &mut Context<'_, '_>, from: &[u8], to: &[u8], pop: Side, push: Side) -> CommandResult {
    if ctx.data.look::<List>(from)?.is_none() {
        ctx.reply.null();
        return Ok(());
    }
    ctx.data.look::<List>(to)?;
    let limits = ctx.data.limits;
    let mut moved = None;
    ctx.data.edit(from, |list: &mut List| {
        moved = list.pop(pop);
        // Within one list at once, or the key of a list of one element would go, and its expiry with it.
        if let Some(element) = moved.as_deref().filter(|_| from == to) {
            list.push(push, element, limits);
        }
        usize::from(moved.is_some())
    })?;
    let element = moved.ok_or(CommandError::NoSuchKey)?;
    if from != to {
        ctx.data.edit_or_create(to, |list: &mut List| {
            list.push(push, &element, limits);
            1
        })?;
    }
    ctx.data.notify(Interest::LIST, pushed(push), to);
    ctx.data.notify_taken(Interest::LIST, popped(pop), from);
    ctx.reply.bulk(&element);
    Ok(())
}

const RANK_ZERO: &str = "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list";

fn lpos(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (mut rank, mut count, mut compared_max) = (1, None, 0);
    let mut rest = args[3..].iter();
    while let Some(option) = rest.next() {
        let value = rest.next().ok_or(CommandError::Syntax)?;
        if is(option, "rank") {
            rank = integer(value)?;
            if rank == 0 {
                return Err(CommandError::other(RANK_ZERO));
            }
        } else if is(option, "count") {
            count = Some(natural(value, "ERR COUNT can't be negative")?);
        } else if is(option, "maxlen") {
            compared_max = natural(value, "ERR MAXLEN can't be negative")?;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let positions = match ctx.data.read::<List>(args[1])? {
        Some(list) => list.positions(args[2], rank, count.unwrap_or(1), compared_max),
        None => Vec::new(),
    };
    match (count, positions.first()) {
        (Some(_), _) => {
            ctx.reply.array(positions.len());
            positions.iter().for_each(|at| ctx.reply.integer(*at as i64));
        }
        (None, Some(at)) => ctx.reply.integer(*at as i64),
        (None, None) => ctx.reply.null(),
    }
    Ok(())
}

fn lmpop(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    if !pop_many(ctx, &PopMany::parse(&args[1..], end)?)? {
        ctx.reply.null_array();
    }
    Ok(())
}

/// Pops from the first of the keys that has elements, and replies with them; false when none has. Replays as a pop from
/// that one.
fn pop_many(ctx: &mut Context<'_, '_>, options: &PopMany<'_, Side>) -> Result<bool, CommandError> {
    let PopMany { keys, end: side, count } = *options;
    for key in keys {
        if ctx.data.look::<List>(key)?.is_none() {
            continue;
        }
        let reply = &mut ctx.reply;
        let taken = ctx.data.edit(key, |list: &mut List| {
            let wanted = count.min(list.len());
            reply.array(2);
            reply.bulk(key);
            reply.array(wanted);
            (0..wanted).filter_map(|_| list.pop(side)).inspect(|element| reply.bulk(element)).count()
        })?;
        let command: &[u8] = if side == Side::Front { b"LPOP" } else { b"RPOP" };
        ctx.data.effect(&[command, key, taken.to_string().as_bytes()]);
        ctx.data.notify_taken(Interest::LIST, popped(side), key);
        return Ok(true);
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use cairn_resp::Protocol;

    use crate::testing::Engine;

    #[test]
    fn replies_are_those_of_redis() {
        Engine::new().check(
            "LPUSH l a b c -> :3
             RPUSH l d -> :4
             LPUSHX no x -> :0
             LRANGE l 0 -1 -> *4 $1 c $1 b $1 a $1 d
             LRANGE l -2 9 -> *2 $1 a $1 d
             LINDEX l -1 -> $1 d
             LINDEX l 9 -> $-1
             LINDEX no x -> $-1
             LSET l 9 x -> -ERR index out of range
             LSET no 0 x -> -ERR no such key
             LINSERT l BEFORE a x -> :5
             LINSERT l AFTER nope x -> :-1
             LINSERT no AFTER a x -> :0
             LPOS l d -> :4
             LPOS l d RANK 0 -> -ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list
             LPOS l zz COUNT 0 -> *0
             LPOP l 0 -> *0
             LPOP no -> $-1
             LPOP no 2 -> *-1
             LPOP l -1 -> -ERR value is out of range, must be positive
             LMPOP 2 no l LEFT COUNT 2 -> *2 $1 l *2 $1 c $1 b
             LMPOP 1 no LEFT -> *-1
             LMPOP 0 no LEFT -> -ERR numkeys should be greater than 0
             LMPOP 1 no LEFT COUNT 2 COUNT 3 -> -ERR syntax error
             LMPOP 1 no LEFT COUNT COUNT 3 -> -ERR count should be greater than 0
             LREM l 0 x -> :1
             LTRIM l 5 9 -> +OK
             EXISTS l -> :0
             SET s x -> +OK
             LPUSH s x -> -WRONGTYPE Operation against a key holding the wrong kind of value
             LLEN s -> -WRONGTYPE Operation against a key holding the wrong kind of value",
        );
    }

    #[test]
    fn nulls_of_version_3() {
        let mut engine = Engine::new();
        engine.speak(Protocol::Resp3);
        engine.check("LPOP no -> _\nLPOP no 2 -> _\nLMPOP 1 no LEFT -> _\nLPOS no x -> _");
    }

    /// Popping the only element and pushing it again must not lose the key, and its expiry with it, in between.
    #[test]
    fn rotating_a_list_of_one_element_keeps_its_expiry() {
        let mut engine = Engine::new();
        engine.check("RPUSH l x -> :1\nPEXPIRE l 5000 -> :1\nRPOPLPUSH l l -> $1 x\nLMOVE l l LEFT RIGHT -> $1 x\nPTTL l -> :5000");
    }

    #[test]
    fn effects_name_the_list_that_was_popped_and_nothing_that_was_not() {
        let mut engine = Engine::new();
        engine.check("RPUSH b x y z -> :3\nLMPOP 2 a b RIGHT COUNT 2 -> *2 $1 b *2 $1 z $1 y");
        engine.check("LREM b 0 nope -> :0\nLTRIM b 0 -1 -> +OK\nLPOP b 0 -> *0\nRPOPLPUSH b c -> $1 x");
        assert_eq!(engine.effects(), "RPUSH b x y z\nRPOP b 2\nRPOPLPUSH b c");
    }

    #[test]
    fn an_element_does_not_go_where_it_does_not_belong() {
        let mut engine = Engine::new();
        engine.check("RPUSH l x -> :1\nSET s v -> +OK");
        engine.check("LMOVE l s LEFT LEFT -> -WRONGTYPE Operation against a key holding the wrong kind of value\nLLEN l -> :1");
    }
}
