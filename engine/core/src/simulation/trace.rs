//! What happened in a run: a number that two runs of one seed must have in common, and the last events in words.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use cairn_format::Lsn;

use super::requests::Request;

/// Events that are kept in words.
const KEPT: usize = 100;

#[derive(Default)]
pub(super) struct Trace {
    hasher: DefaultHasher,
    last: VecDeque<String>,
}

impl Trace {
    /// Notes that something was done, and what is known of it.
    pub(super) fn note(&mut self, what: String) {
        let ms = super::time::now_us().unwrap_or(0) / 1_000 % 1_000_000;
        let what = format!("{ms:6} ms: {what}");
        what.hash(&mut self.hasher);
        if std::env::var_os("CAIRN_TRACE").is_some() {
            eprintln!("{what}");
        }
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(what);
    }

    pub(super) fn request(&mut self, client: usize, request: &Request, reply: &[u8], end: Lsn) {
        let mut words = String::new();
        for word in request {
            words.push(' ');
            words.extend(word.escape_ascii().take(24).map(char::from));
        }
        let reply: String = reply.escape_ascii().take(40).map(char::from).collect();
        self.note(format!("client {client}:{words} -> {reply} (LSN {end})"));
    }

    /// The number.
    pub(super) fn sum(&self) -> u64 {
        self.hasher.finish()
    }

    /// The words.
    pub(super) fn last(&self) -> String {
        self.last.iter().map(|event| format!("  {event}\n")).collect()
    }
}
