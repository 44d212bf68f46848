//! Which keys are restored, and under which names.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cairn_engine::{Entry, Usage, glob_matches};
use cairn_jobs::JobError;

use crate::error::RestoreError;
use crate::sink::Sink;

/// A choice of keys, and new names for them. Everything where nothing is asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    /// Patterns as KEYS takes them; none: every key.
    patterns: Vec<String>,
    database: Option<u16>,
    /// Beginnings of names, and what stands in their place. The first that fits counts.
    renames: Vec<(String, String)>,
}

impl Selection {
    /// From what the command line says.
    ///
    /// # Errors
    /// [`JobError::Usage`] for a renaming without `=`.
    pub(crate) fn new(
        patterns: &[String],
        database: Option<u16>,
        renames: &[String],
    ) -> Result<Self, JobError> {
        let split = |rename: &String| match rename.split_once('=') {
            Some((from, to)) => Ok((from.to_owned(), to.to_owned())),
            None => {
                let why = format!("--rename-prefix {rename:?}: it is OLD=NEW, as in user:=staging:user:");
                Err(JobError::Usage(why))
            }
        };
        let renames = renames.iter().map(split).collect::<Result<_, _>>()?;
        Ok(Self { patterns: patterns.to_vec(), database, renames })
    }

    /// Whether everything is restored as it is.
    pub(crate) fn is_everything(&self) -> bool {
        self.is_every_key() && self.renames.is_empty()
    }

    /// Whether no key is left out; then function libraries, which are no keys, are restored too.
    pub(crate) fn is_every_key(&self) -> bool {
        self.patterns.is_empty() && self.database.is_none()
    }

    /// The name a key gets; none if it is not chosen.
    fn name<'k>(&self, database: u16, key: &'k [u8]) -> Option<Cow<'k, [u8]>> {
        let fits = |pattern: &String| glob_matches(pattern.as_bytes(), key);
        if self.database.is_some_and(|chosen| chosen != database)
            || !(self.patterns.is_empty() || self.patterns.iter().any(fits))
        {
            return None;
        }
        for (from, to) in &self.renames {
            if let Some(rest) = key.strip_prefix(from.as_bytes()) {
                return Some(Cow::Owned([to.as_bytes(), rest].concat()));
            }
        }
        Some(Cow::Borrowed(key))
    }
}

/// Gives on what is chosen, and counts.
pub(crate) struct Chosen<'a> {
    selection: &'a Selection,
    sink: &'a mut dyn Sink,
    seen: Option<Seen>,
    cancelled: Arc<AtomicBool>,
    /// Keys given on.
    pub(crate) entries: u64,
    /// Keys left out.
    pub(crate) left_out: u64,
    /// Function libraries given on.
    pub(crate) libraries: u64,
}

/// What two keys of one name mean.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Twice {
    /// There are none unless a renaming makes them.
    OnlyRenamed,
    /// The source may be damaged in that way.
    Damage,
}

impl<'a> Chosen<'a> {
    pub(crate) fn new(
        selection: &'a Selection,
        sink: &'a mut dyn Sink,
        twice: Twice,
        cancelled: Arc<AtomicBool>,
    ) -> Self {
        let seen = (twice == Twice::Damage || !selection.renames.is_empty()).then(Seen::default);
        Self { selection, sink, seen, cancelled, entries: 0, left_out: 0, libraries: 0 }
    }

    /// Takes a key out of `place`.
    pub(crate) fn entry(
        &mut self,
        place: &str,
        database: u16,
        entry: &Entry,
        usage: Option<Usage>,
    ) -> Result<(), RestoreError> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(JobError::Interrupted.into());
        }
        let Some(name) = self.selection.name(database, entry.key()) else {
            self.left_out += 1;
            return Ok(());
        };
        if self.seen.as_mut().is_some_and(|seen| !seen.is_new(database, &name)) {
            return Err(if self.selection.renames.is_empty() {
                RestoreError::Duplicate { place: place.to_owned(), database }
            } else {
                RestoreError::SameName { database }
            });
        }
        self.entries += 1;
        match name {
            Cow::Borrowed(_) => self.sink.entry(database, entry, usage),
            Cow::Owned(name) => self.sink.entry(database, &entry.copied(&name), usage),
        }
    }

    /// Takes a function library.
    pub(crate) fn library(&mut self, source: &[u8]) -> Result<(), RestoreError> {
        if !self.selection.is_every_key() {
            return Ok(());
        }
        self.libraries += 1;
        self.sink.library(source)
    }
}

