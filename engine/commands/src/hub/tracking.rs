//! Who caches which keys, to be told when they change.
//!
//! A client that tracks reads: the keys it has read are in a table until they change or the table is full. In broadcast
//! mode: no key is remembered, and the client hears of every change below its prefixes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::inbox::Inbox;

/// What a client said with CLIENT TRACKING ON.
#[derive(Clone, Default, Debug)]
pub struct Tracking {
    /// The client that gets the messages instead; 0 for none.
    pub redirect: u64,
    /// Changes below prefixes are told, whatever has been read.
    pub broadcast: bool,
    /// In broadcast mode: which.
    pub prefixes: BTreeSet<Vec<u8>>,
    /// Only what is read behind CLIENT CACHING YES is tracked.
    pub opt_in: bool,
    /// What is read behind CLIENT CACHING NO is not tracked.
    pub opt_out: bool,
    /// The client's own changes are not told.
    pub no_loop: bool,
    /// CLIENT CACHING was called for the next command.
    pub caching: bool,
}

impl Tracking {
    /// Whether what the client reads now is remembered.
    pub(crate) fn remembers(&self) -> bool {
        match (self.broadcast, self.opt_in, self.opt_out) {
            (true, _, _) => false,
            (false, true, _) => self.caching,
            (false, false, opt_out) => !(opt_out && self.caching),
        }
    }
}

/// A client that tracks.
pub(super) struct Tracker {
    pub(super) inbox: Arc<Inbox>,
    /// Who gets its messages, where that is another.
    pub(super) redirect: Option<Arc<Inbox>>,
    pub(super) no_loop: bool,
    broadcast: bool,
    prefixes: BTreeSet<Vec<u8>>,
    /// The one who was to get the messages is gone.
    pub(super) is_broken: bool,
}

/// The readers of a key, and where it stands in the list of all keys.
struct Readers {
    at: usize,
    ids: BTreeSet<u64>,
}

/// A key that is remembered no more, and who is to be told.
pub(super) type Forgotten = (Arc<[u8]>, Vec<u64>);

