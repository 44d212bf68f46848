//! Who waits for the keys of one shard, in the order they came.
//!
//! A waiter may be queued at several keys, in several shards. Whoever changes one of them serves it under the locks of the
//! change; its own lock decides who does, since two shards may change at the same time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};

use parking_lot::{Mutex, MutexGuard};

use crate::KeyHash;

/// What a key has to hold for a waiter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Awaited {
    /// A list with an element to take.
    List,
    /// A sorted set with a member to take.
    Zset,
    /// A stream with entries behind those the waiter knows.
    Stream,
    /// A stream with entries that its consumer group has delivered to nobody; the key and the group have to stay.
    Group,
}

/// One client that waits, wherever it is queued. It is woken once.
pub struct Waiter {
    /// The client's id.
    pub session: u64,
    /// The database it waits in.
    pub db: u16,
    /// Whether it speaks version 3 of the protocol.
    pub speaks_resp3: bool,
    /// Its place among all who wait: those that came later have greater ones.
    pub arrival: u64,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    waker: Option<Waker>,
}

enum Phase {
    Waiting,
    /// What it gets is being committed.
    Served,
    Woken(Woken),
    /// It has left, or has been told already why it was woken.
    Gone,
}

/// Why a waiter was woken.
#[derive(Debug, PartialEq, Eq)]
pub enum Woken {
    /// It got what it waited for.
    Served {
        /// The reply to its request.
        reply: Vec<u8>,
        /// The journal's position that the reply has to wait for.
        position: u64,
    },
    /// It has waited for long enough.
    TimedOut,
    /// Somebody wanted it to get an error.
    Refused,
}

/// The numbers of arrivals handed out so far.
static ARRIVALS: AtomicU64 = AtomicU64::new(0);

impl Waiter {
    /// A client that begins to wait. The locks of all keys it is about to be queued at are held, so that its number fits
    /// its place in every queue.
    #[must_use]
    pub fn new(session: u64, db: u16, speaks_resp3: bool) -> Arc<Self> {
        let arrival = ARRIVALS.fetch_add(1, Ordering::Relaxed) + 1;
        let state = Mutex::new(State { phase: Phase::Waiting, waker: None });
        Arc::new(Self { session, db, speaks_resp3, arrival, state })
    }

    /// Keeps others from serving or waking it; `None` when that has happened already.
    #[must_use]
    pub fn claim(&self) -> Option<Claim<'_>> {
        let state = self.state.lock();
        matches!(state.phase, Phase::Waiting).then_some(Claim { state })
    }

    /// Wakes it, unless it is being served or has been woken already; whether it was.
    pub fn wake(&self, why: Woken) -> bool {
        let Some(mut claim) = self.claim() else { return false };
        claim.state.phase = Phase::Woken(why);
        let waker = claim.state.waker.take();
        drop(claim);
        waker.into_iter().for_each(Waker::wake);
        true
    }

    /// Wakes it with the reply it was served with.
    pub fn deliver(&self, reply: Vec<u8>, position: u64) {
        let mut state = self.state.lock();
        // One that has left since is told nothing: what it was served with is spent, as it is on a client that goes
        // before it has read its reply.
        if matches!(state.phase, Phase::Served) {
            state.phase = Phase::Woken(Woken::Served { reply, position });
        }
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Resolves, once, with why it was woken.
    pub fn poll_woken(&self, waker: &Waker) -> Poll<Woken> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut state.phase, Phase::Gone) {
            Phase::Woken(why) => Poll::Ready(why),
            phase => {
                state.phase = phase;
                state.waker = Some(waker.clone());
                Poll::Pending
            }
        }
    }

    /// Waits no longer: nobody serves it from now on.
    pub fn leave(&self) {
        let mut state = self.state.lock();
        (state.phase, state.waker) = (Phase::Gone, None);
    }
}

/// The right to serve a waiter; dropped unused, it waits on.
pub struct Claim<'a> {
    state: MutexGuard<'a, State>,
}

impl Claim<'_> {
    /// It is served, and is woken by [`Waiter::deliver`].
    pub fn serve(mut self) {
        self.state.phase = Phase::Served;
    }
}

