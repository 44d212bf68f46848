//! Roles of a server among its replicas. This one is always the master, and has none.

use crate::args::{integer, is};
use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least, exactly};

const NONE: Categories = Categories::NONE;
const DANGEROUS: Categories = Categories::ADMIN.and(Categories::DANGEROUS);
const ADMIN: Flags = Flags::ADMIN.no_script();
const ROLES: Flags = ADMIN.stale().no_async_loading();
const STREAM: Flags = ADMIN.no_async_loading().no_multi();

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    CommandSpec { name: "role",      arity: exactly(1),  flags: Flags::NO_SCRIPT.loading().stale().fast(), keys: Keys::None, acl: DANGEROUS, handler: role },
    CommandSpec { name: "replicaof", arity: exactly(3),  flags: ROLES,         keys: Keys::None, acl: NONE, handler: replicaof },
    CommandSpec { name: "slaveof",   arity: exactly(3),  flags: ROLES,         keys: Keys::None, acl: NONE, handler: replicaof },
    CommandSpec { name: "failover",  arity: at_least(1), flags: ADMIN.stale(), keys: Keys::None, acl: NONE, handler: failover },
    CommandSpec { name: "replconf",  arity: at_least(1), flags: ADMIN.loading().stale().allow_busy(), keys: Keys::None, acl: NONE, handler: refuse_replica },
    CommandSpec { name: "psync",     arity: at_least(3), flags: STREAM,        keys: Keys::None, acl: NONE, handler: refuse_replica },
    CommandSpec { name: "sync",      arity: exactly(1),  flags: STREAM,        keys: Keys::None, acl: NONE, handler: refuse_replica },
];

fn role(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    ctx.reply.array(3);
    ctx.reply.bulk(b"master");
    ctx.reply.integer(ctx.host.journal_end() as i64);
    ctx.reply.array(0);
    Ok(())
}

fn port(arg: &[u8]) -> Option<u16> {
    integer(arg).ok().and_then(|port| u16::try_from(port).ok())
}

fn replicaof(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    if is(args[1], "no") && is(args[2], "one") {
        // It is what it is told to be.
        ctx.reply.ok();
        return Ok(());
    }
    if port(args[2]).is_none() {
        return Err(CommandError::other("ERR Invalid master port"));
    }
    Err(CommandError::other("ERR this server cannot be a replica of another one"))
}

fn failover(_: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (mut to, mut timeout, mut abort, mut force) = (false, false, false, false);
    let mut rest = &args[1..];
    while let [word, more @ ..] = rest {
        let used = match more {
            [ms, ..] if is(word, "timeout") && !timeout => {
                if integer(ms)? <= 0 {
                    return Err(CommandError::other("ERR FAILOVER timeout must be greater than 0"));
                }
                timeout = true;
                1
            }
            [_, at, ..] if is(word, "to") && !to => {
                integer(at)?;
                to = true;
                2
            }
            _ if is(word, "abort") && !abort => {
                abort = true;
                0
            }
            _ if is(word, "force") && !force => {
                force = true;
                0
            }
            _ => return Err(CommandError::Syntax),
        };
        rest = &more[used..];
    }
    Err(CommandError::other(if abort {
        "ERR No failover in progress."
    } else {
        "ERR FAILOVER requires connected replicas."
    }))
}

fn refuse_replica(_: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    Err(CommandError::other("ERR this server has no replicas: it sends its data to nobody"))
}

#[cfg(test)]
mod tests {
    use crate::testing::Engine;

    #[test]
    fn a_master_without_replicas_it_is_and_remains() {
        Engine::new().check(
            "REPLICAOF no ONE -> +OK
             SLAVEOF NO ONE -> +OK
             REPLICAOF 127.0.0.1 x -> -ERR Invalid master port
             REPLICAOF 127.0.0.1 65536 -> -ERR Invalid master port
             REPLICAOF 127.0.0.1 6379 -> -ERR this server cannot be a replica of another one
             REPLICAOF a -> -ERR wrong number of arguments for 'replicaof' command
             FAILOVER -> -ERR FAILOVER requires connected replicas.
             FAILOVER TO host 6379 FORCE TIMEOUT 5 -> -ERR FAILOVER requires connected replicas.
             FAILOVER ABORT -> -ERR No failover in progress.
             FAILOVER TIMEOUT 0 -> -ERR FAILOVER timeout must be greater than 0
             FAILOVER NOW -> -ERR syntax error
             FAILOVER TO host -> -ERR syntax error
             PSYNC ? -1 -> -ERR this server has no replicas: it sends its data to nobody
             REPLCONF ack 1 -> -ERR this server has no replicas: it sends its data to nobody",
        );
        assert!(Engine::new().say("ROLE").starts_with("*3"));
    }
}
