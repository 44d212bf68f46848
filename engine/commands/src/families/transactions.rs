//! Transactions: <https://redis.io/docs/latest/commands/?group=transactions>

use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::keys::Access;
use crate::session::{Transaction, Watch};
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least, exactly};

const TRANSACTION: Categories = Categories::TRANSACTION;
const ALWAYS: Flags = Flags::NONE.no_script().loading().stale();
const EVEN_BUSY: Flags = ALWAYS.fast().allow_busy();

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    CommandSpec { name: "multi",   arity: exactly(1),  flags: EVEN_BUSY,              keys: Keys::None,            acl: TRANSACTION, handler: multi },
    CommandSpec { name: "exec",    arity: exactly(1),  flags: ALWAYS.skip_slowlog(),          keys: Keys::None,            acl: TRANSACTION, handler: exec },
    CommandSpec { name: "discard", arity: exactly(1),  flags: EVEN_BUSY,              keys: Keys::None,            acl: TRANSACTION, handler: discard },
    CommandSpec { name: "watch",   arity: at_least(2), flags: EVEN_BUSY,              keys: Keys::every(1, -1, 1).access(Access::RO), acl: TRANSACTION, handler: watch },
    CommandSpec { name: "unwatch", arity: exactly(1),  flags: EVEN_BUSY,              keys: Keys::None,            acl: TRANSACTION, handler: unwatch },
];

fn multi(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    if ctx.session.transaction.is_some() {
        return Err(CommandError::other("ERR MULTI calls can not be nested"));
    }
    ctx.session.transaction = Some(Transaction::default());
    ctx.reply.ok();
    Ok(())
}

/// Runs under the locks of everything queued and of every watched key, so nobody sees a part of it.
fn exec(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    let Some(transaction) = ctx.session.transaction.take() else {
        return Err(CommandError::other("ERR EXEC without MULTI"));
    };
    let intact = watches_hold(ctx);
    end_watches(ctx);
    if transaction.out_of_memory {
        let why = CommandError::OutOfMemory;
        return Err(CommandError::other(format!("EXECABORT Transaction discarded because of: {why}")));
    }
    if transaction.broken {
        return Err(CommandError::other("EXECABORT Transaction discarded because of previous errors."));
    }
    if !intact {
        ctx.reply.null_array();
        return Ok(());
    }
    ctx.run_queue(&transaction);
    Ok(())
}

fn discard(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    if ctx.session.transaction.take().is_none() {
        return Err(CommandError::other("ERR DISCARD without MULTI"));
    }
    end_watches(ctx);
    ctx.reply.ok();
    Ok(())
}

fn watch(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    if ctx.session.transaction.is_some() {
        return Err(CommandError::other("ERR WATCH inside MULTI is not allowed"));
    }
    for key in &args[1..] {
        let db = ctx.data.db;
        if ctx.session.watches.iter().any(|watch| watch.db == db && watch.key == *key) {
            continue;
        }
        // A key that has expired already is absent from the start, and its removal later is no change.
        ctx.data.peek(key);
        let hash = ctx.data.keyspace().hash(key);
        let version = ctx.data.locked_mut().shard_mut(hash).watch(db, key);
        ctx.session.watches.push(Watch { db, key: key.to_vec(), version });
    }
    ctx.reply.ok();
    Ok(())
}

fn unwatch(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    end_watches(ctx);
    ctx.reply.ok();
    Ok(())
}

/// Whether no watched key has changed; one that has expired since counts as changed.
fn watches_hold(ctx: &mut Context<'_, '_>) -> bool {
    let (session, data) = (&*ctx.session, &mut ctx.data);
    session.watches.iter().all(|watch| {
        data.peek_in(watch.db, &watch.key);
        let hash = data.keyspace().hash(&watch.key);
        data.locked().shard(hash).watched_version(watch.db, &watch.key) == watch.version
    })
}

/// Ends every watch of this client. The locks of its watched keys are held.
pub(crate) fn end_watches(ctx: &mut Context<'_, '_>) {
    for watch in std::mem::take(&mut ctx.session.watches) {
        let hash = ctx.data.keyspace().hash(&watch.key);
        ctx.data.locked_mut().shard_mut(hash).unwatch(watch.db, &watch.key);
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Engine;

    /// What EXEC says after databases were exchanged, in which `watched` and `other` have set a key that is watched in the
    /// first of them.
    fn swapped(watched: &str, other: &str) -> String {
        let mut engine = Engine::new();
        for (db, words) in [(1, other), (0, watched)] {
            engine.check(&format!("SELECT {db} -> +OK"));
            if !words.is_empty() {
                engine.say(words);
            }
        }
        engine.now_ms += 10;
        engine.check("WATCH x -> +OK\nSWAPDB 0 1 -> +OK\nMULTI -> +OK\nPING -> +QUEUED");
        engine.say("EXEC")
    }

    /// A stranger's finding: it ran at once, so a watched key that had changed was overwritten all the same.
    #[test]
    fn unwatch_in_a_transaction_waits_for_its_end() {
        let mut engine = Engine::new();
        engine.check("SET k 1 -> +OK\nWATCH k -> +OK\nMULTI -> +OK\nUNWATCH -> +QUEUED\nGET k -> +QUEUED");
        engine.check("EXEC -> *2 +OK $1 1\nWATCH k -> +OK\nSET k 2 -> +OK\nMULTI -> +OK\nUNWATCH -> +QUEUED");
        engine.check("SET k 3 -> +QUEUED\nEXEC -> *-1\nGET k -> $1 2");
        engine.check(
            "WATCH k -> +OK\nSET k 4 -> +OK\nUNWATCH -> +OK\nMULTI -> +OK\nGET k -> +QUEUED\nEXEC -> *1 $1 4",
        );
    }

    #[test]
    fn exchanged_databases_change_a_watched_key_that_is_in_either_and_has_not_expired() {
        let (live, stale, none) = ("SET x 1", "SET x 1 PX 5", "");
        for (watched, other) in [(live, none), (none, live), (live, live), (live, stale), (stale, live)] {
            assert_eq!(swapped(watched, other), "*-1", "{watched:?} and {other:?}");
        }
        for (watched, other) in [(none, none), (stale, none), (none, stale), (stale, stale)] {
            assert_eq!(swapped(watched, other), "*1 +PONG", "{watched:?} and {other:?}");
        }
    }
}
