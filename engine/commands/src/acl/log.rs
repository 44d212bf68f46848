//! ACL LOG: what was refused lately.

use std::collections::VecDeque;

/// Equal refusals within so many milliseconds are one entry.
const SAME_WITHIN_MS: i64 = 60_000;
/// How many of the newest entries a refusal is compared with.
const COMPARED: usize = 10;

/// Why something was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reason {
    Command,
    Key,
    Channel,
    Authentication,
}

impl Reason {
    pub(crate) fn shown(self) -> &'static str {
        match self {
            Reason::Command => "command",
            Reason::Key => "key",
            Reason::Channel => "channel",
            Reason::Authentication => "auth",
        }
    }
}

/// One refusal, or several equal ones.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) count: u64,
    pub(crate) reason: Reason,
    /// `toplevel`, `multi` or `lua`.
    pub(crate) place: &'static str,
    /// The command, key or channel.
    pub(crate) object: Vec<u8>,
    pub(crate) user: Vec<u8>,
    pub(crate) at_ms: i64,
    /// The client that was refused last, as CLIENT LIST shows it.
    pub(crate) client: String,
}

impl Entry {
    fn is_like(&self, other: &Entry) -> bool {
        self.reason == other.reason
            && self.place == other.place
            && (self.at_ms - other.at_ms).abs() <= SAME_WITHIN_MS
            && self.object == other.object
            && self.user == other.user
    }
}

/// The newest refusals first.
pub(super) struct Log {
    entries: VecDeque<Entry>,
    length: usize,
}

impl Log {
    pub(super) fn new(length: usize) -> Self {
        Self { entries: VecDeque::new(), length }
    }

    pub(super) fn set_length(&mut self, length: usize) {
        self.length = length;
    }

    pub(super) fn add(&mut self, mut entry: Entry) {
        if let Some(at) = self.entries.iter().take(COMPARED).position(|known| known.is_like(&entry)) {
            entry.count += self.entries.remove(at).map_or(0, |known| known.count);
        }
        self.entries.push_front(entry);
        self.entries.truncate(self.length);
    }

    pub(super) fn newest(&self, most: usize) -> Vec<Entry> {
        self.entries.iter().take(most).cloned().collect()
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }
}
