//! Values to bytes and back: <https://redis.io/docs/latest/commands/dump/>, <https://redis.io/docs/latest/commands/restore/>

use cairn_keyspace::dumped::{self, RestoreError};

use crate::args::{integer, is};
use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::hub::Interest;
use crate::keys::Access;
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least, exactly};

const KEYSPACE: Categories = Categories::KEYSPACE;
const RESTORES: Categories = KEYSPACE.and(Categories::DANGEROUS);

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    CommandSpec { name: "dump",    arity: exactly(2),  flags: Flags::READ,             keys: Keys::one(1), acl: KEYSPACE, handler: dump },
    CommandSpec { name: "restore", arity: at_least(4), flags: Flags::WRITE.deny_oom(), keys: Keys::one(1).access(Access::OW.update()), acl: RESTORES, handler: restore },
];

fn dump(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    match ctx.data.get(args[1]) {
        Some(entry) => ctx.reply.bulk(&dumped::dump(entry.value())),
        None => ctx.reply.null(),
    }
    Ok(())
}

/// What may stand behind RESTORE's payload.
#[derive(Default)]
struct RestoreOptions {
    replace: bool,
    absolute: bool,
    /// Seconds since the value was last used.
    idle_seconds: Option<u64>,
    /// The counter of an LFU policy.
    frequency: Option<u8>,
}

