//! A keyspace to run commands on in tests, beside it what a journal would have received.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Poll, Waker};

use cairn_keyspace::Keyspace;
use cairn_keyspace::types::Limits;
use cairn_keyspace::waiting::{Waiter, Woken};
use cairn_resp::{Args, Parsed, Parser, Protocol, Reply};

use crate::context::next_random;
use crate::hub::Hub;
use crate::script::Scripts;
use crate::waiting::{Until, Wait, queue, serve, try_lock_with_destinations};
use crate::{
    Decision, Delivery, DeliveryFailure, Destination, Effects, Host, Parcel, Route, Session, Tools, decide,
    expire_shard, run,
};

/// Runs commands one after the other.
pub(crate) struct Engine {
    pub(crate) keyspace: Keyspace,
    pub(crate) session: Session,
    pub(crate) now_ms: i64,
    pub(crate) limits: Limits,
    pub(crate) random: u64,
    /// What a journal would hold, as requests.
    pub(crate) journal: Vec<u8>,
    host: Silent,
    effects: Effects,
    replaying: bool,
    /// Those who wait, or have waited, in the order they came.
    waiters: Vec<Arc<Waiter>>,
    /// Where messages go to the one client there is; the host's.
    pub(crate) hub: Arc<Hub>,
}

impl Engine {
    pub(crate) fn new() -> Self {
        let host = Silent::default();
        let hub = Arc::clone(&host.hub);
        Self {
            keyspace: Keyspace::new(4),
            session: Session::new(1, true),
            now_ms: 1_700_000_000_000,
            limits: Limits::default(),
            random: 1,
            journal: Vec::new(),
            host,
            effects: Effects::default(),
            replaying: false,
            waiters: Vec::new(),
            hub,
        }
    }

    /// Says whether more memory is in use than may be.
    pub(crate) fn lacks_memory(&mut self, lacks: bool) {
        *self.host.is_out_of_memory.get_mut() = lacks;
    }

    /// Says whether nobody learns of a change before it is durable.
    pub(crate) fn awaits_durability(&mut self, awaits: bool) {
        *self.host.awaits_durability.get_mut() = awaits;
    }