/// A waiter's place in the queue of one key.
pub struct Ticket {
    /// Who waits.
    pub waiter: Arc<Waiter>,
    /// What the key has to hold.
    pub awaited: Awaited,
    /// The request to run when it does.
    pub request: Vec<Vec<u8>>,
    /// Another key that the request needs.
    pub destination: Option<KeyHash>,
}

/// A key that has changed and that somebody waits for.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ready {
    /// Rises with each key that becomes ready, in whichever shard.
    order: u64,
    /// Its database.
    pub db: u16,
    /// The key.
    pub key: Box<[u8]>,
}

/// The numbers of ready keys handed out so far.
static READY: AtomicU64 = AtomicU64::new(0);

/// The queues of a shard's keys.
#[derive(Default)]
pub(crate) struct Waiting {
    queues: HashMap<(u16, Box<[u8]>), Queue>,
    /// By the key waited for, which other keys its waiters need.
    destinations: HashMap<KeyHash, Vec<KeyHash>>,
    ready: Vec<Ready>,
}

#[derive(Default)]
struct Queue {
    tickets: BTreeMap<(Awaited, u64), Arc<Ticket>>,
    is_ready: bool,
}

impl Waiting {
    pub(crate) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Queues a waiter at a key; false when it stands there already.
    pub(crate) fn add(&mut self, hash: KeyHash, key: &[u8], ticket: Ticket) -> bool {
        let queue = self.queues.entry((ticket.waiter.db, key.into())).or_default();
        let place = (ticket.awaited, ticket.waiter.arrival);
        if queue.tickets.contains_key(&place) {
            return false;
        }
        if let Some(destination) = ticket.destination {
            self.destinations.entry(hash).or_default().push(destination);
        }
        queue.tickets.insert(place, Arc::new(ticket));
        true
    }

    /// Takes a waiter out of the queue of a key, where it still is there.
    pub(crate) fn remove(&mut self, hash: KeyHash, key: &[u8], awaited: Awaited, waiter: &Waiter) {
        let id = (waiter.db, key.into());
        let Some(queue) = self.queues.get_mut(&id) else { return };
        let Some(ticket) = queue.tickets.remove(&(awaited, waiter.arrival)) else { return };
        if queue.tickets.is_empty() {
            self.queues.remove(&id);
            self.ready.retain(|ready| (ready.db, &ready.key) != (id.0, &id.1));
        }
        if let Some(destination) = ticket.destination
            && let Some(destinations) = self.destinations.get_mut(&hash)
        {
            if let Some(at) = destinations.iter().position(|known| *known == destination) {
                destinations.swap_remove(at);
            }
            if destinations.is_empty() {
                self.destinations.remove(&hash);
            }
        }
    }

    /// The first waiter for a key behind the one that arrived as number `after`.
    pub(crate) fn next(&self, db: u16, key: &[u8], awaited: Awaited, after: u64) -> Option<Arc<Ticket>> {
        let queue = self.queues.get(&(db, key.into()))?;
        let mut behind = queue.tickets.range((awaited, after + 1)..=(awaited, u64::MAX));
        behind.next().map(|(_, ticket)| Arc::clone(ticket))
    }

    /// Notes that a key changed.
    #[cold]
    pub(crate) fn note_change(&mut self, db: u16, key: &[u8]) {
        let id = (db, key.into());
        if let Some(queue) = self.queues.get_mut(&id)
            && !std::mem::replace(&mut queue.is_ready, true)
        {
            self.ready.push(Ready { order: READY.fetch_add(1, Ordering::Relaxed), db, key: id.1 });
        }
    }

