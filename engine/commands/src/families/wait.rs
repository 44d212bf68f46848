//! Waiting for what was written to be safe: <https://redis.io/docs/latest/commands/wait/>

use crate::args::{integer, natural};
use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::spec::{Categories, CommandSpec, Flags, Keys, exactly};
use crate::waiting::{Until, timeout_of_milliseconds};

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    CommandSpec { name: "wait",    arity: exactly(3), flags: Flags::NONE.no_script(),            keys: Keys::None, acl: Categories::CONNECTION, handler: wait },
    CommandSpec { name: "waitaof", arity: exactly(4), flags: Flags::NONE.no_script().blocking(), keys: Keys::None, acl: Categories::CONNECTION, handler: waitaof },
];

/// How many replicas have what this client wrote: none, since there are none; but they may be waited for.
fn wait(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let replicas = integer(args[1])?;
    let timeout_ms = timeout_of_milliseconds(args[2])?;
    ctx.reply.integer(0);
    if replicas > 0 {
        ctx.wait(timeout_ms, Until::Replicas);
    }
    Ok(())
}

/// Whether what this client wrote is durable here, and on how many replicas it is. What others have written meanwhile is
/// waited for with it.
fn waitaof(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let local = integer(args[1])?;
    if !(0..=1).contains(&local) {
        return Err(CommandError::other("ERR value is out of range, value must between 0 and 1"));
    }
    let replicas = natural(args[2], "ERR value is out of range, must be positive")?;
    let timeout_ms = timeout_of_milliseconds(args[3])?;
    let is_durable = ctx.host.is_durable();
    if local > 0 && is_durable.is_none() {
        return Err(CommandError::other(
            "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
        ));
    }
    let durable = i64::from(is_durable.unwrap_or_default());
    ctx.reply.array(2);
    ctx.reply.integer(durable);
    ctx.reply.integer(0);
    if replicas > 0 || local > durable {
        ctx.wait(timeout_ms, Until::Durable { is_enough: replicas == 0 });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Engine;

    #[test]
    fn without_replicas_none_has_anything() {
        Engine::new().check(
            "WAIT 0 0 -> :0
             WAIT -1 0 -> :0
             WAIT x 0 -> -ERR value is not an integer or out of range
             WAIT 1 x -> -ERR timeout is not an integer or out of range
             WAIT 1 -1 -> -ERR timeout is negative
             WAITAOF 0 0 0 -> *2 :0 :0
             WAITAOF 2 0 0 -> -ERR value is out of range, value must between 0 and 1
             WAITAOF 0 -1 0 -> -ERR value is out of range, must be positive
             WAITAOF 0 0 x -> -ERR timeout is not an integer or out of range
             WAITAOF 1 0 0 -> -ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.
             MULTI -> +OK
             WAIT 1 0 -> +QUEUED
             WAITAOF 0 1 0 -> +QUEUED
             EXEC -> *2 :0 *2 :0 :0",
        );
    }
}