    /// Runs one command; returns its reply as it goes over the wire.
    pub(crate) fn run(&mut self, args: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, self.session.protocol);
        let route = Route::of(args, &self.keyspace);
        if let Decision::Run(spec, locks) =
            decide(&mut self.session, &self.host, args, &route, &self.keyspace, &mut reply)
        {
            let mut locked = try_lock_with_destinations(&locks, &self.keyspace).expect("nobody else locks");
            let tools = Tools {
                now_ms: self.now_ms,
                limits: &self.limits,
                random: &mut self.random,
                replaying: self.replaying,
                known_key: route.known_key(args),
            };
            self.effects.clear();
            self.effects.listen(self.host.hub.interest());
            let ran =
                run(spec, args, &mut self.session, &self.host, &mut locked, &mut self.effects, reply, tools);
            if let Some(Wait { until: Until::Keys(keys), .. }) = ran.wait.map(|wait| *wait) {
                let resp3 = self.session.protocol == Protocol::Resp3;
                let waiter = Waiter::new(self.session.id, self.session.db, resp3);
                queue(&mut locked, &waiter, keys);
                self.waiters.push(waiter);
            }
            let (now_ms, limits, random) = (self.now_ms, &self.limits, &mut self.random);
            let tools = Tools { now_ms, limits, random, replaying: false, known_key: None };
            let (served, _) = serve(&mut locked, &mut self.effects, &self.host, tools);
            served.into_iter().for_each(|one| one.deliver(0));
            if !self.effects.is_empty() {
                // Not always the session's: a command may first meet an expired key of another database.
                let (db, bytes) = self.effects.finish();
                cairn_resp::push_command(&mut self.journal, &[b"SELECT", db.to_string().as_bytes()]);
                self.journal.extend_from_slice(bytes);
            }
            self.effects.tell(&self.hub, self.session.id, 0);
        }
        out
    }

    /// Runs a command written with blanks between its words; returns its reply, blanks for line ends.
    pub(crate) fn say(&mut self, words: &str) -> String {
        let args: Vec<&[u8]> = words.split_whitespace().map(str::as_bytes).collect();
        String::from_utf8_lossy(&self.run(&args)).replace("\r\n", " ").trim_end().to_owned()
    }

    /// What the waiter that came as number `at` was served with, if it has been since the last time; blanks for line ends.
    pub(crate) fn served(&self, at: usize) -> Option<String> {
        match self.waiters[at].poll_woken(Waker::noop()) {
            Poll::Ready(Woken::Served { reply, .. }) => {
                Some(String::from_utf8_lossy(&reply).replace("\r\n", " ").trim_end().to_owned())
            }
            _ => None,
        }
    }

    /// Checks replies: each line is a command, ` -> `, and its reply.
    #[track_caller]
    pub(crate) fn check(&mut self, lines: &str) {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (words, reply) = line.split_once("->").expect("a command and its reply");
            assert_eq!(self.say(words), reply.trim(), "{words}");
        }
    }

    /// The effects since the last call, blanks between words, one a line; SELECT is left out.
    pub(crate) fn effects(&mut self) -> String {
        let lines: Vec<String> = requests(&std::mem::take(&mut self.journal))
            .iter()
            .map(|request| {
                request.iter().map(|word| String::from_utf8_lossy(word)).collect::<Vec<_>>().join(" ")
            })
            .filter(|line| !line.starts_with("SELECT"))
            .collect();
        lines.join("\n")
    }

    /// The messages that have come since the last call, blanks for line ends.
    pub(crate) fn messages(&mut self) -> String {
        let mut out = Vec::new();
        self.session.inbox.take(&mut out);
        String::from_utf8_lossy(&out).replace("\r\n", " ").trim_end().to_owned()
    }

    pub(crate) fn speak(&mut self, protocol: Protocol) {
        self.session.protocol = protocol;
    }

    /// Runs the active expiry over all shards, as far as it goes.
    pub(crate) fn expire_all(&mut self) {
        for shard in 0..cairn_keyspace::SHARDS {
            let mut locked = self.keyspace.lock_shard(shard);
            let tools = Tools {
                now_ms: self.now_ms,
                limits: &self.limits,
                random: &mut self.random,
                replaying: false,
                known_key: None,
            };
            self.effects.clear();
            expire_shard(&mut locked, shard, 0, usize::MAX, &mut self.effects, tools);
            if !self.effects.is_empty() {
                self.journal.extend_from_slice(b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n");
                self.journal.extend_from_slice(self.effects.finish().1);
            }
        }
    }

    /// DEBUG DIGEST over all databases.
    pub(crate) fn digest(&mut self) -> String {
        self.say("DEBUG DIGEST")
    }

    /// What replaying the journal on an empty keyspace gives, at a later time, with another seed.
    pub(crate) fn replayed(&self) -> Engine {
        let mut other = Engine::new();
        (other.now_ms, other.random, other.replaying) = (self.now_ms + 1_000_000_000, 99, true);
        for request in requests(&self.journal) {
            let args: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
            let reply = other.run(&args);
            assert!(!reply.starts_with(b"-"), "{}: {}", args[0].escape_ascii(), reply.escape_ascii());
        }
        other
    }
}

fn requests(bytes: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let (mut parser, mut args) = (Parser::new(cairn_resp::Limits::default()), Args::new());
    let (mut rest, mut requests) = (bytes, Vec::new());
    while !rest.is_empty() {
        match parser.parse(rest, &mut args).expect("the journal holds requests") {
            Parsed::Request { consumed } => {
                requests.push(args.slices(rest).iter().map(|arg| arg.to_vec()).collect());
                rest = &rest[consumed..];
            }
            Parsed::Incomplete { .. } => panic!("the journal ends within a request"),
        }
    }
    requests
}

/// A process around the keyspace that has nothing to say, and one client.
#[derive(Default)]
struct Silent {
    scripts: Scripts,
    hub: Arc<Hub>,
    is_out_of_memory: AtomicBool,
    awaits_durability: AtomicBool,
}

impl Host for Silent {
    fn is_out_of_memory(&self) -> bool {
        self.is_out_of_memory.load(Relaxed)
    }
    fn awaits_durability(&self) -> bool {
        self.awaits_durability.load(Relaxed)
    }
    fn hub(&self) -> &Hub {
        &self.hub
    }
    fn scripts(&self) -> &Scripts {
        &self.scripts
    }
    fn debug_allowed(&self, _session: u64) -> bool {
        true
    }
    /// Another server that has a key `busy` already, and of which nothing is heard once it is sent `lost`.
    fn deliver(&self, _to: &Destination<'_>, parcels: &[Parcel<'_>]) -> Delivery {
        let heard: Vec<_> = parcels.iter().take_while(|parcel| parcel.key != b"lost").collect();
        let arrived: Vec<bool> = heard.iter().map(|parcel| parcel.key != b"busy").collect();
        let refused = || DeliveryFailure::Refused("BUSYKEY Target key name already exists.".to_owned());
        let failure = match heard.len() < parcels.len() {
            true => Some(DeliveryFailure::Reading),
            false => arrived.contains(&false).then(refused),
        };
        Delivery { arrived, failure }
    }
}