    /// Notes that any key of a database may have changed.
    pub(crate) fn note_change_of_all(&mut self, db: u16) {
        let keys: Vec<Box<[u8]>> =
            self.queues.keys().filter(|(of, _)| *of == db).map(|(_, key)| key.clone()).collect();
        keys.iter().for_each(|key| self.note_change(db, key));
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Hands out the keys that are ready.
    pub(crate) fn take_ready(&mut self) -> Vec<Ready> {
        let taken = std::mem::take(&mut self.ready);
        for ready in &taken {
            self.forget_ready(ready.db, &ready.key);
        }
        taken
    }

    /// Notes that everybody who waits for a key has been looked at as it is now.
    pub(crate) fn settle(&mut self, db: u16, key: &[u8]) {
        if self.forget_ready(db, key) {
            self.ready.retain(|ready| ready.db != db || *ready.key != *key);
        }
    }

    /// Whether it was ready.
    fn forget_ready(&mut self, db: u16, key: &[u8]) -> bool {
        let queue = self.queues.get_mut(&(db, key.into()));
        queue.is_some_and(|queue| std::mem::take(&mut queue.is_ready))
    }

    /// The other keys that those need who wait for one.
    pub(crate) fn destinations(&self, hash: KeyHash) -> &[KeyHash] {
        self.destinations.get(&hash).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn has_destinations(&self) -> bool {
        !self.destinations.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(waiter: &Arc<Waiter>, awaited: Awaited, destination: Option<KeyHash>) -> Ticket {
        Ticket { waiter: Arc::clone(waiter), awaited, request: Vec::new(), destination }
    }

    #[test]
    fn waiters_stand_in_the_order_they_came_each_among_its_kind() {
        let mut waiting = Waiting::default();
        let waiters: Vec<_> = (0..4).map(|session| Waiter::new(session, 0, false)).collect();
        let kinds = [Awaited::List, Awaited::Zset, Awaited::List, Awaited::List];
        for (waiter, kind) in waiters.iter().zip(kinds) {
            assert!(waiting.add(KeyHash(1), b"k", ticket(waiter, kind, None)));
            assert!(!waiting.add(KeyHash(1), b"k", ticket(waiter, kind, None)));
        }
        let mut served = Vec::new();
        let mut after = 0;
        while let Some(ticket) = waiting.next(0, b"k", Awaited::List, after) {
            after = ticket.waiter.arrival;
            served.push(ticket.waiter.session);
        }
        assert_eq!(served, [0, 2, 3]);
        assert!(waiting.next(1, b"k", Awaited::List, 0).is_none());
        for (waiter, kind) in waiters.iter().zip(kinds) {
            waiting.remove(KeyHash(1), b"k", kind, waiter);
        }
        assert!(waiting.is_empty());
    }

    #[test]
    fn a_key_is_ready_once_and_only_while_somebody_waits() {
        let mut waiting = Waiting::default();
        let (one, other) = (Waiter::new(1, 0, false), Waiter::new(2, 0, false));
        waiting.add(KeyHash(1), b"k", ticket(&one, Awaited::List, Some(KeyHash(7))));
        waiting.add(KeyHash(2), b"l", ticket(&other, Awaited::List, None));
        waiting.note_change(0, b"l");
        waiting.note_change(0, b"k");
        waiting.note_change(0, b"l");
        waiting.note_change(0, b"nobody's");
        let ready: Vec<_> = waiting.take_ready().into_iter().map(|ready| ready.key).collect();
        assert_eq!(ready, [b"l".as_slice().into(), b"k".as_slice().into()]);
        waiting.note_change(0, b"k");
        assert!(waiting.has_ready());
        assert_eq!(waiting.destinations(KeyHash(1)), [KeyHash(7)]);
        waiting.remove(KeyHash(1), b"k", Awaited::List, &one);
        assert!(!waiting.has_ready() && !waiting.has_destinations());
    }

    #[test]
    fn a_waiter_is_woken_once() {
        let waiter = Waiter::new(1, 0, false);
        drop(waiter.claim().expect("it waits"));
        waiter.claim().expect("a claim that was not used is given back").serve();
        assert!(!waiter.wake(Woken::TimedOut), "what it is served with must not be lost");
        assert!(waiter.poll_woken(Waker::noop()).is_pending());
        waiter.deliver(b"x".to_vec(), 5);
        let served = Woken::Served { reply: b"x".to_vec(), position: 5 };
        assert_eq!(waiter.poll_woken(Waker::noop()), Poll::Ready(served));
        let gone = Waiter::new(2, 0, false);
        gone.leave();
        assert!(gone.claim().is_none() && !gone.wake(Woken::Refused));
    }
}
