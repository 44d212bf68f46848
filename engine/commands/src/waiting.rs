//! Commands that wait for a key: what they leave behind when they find nothing, and how they are served later.
//!
//! A waiter is queued at its keys, each with a request of its own: that which finds what it waits for at this one key.
//! Whoever changes such a key runs that request for the waiter, under the same locks and into the same effects, so the
//! two are one step for everybody else.

use std::sync::Arc;

use cairn_keyspace::types::Limits;
pub use cairn_keyspace::waiting::Awaited;
use cairn_keyspace::waiting::{Ready, Ticket, Waiter};
use cairn_keyspace::{Entry, KeyHash, Keyspace, Locked, Object, Value};
use cairn_resp::{Protocol, Reply};

use crate::acl::{self, Place};
use crate::args::{integer, parse_float};
use crate::context::{Context, Data, Lookups};
use crate::dispatch::{LockPlan, Strayed, Tools};
use crate::effects::Effects;
use crate::error::CommandError;
use crate::host::Host;
use crate::session::Session;
use crate::table::resolve;

/// What a command waits for that has found nothing. The reply it has written stands for when the time is over.
#[derive(Debug)]
pub struct Wait {
    /// For how long, in milliseconds; `None` is for ever.
    pub timeout_ms: Option<u64>,
    /// Until when.
    pub until: Until,
}

/// What ends a wait.
#[derive(Debug)]
pub enum Until {
    /// One of these keys gets what the command looked for.
    Keys(Vec<KeyWait>),
    /// Only the time: replicas that are not there answer nothing.
    Replicas,
    /// The journal is durable up to where it ends now. The reply says whether it is, and that no replica is.
    Durable {
        /// Whether that is all that is asked for.
        is_enough: bool,
    },
}

/// A wait for one key.
#[derive(Debug)]
pub struct KeyWait {
    /// The key.
    pub key: Vec<u8>,
    /// What it has to hold.
    pub awaited: Awaited,
    /// The request that is run then: the same as the one that waits, for this key alone.
    pub request: Vec<Vec<u8>>,
    /// The key that the request writes to beside.
    pub destination: Option<Vec<u8>>,
}

impl KeyWait {
    /// A wait for `key`, which `request` takes from.
    #[must_use]
    pub fn new(key: &[u8], awaited: Awaited, request: &[&[u8]]) -> Self {
        let request = request.iter().map(|arg| arg.to_vec()).collect();
        Self { key: key.to_vec(), awaited, request, destination: None }
    }
}

/// A timeout in seconds, such as BLPOP takes: zero is none.
///
/// # Errors
/// [`CommandError::Other`].
pub fn timeout_of_seconds(arg: &[u8]) -> Result<Option<u64>, CommandError> {
    let seconds =
        parse_float(arg).ok_or(CommandError::other("ERR timeout is not a float or out of range"))?;
    let ms = (seconds * 1000.0).ceil();
    // What exceeds 64 bits is called negative, as Redis calls it.
    if !(0.0..i64::MAX as f64).contains(&ms) {
        return Err(CommandError::other("ERR timeout is negative"));
    }
    Ok(Some(ms as u64).filter(|ms| *ms > 0))
}

/// A timeout in milliseconds, such as WAIT and XREAD take: zero is none.
///
/// # Errors
/// [`CommandError::Other`].
pub fn timeout_of_milliseconds(arg: &[u8]) -> Result<Option<u64>, CommandError> {
    let ms =
        integer(arg).map_err(|_| CommandError::other("ERR timeout is not an integer or out of range"))?;
    let ms = u64::try_from(ms).map_err(|_| CommandError::other("ERR timeout is negative"))?;
    Ok(Some(ms).filter(|ms| *ms > 0))
}

impl Context<'_, '_> {
    /// Whether a command may wait: not in a transaction or a script, where it does as if its time were over.
    #[must_use]
    pub fn may_wait(&self) -> bool {
        !self.in_transaction && !self.data.is_replaying()
    }

    /// Says that the command has found nothing and waits, where it may. What it has replied is sent when its time is
    /// over, and at once where nothing may wait.
    pub fn wait(&mut self, timeout_ms: Option<u64>, until: Until) {
        if self.may_wait() {
            self.wait = Some(Box::new(Wait { timeout_ms, until }));
        }
    }
}

