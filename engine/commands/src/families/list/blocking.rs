//! List commands that wait for an element.

use cairn_keyspace::types::{List, Side};

use super::super::pop_many::pop_or_wait;
use super::{end, move_element, pop_many};
use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::waiting::{Awaited, KeyWait, Until, timeout_of_seconds};

pub(super) fn blpop(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    pop(ctx, args, Side::Front)
}

pub(super) fn brpop(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    pop(ctx, args, Side::Back)
}

/// Replays as a pop from the one list that had an element.
fn pop(ctx: &mut Context<'_, '_>, args: &[&[u8]], side: Side) -> CommandResult {
    let [name, keys @ .., timeout] = args else { return Err(CommandError::Syntax) };
    let timeout_ms = timeout_of_seconds(timeout)?;
    for key in keys {
        if ctx.data.look::<List>(key)?.is_none() {
            continue;
        }
        let reply = &mut ctx.reply;
        ctx.data.edit(key, |list: &mut List| {
            let element = list.pop(side);
            if let Some(element) = &element {
                reply.array(2);
                reply.bulk(key);
                reply.bulk(element);
            }
            usize::from(element.is_some())
        })?;
        ctx.data.effect(&[if side == Side::Front { b"LPOP" } else { b"RPOP" }, key]);
        return Ok(());
    }
    let wait = |key: &&[u8]| KeyWait::new(key, Awaited::List, &[name, key, b"0"]);
    ctx.reply.null_array();
    ctx.wait(timeout_ms, Until::Keys(keys.iter().map(wait).collect()));
    Ok(())
}

pub(super) fn blmove(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (pop, push) = (end(args[3])?, end(args[4])?);
    let timeout_ms = timeout_of_seconds(args[5])?;
    let is_there = ctx.data.look::<List>(args[1])?.is_some();
    if !is_there {
        wait_to_move(ctx, args, timeout_ms);
        return Ok(());
    }
    move_element(ctx, args[1], args[2], pop, push)?;
    ctx.data.effect(&[b"LMOVE", args[1], args[2], args[3], args[4]]);
    Ok(())
}

pub(super) fn brpoplpush(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let timeout_ms = timeout_of_seconds(args[3])?;
    let is_there = ctx.data.look::<List>(args[1])?.is_some();
    if !is_there {
        wait_to_move(ctx, args, timeout_ms);
        return Ok(());
    }
    move_element(ctx, args[1], args[2], Side::Back, Side::Front)?;
    ctx.data.effect(&[b"RPOPLPUSH", args[1], args[2]]);
    Ok(())
}

fn wait_to_move(ctx: &mut Context<'_, '_>, args: &[&[u8]], timeout_ms: Option<u64>) {
    // What nothing may wait for is a null at once; the null of a time that is over is an array's.
    if ctx.may_wait() {
        ctx.reply.null_array();
    } else {
        ctx.reply.null();
    }
    let destination = Some(args[2].to_vec());
    let wait = KeyWait { destination, ..KeyWait::new(args[1], Awaited::List, args) };
    ctx.wait(timeout_ms, Until::Keys(vec![wait]));
}

pub(super) fn blmpop(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    pop_or_wait(ctx, args, Awaited::List, end, pop_many)
}

#[cfg(test)]
mod tests {
    use crate::testing::Engine;

    #[test]
    fn what_is_there_is_taken_at_once_and_replays_as_a_plain_pop() {
        let mut engine = Engine::new();
        engine.check(
            "RPUSH l a b c d e f -> :6
             BLPOP no l 0 -> *2 $1 l $1 a
             BRPOP l no 1 -> *2 $1 l $1 f
             BLMOVE l m LEFT RIGHT 0 -> $1 b
             BRPOPLPUSH l m 0 -> $1 e
             BLMPOP 0 2 no l RIGHT COUNT 5 -> *2 $1 l *2 $1 d $1 c
             LRANGE m 0 -1 -> *2 $1 e $1 b",
        );
        let effects = "RPUSH l a b c d e f\nLPOP l\nRPOP l\nLMOVE l m LEFT RIGHT\nRPOPLPUSH l m\nRPOP l 2";
        assert_eq!(engine.effects(), effects);
    }

    #[test]
    fn nothing_waits_in_a_transaction() {
        Engine::new().check(
            "MULTI -> +OK
             BLPOP no 0 -> +QUEUED
             BLMOVE no m LEFT LEFT 0 -> +QUEUED
             BRPOPLPUSH no m 0 -> +QUEUED
             BLMPOP 0 1 no LEFT -> +QUEUED
             EXEC -> *4 *-1 $-1 $-1 *-1",
        );
    }

    #[test]
    fn refusals_are_those_of_redis() {
        Engine::new().check(
            "SET s x -> +OK
             BLPOP no s 0 -> -WRONGTYPE Operation against a key holding the wrong kind of value
             BLPOP s x -> -ERR timeout is not a float or out of range
             BLPOP s -1 -> -ERR timeout is negative
             BLMOVE s m LEFT UP 0 -> -ERR syntax error
             BLMOVE s m LEFT LEFT 0 -> -WRONGTYPE Operation against a key holding the wrong kind of value
             BLMPOP x 0 a LEFT -> -ERR numkeys should be greater than 0
             BLMPOP x 1 a LEFT COUNT 0 -> -ERR count should be greater than 0
             BLMPOP x 1 a LEFT -> -ERR timeout is not a float or out of range
             BLMPOP 0 1 a -> -ERR wrong number of arguments for 'blmpop' command
             RPUSH l x -> :1
             BRPOPLPUSH l s 0 -> -WRONGTYPE Operation against a key holding the wrong kind of value
             LLEN l -> :1",
        );
    }
}
