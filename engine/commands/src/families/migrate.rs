//! MIGRATE: <https://redis.io/docs/latest/commands/migrate/>
//!
//! A key is in one of the two servers, or for a moment in both, but what a client sees of it never goes back: from before
//! its value is read until it is deleted here, its shard stays locked. Otherwise a write in between would have to be
//! noticed and sent after the value, over what clients of the other server may have done with it meanwhile, and a key that
//! is written all the time would never arrive. So MIGRATE holds what a script that runs long holds, and says so in the
//! same way: others do not wait on their threads but ask again later, and shards without keys of its own go on. The price is
//! that of Redis, where everything stands still meanwhile: those keys, and what needs all shards (a snapshot's fork,
//! FLUSHALL), wait for a slow target, for `timeout` each time it is silent.

use std::ops::Range;
use std::time::{Duration, Instant};

use cairn_keyspace::{Keyspace, dumped};

use crate::args::{integer, is};
use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::hub::Interest;
use crate::keys::{Access, KeySpec};
use crate::migration::{DeliveryFailure, Destination, Parcel};
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least};

const TAKEN: Access = Access::RW.access().delete();
const MIGRATED: Keys =
    Keys::found(&[KeySpec::one(3, TAKEN), KeySpec::all_behind("KEYS", -2, TAKEN.incomplete())], keys);

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    CommandSpec { name: "migrate", arity: at_least(6), flags: Flags::WRITE, keys: MIGRATED, acl: Categories::KEYSPACE.and(Categories::DANGEROUS), handler: migrate },
];

/// Where the options begin.
const OPTIONS_AT: usize = 6;
/// What is sent before the replies are read: at least one key, and no more of them than this, and no more than about so
/// many bytes. The replies to all of them fit into what a socket holds, so that no two servers wait for each other to read.
const PARCELS_MAX: usize = 256;
const BYTES_MAX: usize = 1 << 20;
/// What stands for a timeout of 0.
const TIMEOUT_MS: i64 = 1000;

/// How many arguments stand behind an option that is not KEYS.
fn arguments_of(option: &[u8]) -> Option<usize> {
    const OPTIONS: &[(&str, usize)] = &[("copy", 0), ("replace", 0), ("auth", 1), ("auth2", 2)];
    OPTIONS.iter().find(|(name, _)| is(option, name)).map(|(_, count)| *count)
}

/// The options with their places, up to KEYS and with it. A word that is none has no arguments.
fn options<'s, 'a>(args: &'s [&'a [u8]]) -> impl Iterator<Item = (usize, &'a [u8])> + 's {
    let mut next = OPTIONS_AT;
    std::iter::from_fn(move || {
        let at = next;
        let word = *args.get(at)?;
        next = if is(word, "keys") { args.len() } else { at + 1 + arguments_of(word).unwrap_or(0) };
        Some((at, word))
    })
}

/// Where KEYS stands, if it does.
fn keys_option(args: &[&[u8]]) -> Option<usize> {
    options(args).find(|(_, word)| is(word, "keys")).map(|(at, _)| at)
}

/// Where the names and passwords of users stand: from the first to the last.
pub(crate) fn secrets(args: &[&[u8]]) -> Range<usize> {
    let mut found = 0..0;
    for (at, word) in options(args) {
        let count = arguments_of(word).unwrap_or(0);
        if count > 0 {
            let start = if found.is_empty() { at + 1 } else { found.start };
            found = start..(at + 1 + count).min(args.len());
        }
    }
    found
}

fn keys(args: &[&[u8]]) -> Vec<(usize, Access)> {
    let places = match keys_option(args) {
        None => 3..args.len().min(4),
        Some(at) if args[3].is_empty() => at + 1..args.len(),
        // A mistake, which the command tells.
        Some(_) => 0..0,
    };
    places.map(|at| (at, TAKEN)).collect()
}

/// The options behind the timeout.
#[derive(Default)]
struct Options<'a> {
    copy: bool,
    replace: bool,
    credentials: Option<(Option<&'a [u8]>, &'a [u8])>,
}