/// Queues a client at the keys it waits for, which are locked, each once; returns these with what they have to hold.
pub fn queue(
    locked: &mut Locked<'_>,
    waiter: &Arc<Waiter>,
    keys: Vec<KeyWait>,
) -> Vec<(KeyHash, Vec<u8>, Awaited)> {
    let keyspace = locked.keyspace();
    let mut queue_one = |KeyWait { key, awaited, request, destination }| {
        let hash = keyspace.hash(&key);
        let destination = destination.map(|key: Vec<u8>| keyspace.hash(&key));
        let ticket = Ticket { waiter: Arc::clone(waiter), awaited, request, destination };
        locked.shard_mut(hash).await_key(hash, &key, ticket).then_some((hash, key, awaited))
    };
    keys.into_iter().filter_map(&mut queue_one).collect()
}

/// Locks what a command needs, and with it every shard that is needed to serve those who wait for its keys: an element
/// that is moved on to another key may feed a waiter there, and so on.
#[cold]
pub fn try_lock_with_destinations<'k>(plan: &LockPlan, keyspace: &'k Keyspace) -> Option<Locked<'k>> {
    let mut needed: Vec<KeyHash> = match plan {
        LockPlan::None | LockPlan::Whole => return plan.try_lock(keyspace),
        LockPlan::One(hash) => vec![*hash],
        LockPlan::Many(hashes) => hashes.clone(),
    };
    loop {
        let locked = keyspace.try_lock_many(needed.iter().copied())?;
        let mut at = 0;
        while let Some(hash) = needed.get(at).copied() {
            if locked.holds(hash.shard()) {
                for destination in locked.shard(hash).destinations(hash) {
                    if !needed.contains(destination) {
                        needed.push(*destination);
                    }
                }
            }
            at += 1;
        }
        if needed.iter().all(|hash| locked.holds(hash.shard())) {
            return Some(locked);
        }
    }
}

/// The reply to a waiter that was served. It is on its way once the effects are in the journal.
#[must_use = "a waiter that was served must be told"]
pub struct Served {
    waiter: Arc<Waiter>,
    reply: Vec<u8>,
}

impl Served {
    /// Tells the waiter; its reply has to wait for this position of the journal.
    pub fn deliver(self, position: u64) {
        self.waiter.deliver(self.reply, position);
    }
}

/// Serves all who wait for keys that have changed: the keys in the order they changed, the waiters of each in the order
/// they came. What they do becomes part of `effects`. Returns their replies, and adds up what expired meanwhile.
#[cold]
pub fn serve(
    locked: &mut Locked<'_>,
    effects: &mut Effects,
    host: &dyn Host,
    tools: Tools<'_>,
) -> (Vec<Served>, Lookups) {
    let Tools { now_ms, limits, random, .. } = tools;
    let (served, lookups) = (Vec::new(), Lookups::default());
    let mut serving = Serving { locked, effects, host, now_ms, limits, random, served, lookups };
    loop {
        let ready = serving.locked.take_ready();
        if ready.is_empty() {
            return (serving.served, serving.lookups);
        }
        for key in ready {
            serving.serve_key(&key);
        }
    }
}

/// The errors of Redis 7.0 for a consumer that waits where its key or its group has gone.
const STREAM_GONE: &str = "UNBLOCKED the stream key no longer exists";
const GROUP_GONE: &str = "NOGROUP the consumer group this client was blocked on no longer exists";

struct Serving<'a, 'k> {
    locked: &'a mut Locked<'k>,
    effects: &'a mut Effects,
    host: &'a dyn Host,
    now_ms: i64,
    limits: &'a Limits,
    random: &'a mut u64,
    served: Vec<Served>,
    lookups: Lookups,
}

