//! One life of an engine, from a start to a power cut: what its clients, its operator and its disk do meanwhile.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use cairn_disk::{Disk, FaultyDisk};
use cairn_journal::{Driver, Fsync};
use cairn_snapshot::{
    ChildError, ChildLimits, InProgress, Origin, Progress, Source, Summary, Unforked, WriteParams,
};

use super::clients::Clients;
use super::random::Random;
use super::time::Time;
use crate::engine::Engine;

thread_local! {
    static LIFE: RefCell<Option<Rc<Life>>> = const { RefCell::new(None) };
}

/// An engine and all around it.
pub(super) struct Life {
    pub(super) engine: Engine,
    pub(super) disk: FaultyDisk,
    pub(super) time: Arc<Time>,
    pub(super) clients: Rc<RefCell<Clients>>,
    /// How often the journal has had to rest since the operator looked.
    rests: Cell<u32>,
    /// Whether a sync takes its time just now.
    slow: Cell<bool>,
    /// Whether a snapshot is being taken.
    snapshotting: Cell<bool>,
    /// How often something may still happen meanwhile within this step: where what happens is overdue when the sync ends, the
    /// writer would never come to rest.
    interludes: Cell<u32>,
}

/// Clients go on while the engine waits for something, if it is not one of them who waits.
pub(super) fn interlude(requests: usize) {
    let Some(life) = LIFE.with_borrow(Clone::clone) else { return };
    for _ in 0..requests {
        life.client();
    }
}

/// A sync takes this long and longer. One of a container would take none of the journal's time if it were written by somebody
/// else, as it is where nobody simulates: its threads know no life.
fn be_slow(step_ms: u64) {
    let Some(life) = LIFE.with_borrow(Clone::clone) else { return };
    // Who names a snapshot holds the manifest, for which the writer would have to wait, and there is but one thread.
    if life.snapshotting.get() && life.engine.0.catalog().is_changing() {
        return;
    }
    life.time.advance(Duration::from_millis(step_ms));
    let left = life.interludes.get();
    if left > 0 && !life.slow.replace(true) {
        life.interludes.set(left - 1);
        // Where it is a new segment that takes its time, the writer goes on.
        life.engine.turn();
        (0..2).for_each(|_| life.client());
        life.slow.set(false);
    }
}

/// The journal rests: the disk is full, most likely.
pub(super) fn rest() {
    /// As long as it takes an operator to make room.
    const RESTS: u32 = 4;
    let Some(life) = LIFE.with_borrow(Clone::clone) else { return };
    life.rests.set(life.rests.get() + 1);
    if life.rests.get().is_multiple_of(RESTS) {
        life.disk.limit_space(None);
    }
    life.client();
}

/// Ends what is under way on this thread, in whatever state.
pub(super) fn forget() {
    drop(LIFE.take());
}

const INTERLUDES: u32 = 12;

impl Life {
    pub(super) fn begin(
        engine: Engine,
        disk: FaultyDisk,
        time: Arc<Time>,
        clients: Rc<RefCell<Clients>>,
    ) -> Rc<Life> {
        clients.borrow_mut().connect(&engine);
        let life = Rc::new(Life {
            engine,
            disk,
            time,
            clients,
            rests: Cell::new(0),
            slow: Cell::new(false),
            snapshotting: Cell::new(false),
            interludes: Cell::new(0),
        });
        LIFE.set(Some(Rc::clone(&life)));
        life
    }

    /// The power has gone, or the engine was shut down.
    pub(super) fn end(self: Rc<Self>) {
        LIFE.set(None);
        self.clients.borrow_mut().disconnect(&self.engine);
    }

    /// One client goes on.
    fn client(&self) {
        // One that waits for the journal itself is in the middle of a request.
        if let Ok(mut clients) = self.clients.try_borrow_mut() {
            clients.step(&self.engine, self.time.now_ns());
        }
    }

    pub(super) fn note(&self, what: impl FnOnce() -> String) {
        if let Ok(mut clients) = self.clients.try_borrow_mut() {
            let what = what();
            let operations = self.disk.operations();
            clients.trace.note(format!("{what} (disk operation {operations})"));
        }
    }