impl<'a> Options<'a> {
    fn parse(args: &[&'a [u8]]) -> Result<Self, CommandError> {
        let mut options = Self::default();
        let mut at = OPTIONS_AT;
        while let Some(word) = args.get(at) {
            if is(word, "keys") {
                if !args[3].is_empty() {
                    return Err(CommandError::other(
                        "ERR When using MIGRATE KEYS option, the key argument must be set to the empty string",
                    ));
                }
                break;
            }
            let count = arguments_of(word).ok_or(CommandError::Syntax)?;
            match args.get(at + 1..at + 1 + count).ok_or(CommandError::Syntax)? {
                [] if is(word, "copy") => options.copy = true,
                [] => options.replace = true,
                [password] => options.credentials = Some((None, *password)),
                [user, password, ..] => options.credentials = Some((Some(*user), *password)),
            }
            at += 1 + count;
        }
        Ok(options)
    }
}

fn migrate(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let options = Options::parse(args)?;
    let (timeout_ms, db) = (integer(args[5])?, integer(args[4])?);
    let timeout_ms = if timeout_ms > 0 { timeout_ms } else { TIMEOUT_MS };
    let began = Instant::now();
    let mut found: Vec<&[u8]> = keys(args).into_iter().map(|(at, _)| args[at]).collect();
    found.retain(|key| ctx.data.get(key).is_some());
    if found.is_empty() {
        ctx.reply.simple("NOKEY");
        return Ok(());
    }
    if let Some(key) = found.iter().find(|key| is_undurable_yet(ctx, key)) {
        return Err(CommandError::other(format!(
            "ERR the same transaction or script has changed '{}', which is not durable before its end and so cannot be sent \
             to another server; send MIGRATE by itself, behind it",
            String::from_utf8_lossy(key)
        )));
    }
    let address = std::str::from_utf8(args[1]).ok().zip(std::str::from_utf8(args[2]).ok());
    let Some((host, port)) = address.and_then(|(host, port)| Some((host, port.parse().ok()?))) else {
        return Err(CommandError::other(DeliveryFailure::Connecting.to_string()));
    };
    let to = Destination {
        host,
        port,
        db,
        timeout: Duration::from_millis(timeout_ms.unsigned_abs()),
        credentials: options.credentials,
        replace: options.replace,
    };
    let _long = HeldLong::new(ctx.data.keyspace());
    ctx.host.step_aside();
    let (mut waiting, mut failure) = (&found[..], None);
    let mut effect = vec![&b"DEL"[..]];
    while !waiting.is_empty() && may_go_on(failure.as_ref()) {
        let (parcels, rest) = pack(ctx, waiting, began);
        waiting = rest;
        if parcels.is_empty() {
            // All that was left has expired meanwhile.
            break;
        }
        let delivery = ctx.host.deliver(&to, &parcels);
        if !options.copy {
            let arrived = parcels.iter().zip(&delivery.arrived).filter(|(_, arrived)| **arrived);
            effect.extend(arrived.map(|(parcel, _)| parcel.key).filter(|key| remove(ctx, key)));
        }
        failure = failure.or(delivery.failure);
    }
    if effect.len() > 1 {
        // To the journal, that is all there was to it.
        ctx.data.effect(&effect);
    }
    match failure {
        None => ctx.reply.ok(),
        // Not an error of the handler's: some of the keys may have gone.
        Some(failure) => reply_failure(ctx, &failure.to_string()),
    }
    Ok(())
}

/// Whether the transaction or script that this is part of has changed the key, where nobody may learn of a change before
/// it is durable: it is not even in the journal yet, so there is nothing to wait for.
fn is_undurable_yet(ctx: &mut Context<'_, '_>, key: &[u8]) -> bool {
    let is_part = ctx.in_transaction || ctx.in_script;
    is_part && ctx.host.awaits_durability() && ctx.data.has_changed(key)
}

/// What the other server refuses may be one key's fault; what does not reach it will not do so later either.
fn may_go_on(failure: Option<&DeliveryFailure>) -> bool {
    failure.is_none_or(|failure| matches!(failure, DeliveryFailure::Refused(_)))
}

/// Reads the values of the next keys; and the keys that are left.
fn pack<'k, 'a>(
    ctx: &mut Context<'_, '_>,
    keys: &'k [&'a [u8]],
    began: Instant,
) -> (Vec<Parcel<'a>>, &'k [&'a [u8]]) {
    // The clock of the command stands still, and this may be long after its beginning.
    let now_ms =
        ctx.data.now_ms.saturating_add(i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX));
    let (mut parcels, mut bytes) = (Vec::new(), 0);
    for (at, key) in keys.iter().enumerate() {
        if parcels.len() == PARCELS_MAX || bytes > BYTES_MAX {
            return (parcels, &keys[at..]);
        }
        let Some(entry) = ctx.data.peek(key) else { continue };
        let left_ms = entry.expire_at_ms().map(|at| at.saturating_sub(now_ms));
        if left_ms.is_some_and(|left| left < 0) {
            continue;
        }
        let payload = dumped::dump(entry.value());
        bytes += key.len() + payload.len();
        parcels.push(Parcel { key, ttl_ms: left_ms.map_or(0, |left| left.max(1)), payload });
    }
    (parcels, &[])
}

/// Deletes a key that has arrived elsewhere; whether it was still there.
fn remove(ctx: &mut Context<'_, '_>, key: &[u8]) -> bool {
    let removed = ctx.data.remove(key).is_some();
    if removed {
        ctx.data.notify(Interest::GENERIC, "del", key);
    }
    removed
}

fn reply_failure(ctx: &mut Context<'_, '_>, text: &str) {
    if let Some(observed) = ctx.host.observed() {
        observed.errors.note(text);
    }
    ctx.reply.error(text);
}

/// Says that locks are held for long, for as long as it lives.
struct HeldLong<'k>(&'k Keyspace);