/// The names there were, 16 bytes each: a keyed hash so long that no two names share it by chance or on purpose.
#[derive(Default)]
struct Seen {
    keys: [RandomState; 2],
    names: HashSet<u128>,
}

impl Seen {
    fn is_new(&mut self, database: u16, name: &[u8]) -> bool {
        let [high, low] = self.keys.each_ref().map(|key| u128::from(key.hash_one((database, name))));
        self.names.insert(high << 64 | low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Names(Vec<(u16, String)>, usize);

    impl Sink for Names {
        fn entry(&mut self, database: u16, entry: &Entry, _: Option<Usage>) -> Result<(), RestoreError> {
            self.0.push((database, String::from_utf8_lossy(entry.key()).into_owned()));
            Ok(())
        }

        fn library(&mut self, _: &[u8]) -> Result<(), RestoreError> {
            self.1 += 1;
            Ok(())
        }
    }

    /// What was chosen, how many keys were left out, how many libraries came.
    type Outcome = (Vec<(u16, String)>, u64, usize);

    fn choose(
        patterns: &[&str],
        database: Option<u16>,
        renames: &[&str],
        twice: Twice,
        keys: &[(u16, &str)],
    ) -> Result<Outcome, RestoreError> {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let selection = Selection::new(&owned(patterns), database, &owned(renames)).unwrap();
        let mut names = Names::default();
        let mut chosen = Chosen::new(&selection, &mut names, twice, Arc::default());
        chosen.library(b"#!lua name=a").unwrap();
        for (database, key) in keys {
            chosen.entry("file", *database, &Entry::string(key.as_bytes(), b"", None), None)?;
        }
        let left_out = chosen.left_out;
        Ok((names.0, left_out, names.1))
    }

    const KEYS: [(u16, &str); 4] = [(0, "user:1"), (0, "order:1"), (3, "user:2"), (3, "staging:1")];

    fn found(names: &[(u16, &str)]) -> Vec<(u16, String)> {
        names.iter().map(|(database, name)| (*database, (*name).to_owned())).collect()
    }

    #[test]
    fn patterns_and_databases_choose_and_prefixes_rename() {
        let choose = |patterns: &[&str], database, renames: &[&str]| {
            choose(patterns, database, renames, Twice::OnlyRenamed, &KEYS).unwrap()
        };
        assert_eq!(choose(&[], None, &[]), (found(&KEYS), 0, 1));
        assert_eq!(choose(&["user:*"], None, &[]), (found(&[(0, "user:1"), (3, "user:2")]), 2, 0));
        assert_eq!(choose(&["user:[2-9]", "o*"], None, &[]).0, found(&[(0, "order:1"), (3, "user:2")]));
        assert_eq!(choose(&["user:*"], Some(3), &[]), (found(&[(3, "user:2")]), 3, 0));
        let renamed = found(&[(0, "u/1"), (0, "order:1"), (3, "u/2"), (3, "staging:1")]);
        assert_eq!(choose(&[], None, &["user:=u/", "u=never"]), (renamed, 0, 1));
        assert_eq!(choose(&["o*"], None, &["=all:"]).0, found(&[(0, "all:order:1")]));
    }

    #[test]
    fn two_keys_of_one_name_are_never_one() {
        let renamed = choose(&[], None, &["user:=order:"], Twice::OnlyRenamed, &KEYS);
        assert!(matches!(renamed, Err(RestoreError::SameName { database: 0 })));
        let twice = [(1, "a"), (2, "a"), (1, "a")];
        let damaged = choose(&[], None, &[], Twice::Damage, &twice);
        assert!(matches!(damaged, Err(RestoreError::Duplicate { database: 1, .. })));
        assert!(Selection::new(&[], None, &["a".to_owned()]).is_err());
    }
}
