//! A run: one life after the other on the same disk.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use cairn_disk::{Disk, FaultyDisk, Survival};
use cairn_journal::Fsync;
use cairn_seal::Keyring;

use super::clients::Clients;
use super::digest;
use super::history::Promise;
use super::life::{Interrupted, Life};
use super::random::Random;
use super::time::Time;
use crate::check::check;
use crate::engine::Engine;
use crate::error::OpenError;
use crate::options::{AutoRewrite, Options};

/// Where the data lies.
const DIR: &str = "/data";
const DATABASES: u16 = 3;
const LIVES: usize = 4;

/// What a run was, for those who count: a number that is the same for each run of a seed, and how often it got to what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) sum: u64,
    pub(super) recoveries: u64,
    /// Starts that refused what had been damaged.
    pub(super) refusals: u64,
    pub(super) snapshots: u64,
    pub(super) poisoned: u64,
}

impl Outcome {
    pub(super) fn refusals_aside(self) -> Outcome {
        Outcome { refusals: 0, ..self }
    }

    pub(super) fn add(&mut self, other: &Outcome) {
        self.recoveries += other.recoveries;
        self.refusals += other.refusals;
        self.snapshots += other.snapshots;
        self.poisoned += other.poisoned;
    }
}

/// What the engine runs on.
#[derive(Clone, Copy)]
pub(super) struct Ground<'a> {
    /// Its disk, over the one that fails: itself, or one that does what a mistake in the engine would do.
    pub(super) disk: &'a (dyn Fn(&FaultyDisk) -> Arc<dyn Disk> + Sync),
    /// Whether nothing is ever sealed.
    pub(super) plain: bool,
}

/// The disk itself.
pub(super) const TRUTHFUL: Ground<'static> = Ground { disk: &|disk| Arc::new(disk.clone()), plain: false };

/// A run that is under way.
struct Run<'a> {
    random: Random,
    time: Arc<Time>,
    disk: FaultyDisk,
    ground: Ground<'a>,
    clients: Rc<RefCell<Clients>>,
    keyring: Option<Arc<Keyring>>,
    fsync: Fsync,
    segment_bytes: u64,
    /// What the last life promised of what was not acknowledged.
    promise: Promise,
    outcome: Outcome,
}

/// Runs one seed; the error says which promise was broken, and what led to it.
pub(super) fn run(seed: u64, ground: Ground<'_>) -> Result<Outcome, String> {
    let (time, _own_time) = Time::begin();
    crate::engine::seed_random(seed);
    let mut random = Random::new(seed);
    let empty = ([0; 20], Vec::new());
    let clients = Rc::new(RefCell::new(Clients::new(Random::new(random.next()), empty)));
    let mut run = Run {
        disk: FaultyDisk::seeded(random.next()),
        ground,
        keyring: (random.once_in(2) && !ground.plain)
            .then(|| Arc::new(Keyring::generate().expect("a keyring"))),
        fsync: Fsync::Always,
        segment_bytes: if random.once_in(12) { 3 << 20 } else { 128 << 10 },
        random,
        time,
        clients,
        promise: Promise::Order,
        outcome: Outcome::default(),
    };
    let result = (0..LIVES).try_for_each(|life| {
        run.live().map_err(|broken| format!("life {life}: {broken}\n{}", run.clients.borrow().trace.last()))
    });
    run.outcome.sum = run.clients.borrow().trace.sum();
    result.map(|()| run.outcome)
}

