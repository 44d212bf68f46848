//! The slow log: the last requests that took longer than a threshold.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::monitor::{REDACTED, credentials};

/// Arguments kept of a request; the last of them tells how many more there were.
const ARGUMENTS_KEPT: usize = 32;
/// Bytes kept of an argument; behind them stands how many more there were.
const BYTES_KEPT: usize = 128;

/// The log and its limits. Checking the threshold costs one load.
pub struct SlowLog {
    /// `slowlog-log-slower-than`, in microseconds; negative: never.
    threshold_us: AtomicI64,
    /// `slowlog-max-len`.
    len_max: AtomicUsize,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    next_id: u64,
    /// The newest first.
    kept: VecDeque<SlowRequest>,
}

/// One request that was slow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowRequest {
    /// Unique since the start of the server.
    pub id: u64,
    /// When it ran, in seconds since the Unix epoch.
    pub unixtime: i64,
    /// How long it took, in microseconds.
    pub duration_us: u64,
    /// Its arguments, shortened.
    pub args: Vec<Vec<u8>>,
    /// The client's address.
    pub client: String,
    /// The client's name.
    pub client_name: Vec<u8>,
}

impl Default for SlowLog {
    fn default() -> Self {
        Self {
            threshold_us: AtomicI64::new(10_000),
            len_max: AtomicUsize::new(128),
            entries: Mutex::default(),
        }
    }
}

impl SlowLog {
    /// Changes the limits; a shorter log forgets its oldest entries with the next that comes.
    pub fn set_limits(&self, threshold_us: i64, len_max: usize) {
        self.threshold_us.store(threshold_us, Relaxed);
        self.len_max.store(len_max, Relaxed);
    }

    /// Whether a request that took so long belongs into the log.
    #[inline]
    pub fn is_slow(&self, duration_us: u64) -> bool {
        let threshold = self.threshold_us.load(Relaxed);
        threshold >= 0 && duration_us >= threshold.unsigned_abs()
    }

    /// Notes a request.
    pub fn note(&self, unixtime: i64, duration_us: u64, args: &[&[u8]], client: &str, client_name: &[u8]) {
        let args = shortened(args);
        let (client, client_name) = (client.to_owned(), client_name.to_vec());
        let mut entries = self.entries.lock();
        let id = entries.next_id;
        entries.next_id += 1;
        entries.kept.push_front(SlowRequest { id, unixtime, duration_us, args, client, client_name });
        entries.kept.truncate(self.len_max.load(Relaxed));
    }

    /// The newest `most` entries, the newest first.
    pub fn newest(&self, most: usize) -> Vec<SlowRequest> {
        self.entries.lock().kept.iter().take(most).cloned().collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.lock().kept.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all; ids go on.
    pub fn reset(&self) {
        self.entries.lock().kept.clear();
    }
}

/// Directives whose values are secrets.
const SECRET_DIRECTIVES: &[&str] = &["requirepass", "masterauth", "masteruser", "tls-key-file-pass"];

/// The arguments of a request without the secrets in it.
pub fn redacted<'a>(command: &str, args: &[&'a [u8]]) -> Vec<&'a [u8]> {
    let mut args = args.to_vec();
    match command {
        "acl|setuser" => args.iter_mut().skip(3).for_each(|arg| *arg = REDACTED),
        "config|set" => {
            for pair in args.get_mut(2..).unwrap_or_default().chunks_exact_mut(2) {
                if SECRET_DIRECTIVES.iter().any(|name| pair[0].eq_ignore_ascii_case(name.as_bytes())) {
                    pair[1] = REDACTED;
                }
            }
        }
        _ => credentials(command, &args).for_each(|at| args[at] = REDACTED),
    }
    args
}

/// The arguments as the log keeps them: no request is so long that the log becomes a burden.
fn shortened(args: &[&[u8]]) -> Vec<Vec<u8>> {
    let kept = if args.len() > ARGUMENTS_KEPT { ARGUMENTS_KEPT - 1 } else { args.len() };
    let mut out: Vec<Vec<u8>> = args[..kept].iter().map(|arg| shortened_argument(arg)).collect();
    if kept < args.len() {
        out.push(format!("... ({} more arguments)", args.len() - kept).into_bytes());
    }
    out
}

fn shortened_argument(arg: &[u8]) -> Vec<u8> {
    if arg.len() <= BYTES_KEPT {
        return arg.to_vec();
    }
    let (kept, rest) = arg.split_at(BYTES_KEPT);
    [kept, format!("... ({} more bytes)", rest.len()).as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_decides() {
        let log = SlowLog::default();
        assert!(!log.is_slow(9_999) && log.is_slow(10_000));
        log.set_limits(0, 4);
        assert!(log.is_slow(0));
        log.set_limits(-1, 4);
        assert!(!log.is_slow(u64::MAX));
    }

    #[test]
    fn the_newest_are_kept_and_ids_go_on() {
        let log = SlowLog::default();
        log.set_limits(0, 2);
        for n in 0..3 {
            log.note(100, n, &[b"ping"], "127.0.0.1:1", b"");
        }
        let ids = |log: &SlowLog| log.newest(10).iter().map(|entry| entry.id).collect::<Vec<_>>();
        assert_eq!(ids(&log), [2, 1]);
        log.reset();
        assert!(log.is_empty());
        log.note(100, 7, &[b"ping"], "127.0.0.1:1", b"");
        assert_eq!(ids(&log), [3]);
    }

    #[test]
    fn secrets_are_taken_out() {
        let of = |command: &str, request: &str| {
            let args: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
            let words = redacted(command, &args);
            words.iter().map(|word| String::from_utf8_lossy(word)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of("auth", "AUTH user pass"), "AUTH (redacted) (redacted)");
        assert_eq!(of("hello", "HELLO 3 AUTH u p SETNAME n"), "HELLO 3 AUTH (redacted) (redacted) SETNAME n");
        assert_eq!(
            of("hello", "HELLO 3 SETNAME auth AUTH u p"),
            "HELLO 3 SETNAME auth AUTH (redacted) (redacted)"
        );
        assert_eq!(of("hello", "HELLO 3 AUTH u"), "HELLO 3 AUTH (redacted)");
        assert_eq!(of("hello", "HELLO 3"), "HELLO 3");
        assert_eq!(
            of("config|set", "config set port 1 REQUIREPASS p"),
            "config set port 1 REQUIREPASS (redacted)"
        );
        assert_eq!(of("acl|setuser", "acl setuser u on >p"), "acl setuser u (redacted) (redacted)");
        assert_eq!(of("set", "set a b"), "set a b");
    }

    #[test]
    fn long_requests_are_shortened() {
        let many: Vec<&[u8]> = vec![b"x"; 40];
        let kept = shortened(&many);
        assert_eq!((kept.len(), kept[31].as_slice()), (32, &b"... (9 more arguments)"[..]));
        assert_eq!(shortened(&many[..32]).len(), 32);
        assert!(shortened(&many[..32])[31] == b"x");
        let long = vec![b'a'; 130];
        let kept = &shortened(&[&long])[0];
        assert!(kept.starts_with(&long[..128]) && kept.ends_with(b"... (2 more bytes)"));
    }
}
