//! How often commands answered which error, by its first word.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// Kinds told apart. Scripts can answer errors of their own making, which must not fill the memory.
const KINDS_MAX: usize = 128;

/// So much of a kind is kept: those of this server are shorter.
const KIND_BYTES_MAX: usize = 64;

/// Counts of errors.
#[derive(Default)]
pub struct Errors(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    total: u64,
    kinds: BTreeMap<String, u64>,
}

impl Errors {
    /// Notes an error reply; its text begins with the kind.
    pub fn note(&self, text: &str) {
        let kind = text.split([' ', '\r', '\n']).next().unwrap_or_default();
        let is_end = |at: &usize| kind.is_char_boundary(*at);
        let kind = &kind[..(0..=kind.len().min(KIND_BYTES_MAX)).rev().find(is_end).unwrap_or(0)];
        let mut counts = self.0.lock();
        counts.total += 1;
        if let Some(count) = counts.kinds.get_mut(kind) {
            *count += 1;
        } else if counts.kinds.len() < KINDS_MAX {
            counts.kinds.insert(kind.to_owned(), 1);
        }
    }

    /// How many errors there were.
    pub fn total(&self) -> u64 {
        self.0.lock().total
    }

    /// Each kind with its count.
    pub fn kinds(&self) -> Vec<(String, u64)> {
        self.0.lock().kinds.iter().map(|(kind, count)| (kind.clone(), *count)).collect()
    }

    /// Back to zero.
    pub fn reset(&self) {
        *self.0.lock() = Counts::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_count_by_their_first_word_and_kinds_are_bounded() {
        let errors = Errors::default();
        errors.note("ERR unknown command");
        errors.note("ERR syntax error");
        errors.note("WRONGTYPE Operation");
        assert_eq!(errors.kinds(), [("ERR".to_owned(), 2), ("WRONGTYPE".to_owned(), 1)]);
        (0..500).for_each(|n| errors.note(&format!("OWN{n} made by a script")));
        assert_eq!((errors.kinds().len(), errors.total()), (KINDS_MAX, 503));
        errors.reset();
        errors.note(&"é".repeat(1 << 20));
        assert!(errors.kinds()[0].0.len() <= KIND_BYTES_MAX);
        errors.reset();
        assert_eq!((errors.kinds().len(), errors.total()), (0, 0));
    }
}
