//! A run without chance: a data directory from its first write through snapshots, segments, the first encryption and a new
//! key, to be cut short anywhere or damaged anywhere.

use std::sync::Arc;

use cairn_commands::{Protocol, Reply};
use cairn_disk::FaultyDisk;
use cairn_format::Lsn;
use cairn_journal::Fsync;
use cairn_seal::Keyring;
use cairn_snapshot::Unforked;

use super::digest;
use super::history::History;
use super::time::Time;
use crate::engine::{Engine, Outcome};
use crate::options::{AutoRewrite, Options};
use crate::process::Embedded;

pub(super) const DIR: &str = "/data";

/// The keys of a run: none at first, then one, then another before it.
pub(super) struct Keys {
    pub(super) first: Arc<Keyring>,
    pub(super) rotated: Arc<Keyring>,
}

impl Keys {
    pub(super) fn draw() -> Keys {
        let first = Keyring::generate().expect("a keyring");
        let rotated = Arc::new(first.rotated().expect("a second key"));
        Keys { first: Arc::new(first), rotated }
    }
}

/// The script on a disk, and what is known of the data by what it was answered.
pub(super) struct Script<'a> {
    pub(super) disk: FaultyDisk,
    pub(super) history: History,
    pub(super) time: Arc<Time>,
    keys: &'a Keys,
}

pub(super) fn options(
    disk: &FaultyDisk,
    keyring: Option<&Arc<Keyring>>,
    time: Option<&Arc<Time>>,
) -> Options {
    Options {
        disk: Arc::new(disk.clone()),
        databases: 3,
        fsync: Fsync::Always,
        segment_bytes: 128 << 10,
        keyring: keyring.cloned(),
        auto_rewrite: AutoRewrite { percentage: 0, min_bytes: 0 },
        threads: 1,
        snapshot_origin: Arc::new(Unforked),
        journal_driver: time.map(|time| Arc::clone(time) as _),
        ..Options::new(DIR)
    }
}

impl<'a> Script<'a> {
    pub(super) fn new(disk: FaultyDisk, time: Arc<Time>, keys: &'a Keys) -> Script<'a> {
        Script { disk, history: History::new(([0; 20], Vec::new())), time, keys }
    }

    /// All of it; `None` when the disk gave up before the end. The last engine is not shut down.
    pub(super) fn run(&mut self) -> Option<Engine> {
        let engine = self.start(None)?;
        self.writes(&engine, 0)?;
        self.rotate(&engine);
        self.writes(&engine, 1)?;
        engine.snapshot().ok()?;
        self.writes(&engine, 2)?;
        self.stop(engine)?;

        // The first encryption: what is written from here on is sealed, and with the snapshot all is.
        let engine = self.start(Some(&self.keys.first))?;
        self.writes(&engine, 3)?;
        engine.snapshot().ok()?;
        self.writes(&engine, 4)?;
        drop(engine);

        let engine = self.start(Some(&self.keys.rotated))?;
        self.writes(&engine, 5)?;
        self.rotate(&engine);
        self.writes(&engine, 6)?;
        Some(engine)
    }

    fn start(&mut self, keyring: Option<&Arc<Keyring>>) -> Option<Engine> {
        let engine = Engine::open(options(&self.disk, keyring, Some(&self.time))).ok()?;
        let end = engine.recovery().end;
        self.history.acknowledge(end);
        Some(engine)
    }

    fn stop(&mut self, engine: Engine) -> Option<()> {
        engine.shutdown(Some(false)).ok()
    }

    fn rotate(&self, engine: &Engine) {
        let locked = engine.0.keyspace.lock_all();
        engine.0.log.rotate();
        drop(locked);
    }

    /// Some writes of several families, a transaction that spans frames among them, each acknowledged before the next.
    fn writes(&mut self, engine: &Engine, round: usize) -> Option<()> {
        let mut session = engine.session();
        session.db = (round % 3) as u16;
        let long = "v".repeat(700 + round);
        // One effect is longer than a segment. The power that went between the name of the second one and the manifest left a
        // segment that lay beyond all that could be recovered, and the start took the manifest for an old one.
        let longer = "w".repeat(if round == 1 { 150_000 } else { 10 });
        let requests = [
            format!("SET s{round} {long}"),
            "INCR counter".to_owned(),
            format!("SET longer {longer}"),
            format!("RPUSH list a b {round}"),
            format!("HSET hash field{round} {round}"),
            "MULTI".to_owned(),
            format!("ZADD zset {round} member{round}"),
            format!("SADD set {long}"),
            "EXEC".to_owned(),
            "PEXPIRE list 4000000000".to_owned(),
        ];
        for request in &requests {
            let args: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
            let mut out = Vec::new();
            let before = engine.0.log.end();
            let mut reply = Reply::new(&mut out, Protocol::Resp2);
            let Outcome::Done { hold } = engine.execute(&mut session, &Embedded, &args, &mut reply) else {
                return None;
            };
            let end = engine.0.log.end();
            if end > before {
                self.history.commit(end, digest(engine), Some(self.time.now_ns()));
            }
            engine.block_until_durable(hold).ok()?;
            engine.turn();
            self.history.acknowledge(hold.max(Lsn::ZERO));
        }
        Some(())
    }
}
