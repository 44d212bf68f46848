//! What takes long to free is freed by a thread of its own, and not under the locks of whoever removed it.
//!
//! Where there is no such thread, as in a replay, everything is freed at once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::{Condvar, Mutex};

use crate::{Database, Entry};

/// What has been removed and is not freed yet. What lies here was in memory before, so its length needs no bound.
#[derive(Default)]
pub struct Discards {
    queue: Mutex<Queue>,
    filled: Condvar,
    pending: AtomicU64,
    freed: AtomicU64,
}

#[derive(Default)]
struct Queue {
    /// A thread takes out what is put in.
    is_served: bool,
    discarded: VecDeque<Discarded>,
}

/// What is to be freed, and how many keys' values that is.
type Discarded = (Box<dyn Send>, u64);

impl Discards {
    /// Frees an entry: later, where that takes long.
    #[inline]
    pub fn put(&self, mut entry: Entry) {
        if entry.as_object_mut().is_some_and(|object| object.is_expensive_to_free()) {
            self.push((Box::new(entry), 1));
        }
    }

    /// Frees databases with all their keys, later.
    pub fn put_databases(&self, databases: Vec<Database>) {
        let keys = databases.iter().map(|database| database.len() as u64).sum();
        self.push((Box::new(databases), keys));
    }

    #[cold]
    fn push(&self, discarded: Discarded) {
        let mut queue = self.queue.lock();
        if queue.is_served {
            self.pending.fetch_add(discarded.1, Relaxed);
            queue.discarded.push_back(discarded);
            self.filled.notify_one();
        }
    }

    /// From here on [`Discards::serve`] is running, or about to.
    pub fn open(&self) {
        self.queue.lock().is_served = true;
    }

    /// Frees what is put in, until [`Discards::close`]; what lies there then is freed too.
    pub fn serve(&self) {
        loop {
            let mut queue = self.queue.lock();
            while queue.is_served && queue.discarded.is_empty() {
                self.filled.wait(&mut queue);
            }
            let Some((value, keys)) = queue.discarded.pop_front() else { return };
            drop(queue);
            drop(value);
            self.pending.fetch_sub(keys, Relaxed);
            self.freed.fetch_add(keys, Relaxed);
        }
    }

    /// Lets [`Discards::serve`] end.
    pub fn close(&self) {
        self.queue.lock().is_served = false;
        self.filled.notify_all();
    }

    /// How many values wait to be freed.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.pending.load(Relaxed)
    }

    /// How many values were freed later than they were removed.
    #[must_use]
    pub fn freed(&self) -> u64 {
        self.freed.load(Relaxed)
    }

    /// Counts anew.
    pub fn reset_statistics(&self) {
        self.freed.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Limits, Object, Set};

    fn entry(members: u32) -> Entry {
        let mut set = Set::default();
        for member in 0..members {
            set.add(format!("member {member}").as_bytes(), &Limits::default());
        }
        Entry::object(b"key", Object::Set(set), None)
    }

    #[test]
    fn large_values_wait_for_the_thread_and_small_ones_do_not() {
        let discards = Discards::default();
        discards.put(entry(1_000));
        assert_eq!((discards.pending(), discards.freed()), (0, 0), "without a thread nothing waits");
        discards.open();
        discards.put(entry(10));
        discards.put(Entry::string(b"key", &[b'x'; 1 << 20], None));
        assert_eq!(discards.pending(), 0);
        discards.put(entry(1_000));
        discards.put_databases(vec![Database::default()]);
        assert_eq!((discards.pending(), discards.freed()), (1, 0));
        discards.close();
        discards.serve();
        assert_eq!((discards.pending(), discards.freed()), (0, 1));
    }
}