impl RestoreOptions {
    fn parse(args: &[&[u8]]) -> Result<Self, CommandError> {
        let mut options = Self::default();
        let mut rest = args.iter();
        while let Some(word) = rest.next() {
            if is(word, "replace") {
                options.replace = true;
            } else if is(word, "absttl") {
                options.absolute = true;
            } else if is(word, "idletime") && options.frequency.is_none() {
                let seconds = integer(rest.next().ok_or(CommandError::Syntax)?)?;
                let invalid = CommandError::other("ERR Invalid IDLETIME value, must be >= 0");
                options.idle_seconds = Some(u64::try_from(seconds).map_err(|_| invalid)?);
            } else if is(word, "freq") && options.idle_seconds.is_none() {
                let frequency = integer(rest.next().ok_or(CommandError::Syntax)?)?;
                let invalid = CommandError::other("ERR Invalid FREQ value, must be >= 0 and <= 255");
                options.frequency = Some(u8::try_from(frequency).map_err(|_| invalid)?);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }
}

fn restore(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (key, payload) = (args[1], args[3]);
    let options = RestoreOptions::parse(&args[4..])?;
    if !options.replace && ctx.data.exists(key) {
        return Err(CommandError::other("BUSYKEY Target key name already exists."));
    }
    let ttl = integer(args[2])?;
    if ttl < 0 {
        return Err(CommandError::other("ERR Invalid TTL value, must be >= 0"));
    }
    let object = dumped::restore(payload, ctx.data.limits).map_err(|error| match error {
        RestoreError::Footer => CommandError::other("ERR DUMP payload version or checksum are wrong"),
        RestoreError::Value => CommandError::other("ERR Bad data format"),
    })?;
    let now_ms = ctx.data.now_ms;
    let expire_at_ms = match (ttl, options.absolute) {
        (0, _) => None,
        (at, true) => Some(at),
        (after, false) => Some(after.saturating_add(now_ms)),
    };
    ctx.reply.ok();
    if expire_at_ms.is_some_and(|at| at <= now_ms) && !ctx.data.is_replaying() {
        // It would be gone at once; what it was to replace goes all the same.
        if ctx.data.remove(key).is_some() {
            ctx.data.notify(Interest::GENERIC, "del", key);
            ctx.data.effect(&[b"DEL", key]);
        }
        return Ok(());
    }
    if ctx.data.exists(key) {
        // The key it replaces is deleted first, as in Redis.
        ctx.data.notify(Interest::NEW, "new", key);
    }
    ctx.data.insert(key, object, expire_at_ms);
    let clock = ctx.data.clock;
    // Each counts only under a policy that goes by it.
    match (options.idle_seconds, options.frequency) {
        (Some(seconds), _) if !clock.by_frequency() => ctx.data.set_clock(key, clock.of_idle(seconds)),
        (_, Some(counter)) if clock.by_frequency() => ctx.data.set_clock(key, clock.of_frequency(counter)),
        // It takes the place of what was there, and not its past.
        _ => ctx.data.set_clock(key, clock.of_new()),
    }
    ctx.data.notify(Interest::GENERIC, "restore", key);
    let at = expire_at_ms.unwrap_or(0).to_string();
    ctx.data.effect(&[b"RESTORE", key, at.as_bytes(), payload, b"REPLACE", b"ABSTTL"]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Engine;

    fn payload(engine: &mut Engine, key: &[u8]) -> Vec<u8> {
        let reply = engine.run(&[b"DUMP", key]);
        let start = reply.iter().position(|byte| *byte == b'\n').expect("a bulk string") + 1;
        reply[start..reply.len() - 2].to_vec()
    }

    #[test]
    fn a_dumped_value_is_restored_and_replays_with_the_moment_it_expires() {
        let mut engine = Engine::new();
        engine.check("RPUSH l a b c -> :3\nDUMP absent -> $-1");
        let bytes = payload(&mut engine, b"l");
        assert_eq!(engine.run(&[b"RESTORE", b"copy", b"1000", &bytes]), b"+OK\r\n");
        engine.check("LRANGE copy 0 -1 -> *3 $1 a $1 b $1 c\nPTTL copy -> :1000");
        let busy = b"-BUSYKEY Target key name already exists.\r\n";
        assert_eq!(engine.run(&[b"RESTORE", b"copy", b"0", &bytes]), busy);
        assert_eq!(
            engine.run(&[b"RESTORE", b"copy", b"1700000005000", &bytes, b"ABSTTL", b"replace"]),
            b"+OK\r\n"
        );
        engine.check("PTTL copy -> :5000");
        assert_eq!(engine.replayed().digest(), engine.digest());
        // One that has expired already only takes away what was there.
        assert_eq!(engine.run(&[b"RESTORE", b"copy", b"1", &bytes, b"ABSTTL", b"REPLACE"]), b"+OK\r\n");
        assert_eq!(engine.run(&[b"RESTORE", b"other", b"1", &bytes, b"ABSTTL"]), b"+OK\r\n");
        engine.check("EXISTS copy other -> :0");
        assert_eq!(engine.replayed().digest(), engine.digest());
    }

    #[test]
    fn what_is_no_payload_is_refused_before_anything_changes() {
        let mut engine = Engine::new();
        engine.check("SET k text -> +OK");
        let good = payload(&mut engine, b"k");
        let mut bad = good.clone();
        bad[2] ^= 1;
        let mut tell = |args: &[&[u8]]| {
            let mut words = vec![&b"RESTORE"[..], b"k"];
            words.extend(args);
            String::from_utf8(engine.run(&words)).expect("text").trim_end().to_owned()
        };
        assert_eq!(tell(&[b"0", &bad, b"REPLACE"]), "-ERR DUMP payload version or checksum are wrong");
        assert_eq!(tell(&[b"0", b"short", b"REPLACE"]), "-ERR DUMP payload version or checksum are wrong");
        assert_eq!(tell(&[b"-1", &good, b"REPLACE"]), "-ERR Invalid TTL value, must be >= 0");
        assert_eq!(tell(&[b"x", &good, b"REPLACE"]), "-ERR value is not an integer or out of range");
        assert_eq!(tell(&[b"0", &good, b"FREQ", b"256"]), "-ERR Invalid FREQ value, must be >= 0 and <= 255");
        assert_eq!(tell(&[b"0", &good, b"IDLETIME", b"-1"]), "-ERR Invalid IDLETIME value, must be >= 0");
        assert_eq!(tell(&[b"0", &good, b"IDLETIME", b"1", b"FREQ", b"1"]), "-ERR syntax error");
        assert_eq!(tell(&[b"0", &good, b"FREQ"]), "-ERR syntax error");
    }
}
