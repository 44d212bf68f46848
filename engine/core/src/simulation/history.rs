//! What a run knows of the data: the digest after each commit, and up to where commits were acknowledged. It knows nothing
//! of frames, files or recovery.

use std::collections::BTreeMap;

use cairn_format::Lsn;

/// Redis's digest of all data, and the function libraries.
pub(super) type Digest = ([u8; 20], Vec<u8>);

/// A commit.
#[derive(Clone)]
struct Commit {
    /// What all data is with it.
    digest: Digest,
    /// When it was made, in ns since the run began; `None` where nobody asked for it, but a key had expired: what has expired
    /// is away after a power cut too, so nothing is lost by it, and nobody is refused it.
    at_ns: Option<u64>,
}

/// What of the unacknowledged may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Promise {
    /// All of it, and in what order it was made is all that is promised.
    Order,
    /// What one second carries.
    OneSecond,
}

/// `everysec` looks at the clock when it writes, which takes a moment.
const SECOND_NS: u64 = 1_000_000_000 + 10_000_000;

/// The commits of a run by their ends.
pub(super) struct History {
    commits: BTreeMap<u64, Commit>,
    /// The end of what must not be lost.
    acknowledged: u64,
}

impl History {
    pub(super) fn new(digest: Digest) -> History {
        let nothing = Commit { digest, at_ns: None };
        History { commits: BTreeMap::from([(0, nothing)]), acknowledged: 0 }
    }

    pub(super) fn commit(&mut self, end: Lsn, digest: Digest, at_ns: Option<u64>) {
        self.commits.insert(end.0, Commit { digest, at_ns });
    }

    /// Somebody was told, or could have been, that all up to `end` is durable.
    pub(super) fn acknowledge(&mut self, end: Lsn) {
        self.acknowledged = self.acknowledged.max(end.0);
    }

    /// Holds what was recovered against what was committed.
    pub(super) fn check(&self, end: Lsn, digest: &Digest, promise: Promise) -> Result<(), String> {
        if end.0 < self.acknowledged {
            return Err(format!("recovered up to LSN {end}, and {} was acknowledged", self.acknowledged));
        }
        let Some(commit) = self.commits.get(&end.0) else {
            return Err(format!("recovered up to LSN {end}, which is within a commit"));
        };
        if commit.digest != *digest {
            return Err(format!("the data recovered at LSN {end} is not what it was there"));
        }
        let mut lost = self.commits.range(end.0 + 1..).filter_map(|(_, commit)| commit.at_ns);
        if let (Promise::OneSecond, Some(first)) = (promise, lost.next()) {
            let span_ns = lost.next_back().unwrap_or(first) - first;
            if span_ns > SECOND_NS {
                return Err(format!("lost what was written within {} ms", span_ns / 1_000_000));
            }
        }
        Ok(())
    }

    /// As [`History::check`], where only the digest of the keys is known, as DEBUG DIGEST shows it.
    pub(super) fn check_digest(&self, end: Lsn, digest: &str) -> Result<(), String> {
        let hex = |digest: &Digest| digest.0.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        match self.commits.get(&end.0).filter(|commit| hex(&commit.digest) == digest) {
            Some(commit) => self.check(end, &commit.digest, Promise::Order),
            None => Err(format!("it would be served up to LSN {end}, and was never that")),
        }
    }

    /// Goes on from what was recovered.
    pub(super) fn go_on_from(&mut self, end: Lsn) {
        self.commits.split_off(&(end.0 + 1));
    }
}