/// Random commands: each letter in braces stands for a key of that family, `e` for an element, `n` for a number, `f` for
/// a score.
const COMMANDS: &str = "
SET {x} {e} | SET {x} {e} PX {t} | INCRBY {x} {n} | APPEND {x} {e} | GETDEL {x} | GETEX {x} PX {t} | INCRBYFLOAT {x} 0.1
DEL {k} {k} | UNLINK {k} | EXPIRE {k} 1 | PEXPIRE {k} {t} | PEXPIRE {k} -1 | PEXPIREAT {k} 99 | PERSIST {k}
RENAME {k} {k} | RENAMENX {k} {k} | COPY {k} {k} | COPY {k} {k} DB 1 REPLACE | MOVE {k} 2 | SELECT 0 | SELECT 2
LPUSH {l} {e} {e} | RPUSH {l} {e} {e} {e} | RPUSHX {l} {e} | LPOP {l} | RPOP {l} 2 | LSET {l} {n} {e} | LINSERT {l} AFTER {e} {e}
LREM {l} {n} {e} | LTRIM {l} 0 -2 | RPOPLPUSH {l} {l} | LMOVE {l} {l} LEFT LEFT | LMPOP 3 {l} {l} {l} RIGHT COUNT 2
SADD {s} {e} {e} {e} | SREM {s} {e} | SPOP {s} | SPOP {s} 2 | SPOP {s} 50 | SMOVE {s} {s} {e}
SINTERSTORE {s} {s} {s} | SUNIONSTORE {s} {s} {s} | SDIFFSTORE {s} {s} {s}
HSET {h} {e} {e} {e} {e} | HSETNX {h} {e} {e} | HDEL {h} {e} {e} | HINCRBY {h} {n} {n} | HINCRBYFLOAT {h} {f} 0.1
ZADD {z} {f} {e} {f} {e} {f} {e} | ZADD {z} GT CH {f} {e} | ZADD {z} XX INCR {f} {e} | ZINCRBY {z} {f} {e} | ZREM {z} {e} {e}
ZPOPMIN {z} | ZPOPMAX {z} 2 | ZMPOP 2 {z} {z} MIN COUNT 2 | ZREMRANGEBYRANK {z} 0 0 | ZREMRANGEBYSCORE {z} {f} {f}
ZRANGESTORE {z} {z} 0 2 | ZUNIONSTORE {z} 3 {z} {z} {s} WEIGHTS {f} {f} {f} | ZINTERSTORE {z} 2 {z} {z} AGGREGATE MAX
XADD {r} * {e} {e} | XADD {r} MAXLEN ~ 5 * {e} {e} {e} {e} | XADD {r} MINID ~ {n}-0 * {e} {e} | XTRIM {r} MAXLEN 3 | XDEL {r} {i} {i}
XGROUP CREATE {r} g 0 MKSTREAM | XGROUP CREATE {r} h $ | XGROUP DESTROY {r} h | XGROUP SETID {r} g 0 | XGROUP DELCONSUMER {r} g {e}
XREADGROUP GROUP g {e} COUNT 2 STREAMS {r} > | XREADGROUP GROUP g {e} STREAMS {r} 0 | XREADGROUP GROUP g {e} NOACK STREAMS {r} {r} > >
XACK {r} g {i} {i} | XCLAIM {r} g {e} 0 {i} {i} IDLE {t} | XAUTOCLAIM {r} g {e} 10 - COUNT 2
ZDIFFSTORE {z} 2 {z} {z} | GET {k} | EXISTS {k} {k} | TYPE {k} | FLUSHDB";