pub(super) struct Table {
    trackers: BTreeMap<u64, Tracker>,
    readers: HashMap<Arc<[u8]>, Readers>,
    /// Every key of `readers`, so that one can be chosen at random.
    keys: Vec<Arc<[u8]>>,
    items: usize,
    /// More keys than this are not remembered; 0 for no bound.
    keys_max: usize,
    prefixes: BTreeMap<Vec<u8>, BTreeSet<u64>>,
    random: u64,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            trackers: BTreeMap::new(),
            readers: HashMap::new(),
            keys: Vec::new(),
            items: 0,
            keys_max: 1_000_000,
            prefixes: BTreeMap::new(),
            random: 1,
        }
    }

    /// Says how many keys are remembered at most; what there is beyond gives way as in [`Table::remember`].
    pub(super) fn set_keys_max(&mut self, keys_max: usize) -> Vec<Forgotten> {
        self.keys_max = keys_max;
        self.shrink()
    }

    pub(super) fn has_trackers(&self) -> bool {
        !self.trackers.is_empty()
    }

    /// Trackers, keys, readers of keys, and prefixes.
    pub(super) fn counts(&self) -> [usize; 4] {
        [self.trackers.len(), self.keys.len(), self.items, self.prefixes.len()]
    }

    pub(super) fn tracker(&self, id: u64) -> Option<&Tracker> {
        self.trackers.get(&id)
    }

    pub(super) fn trackers_mut(&mut self) -> impl Iterator<Item = (u64, &mut Tracker)> {
        self.trackers.iter_mut().map(|(id, tracker)| (*id, tracker))
    }

    pub(super) fn tracker_mut(&mut self, id: u64) -> Option<&mut Tracker> {
        self.trackers.get_mut(&id)
    }

    /// Begins to track for a client, or goes on in another way.
    pub(super) fn enable(&mut self, inbox: &Arc<Inbox>, redirect: Option<Arc<Inbox>>, tracking: &Tracking) {
        for prefix in &tracking.prefixes {
            self.prefixes.entry(prefix.clone()).or_default().insert(inbox.id());
        }
        let tracker = Tracker {
            inbox: Arc::clone(inbox),
            redirect,
            no_loop: tracking.no_loop,
            broadcast: tracking.broadcast,
            prefixes: tracking.prefixes.clone(),
            is_broken: false,
        };
        self.trackers.insert(inbox.id(), tracker);
    }

    /// Stops to track for a client. The table forgets it as its keys change; without any client it is empty.
    pub(super) fn disable(&mut self, id: u64) {
        let Some(tracker) = self.trackers.remove(&id) else { return };
        for prefix in &tracker.prefixes {
            if let Some(ids) = self.prefixes.get_mut(prefix) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.prefixes.remove(prefix);
                }
            }
        }
        if self.trackers.is_empty() {
            self.forget_all();
        }
    }

    /// Remembers that a client has read a key. Where the table is full, keys chosen at random give way: they are returned,
    /// with those who must be told.
    pub(super) fn remember(&mut self, key: &[u8], id: u64) -> Vec<Forgotten> {
        if !self.trackers.contains_key(&id) {
            return Vec::new();
        }
        if let Some(readers) = self.readers.get_mut(key) {
            self.items += usize::from(readers.ids.insert(id));
            return Vec::new();
        }
        let key: Arc<[u8]> = Arc::from(key);
        self.readers.insert(Arc::clone(&key), Readers { at: self.keys.len(), ids: BTreeSet::from([id]) });
        self.keys.push(key);
        self.items += 1;
        self.shrink()
    }

    fn shrink(&mut self) -> Vec<Forgotten> {
        let mut evicted = Vec::new();
        while self.keys_max > 0 && self.keys.len() > self.keys_max {
            let at = crate::context::next_random(&mut self.random) % self.keys.len() as u64;
            let Some(key) = self.keys.get(at as usize).cloned() else { break };
            let ids = self.forget(&key);
            evicted.push((key, ids));
        }
        evicted
    }

    /// Forgets who has read a key; returns those who still track reads.
    pub(super) fn forget(&mut self, key: &[u8]) -> Vec<u64> {
        let Some(Readers { at, ids }) = self.readers.remove(key) else { return Vec::new() };
        self.keys.swap_remove(at);
        if let Some(readers) = self.keys.get(at).and_then(|moved| self.readers.get_mut(moved)) {
            readers.at = at;
        }
        self.items -= ids.len();
        ids.into_iter().filter(|id| self.trackers.get(id).is_some_and(|tracker| !tracker.broadcast)).collect()
    }

    /// Forgets all keys.
    pub(super) fn forget_all(&mut self) {
        self.readers = HashMap::new();
        self.keys = Vec::new();
        self.items = 0;
    }

    /// The clients that hear of changes below a prefix, by prefix.
    pub(super) fn broadcasts(&self) -> &BTreeMap<Vec<u8>, BTreeSet<u64>> {
        &self.prefixes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracking(table: &mut Table, id: u64) {
        table.enable(&Arc::new(Inbox::new(id)), None, &Tracking::default());
    }

    #[test]
    fn a_key_is_forgotten_with_those_who_read_it() {
        let mut table = Table::new();
        tracking(&mut table, 1);
        tracking(&mut table, 2);
        for (key, id) in [("a", 1), ("b", 1), ("a", 2), ("a", 2), ("c", 2)] {
            assert!(table.remember(key.as_bytes(), id).is_empty());
        }
        assert_eq!(table.counts(), [2, 3, 4, 0]);
        assert_eq!(table.forget(b"a"), [1, 2]);
        assert!(table.forget(b"a").is_empty());
        table.disable(1);
        assert!(table.forget(b"b").is_empty(), "a client that stopped is told nothing");
        assert_eq!(table.forget(b"c"), [2]);
        assert_eq!(table.counts(), [1, 0, 0, 0]);
    }

    #[test]
    fn a_full_table_gives_keys_up_and_says_whom_to_tell() {
        let mut table = Table::new();
        assert!(table.set_keys_max(10).is_empty());
        tracking(&mut table, 1);
        let evicted: usize = (0..100u8).map(|n| table.remember(&[n], 1).len()).sum();
        assert_eq!((evicted, table.counts()), (90, [1, 10, 10, 0]));
        assert_eq!(table.set_keys_max(4).len(), 6, "a lower bound holds at once");
        let left: Vec<Arc<[u8]>> = table.keys.clone();
        assert!(left.iter().all(|key| table.forget(key) == [1]));
    }
}