impl<'k> Serving<'_, 'k> {
    fn serve_key(&mut self, ready: &Ready) {
        let (db, key) = (ready.db, &*ready.key);
        let hash = self.locked.keyspace().hash(key);
        for awaited in [Awaited::List, Awaited::Zset, Awaited::Stream, Awaited::Group] {
            let mut after = 0;
            while let Some(ticket) = self.locked.shard(hash).next_waiter(db, key, awaited, after) {
                let is_there = self.holds(db, key, awaited);
                if !is_there && awaited != Awaited::Group {
                    break;
                }
                after = ticket.waiter.arrival;
                if self.serve_waiter(&ticket, is_there) {
                    self.locked.shard_mut(hash).end_await(hash, key, awaited, &ticket.waiter);
                }
            }
        }
        // What the waiters themselves changed here left nothing to those behind them.
        self.locked.shard_mut(hash).settle_ready(db, key);
    }

    /// Whether a key holds a value of the type that somebody waits for.
    fn holds(&mut self, db: u16, key: &[u8], awaited: Awaited) -> bool {
        let mut data = self.data(db);
        let object = data.peek(key).map(Entry::value);
        let holds = match object {
            Some(Value::Object(Object::List(_))) => awaited == Awaited::List,
            Some(Value::Object(Object::Zset(_))) => awaited == Awaited::Zset,
            Some(Value::Object(Object::Stream(_))) => matches!(awaited, Awaited::Stream | Awaited::Group),
            _ => false,
        };
        let expired = data.lookups.expired;
        self.lookups.expired += expired;
        holds
    }

    fn data(&mut self, db: u16) -> Data<'_, 'k> {
        let (now_ms, limits) = (self.now_ms, self.limits);
        let tools = Tools { now_ms, limits, random: self.random, replaying: false, known_key: None };
        Data::new(self.locked, self.effects, db, tools)
    }

    /// Whether a waiter need not be looked at again at this key: it is served now, or has been by others.
    fn serve_waiter(&mut self, ticket: &Ticket, is_there: bool) -> bool {
        // Held by whoever changed the key; only a key that became ready unseen can come without.
        if ticket.destination.is_some_and(|destination| !self.locked.holds(destination.shard())) {
            return false;
        }
        let Some(claim) = ticket.waiter.claim() else { return true };
        let mut reply = Vec::new();
        if !is_there {
            Reply::new(&mut reply, Protocol::Resp2).error(STREAM_GONE);
        } else if !self.run(ticket, &mut reply) {
            return false;
        }
        if ticket.awaited == Awaited::Group && reply.starts_with(b"-NOGROUP") {
            reply.clear();
            Reply::new(&mut reply, Protocol::Resp2).error(GROUP_GONE);
        }
        claim.serve();
        self.served.push(Served { waiter: Arc::clone(&ticket.waiter), reply });
        true
    }

    /// Runs a waiter's request as if it had sent it now, if it still may; false when it finds nothing still.
    fn run(&mut self, ticket: &Ticket, out: &mut Vec<u8>) -> bool {
        let waiter = &ticket.waiter;
        let protocol = if waiter.speaks_resp3 { Protocol::Resp3 } else { Protocol::Resp2 };
        let mut session = Session::new(waiter.session, true);
        (session.db, session.protocol) = (waiter.db, protocol);
        let args: Vec<&[u8]> = ticket.request.iter().map(Vec::as_slice).collect();
        let Some(spec) = resolve(&args) else { return false };
        let host = self.host;
        // What a user may do can have changed since the request came.
        session.user = host.waiting_user(waiter.session);
        if let Err(refusal) = acl::permit(&mut session, host, spec, &args, Place::Top) {
            let refusal = refusal.to_string();
            if let Some(observed) = host.observed() {
                observed.errors.note(&refusal);
            }
            Reply::new(out, protocol).error(&refusal);
            return true;
        }
        let data = self.data(waiter.db);
        let reply = Reply::new(out, protocol);
        let mut context = Context {
            data,
            reply,
            session: &mut session,
            host,
            job: None,
            wait: None,
            in_transaction: false,
            in_script: false,
            strayed: Strayed::default(),
        };
        // MONITOR has shown the request when it came.
        let heard = context.data.effects().news().mute_monitors();
        context.run(spec, &args);
        context.data.effects().news().unmute(heard);
        let (waits, expired) = (context.wait.is_some(), context.data.lookups.expired);
        self.lookups.expired += expired;
        !waits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Engine;

    #[test]
    fn who_waits_is_served_as_part_of_the_change() {
        let mut engine = Engine::new();
        // The reply is that of a time that is over.
        engine.check("BLPOP a b 0 -> *-1\nBLMOVE a b LEFT RIGHT 0 -> *-1\nBRPOP b 0 -> *-1");
        assert_eq!((engine.served(0), engine.served(1)), (None, None));
        engine.check("MULTI -> +OK\nRPUSH b 1 -> +QUEUED\nRPUSH a 2 3 -> +QUEUED\nEXEC -> *2 :1 :2");
        assert_eq!(engine.served(0).as_deref(), Some("*2 $1 b $1 1"), "b was there first");
        assert_eq!(engine.served(1).as_deref(), Some("$1 2"));
        assert_eq!(engine.served(2).as_deref(), Some("*2 $1 b $1 2"), "what is moved on feeds the next");
        let effects = "MULTI\nRPUSH b 1\nRPUSH a 2 3\nLPOP b\nLMOVE a b LEFT RIGHT\nRPOP b\nEXEC";
        assert_eq!(engine.effects(), effects);
        engine.check("LRANGE a 0 -1 -> *1 $1 3\nEXISTS b -> :0");
    }

    #[test]
    fn a_change_that_leaves_nothing_to_take_wakes_nobody() {
        let mut engine = Engine::new();
        engine.check("BZPOPMIN k 0 -> *-1\nBLPOP k 0 -> *-1\nSET k x -> +OK\nDEL k -> :1");
        engine.check("MULTI -> +OK\nRPUSH k a -> +QUEUED\nDEL k -> +QUEUED\nEXEC -> *2 :1 :1");
        engine.check("RPUSH old a -> :1\nPEXPIRE old 5 -> :1");
        engine.now_ms += 10;
        engine.check("RENAME old k -> -ERR no such key\nFLUSHALL -> +OK\nSELECT 1 -> +OK\nRPUSH k b -> :1");
        assert_eq!((engine.served(0), engine.served(1)), (None, None));
        engine.check("SWAPDB 0 1 -> +OK");
        assert_eq!((engine.served(0), engine.served(1).as_deref()), (None, Some("*2 $1 k $1 b")));
        // Refused only when it is its turn: the element goes to the next.
        engine.check(
            "SELECT 0 -> +OK\nSET s x -> +OK\nBRPOPLPUSH k s 0 -> *-1\nBRPOP k 0 -> *-1\nRPUSH k c -> :1",
        );
        let refused = "-WRONGTYPE Operation against a key holding the wrong kind of value";
        assert_eq!(engine.served(2).as_deref(), Some(refused));
        assert_eq!(engine.served(3).as_deref(), Some("*2 $1 k $1 c"));
    }

    #[test]
    fn what_waiters_are_served_with_replays_to_the_same_data() {
        for seed in 1..=5u64 {
            let (mut engine, mut state) = (Engine::new(), seed);
            for _ in 0..1_500 {
                engine.now_ms += 3;
                let roll = crate::context::next_random(&mut state);
                let (one, other) = (roll % 3, roll / 3 % 3);
                let command = match roll / 9 % 12 {
                    0 => format!("BLPOP l{one} l{other} 0"),
                    1 => format!("BLMOVE l{one} l{other} LEFT RIGHT 0"),
                    2 => format!("BLMPOP 0 2 l{one} l{other} RIGHT COUNT 2"),
                    3 => format!("BZPOPMAX z{one} z{other} 0"),
                    4 => format!("BRPOPLPUSH l{one} l{other} 0"),
                    _ => crate::testing::random_command(&mut state),
                };
                engine.say(&command);
            }
            assert_eq!(engine.replayed().digest(), engine.digest(), "seed {seed}");
        }
    }

    #[test]
    fn timeouts_are_read_as_in_redis() {
        for (text, ms) in
            [("0", None), ("-0.0001", None), ("0.0001", Some(1)), ("1.5", Some(1500)), ("1e2", Some(100_000))]
        {
            assert_eq!(timeout_of_seconds(text.as_bytes()), Ok(ms), "{text}");
        }
        let negative = CommandError::other("ERR timeout is negative");
        for text in ["-1", "inf", "-inf", "1e300", "9223372036854775807"] {
            assert_eq!(timeout_of_seconds(text.as_bytes()), Err(negative.clone()), "{text}");
        }
        for text in ["", "abc", "nan", " 1"] {
            let refused = CommandError::other("ERR timeout is not a float or out of range");
            assert_eq!(timeout_of_seconds(text.as_bytes()), Err(refused), "{text}");
        }
        assert_eq!(timeout_of_milliseconds(b"5"), Ok(Some(5)));
        assert_eq!(timeout_of_milliseconds(b"-5"), Err(negative));
    }
}