impl Run<'_> {
    fn options(&self, disk: &FaultyDisk) -> Options {
        Options {
            disk: (self.ground.disk)(disk),
            databases: DATABASES,
            fsync: self.fsync,
            segment_bytes: self.segment_bytes,
            keyring: self.keyring.clone(),
            auto_rewrite: AutoRewrite { percentage: 0, min_bytes: 0 },
            threads: 1,
            snapshot_origin: Arc::new(Interrupted),
            journal_driver: Some(self.time.clone()),
            ..Options::new(DIR)
        }
    }

    /// A start, a life, a power cut.
    fn live(&mut self) -> Result<(), String> {
        self.fsync = [Fsync::Always, Fsync::Always, Fsync::EverySec, Fsync::No][self.random.below(4)];
        self.change_keys();
        let Some(engine) = self.start()? else { return self.cut_power(None) };
        let life = Life::begin(engine, self.disk.clone(), Arc::clone(&self.time), Rc::clone(&self.clients));
        life.note(|| format!("a life with {:?}", self.fsync));
        let mut steps = 20 + self.random.below(140);
        while steps > 0 {
            life.step(&mut self.random);
            // A journal that has given up does nothing of interest any more.
            steps = if life.is_poisoned() { steps.min(8) } else { steps } - 1;
        }
        self.cut_power(Some(life))
    }

    /// A new key becomes the active one, or encryption is switched on.
    fn change_keys(&mut self) {
        self.keyring = match self.keyring.take() {
            Some(keyring) if self.random.once_in(3) => Some(Arc::new(keyring.rotated().expect("a key"))),
            None if self.random.once_in(4) && !self.ground.plain => {
                Some(Arc::new(Keyring::generate().expect("a keyring")))
            }
            keyring => keyring,
        };
    }

    /// Opens what is there, and holds it against what was promised; `None` when the disk failed meanwhile.
    fn start(&mut self) -> Result<Option<Engine>, String> {
        let fails = self.random.once_in(4);
        if fails {
            match self.random.below(4) {
                0 => self.disk.fail_reads(self.random.below(12) as u64, 1),
                1 => self.disk.fail_syncs(self.random.below(12) as u64, 1),
                _ => self.disk.power_off_after(self.random.below(60) as u64),
            }
        }
        let opened = Engine::open(self.options(&self.disk));
        self.clients.borrow_mut().trace.note(match &opened {
            Ok(engine) => format!("started: {:?}", engine.recovery().end),
            Err(error) => format!("not started: {error}").split(" (").next().unwrap_or_default().to_owned(),
        });
        match opened {
            Ok(engine) => {
                self.recovered(&engine)?;
                Ok(Some(engine))
            }
            Err(error) if fails && is_of_the_disk(&error) => Ok(None),
            Err(error) => Err(format!("refused what nobody damaged: {error}")),
        }
    }

    fn recovered(&mut self, engine: &Engine) -> Result<(), String> {
        self.outcome.recoveries += 1;
        let mut clients = self.clients.borrow_mut();
        let end = engine.recovery().end;
        clients.history.check(end, &digest(engine), self.promise)?;
        clients.history.go_on_from(end);
        // All that a start has found is durable when it returns.
        clients.history.acknowledge(end);
        Ok(())
    }

    /// The power goes; what is left is what the next life finds.
    fn cut_power(&mut self, life: Option<Rc<Life>>) -> Result<(), String> {
        if let Some(life) = life {
            let shuts_down = self.random.once_in(8);
            if shuts_down && life.engine.shutdown(Some(false)).is_ok() {
                let end = life.engine.0.log.end();
                self.clients.borrow_mut().history.acknowledge(end);
            }
            let mut clients = self.clients.borrow_mut();
            // Nobody may have been told so yet, and everybody could have been.
            clients.history.acknowledge(life.engine.durable());
            if let Some(broken) = clients.broken.take() {
                return Err(broken);
            }
            drop(clients);
            self.promise = if life.mode() == Fsync::EverySec { Promise::OneSecond } else { Promise::Order };
            self.outcome.snapshots += life.engine.0.snapshots.status().written_total;
            self.outcome.poisoned += u64::from(life.is_poisoned());
            // The image is taken first: what ends now no longer reaches it.
            let before = self.disk.clone();
            self.disk = self.image()?;
            before.power_off_after(0);
            life.end();
        } else {
            self.disk = self.image()?;
        }
        if self.random.once_in(4) {
            self.rot()?;
        }
        Ok(())
    }

    /// What the power cut leaves.
    fn image(&mut self) -> Result<FaultyDisk, String> {
        let seed = self.random.next();
        let survival = match self.random.below(8) {
            0 => Survival::Nothing,
            1 => Survival::Everything,
            2 => {
                self.look_at(&self.disk.crash(Survival::Torn(seed)))
                    .map_err(|broken| format!("a torn sector: {broken}"))?;
                Survival::Sectors(seed)
            }
            _ => Survival::Sectors(seed),
        };
        self.clients.borrow_mut().trace.note(format!("power cut: {survival:?}"));
        Ok(self.disk.crash(survival))
    }

    /// Lets a bit rot on a copy of what is there: a start says so, or loses nothing.
    fn rot(&mut self) -> Result<(), String> {
        let copy = self.disk.crash(Survival::Everything);
        let Some((path, offset)) = copy.rot(self.random.next()) else { return Ok(()) };
        self.look_at(&copy).map_err(|broken| format!("{} rotten at {offset}: {broken}", path.display()))
    }

    /// Looks at a disk where something is as no power cut leaves it: it is refused for what it is, or nothing is lost.
    fn look_at(&mut self, disk: &FaultyDisk) -> Result<(), String> {
        if disk.list(Path::new(DIR)).is_err() {
            // No start has got so far as to make the directory.
            return Ok(());
        }
        let options = Options { disk: Arc::new(disk.clone()), ..self.options(disk) };
        match check(&options, true) {
            Ok(checked) => {
                let clients = self.clients.borrow();
                clients
                    .history
                    .check_digest(checked.recovery.end, checked.digest.as_deref().unwrap_or_default())
            }
            Err(error) if is_explained(&error) => {
                self.outcome.refusals += 1;
                Ok(())
            }
            Err(error) => Err(format!("not explained (exit {}): {error}", error.exit_code())),
        }
    }
}

/// Whether the disk itself failed, and not what it holds.
fn is_of_the_disk(error: &OpenError) -> bool {
    error.exit_code() == 1
}

/// Whether a refusal says that the data is damaged, or sealed with another key, and in which file.
fn is_explained(error: &OpenError) -> bool {
    matches!(error.exit_code(), 12 | 13) && error.to_string().contains(DIR)
}
