//! What all threads share: the sources of scripts by their digest, and the scripts that have run for a while.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use sha1::{Digest, Sha1};

/// A script's digest, in lower-case hexadecimal digits.
pub(crate) type Sha = [u8; 40];

/// Of scripts that only EVAL brought so many are remembered; those that SCRIPT LOAD brought stay.
const EVALUATED_MAX: usize = 500;

/// The digest that EVALSHA takes.
pub(crate) fn sha_of(bytes: &[u8]) -> Sha {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut sha = [0; 40];
    for (pair, byte) in sha.chunks_exact_mut(2).zip(Sha1::digest(bytes)) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    sha
}

/// The scripts that are known and those that run.
pub struct Scripts {
    sources: RwLock<Sources>,
    /// Changes with SCRIPT FLUSH; no two of a process are the same.
    version: AtomicU64,
    running: Mutex<Vec<Arc<Running>>>,
    is_busy: AtomicBool,
    /// After so many milliseconds others hear that a script is running; 0: never.
    busy_after_ms: AtomicU64,
    /// For tests: scripts may call what they may not otherwise.
    every_command: AtomicBool,
}

#[derive(Default)]
struct Sources {
    by_sha: HashMap<Sha, Arc<[u8]>>,
    /// Those that may be forgotten, the oldest first.
    evaluated: VecDeque<Sha>,
    bytes: usize,
}

static VERSIONS: AtomicU64 = AtomicU64::new(1);

/// Bytes in the interpreters of all threads, as each last told: those of scripts, and those of functions.
pub(super) static SCRIPT_BYTES: AtomicUsize = AtomicUsize::new(0);
pub(super) static FUNCTION_BYTES: AtomicUsize = AtomicUsize::new(0);

fn next_version() -> u64 {
    VERSIONS.fetch_add(1, Ordering::Relaxed)
}

impl Default for Scripts {
    fn default() -> Self {
        Self {
            sources: RwLock::default(),
            version: AtomicU64::new(next_version()),
            running: Mutex::default(),
            is_busy: AtomicBool::new(false),
            busy_after_ms: AtomicU64::new(5_000),
            every_command: AtomicBool::new(false),
        }
    }
}

impl Scripts {
    /// Of what is known; a thread's compiled scripts belong to one.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The source of a digest.
    pub(crate) fn source(&self, sha: &Sha) -> Option<Arc<[u8]>> {
        self.sources.read().by_sha.get(sha).cloned()
    }

    /// Remembers a script that compiles; `stays` where SCRIPT LOAD brought it.
    pub(crate) fn remember(&self, sha: Sha, body: &[u8], stays: bool) {
        let mut sources = self.sources.write();
        let Sources { by_sha, evaluated, bytes } = &mut *sources;
        if stays {
            evaluated.retain(|known| *known != sha);
        }
        if by_sha.insert(sha, body.into()).is_some() {
            return;
        }
        *bytes += body.len();
        if !stays {
            evaluated.push_back(sha);
        }
        while evaluated.len() > EVALUATED_MAX {
            let oldest = evaluated.pop_front().and_then(|sha| by_sha.remove(&sha));
            *bytes -= oldest.map_or(0, |body| body.len());
        }
    }

    /// Forgets all scripts.
    pub(crate) fn flush(&self) {
        *self.sources.write() = Sources::default();
        self.version.store(next_version(), Ordering::Release);
    }

    /// How many scripts are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sources.read().by_sha.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the scripts that are known.
    #[must_use]
    pub fn source_bytes(&self) -> usize {
        self.sources.read().bytes
    }

    /// Bytes that the interpreters of all threads use for scripts, and for functions.
    #[must_use]
    pub fn interpreter_bytes(&self) -> (usize, usize) {
        (SCRIPT_BYTES.load(Ordering::Relaxed), FUNCTION_BYTES.load(Ordering::Relaxed))
    }

    /// Sets after how many milliseconds of a script others hear that it is running; 0: never.
    pub fn set_busy_after_ms(&self, ms: u64) {
        self.busy_after_ms.store(ms, Ordering::Relaxed);
    }

    pub(super) fn busy_after(&self) -> Option<Duration> {
        let ms = self.busy_after_ms.load(Ordering::Relaxed);
        (ms > 0).then(|| Duration::from_millis(ms))
    }

    /// Lets scripts call commands that are not for scripts, or no longer.
    pub(crate) fn allow_every_command(&self, allow: bool) {
        self.every_command.store(allow, Ordering::Relaxed);
    }

