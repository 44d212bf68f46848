//! HyperLogLogs, which are strings of a form of their own: <https://redis.io/docs/latest/commands/?group=hyperloglog>
//!
//! The form is Redis's byte for byte, so a value dumped here can be restored there: 16 bytes of header (see
//! [`sketch`]), then the registers, [`dense`] or [`sparse`].

mod debug;
mod dense;
mod estimate;
mod hash;
mod self_test;
mod sketch;
mod sparse;

use crate::context::{Context, Data};
use crate::error::{CommandError, CommandResult};
use crate::hub::Interest;
use crate::keys::{Access, KeySpec};
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least, exactly};
use estimate::Histogram;
use sketch::{Registers, Sketch, is_dense};

const HLL: Categories = Categories::HYPERLOGLOG;
const MERGE: Keys =
    Keys::specs(&[KeySpec::one(1, Access::RW.access().insert()), KeySpec::range(2, -1, Access::RO.access())]);

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    CommandSpec { name: "pfadd",      arity: at_least(2), flags: Flags::WRITE.deny_oom().fast(), keys: Keys::one(1).access(Access::RW.insert()), acl: HLL, handler: pfadd },
    CommandSpec { name: "pfcount",    arity: at_least(2), flags: Flags::READ.may_replicate(),    keys: Keys::every(1, -1, 1).access(Access::RW.access()), acl: HLL, handler: pfcount },
    CommandSpec { name: "pfmerge",    arity: at_least(2), flags: Flags::WRITE.deny_oom(),        keys: MERGE, acl: HLL, handler: pfmerge },
    CommandSpec { name: "pfselftest", arity: exactly(1),  flags: Flags::ADMIN,                   keys: Keys::None,            acl: HLL, handler: pfselftest },
    CommandSpec { name: "pfdebug",    arity: exactly(3),  flags: Flags::WRITE.deny_oom().admin(), keys: Keys::one(2).access(Access::RW.access()), acl: HLL, handler: debug::pfdebug },
];

/// What is found in a key that should hold a sketch.
fn check(value: &[u8]) -> Result<&[u8], CommandError> {
    if sketch::is_valid(value) {
        return Ok(value);
    }
    Err(CommandError::other("WRONGTYPE Key is not a valid HyperLogLog string value."))
}

fn corrupted() -> CommandError {
    CommandError::other("INVALIDOBJ Corrupted HLL object detected")
}

/// Up to how many bytes a sketch stays sparse. An effect that made it dense says so itself, whatever the limit is when it
/// is replayed.
fn sparse_bytes_max(data: &Data<'_, '_>) -> usize {
    if data.is_replaying() { usize::MAX } else { data.limits.hll_sparse_bytes }
}

/// Stores a sketch that was changed apart. One that has become dense is an effect as it is: when it does depends on a
/// limit that may be another when the effect is replayed.
fn store(data: &mut Data<'_, '_>, key: &[u8], sketch: &Sketch, became_dense: bool) {
    let expire_at_ms = data.peek(key).and_then(|entry| entry.expire_at_ms());
    data.set_string(key, sketch.as_bytes(), expire_at_ms);
    if became_dense {
        data.effect(&[b"SET", key, sketch.as_bytes(), b"KEEPTTL"]);
    }
}

fn pfadd(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (key, elements) = (args[1], args[2..].iter().map(|element| hash::place_of(element)));
    let sparse_max = sparse_bytes_max(&ctx.data);
    let before = match ctx.data.peek(key) {
        None => None,
        Some(entry) => Some(check(entry.as_str().ok_or(CommandError::WrongType)?)?),
    };
    let changed = if before.is_some_and(is_dense) {
        let dense = ctx.data.get_mut(key).and_then(|entry| entry.as_str_mut());
        let changed = dense.is_some_and(|dense| sketch::raise_dense(dense, elements));
        if changed {
            ctx.data.changed(key);
        }
        changed
    } else {
        let mut sketch = before.map_or_else(Sketch::new, Sketch::of);
        let mut changed = before.is_none();
        for (register, rank) in elements {
            changed |= sketch.raise(register, rank, sparse_max).map_err(|_| corrupted())?;
        }
        if changed {
            sketch.forget_count();
            store(&mut ctx.data, key, &sketch, is_dense(sketch.as_bytes()));
        }
        changed
    };
    if changed {
        ctx.data.notify(Interest::STRING, "pfadd", key);
    }
    ctx.reply.integer(i64::from(changed));
    Ok(())
}

fn pfcount(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let key = args[1];
    if args.len() > 2 {
        let count = merged(&mut ctx.data, &args[1..])?.0.histogram().estimate();
        ctx.reply.integer(count.cast_signed());
        return Ok(());
    }
    let Some(value) = ctx.data.get_str(key)? else {
        ctx.reply.integer(0);
        return Ok(());
    };
    let count = match sketch::known_count(check(value)?) {
        Some(count) => count,
        None => {
            let count = Histogram::of(value).map_err(|_| corrupted())?.estimate();
            // Kept in the value, as Redis keeps it, where the next one finds it: a change like any other.
            if let Some(value) = ctx.data.get_mut(key).and_then(|entry| entry.as_str_mut()) {
                sketch::remember_count(value, count);
            }
            ctx.data.changed(key);
            count
        }
    };
    ctx.reply.integer(count.cast_signed());
    Ok(())
}

