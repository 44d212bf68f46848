//! From effects back to data: the stream read as commands, and those run on all cores.
//!
//! One thread finds the effects and the shards they touch. What touches one shard waits in a round, and a round is run by
//! all threads at once: each takes whole shards, so the effects on one key keep their order. An effect that touches more
//! than one shard (RENAME, MSET, FLUSHALL) waits until all before it are done, and runs alone. Nobody looks at the keys
//! meanwhile, so a transaction need not be replayed in one step.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use cairn_keyspace::types::Limits;
use cairn_keyspace::{KeyHash, Keyspace, Locked, SHARDS};
use cairn_resp::{Args, Limits as WireLimits, Parsed, Parser, Protocol, Reply};

use crate::dispatch::{LockPlan, Tools, run};
use crate::effects::Effects;
use crate::host::Host;
use crate::session::Session;
use crate::spec::CommandSpec;
use crate::table::{Command, lookup};

/// A round shorter than this is run by the thread that has it: waking others would take longer.
const ROUND_EFFECTS_MIN: usize = if cfg!(test) { 4 } else { 256 };

/// A piece of this length is long enough to be shared out, and short enough that it is still in the cache when it is run.
const PIECE_BYTES: usize = 2 << 20;

/// As many arguments are kept on the stack.
const ON_STACK: usize = 8;

/// Part of the stream: whole commits or pieces of them, one behind the other.
#[derive(Debug, Default)]
pub struct Piece {
    bytes: Vec<u8>,
    /// Position of the first byte.
    first: u64,
    /// Where a run of commits begins, and the database selected there.
    runs: Vec<(usize, u16)>,
}

impl Piece {
    /// Adds what follows at once; the first byte lies at `position` in the stream and the stream is in `db` there.
    pub fn push(&mut self, bytes: &[u8], position: u64, db: u16) {
        if self.bytes.is_empty() {
            self.first = position;
            // What is too long for that is one commit, of which the rest of the piece consists.
            self.bytes.reserve_exact(PIECE_BYTES + PIECE_BYTES / 4);
        }
        self.runs.push((self.bytes.len(), db));
        self.bytes.extend_from_slice(bytes);
    }

    /// How many bytes it is long.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it is long enough to be replayed.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= PIECE_BYTES
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// What no program of this version writes: an unknown command, or one that fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayError {
    /// Position of the effect in the stream.
    pub position: u64,
    /// What is wrong with it.
    pub why: String,
}