impl<'k> HeldLong<'k> {
    fn new(keyspace: &'k Keyspace) -> Self {
        keyspace.note_held_long(true);
        Self(keyspace)
    }
}

impl Drop for HeldLong<'_> {
    fn drop(&mut self) {
        self.0.note_held_long(false);
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Engine;

    #[test]
    fn only_what_has_arrived_is_deleted_and_replays_so() {
        let mut engine = Engine::new();
        engine.check(
            "MSET a 1 b 2 busy 3 c 4 lost 5 d 6 -> +OK
             MIGRATE h 1 a 0 1000 COPY -> +OK
             EXISTS a -> :1
             MIGRATE h 1 a 0 1000 -> +OK
             EXISTS a -> :0
             MIGRATE h 1 a 0 1000 -> +NOKEY
             MULTI -> +OK
             MIGRATE h 1 busy 0 0 -> +QUEUED
             EXEC -> *1 -ERR Target instance replied with error: BUSYKEY Target key name already exists.
             EXISTS busy -> :1",
        );
        let told =
            engine.run(&[b"MIGRATE", b"h", b"1", b"", b"0", b"1", b"KEYS", b"b", b"nope", b"busy", b"c"]);
        let busy = b"-ERR Target instance replied with error: BUSYKEY Target key name already exists.\r\n";
        assert_eq!(told, busy);
        engine.check("EXISTS b -> :0\nEXISTS c -> :0\nEXISTS busy -> :1\nSET c 4 -> +OK");
        let told = engine.run(&[b"MIGRATE", b"h", b"1", b"", b"0", b"1", b"KEYS", b"c", b"lost", b"d"]);
        assert_eq!(told, b"-IOERR error or timeout reading to target instance\r\n");
        engine.check("EXISTS c -> :0\nEXISTS lost d -> :2");
        assert_eq!(engine.replayed().digest(), engine.digest());
        assert!(!String::from_utf8_lossy(&engine.journal).contains("MIGRATE"));
    }

    #[test]
    fn what_is_not_in_the_journal_yet_is_not_sent_where_durability_is_awaited() {
        let mut engine = Engine::new();
        let transaction =
            "MULTI -> +OK\nSET a 2 -> +QUEUED\nMIGRATE h 1 a 0 1 -> +QUEUED\nMIGRATE h 1 b 0 1 -> +QUEUED";
        engine.check("MSET a 1 b 1 -> +OK");
        engine.check(transaction);
        engine.check("EXEC -> *3 +OK +OK +OK\nEXISTS a b -> :0\nMSET a 1 b 1 -> +OK");
        engine.awaits_durability(true);
        engine.check(transaction);
        let reply = engine.say("EXEC");
        assert!(reply.starts_with("*3 +OK -ERR the same transaction or script has changed 'a'"), "{reply}");
        assert!(reply.ends_with("+OK"), "{reply}");
        engine.check("EXISTS b -> :0\nGET a -> $1 2\nMIGRATE h 1 a 0 1 -> +OK\nEXISTS a -> :0");
        assert_eq!(engine.replayed().digest(), engine.digest());
    }

    #[test]
    fn more_keys_than_are_sent_at_once_go_in_several_pieces() {
        let mut engine = Engine::new();
        let names: Vec<String> = (0..700).map(|number| format!("key:{number}")).collect();
        engine.check("DEBUG POPULATE 700 -> +OK");
        let mut words: Vec<&[u8]> = vec![b"MIGRATE", b"h", b"1", b"", b"0", b"1", b"KEYS"];
        words.extend(names.iter().map(String::as_bytes));
        assert_eq!(engine.run(&words), b"+OK\r\n");
        engine.check("DBSIZE -> :0");
        assert_eq!(engine.replayed().digest(), engine.digest());
    }

    #[test]
    fn what_is_wrong_is_said_before_anything_is_sent() {
        Engine::new().check(
            "SET k v -> +OK
             MIGRATE h 1 k 0 x -> -ERR value is not an integer or out of range
             MIGRATE h 1 k x 1 -> -ERR value is not an integer or out of range
             MIGRATE h port k 0 1 -> -IOERR error or timeout connecting to the client
             MIGRATE h 1 k 0 1 NOPE -> -ERR syntax error
             MIGRATE h 1 k 0 1 AUTH -> -ERR syntax error
             MIGRATE h 1 k 0 1 AUTH2 me -> -ERR syntax error
             MIGRATE h 1 k 0 1 KEYS k -> -ERR When using MIGRATE KEYS option, the key argument must be set to the empty string
             EXISTS k -> :1
             COMMAND GETKEYS MIGRATE h 1 k 0 1 AUTH keys -> *1 $1 k",
        );
        let mut engine = Engine::new();
        let told = engine.run(&[
            b"COMMAND", b"GETKEYS", b"MIGRATE", b"h", b"1", b"", b"0", b"1", b"auth2", b"keys", b"keys",
            b"keys", b"a", b"b",
        ]);
        assert_eq!(told, b"*2\r\n$1\r\na\r\n$1\r\nb\r\n");
    }
}
