//! Sorted set commands that wait for a member.

use cairn_keyspace::types::Zset;

use super::super::pop_many::pop_or_wait;
use super::{End, end_of, pop_many};
use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::waiting::{Awaited, KeyWait, Until, timeout_of_seconds};

pub(super) fn bzpopmin(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    pop(ctx, args, End::Lowest)
}

pub(super) fn bzpopmax(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    pop(ctx, args, End::Highest)
}

/// Replays as a pop from the one sorted set that had a member.
fn pop(ctx: &mut Context<'_, '_>, args: &[&[u8]], end: End) -> CommandResult {
    let [name, keys @ .., timeout] = args else { return Err(CommandError::Syntax) };
    let timeout_ms = timeout_of_seconds(timeout)?;
    for key in keys {
        if ctx.data.look::<Zset>(key)?.is_none() {
            continue;
        }
        let mut popped = Vec::new();
        ctx.data.edit(key, |zset: &mut Zset| {
            popped = end.pop(zset, 1);
            popped.len()
        })?;
        ctx.data.effect(&[end.command(), key]);
        ctx.reply.array(1 + 2 * popped.len());
        ctx.reply.bulk(key);
        for (member, score) in popped {
            ctx.reply.bulk(&member);
            ctx.reply.double(score);
        }
        return Ok(());
    }
    let wait = |key: &&[u8]| KeyWait::new(key, Awaited::Zset, &[name, key, b"0"]);
    ctx.reply.null_array();
    ctx.wait(timeout_ms, Until::Keys(keys.iter().map(wait).collect()));
    Ok(())
}

pub(super) fn bzmpop(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    pop_or_wait(ctx, args, Awaited::Zset, end_of, pop_many)
}

#[cfg(test)]
mod tests {
    use cairn_resp::Protocol;

    use crate::testing::Engine;

    #[test]
    fn what_is_there_is_taken_at_once_and_replays_as_a_plain_pop() {
        let mut engine = Engine::new();
        engine.check(
            "ZADD z 1 a 2 b 3 c 4 d -> :4
             BZPOPMIN no z 0 -> *3 $1 z $1 a $1 1
             BZPOPMAX z no 1 -> *3 $1 z $1 d $1 4
             BZMPOP 0 2 no z MAX COUNT 5 -> *2 $1 z *2 *2 $1 c $1 3 *2 $1 b $1 2
             EXISTS z -> :0",
        );
        assert_eq!(engine.effects(), "ZADD z 1 a 2 b 3 c 4 d\nZPOPMIN z\nZPOPMAX z\nZPOPMAX z 2");
        engine.speak(Protocol::Resp3);
        engine.check("ZADD z 1.5 a -> :1\nBZPOPMIN z 0 -> *3 $1 z $1 a ,1.5");
    }

    #[test]
    fn nothing_waits_in_a_transaction() {
        Engine::new().check(
            "MULTI -> +OK\nBZPOPMIN no 0 -> +QUEUED\nBZMPOP 0 1 no MIN -> +QUEUED\nEXEC -> *2 *-1 *-1",
        );
    }

    #[test]
    fn refusals_are_those_of_redis() {
        Engine::new().check(
            "SET s x -> +OK
             BZPOPMIN no s 0 -> -WRONGTYPE Operation against a key holding the wrong kind of value
             BZPOPMAX s -1 -> -ERR timeout is negative
             BZMPOP 0 1 a LEFT -> -ERR syntax error
             BZMPOP x 1 a MIN COUNT 1 COUNT 2 -> -ERR syntax error
             BZMPOP x 1 a MIN -> -ERR timeout is not a float or out of range",
        );
    }
}