/// Replays what `feed` gives the [`Replayer`] into `keyspace`, on so many threads. Nobody else may use the keyspace.
///
/// # Panics
/// When a command does.
pub fn replay<R>(
    keyspace: &Keyspace,
    limits: &Limits,
    threads: usize,
    feed: impl FnOnce(&mut Replayer<'_>) -> R,
) -> R {
    thread::scope(|scope| {
        let mut workers = Vec::new();
        for _ in 0..if threads > 1 { threads } else { 0 } {
            let (rounds, to_run) = channel();
            let (ended, results) = channel();
            let worker = move || Applier::new(keyspace, limits).work(&to_run, &ended);
            // Where the system has no room for another thread, those that are there do it all.
            if thread::Builder::new().name("cairn-replay".to_owned()).spawn_scoped(scope, worker).is_ok() {
                workers.push(Worker { rounds, results });
            }
        }
        feed(&mut Replayer::new(keyspace, limits, workers))
    })
}

/// Finds the effects in a stream and has them run. See [`replay`].
pub struct Replayer<'a> {
    keyspace: &'a Keyspace,
    /// For effects that run alone. Its session is in the database that the stream is in.
    applier: Applier<'a>,
    workers: Vec<Worker>,
    /// The round that the workers are running.
    running: Option<Arc<Round>>,
    /// A round that is done, for the sake of its memory.
    spare: Option<Round>,
    args: Args,
    /// The command that the last effect named: most name the same as the one before.
    last: (Vec<u8>, Option<&'static Command>),
    /// What has come of an effect that is not whole yet, and its position.
    rest: Vec<u8>,
    rest_at: u64,
    /// How many effects were replayed.
    pub commands: u64,
}

struct Worker {
    rounds: Sender<Arc<Round>>,
    results: Receiver<Option<ReplayError>>,
}

impl<'a> Replayer<'a> {
    fn new(keyspace: &'a Keyspace, limits: &'a Limits, workers: Vec<Worker>) -> Self {
        Self {
            keyspace,
            applier: Applier::new(keyspace, limits),
            workers,
            running: None,
            spare: None,
            args: Args::new(),
            last: (Vec::new(), None),
            rest: Vec::new(),
            rest_at: 0,
            commands: 0,
        }
    }

    /// Replays a piece of the stream, which follows the piece before. A run's database counts where nothing is left of
    /// the run before. Effects of the piece may still be under way on return.
    ///
    /// # Errors
    /// The first effect that fails, of this piece or one before.
    pub fn feed(&mut self, mut piece: Piece) -> Result<(), ReplayError> {
        let mut known = 0;
        if !self.rest.is_empty() {
            known = self.rest.len();
            self.rest.append(&mut piece.bytes);
            piece.bytes = std::mem::take(&mut self.rest);
            piece.first = self.rest_at;
        }
        let runs = std::mem::take(&mut piece.runs);
        let runs = runs.into_iter().map(|(at, db)| (at + known, db));
        let mut round = self.round(Arc::new(piece.bytes), piece.first);
        let read = self.read(&mut round, runs);
        let (bytes, first) = (Arc::clone(&round.bytes), round.first);
        self.start(round)?;
        match read {
            Ok(done) => {
                self.rest.extend_from_slice(&bytes[done..]);
                self.rest_at = first + done as u64;
                Ok(())
            }
            // What fails before it is told instead.
            Err(error) => self.settle().and(Err(error)),
        }
    }

    /// Waits until all that was fed is done.
    ///
    /// # Errors
    /// The first effect that fails, or that the stream ends within one.
    pub fn finish(&mut self) -> Result<(), ReplayError> {
        self.settle()?;
        if self.rest.is_empty() {
            return Ok(());
        }
        let why = "the stream ends within an effect although the commit is marked as whole".to_owned();
        Err(ReplayError { position: self.rest_at, why })
    }

    /// Reads all whole effects of a round's bytes; returns how many bytes they take.
    fn read(
        &mut self,
        round: &mut Round,
        mut runs: impl Iterator<Item = (usize, u16)>,
    ) -> Result<usize, ReplayError> {
        let bytes = Arc::clone(&round.bytes);
        // What is left is parsed again from its start when more has come, so no state of the parser is kept.
        let mut parser = new_parser();
        let mut args = std::mem::take(&mut self.args);
        let (mut at, mut run) = (0, runs.next());
        while let Some(buf) = bytes.get(at..).filter(|buf| !buf.is_empty()) {
            while let Some((from, db)) = run.filter(|(from, _)| *from <= at) {
                if from == at {
                    self.applier.session.db = db;
                }
                run = runs.next();
            }
            match parser.parse(buf, &mut args) {
                Ok(Parsed::Request { consumed }) => {
                    if !args.is_empty() {
                        self.effect(round, at, &args.slices(buf))?;
                    }
                    at += consumed;
                }
                Ok(Parsed::Incomplete { .. }) => break,
                Err(error) => return Err(round.error(at, error.to_string())),
            }
        }
        self.args = args;
        Ok(at)
    }

    /// Puts an effect into the round, or runs it where it touches more than one shard, or none.
    fn effect(&mut self, round: &mut Round, at: usize, args: &[&[u8]]) -> Result<(), ReplayError> {
        self.commands += 1;
        // What belongs together was cut only at the end of the stream, and that is not delivered.
        if args[0].eq_ignore_ascii_case(b"multi") || args[0].eq_ignore_ascii_case(b"exec") {
            return Ok(());
        }
        let spec = self.spec(args).map_err(|why| round.error(at, why))?;
        let plan = LockPlan::of(spec, args, self.keyspace);
        if plan != LockPlan::None {
            if let Some(hash) = only_shard(&plan)
                && round.push(spec, self.applier.session.db, hash, at, args)
            {
                return Ok(());
            }
            // All that came before, in other shards too, must be done by then.
            if !round.effects.is_empty() {
                let next = self.round(Arc::clone(&round.bytes), round.first);
                self.start(std::mem::replace(round, next))?;
            }
            self.settle()?;
        }
        let db = self.applier.session.db;
        let run = self.applier.run(&mut plan.lock(self.keyspace), spec, db, args);
        run.map_err(|why| round.error(at, why))
    }

    fn spec(&mut self, args: &[&[u8]]) -> Result<&'static CommandSpec, String> {
        if self.last.0 != args[0] {
            self.last = (args[0].to_vec(), lookup(args[0]));
        }
        let command = self.last.1.ok_or_else(|| format!("unknown command '{}'", shown(args[0])))?;
        let spec = command.resolve(args);
        if !spec.arity.allows(args.len()) {
            return Err(format!("wrong number of arguments for '{}'", shown(args[0])));
        }
        Ok(spec)
    }

    /// Starts a round when the one before is done.
    fn start(&mut self, mut round: Round) -> Result<(), ReplayError> {
        if round.effects.is_empty() {
            return Ok(());
        }
        self.settle()?;
        round.sort();
        if self.workers.is_empty() || round.effects.len() < ROUND_EFFECTS_MIN {
            let failed = self.applier.run_shards(&round);
            self.spare = Some(round);
            return failed.map_or(Ok(()), Err);
        }
        let round = Arc::new(round);
        for worker in &self.workers {
            // One that is gone has panicked, which `settle` finds.
            let _ = worker.rounds.send(Arc::clone(&round));
        }
        self.running = Some(round);
        Ok(())
    }

    /// Waits for the round under way.
    fn settle(&mut self) -> Result<(), ReplayError> {
        let Some(round) = self.running.take() else { return Ok(()) };
        let ended =
            self.workers.iter().map(|worker| worker.results.recv().expect("a replaying thread panicked"));
        let failed = ended.flatten().min_by_key(|error| error.position);
        self.spare = Arc::into_inner(round);
        failed.map_or(Ok(()), Err)
    }

    /// A round without effects.
    fn round(&mut self, bytes: Arc<Vec<u8>>, first: u64) -> Round {
        let mut round = self.spare.take().unwrap_or_default();
        (round.bytes, round.first) = (bytes, first);
        round.effects.clear();
        round.spans.clear();
        round.next = AtomicUsize::new(0);
        round
    }
}