    pub(super) fn allows_every_command(&self) -> bool {
        self.every_command.load(Ordering::Relaxed)
    }

    /// Whether a script has run for longer than others may have to wait.
    #[inline]
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.is_busy.load(Ordering::Relaxed)
    }

    /// For how long the one that has run too long has run, while there is one.
    #[must_use]
    pub fn busy_for(&self) -> Option<Duration> {
        let running = self.running.lock();
        let busy = running.iter().filter(|script| script.is_busy.load(Ordering::Relaxed));
        busy.map(|script| script.started.elapsed()).max()
    }

    /// What others hear then.
    #[must_use]
    pub fn busy_error(&self) -> &'static str {
        let running = self.running.lock();
        match running.iter().find(|script| script.is_busy.load(Ordering::Relaxed)) {
            Some(script) if script.is_function => BUSY_FUNCTION,
            _ => BUSY_SCRIPT,
        }
    }

    pub(super) fn begin(&self, script: Arc<Running>) {
        self.running.lock().push(script);
    }

    pub(super) fn note_busy(&self, script: &Running) {
        let _running = self.running.lock();
        script.is_busy.store(true, Ordering::Relaxed);
        self.is_busy.store(true, Ordering::Relaxed);
    }

    pub(super) fn end(&self, script: &Arc<Running>) {
        let mut running = self.running.lock();
        running.retain(|other| !Arc::ptr_eq(other, script));
        let is_busy = running.iter().any(|other| other.is_busy.load(Ordering::Relaxed));
        self.is_busy.store(is_busy, Ordering::Relaxed);
    }

    /// The one that has run longest.
    pub(crate) fn longest(&self) -> Option<Arc<Running>> {
        self.running.lock().first().cloned()
    }

    /// Ends the script that has run longest, function or not, since the server ends; false where it has written.
    pub fn end_longest(&self) -> bool {
        self.longest().is_some_and(|script| script.settle(KILLED))
    }

    /// Ends the script that has run longest, unless it has written.
    pub(crate) fn kill(&self, function: bool) -> Result<(), &'static str> {
        let script = self.longest().ok_or("NOTBUSY No scripts in execution right now.")?;
        match (script.fate.load(Ordering::SeqCst), script.is_function, function) {
            (WROTE, ..) => Err(UNKILLABLE),
            (_, true, false) => Err(BUSY_FUNCTION),
            (_, false, true) => Err(BUSY_SCRIPT),
            // It may write in this very moment.
            _ if script.settle(KILLED) => Ok(()),
            _ => Err(UNKILLABLE),
        }
    }
}

/// While a script runs for long.
pub(crate) const BUSY_SCRIPT: &str =
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";
/// While a function does.
const BUSY_FUNCTION: &str =
    "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.";

const UNKILLABLE: &str = "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait the script termination or kill the server in a hard way using the SHUTDOWN NOSAVE command.";

/// Whether a script has written, so that it must end by itself, or was killed, so that it may not write: whichever comes
/// first holds.
const UNDECIDED: u8 = 0;
const WROTE: u8 = 1;
const KILLED: u8 = 2;

/// A script that has run for some milliseconds.
pub(crate) struct Running {
    /// Its digest, or the function's name.
    pub(crate) name: String,
    /// The command that runs it.
    pub(crate) command: Vec<Vec<u8>>,
    pub(crate) is_function: bool,
    pub(crate) started: Instant,
    fate: AtomicU8,
    is_busy: AtomicBool,
}

impl Running {
    pub(super) fn new(name: String, command: Vec<Vec<u8>>, is_function: bool, wrote: bool) -> Self {
        Self {
            name,
            command,
            is_function,
            started: Instant::now(),
            fate: AtomicU8::new(if wrote { WROTE } else { UNDECIDED }),
            is_busy: AtomicBool::new(false),
        }
    }

    fn settle(&self, fate: u8) -> bool {
        let settled = self.fate.compare_exchange(UNDECIDED, fate, Ordering::SeqCst, Ordering::SeqCst);
        settled.is_ok() || settled == Err(fate)
    }

    /// Notes that the script is about to write; false where it was killed before.
    pub(super) fn may_write(&self) -> bool {
        self.settle(WROTE)
    }

    pub(super) fn is_killed(&self) -> bool {
        self.fate.load(Ordering::SeqCst) == KILLED
    }

    pub(super) fn is_busy(&self) -> bool {
        self.is_busy.load(Ordering::Relaxed)
    }
}
