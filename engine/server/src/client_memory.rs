//! What clients take, and `maxmemory-clients`: where that is more than may be, the largest are disconnected.
//!
//! Each connection keeps its share of the sum up to date while there is a bound, and whoever makes the sum exceed it looks
//! for those that have to go. What has been sent since is taken off with the next tick of the clock.

use crate::clients::{Client, Clients};
use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

/// The bound, and how much of it is taken.
#[derive(Default)]
pub(crate) struct ClientMemory {
    /// In bytes; 0: no bound.
    limit: AtomicUsize,
    /// The sum of what each client was last counted with.
    counted: AtomicUsize,
    is_evicting: AtomicBool,
    /// Clients disconnected to stay below the bound.
    pub(crate) evicted_total: AtomicU64,
}

impl Clients {
    /// Changes the bound, and disconnects who is beyond it.
    pub(crate) fn set_memory_limit(&self, bytes: usize) {
        self.memory.limit.store(bytes, SeqCst);
        self.count_memory();
    }

    /// Counts what a client takes now; for its own connection, which that may end.
    #[inline]
    pub(crate) fn note_memory(&self, client: &Client) {
        if self.memory.limit.load(Relaxed) > 0 {
            self.recount(client);
            self.evict();
        }
    }

    /// Counts what others have put into a client's inbox; whoever did so looks for those that have to go when it counts
    /// what it takes itself.
    pub(crate) fn note_growth(&self, client: &Client) {
        if self.memory.limit.load(Relaxed) > 0 {
            self.recount(client);
        }
    }

    /// Counts every client anew, where there is a bound.
    pub(crate) fn count_memory(&self) {
        if self.memory.limit.load(Relaxed) > 0 {
            self.all().iter().for_each(|client| self.recount(client));
            self.evict();
        }
    }

    fn recount(&self, client: &Client) {
        let bytes = client.memory();
        let before = client.counted_bytes.swap(bytes, SeqCst);
        if bytes >= before {
            self.memory.counted.fetch_add(bytes - before, SeqCst);
        } else {
            self.memory.counted.fetch_sub(before - bytes, SeqCst);
        }
    }

    /// Forgets a client that is gone.
    pub(crate) fn uncount(&self, client: &Client) {
        self.memory.counted.fetch_sub(client.counted_bytes.swap(0, SeqCst), SeqCst);
    }

    /// Bytes that all clients take.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.all().iter().map(|client| client.memory()).sum()
    }

    /// Disconnects the largest until what remains is within the bound.
    fn evict(&self) {
        let limit = self.memory.limit.load(SeqCst);
        if limit == 0
            || self.memory.counted.load(SeqCst) <= limit
            || self.memory.is_evicting.swap(true, SeqCst)
        {
            return;
        }
        let mut clients: Vec<(usize, Arc<Client>)> = self
            .all()
            .into_iter()
            .filter(|client| !client.is_doomed.load(SeqCst))
            .map(|client| (client.memory(), client))
            .collect();
        let mut sum: usize = clients.iter().map(|(bytes, _)| bytes).sum();
        clients.retain(|(_, client)| !client.may_not_be_evicted());
        clients.sort_by_key(|(bytes, _)| Reverse(*bytes));
        for (bytes, client) in clients {
            if sum <= limit {
                break;
            }
            tracing::info!(
                id = client.id,
                address = client.address,
                bytes,
                "disconnecting a client to save memory"
            );
            client.evict();
            self.uncount(&client);
            self.memory.evicted_total.fetch_add(1, Relaxed);
            sum -= bytes;
        }
        self.memory.is_evicting.store(false, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::Shown;
    use cairn_engine::Session;

    fn client(clients: &Clients, id: u64, query: usize) -> Arc<Client> {
        let session = Session::new(id, true);
        let client =
            Arc::new(Client::new(&session, "127.0.0.1:1".into(), "127.0.0.1:6379".into(), 9, true, 5));
        client.query_bytes.store(query, Relaxed);
        clients.add(&client);
        client
    }

    #[test]
    fn the_largest_go_first_and_only_until_the_rest_fits() {
        let clients = Clients::new();
        let (small, large, larger) =
            (client(&clients, 1, 0), client(&clients, 2, 1 << 20), client(&clients, 3, 2 << 20));
        let protected = client(&clients, 4, 3 << 20);
        let session = Session { no_evict: true, ..Session::new(4, true) };
        protected.show(Shown::of(&session));
        let goes = |client: &Arc<Client>| client.is_doomed.load(SeqCst);
        clients.set_memory_limit(8 << 20);
        assert!([&small, &large, &larger, &protected].iter().all(|client| !goes(client)));
        clients.set_memory_limit(5 << 20);
        assert!(goes(&larger) && !goes(&large) && !goes(&small) && !goes(&protected));
        assert_eq!(clients.memory.evicted_total.load(Relaxed), 1);
        small.query_bytes.store(4 << 20, Relaxed);
        clients.note_memory(&small);
        assert!(goes(&small) && !goes(&large) && !goes(&protected));
    }
}