/// The first key, where all are in one shard.
fn only_shard(plan: &LockPlan) -> Option<KeyHash> {
    match plan {
        LockPlan::One(hash) => Some(*hash),
        LockPlan::Many(hashes) => {
            let first = *hashes.first()?;
            hashes.iter().all(|hash| hash.shard() == first.shard()).then_some(first)
        }
        LockPlan::None | LockPlan::Whole => None,
    }
}

/// Effects of which each touches one shard.
#[derive(Default)]
struct Round {
    bytes: Arc<Vec<u8>>,
    /// Position of the first byte.
    first: u64,
    effects: Vec<Placed>,
    /// Where the arguments lie: begin, counted from the effect's own, and length.
    spans: Vec<(u32, u32)>,
    /// The effects by shard, those of each in order; once sorted, where each shard's begin.
    order: Vec<u32>,
    begins: Vec<u32>,
    /// The next shard to run.
    next: AtomicUsize,
}

/// An effect in a round.
struct Placed {
    spec: &'static CommandSpec,
    at: usize,
    spans_from: usize,
    spans: usize,
    db: u16,
    /// The first key, of which the shard follows.
    hash: KeyHash,
}

impl Round {
    fn error(&self, at: usize, why: String) -> ReplayError {
        ReplayError { position: self.first + at as u64, why }
    }