    /// Something happens.
    pub(super) fn step(&self, random: &mut Random) {
        self.interludes.set(INTERLUDES);
        match random.below(100) {
            0..=69 => self.client(),
            70..=79 => {
                let ms = if random.once_in(8) { 500 + random.below(2_500) } else { random.below(300) };
                self.pass(Duration::from_millis(ms as u64));
            }
            80..=87 => {
                self.engine.kick();
                self.turn();
            }
            88 => {
                self.note(|| "rotate".to_owned());
                let locked = self.engine.0.keyspace.lock_all();
                self.engine.0.log.rotate();
                drop(locked);
            }
            89..=91 => self.snapshot(),
            92 | 93 => {
                self.note(|| "lead".to_owned());
                self.engine.lead(|write| write());
            }
            94 => self.tick(),
            95 => self.slow_syncs(random),
            _ => self.fault(random),
        }
        self.clients.borrow_mut().hear(&self.engine);
    }

    fn turn(&self) {
        self.note(|| "turn".to_owned());
        self.engine.turn();
    }

    /// Time passes, and the journal does what is due when it is due.
    fn pass(&self, time: Duration) {
        self.note(|| format!("{} ms pass", time.as_millis()));
        let until = self.time.now() + time;
        loop {
            let due = self.engine.turn();
            let now = self.time.now();
            let next = due.filter(|due| *due < until).unwrap_or(until);
            if now >= until {
                return;
            }
            // Never stands still, whatever the journal says.
            self.time.advance(next.saturating_duration_since(now).max(Duration::from_millis(1)));
        }
    }

    fn snapshot(&self) {
        self.note(|| "snapshot begins".to_owned());
        self.snapshotting.set(true);
        let result = self.engine.snapshot().map(|info| (info.lsn, info.entries));
        self.snapshotting.set(false);
        self.note(|| format!("snapshot: {result:?}"));
    }

    /// Removes keys that have expired, where that is one commit. What else is due then has threads of its own.
    fn tick(&self) {
        let expiring: usize = {
            let locked = self.engine.0.keyspace.lock_all();
            (0..self.engine.0.keyspace.databases()).map(|db| locked.expiring(db)).sum()
        };
        if expiring == 1 {
            let before = self.engine.0.log.end();
            self.engine.0.expire_some();
            let after = self.engine.0.log.end();
            if after > before {
                self.clients.borrow_mut().history.commit(after, super::digest(&self.engine), None);
            }
            self.note(|| format!("tick to LSN {after}"));
        }
    }

    fn slow_syncs(&self, random: &mut Random) {
        if random.once_in(2) {
            self.disk.slow_syncs(None);
            return;
        }
        let step_ms = 1 + random.below(400) as u64;
        self.note(|| format!("syncs take {} ms", 4 * step_ms));
        self.disk.slow_syncs(Some(Arc::new(move || (0..4).for_each(|_| be_slow(step_ms)))));
    }

    fn fault(&self, random: &mut Random) {
        let (skip, count) = (random.below(6) as u64, 1 + random.below(3) as u64);
        match random.below(8) {
            0 | 1 => {
                self.note(|| format!("{count} writes will fail after {skip}"));
                self.disk.fail_writes(skip, count);
            }
            2 | 3 => {
                self.note(|| format!("{count} syncs will fail after {skip}"));
                self.disk.fail_syncs(skip, count);
            }
            4 | 5 => {
                let room = random.below(300_000) as u64;
                self.note(|| format!("room for {room} bytes"));
                self.disk.limit_space(Some(room));
            }
            6 => {
                self.note(|| "room again".to_owned());
                self.disk.limit_space(None);
            }
            _ => {
                let operations = random.below(60) as u64;
                self.note(|| format!("the power goes after {operations} operations"));
                self.disk.power_off_after(operations);
            }
        }
    }

    /// Whether the journal has given up.
    pub(super) fn is_poisoned(&self) -> bool {
        self.engine.0.log.journal().is_some_and(|journal| journal.status().poisoned.is_some())
    }

    /// When the journal is synced.
    pub(super) fn mode(&self) -> Fsync {
        self.engine.0.settings.fsync()
    }
}

/// A container is written at once, and then some time passes until anybody hears of it.
pub(super) struct Interrupted;

struct Written(Box<dyn InProgress>);

impl Origin for Interrupted {
    fn begin(
        &self,
        disk: &dyn Disk,
        params: &WriteParams,
        source: &dyn Source,
    ) -> io::Result<Box<dyn InProgress>> {
        Ok(Box::new(Written(Unforked.begin(disk, params, source)?)))
    }
}

impl InProgress for Written {
    fn wait(
        &self,
        limits: ChildLimits,
        on_progress: &mut dyn FnMut(Progress),
    ) -> Result<Summary, ChildError> {
        interlude(4);
        self.0.wait(limits, on_progress)
    }

    fn kill(&self) {}

    fn copied_bytes(&self) -> u64 {
        0
    }
}