/// The greatest of each register in all sketches that are there, and whether one of them is dense.
fn merged(data: &mut Data<'_, '_>, keys: &[&[u8]]) -> Result<(Registers, bool), CommandError> {
    let (mut registers, mut dense) = (Registers::default(), false);
    for key in keys {
        if let Some(value) = data.get_str(key)? {
            let value = check(value)?;
            registers.raise_by(value).map_err(|_| corrupted())?;
            dense |= is_dense(value);
        }
    }
    Ok((registers, dense))
}

fn pfmerge(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (key, sparse_max) = (args[1], sparse_bytes_max(&ctx.data));
    let (registers, dense) = merged(&mut ctx.data, &args[1..])?;
    let before = ctx.data.settled(key).and_then(|entry| entry.as_str());
    let mut sketch = before.map_or_else(Sketch::new, Sketch::of);
    if dense {
        sketch.make_dense().map_err(|_| corrupted())?;
    }
    for (register, rank) in registers.ranks() {
        sketch.raise(register, rank, sparse_max).map_err(|_| corrupted())?;
    }
    sketch.forget_count();
    store(&mut ctx.data, key, &sketch, is_dense(sketch.as_bytes()) && !dense);
    ctx.data.notify(Interest::STRING, "pfadd", key);
    ctx.reply.ok();
    Ok(())
}

fn pfselftest(ctx: &mut Context<'_, '_>, _args: &[&[u8]]) -> CommandResult {
    let sparse_max = ctx.data.limits.hll_sparse_bytes;
    let seed = ctx.data.random();
    self_test::run(seed, sparse_max).map_err(CommandError::other)?;
    ctx.reply.ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Engine;

    #[test]
    fn replies_are_those_of_redis() {
        Engine::new().check(
            "PFADD h a b c d e f g -> :1
             PFADD h a b c -> :0
             PFCOUNT h -> :7
             PFADD h -> :0
             PFADD empty -> :1
             PFCOUNT empty -> :0
             PFCOUNT no -> :0
             PFADD other f g h i -> :1
             PFCOUNT h other no -> :9
             PFMERGE dest h other -> +OK
             PFCOUNT dest -> :9
             EXPIRE dest 100 -> :1
             PFMERGE dest -> +OK
             TTL dest -> :100
             STRLEN empty -> :18
             SET s hello -> +OK
             PFADD s x -> -WRONGTYPE Key is not a valid HyperLogLog string value.
             PFCOUNT s -> -WRONGTYPE Key is not a valid HyperLogLog string value.
             PFMERGE dest s -> -WRONGTYPE Key is not a valid HyperLogLog string value.
             LPUSH l x -> :1
             PFADD l x -> -WRONGTYPE Operation against a key holding the wrong kind of value
             PFCOUNT l -> -WRONGTYPE Operation against a key holding the wrong kind of value
             PFADD cut a -> :1
             APPEND cut hello -> :26
             PFCOUNT cut -> -INVALIDOBJ Corrupted HLL object detected
             PFCOUNT cut h -> -INVALIDOBJ Corrupted HLL object detected",
        );
    }

    #[test]
    fn the_count_is_kept_and_journaled_once() {
        let mut engine = Engine::new();
        engine.check("PFADD h a -> :1\nPFCOUNT h -> :1\nPFCOUNT h -> :1\nPFADD h a -> :0");
        assert_eq!(engine.effects(), "PFADD h a\nPFCOUNT h");
    }

    #[test]
    fn a_sketch_that_became_dense_replays_as_dense_whatever_the_limit_is_then() {
        let mut engine = Engine::new();
        engine.limits.hll_sparse_bytes = 60;
        for round in 0..60 {
            engine.say(&format!("PFADD h{} a{round} b{round}", round % 2));
            engine.say(&format!("PFMERGE m h0 h{}", round % 3));
            engine.say("PFCOUNT h0");
        }
        assert_eq!(engine.say("STRLEN h0"), ":12304");
        engine.limits.hll_sparse_bytes = 20_000;
        engine.say("PFADD sparse a b c");
        assert_eq!(engine.replayed().digest(), engine.digest());
    }

    #[test]
    fn an_estimate_is_near_the_truth_and_the_same_in_both_forms() {
        let (mut dense, mut sparse) = (Engine::new(), Engine::new());
        dense.limits.hll_sparse_bytes = 0;
        for number in 0..2_000 {
            let command = format!("PFADD h element:{number}");
            dense.say(&command);
            sparse.say(&command);
        }
        assert_eq!(dense.say("PFCOUNT h"), sparse.say("PFCOUNT h"));
        // What redis-server 7.0.15 answers.
        assert_eq!(dense.say("PFCOUNT h"), ":2004");
    }
}