    /// Adds an effect that begins at `at`; false where it cannot be described here, as one of more than 4 GiB.
    fn push(
        &mut self,
        spec: &'static CommandSpec,
        db: u16,
        hash: KeyHash,
        at: usize,
        args: &[&[u8]],
    ) -> bool {
        let spans_from = self.spans.len();
        let begin = self.bytes.as_ptr().addr() + at;
        for arg in args {
            let offset = arg
                .as_ptr()
                .addr()
                .checked_sub(begin)
                .filter(|offset| at + offset + arg.len() <= self.bytes.len());
            let span =
                offset.and_then(|offset| Some((u32::try_from(offset).ok()?, u32::try_from(arg.len()).ok()?)));
            let Some(span) = span else {
                self.spans.truncate(spans_from);
                return false;
            };
            self.spans.push(span);
        }
        self.effects.push(Placed { spec, at, spans_from, spans: args.len(), db, hash });
        true
    }

    /// Sorts the effects by shard; those of one shard stay in order.
    fn sort(&mut self) {
        self.begins.clear();
        self.begins.resize(SHARDS + 1, 0);
        for effect in &self.effects {
            self.begins[effect.hash.shard() + 1] += 1;
        }
        for shard in 0..SHARDS {
            self.begins[shard + 1] += self.begins[shard];
        }
        let mut next = self.begins.clone();
        self.order.resize(self.effects.len(), 0);
        for (index, effect) in self.effects.iter().enumerate() {
            let place = &mut next[effect.hash.shard()];
            self.order[*place as usize] = index as u32;
            *place += 1;
        }
    }

    /// The next shard that nobody has taken, and its effects.
    fn take_shard(&self) -> Option<(usize, &[u32])> {
        loop {
            let shard = self.next.fetch_add(1, Ordering::Relaxed);
            let range = *self.begins.get(shard)? as usize..*self.begins.get(shard + 1)? as usize;
            if !range.is_empty() {
                return Some((shard, &self.order[range]));
            }
        }
    }

    /// Gives an effect's arguments to `with`.
    fn with_args<R>(&self, effect: &Placed, with: impl FnOnce(&[&[u8]]) -> R) -> R {
        let bytes = &self.bytes[effect.at..];
        let slice = |&(from, len): &(u32, u32)| &bytes[from as usize..][..len as usize];
        let spans = &self.spans[effect.spans_from..][..effect.spans];
        if spans.len() > ON_STACK {
            return with(&spans.iter().map(slice).collect::<Vec<_>>());
        }
        let mut few = [&[][..]; ON_STACK];
        few.iter_mut().zip(spans).for_each(|(arg, span)| *arg = slice(span));
        with(&few[..spans.len()])
    }
}

/// Runs effects on one thread.
struct Applier<'a> {
    keyspace: &'a Keyspace,
    limits: &'a Limits,
    session: Session,
    reply: Vec<u8>,
    effects: Effects,
    random: u64,
}

impl<'a> Applier<'a> {
    fn new(keyspace: &'a Keyspace, limits: &'a Limits) -> Self {
        Self {
            keyspace,
            limits,
            session: Session::new(0, true),
            reply: Vec::new(),
            effects: Effects::default(),
            random: 0,
        }
    }

    /// A worker's life.
    fn work(mut self, to_run: &Receiver<Arc<Round>>, ended: &Sender<Option<ReplayError>>) {
        while let Ok(round) = to_run.recv() {
            let error = self.run_shards(&round);
            drop(round);
            if ended.send(error).is_err() {
                break;
            }
        }
    }