/// One of many commands, chosen at random.
pub(crate) fn random_command(state: &mut u64) -> String {
    let commands: Vec<&str> = COMMANDS.trim().split(['|', '\n']).map(str::trim).collect();
    let mut below = |bound: u64| next_random(state) % bound;
    let mut command = commands[below(commands.len() as u64) as usize].to_owned();
    if command == "FLUSHDB" && below(20) > 0 {
        command = "PING".to_owned();
    }
    while let Some(at) = command.find('{') {
        let word = match &command[at + 1..at + 2] {
            "e" if below(30) == 0 => "long".repeat(below(40) as usize + 1),
            "e" | "n" => (below(25) as i64 - 5).to_string(),
            "f" => (below(40) as f64 / 8.0 - 2.0).to_string(),
            "t" => (below(2_000) + 1).to_string(),
            "i" => format!("{}-{}", 1_700_000_000_000 + below(15_000), below(2)),
            "k" => format!("{}{}", ["x", "l", "s", "h", "z", "r"][below(6) as usize], below(3)),
            family => format!("{family}{}", below(3)),
        };
        command.replace_range(at..at + 3, &word);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_of_random_commands_replay_to_the_same_data() {
        for seed in 1..=10u64 {
            let mut engine = Engine::new();
            engine.random = seed;
            // Small enough that values change their encoding within a run.
            engine.limits = Limits {
                hash_entries: 6,
                zset_entries: 6,
                set_intset_entries: 6,
                set_listpack_entries: 5,
                list_listpack_bytes: 64,
                stream_node_entries: 3,
                ..Limits::default()
            };
            let mut state = seed;
            for _ in 0..1_500 {
                engine.now_ms += (next_random(&mut state) % 20) as i64;
                engine.say(&random_command(&mut state));
            }
            assert_eq!(engine.replayed().digest(), engine.digest(), "seed {seed}");
        }
    }

    #[test]
    fn what_has_expired_while_writers_are_paused_is_there_for_nobody() {
        let mut engine = Engine::new();
        engine.check(
            "SADD s a -> :1\nZADD z 1 a -> :1\nSET t ab -> +OK\nXADD r 1-1 f v -> $3 1-1
             PEXPIRE s 5 -> :1\nPEXPIRE z 5 -> :1\nPEXPIRE t 5 -> :1\nPEXPIRE r 5 -> :1
             SET u ab -> +OK\nSADD other b -> :1\nZADD d 1 x -> :1",
        );
        engine.now_ms += 10;
        engine.effects();
        engine.keyspace.hold_expiry_until(i64::MAX);
        engine.check(
            "GET t -> $-1\nSUNION s other -> *1 $1 b\nSINTER s s -> *0\nSDIFF s -> *0
             ZUNION 1 z -> *0\nZINTERCARD 1 z -> :0\nLCS t u LEN -> :0\nXREAD STREAMS r 0 -> *-1",
        );
        assert_eq!(engine.effects(), "", "reads leave it in place");
    }

    #[test]
    fn writers_remove_what_has_expired_although_they_are_paused() {
        let mut engine = Engine::new();
        engine.check(
            "ZADD z 1 a -> :1\nSET t ab -> +OK\nSADD s a -> :1\nPFADD h a -> :1
             PEXPIRE z 5 -> :1\nPEXPIRE t 5 -> :1\nPEXPIRE s 5 -> :1\nPEXPIRE h 5 -> :1
             ZADD d 1 x -> :1\nSET e x -> +OK\nSADD f x -> :1\nPFADD i x -> :1",
        );
        engine.now_ms += 10;
        engine.keyspace.hold_expiry_until(i64::MAX);
        engine.check(
            "ZRANGESTORE d z 0 -1 -> :0\nBITOP OR e t t -> :0\nSUNIONSTORE f s s -> :0\nPFMERGE i h -> +OK
             EXISTS d e f -> :0\nPFCOUNT i -> :1",
        );
        assert_eq!(engine.replayed().digest(), engine.digest());
    }

    #[test]
    fn a_transaction_replays_as_one_with_what_chance_and_clock_decided() {
        let mut engine = Engine::new();
        engine.check("SADD s a b c -> :3\nSET old x PX 5 -> +OK");
        engine.effects();
        engine.now_ms += 10;
        engine.check("MULTI -> +OK\nSPOP s -> +QUEUED\nAPPEND old y -> +QUEUED\nEXPIRE s 1 -> +QUEUED\nEXEC -> *3 $1 b :1 :1");
        let expected = "MULTI\nSREM s b\nDEL old\nAPPEND old y\nPEXPIREAT s 1700000001010\nEXEC";
        assert_eq!(engine.effects(), expected);
    }
}