    /// Runs shards of a round until none is left; gives the first error. Each shard is run up to its own first error, so
    /// that the first of all does not depend on who was quicker.
    fn run_shards(&mut self, round: &Round) -> Option<ReplayError> {
        let mut first: Option<ReplayError> = None;
        let db = self.session.db;
        while let Some((shard, effects)) = round.take_shard() {
            let mut locked = self.keyspace.lock_shard(shard);
            // Of those databases that are not the last effect's, other keys are touched, to no harm.
            let hashes = effects.iter().map(|index| round.effects[*index as usize].hash.0);
            let last = effects.last().map_or(0, |index| round.effects[*index as usize].db);
            locked.shard_at(shard).database(last).prefetch(hashes);
            for index in effects {
                let effect = &round.effects[*index as usize];
                let ran = round.with_args(effect, |args| self.run(&mut locked, effect.spec, effect.db, args));
                if let Err(why) = ran {
                    let error = round.error(effect.at, why);
                    if first.as_ref().is_none_or(|first| error.position < first.position) {
                        first = Some(error);
                    }
                    break;
                }
            }
        }
        self.session.db = db;
        first
    }

    fn run(
        &mut self,
        locked: &mut Locked<'_>,
        spec: &CommandSpec,
        db: u16,
        args: &[&[u8]],
    ) -> Result<(), String> {
        self.session.db = db;
        self.reply.clear();
        self.effects.clear();
        let tools = Tools {
            now_ms: 0,
            limits: self.limits,
            random: &mut self.random,
            replaying: true,
            known_key: None,
        };
        let reply = Reply::new(&mut self.reply, Protocol::Resp2);
        let ran = run(spec, args, &mut self.session, &NoHost, locked, &mut self.effects, reply, tools);
        if self.reply.first() == Some(&b'-') {
            let answer = String::from_utf8_lossy(&self.reply);
            return Err(format!("'{}' answered {}", shown(args[0]), answer.trim()));
        }
        match ran.job {
            Some(_) => Err(format!("'{}' is no effect", shown(args[0]))),
            None => Ok(()),
        }
    }
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn new_parser() -> Parser {
    // What was accepted from a client, whatever its limits were, was accepted.
    let mut parser = Parser::new(WireLimits::default());
    parser.set_authenticated(true);
    parser.set_max_bulk(1 << 40);
    parser
}

/// No effect asks anything of the process.
struct NoHost;

impl Host for NoHost {}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use cairn_resp::push_command;

    use super::*;
    use crate::context::next_random;
    use crate::testing::{Engine, random_command};

    /// Where the effects of a stream end.
    fn ends(stream: &[u8]) -> HashSet<usize> {
        let (mut parser, mut args, mut at, mut ends) = (new_parser(), Args::new(), 0, HashSet::new());
        while let Ok(Parsed::Request { consumed }) = parser.parse(&stream[at..], &mut args) {
            at += consumed;
            ends.insert(at);
        }
        ends
    }

    /// Replays a stream in pieces of two runs of so many bytes. But for the first run none begins between two effects, so
    /// that no run's database counts.
    fn replay_cut(
        stream: &[u8],
        keyspace: &Keyspace,
        threads: usize,
        run: usize,
    ) -> Result<u64, ReplayError> {
        let ends = ends(stream);
        let cuts = (0..stream.len()).step_by(run).map(|at| if ends.contains(&at) { at + 1 } else { at });
        let cuts: Vec<usize> = cuts.chain([stream.len()]).collect();
        let runs: Vec<_> = cuts.windows(2).map(|pair| (pair[0], &stream[pair[0]..pair[1]])).collect();
        replay(keyspace, &Limits::default(), threads, |replayer| {
            for runs in runs.chunks(2) {
                let mut piece = Piece::default();
                runs.iter().for_each(|(at, bytes)| piece.push(bytes, *at as u64, 0));
                replayer.feed(piece)?;
            }
            replayer.finish().map(|()| replayer.commands)
        })
    }

    fn command(words: &str) -> Vec<u8> {
        let mut out = Vec::new();
        push_command(&mut out, &words.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        out
    }

    /// Random commands, many of them on several shards, in and out of transactions, over several databases, between runs
    /// of commands whose order on one key shows.
    fn random_journal(seed: u64) -> Engine {
        let (mut engine, mut state) = (Engine::new(), seed);
        for _ in 0..400 {
            engine.now_ms += (next_random(&mut state) % 20) as i64;
            match next_random(&mut state) % 24 {
                0 => drop(engine.say("SWAPDB 0 2")),
                1 if next_random(&mut state).is_multiple_of(8) => drop(engine.say("FLUSHALL")),
                2..=5 => {
                    engine.say("MULTI");
                    (0..4).for_each(|_| drop(engine.say(&random_command(&mut state))));
                    engine.say("EXEC");
                }
                6..=9 => (0..60).for_each(|_| {
                    let (key, digit) = (next_random(&mut state) % 50, next_random(&mut state) % 10);
                    engine.say(&format!("APPEND many:{key} {digit}"));
                }),
                _ => drop(engine.say(&random_command(&mut state))),
            }
        }
        engine
    }

    #[test]
    fn all_cores_replay_to_what_one_does() {
        for seed in 1..=8 {
            let mut engine = random_journal(seed);
            // Nothing expires by itself, so the clock of who looks may stand at the beginning.
            engine.now_ms = 0;
            let digest = engine.digest();
            for (threads, cut) in [(1, usize::MAX), (1, 500), (3, usize::MAX), (3, 10_011), (2, 777)] {
                let mut other = Engine::new();
                other.now_ms = 0;
                let cut = cut.min(engine.journal.len());
                replay_cut(&engine.journal, &other.keyspace, threads, cut).unwrap();
                assert_eq!(other.digest(), digest, "seed {seed}, {threads} threads, runs of {cut} bytes");
            }
        }
    }

    #[test]
    fn the_first_failure_is_named_by_its_position() {
        let mut stream = Vec::new();
        (0..500).for_each(|number| stream.extend(command(&format!("SET key:{number} value"))));
        let first = stream.len() as u64;
        stream.extend(command("LPUSH key:3 element"));
        (0..500).for_each(|number| stream.extend(command(&format!("LPUSH key:{number} element"))));
        for (last, why) in [
            (command("NOSUCH command"), "unknown command 'NOSUCH'"),
            (command("SET key"), "wrong number of arguments for 'SET'"),
            (command("RENAME absent other"), "'RENAME' answered -ERR no such key"),
            (b"*1\r\n!\r\n".to_vec(), "Protocol error: expected '$', got '!'"),
        ] {
            for threads in [1, 3] {
                // Alone: the failure is the last command's own. Behind others: theirs.
                let alone = [&stream[..first as usize], &last].concat();
                let error = replay_cut(&alone, &Keyspace::new(1), threads, alone.len()).unwrap_err();
                assert_eq!(error, ReplayError { position: first, why: why.to_owned() });
                let behind = [&stream[..], &last].concat();
                let error = replay_cut(&behind, &Keyspace::new(1), threads, behind.len()).unwrap_err();
                assert_eq!(error.position, first);
                assert!(error.why.starts_with("'LPUSH' answered -WRONGTYPE"), "{}", error.why);
            }
        }
    }

    #[test]
    fn a_stream_that_ends_within_an_effect_is_an_error() {
        let whole = command("SET key value");
        let stream = [&whole[..], &whole[..20]].concat();
        let keyspace = Keyspace::new(1);
        let error = replay_cut(&stream, &keyspace, 2, 7).unwrap_err();
        assert_eq!(error.position, whole.len() as u64);
        assert_eq!(replay_cut(&stream[..whole.len()], &keyspace, 2, 7), Ok(1));
    }

    #[test]
    fn a_run_begins_in_the_database_it_names() {
        let keyspace = Keyspace::new(4);
        let (set, select) = (command("SET key value"), command("SELECT 1"));
        replay(&keyspace, &Limits::default(), 2, |replayer| {
            let (mut piece, mut at) = (Piece::default(), 100);
            for (bytes, db) in [(&set, 2), (&select, 2), (&set, 1), (&set, 3)] {
                piece.push(bytes, at, db);
                at += bytes.len() as u64;
            }
            replayer.feed(piece).and_then(|()| replayer.finish())
        })
        .unwrap();
        let locked = keyspace.lock_all();
        assert_eq!([0, 1, 2, 3].map(|db| locked.len(db)), [0, 1, 1, 1]);
    }
}
