//! Clients that wait: for a key, for replicas, for the journal.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_commands::acl::User;
use cairn_commands::waiting::{self, Awaited, Until, Wait};
use cairn_commands::{Effects, LockPlan, Protocol, Reply, Session, Tools};
use cairn_format::Lsn;
use cairn_keyspace::waiting::{Waiter, Woken};
use cairn_keyspace::{KeyHash, Locked};
use parking_lot::Mutex;

use crate::engine::{Engine, Inner};
use crate::host::EngineAlone;

/// All clients that wait, by id.
#[derive(Default)]
pub(crate) struct Waiters(Mutex<HashMap<u64, Waiting>>);

struct Waiting {
    waiter: Arc<Waiter>,
    user: Option<Arc<User>>,
    /// Not for ever.
    is_timed: bool,
}

impl Waiters {
    pub(crate) fn count(&self) -> usize {
        self.0.lock().len()
    }

    /// How many do not wait for ever.
    pub(crate) fn timed(&self) -> usize {
        self.0.lock().values().filter(|waiting| waiting.is_timed).count()
    }

    /// Who waits as this client.
    pub(crate) fn user(&self, session: u64) -> Option<Arc<User>> {
        self.0.lock().get(&session).and_then(|waiting| waiting.user.clone())
    }

    /// Wakes a client; whether it waited.
    pub(crate) fn unblock(&self, session: u64, with_error: bool) -> bool {
        let waiter = self.0.lock().get(&session).map(|waiting| Arc::clone(&waiting.waiter));
        let why = if with_error { Woken::Refused } else { Woken::TimedOut };
        waiter.is_some_and(|waiter| waiter.wake(why))
    }
}

/// A request that waits. When this is dropped it waits no longer, and nothing is taken for it.
#[must_use = "the request has no reply yet"]
pub struct Blocked {
    engine: Engine,
    waiter: Arc<Waiter>,
    /// Where it is queued.
    keys: Vec<(KeyHash, Vec<u8>, Awaited)>,
    deadline: Option<Instant>,
    journal: Option<Journal>,
    /// The reply when the time is over.
    otherwise: Vec<u8>,
    /// The position of the journal that the keys it has found empty wait for.
    hold: Lsn,
}

/// A wait for the journal.
struct Journal {
    position: Lsn,
    is_enough: bool,
}

/// The reply to a request that CLIENT UNBLOCK ended with an error.
const REFUSED: &str = "UNBLOCKED client unblocked via CLIENT UNBLOCK";

/// The reply to a request that has waited.
#[derive(Debug, PartialEq, Eq)]
pub struct Unblocked {
    /// As it goes over the wire.
    pub reply: Vec<u8>,
    /// The position of the journal to wait for before it is sent.
    pub hold: Lsn,
}

impl Blocked {
    /// The same, whatever its reply, not before this position is durable.
    pub(crate) fn held(mut self: Box<Self>, hold: Lsn) -> Box<Self> {
        self.hold = hold;
        self
    }

    /// When the time is over; `None` when never. [`Blocked::time_out`] is to be called then.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The position of the journal whose durability ends the wait, where one does: [`Blocked::time_out`] is to be called
    /// then.
    #[must_use]
    pub fn until_durable(&self) -> Option<Lsn> {
        self.journal.as_ref().filter(|journal| journal.is_enough).map(|journal| journal.position)
    }

    /// Ends the wait, unless it is being served just now.
    pub fn time_out(&self) {
        self.waiter.wake(Woken::TimedOut);
    }

    /// Resolves with the reply when the wait has ended, once. May be given up before and called again.
    pub async fn unblocked(&self) -> Unblocked {
        let woken = poll_fn(|context| self.waiter.poll_woken(context.waker())).await;
        let mut reply = Vec::new();
        match woken {
            Woken::Served { reply, position } => {
                return Unblocked { reply, hold: self.hold.max(Lsn(position)) };
            }
            Woken::Refused => {
                self.engine.observed().errors.note(REFUSED);
                Reply::new(&mut reply, Protocol::Resp2).error(REFUSED);
            }
            Woken::TimedOut => match &self.journal {
                None => reply = self.otherwise.clone(),
                Some(journal) => {
                    let is_durable = self.engine.durable() >= journal.position;
                    let mut reply = Reply::new(&mut reply, Protocol::Resp2);
                    reply.array(2);
                    reply.integer(i64::from(is_durable));
                    reply.integer(0);
                }
            },
        }
        Unblocked { reply, hold: self.hold }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // First, so that nobody serves it while it is taken out of one queue after the other.
        self.waiter.leave();
        self.engine.0.waiters.0.lock().remove(&self.waiter.session);
        for (hash, key, awaited) in &self.keys {
            let (hash, awaited) = (*hash, *awaited);
            match self.engine.0.keyspace.try_lock_one(hash) {
                Some(mut locked) => locked.shard_mut(hash).end_await(hash, key, awaited, &self.waiter),
                // A script holds the key, and this thread serves others.
                None => {
                    let (key, waiter) = (key.clone(), Arc::clone(&self.waiter));
                    self.engine.0.later(hash, move |locked| {
                        locked.shard_mut(hash).end_await(hash, &key, awaited, &waiter);
                    });
                }
            }
        }
    }
}

impl Engine {
    /// How many clients wait.
    #[must_use]
    pub fn blocked_clients(&self) -> usize {
        self.0.waiters.count()
    }
}

/// Lets a client wait, under the locks under which it found nothing; `otherwise` is its reply when the time is over.
#[cold]
pub(crate) fn block(
    engine: &Arc<Inner>,
    locked: &mut Locked<'_>,
    session: &Session,
    wait: Wait,
    otherwise: Vec<u8>,
) -> Box<Blocked> {
    let waiter = Waiter::new(session.id, session.db, session.protocol == Protocol::Resp3);
    let (user, is_timed) = (session.user.clone(), wait.timeout_ms.is_some());
    let waiting = Waiting { waiter: Arc::clone(&waiter), user, is_timed };
    engine.waiters.0.lock().insert(session.id, waiting);
    let (keys, journal) = match wait.until {
        Until::Keys(keys) => (waiting::queue(locked, &waiter, keys), None),
        Until::Replicas => (Vec::new(), None),
        Until::Durable { is_enough } => (Vec::new(), Some(Journal { position: engine.log.end(), is_enough })),
    };
    // A time that no clock reaches is none.
    let deadline = wait.timeout_ms.and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms)));
    let engine = Engine(Arc::clone(engine));
    Box::new(Blocked { engine, waiter, keys, deadline, journal, otherwise, hold: Lsn::ZERO })
}

impl Inner {
    /// Locks, beside what a command that may change keys needs, what is needed to serve those who wait for them.
    #[cold]
    pub(crate) fn try_lock_more<'k>(&'k self, locked: Locked<'k>, plan: &LockPlan) -> Option<Locked<'k>> {
        // Shards are locked in ascending order, so what is held is given back first.
        drop(locked);
        waiting::try_lock_with_destinations(plan, &self.keyspace)
    }

    /// Serves those who wait for keys that have just been changed, as part of the change, appends all of it, and tells them.
    #[cold]
    pub(crate) fn serve(&self, locked: &mut Locked<'_>, effects: &mut Effects, now_ms: i64) -> Lsn {
        // Nobody who waits draws lots.
        let (limits, mut random) = (self.settings.limits(), 0);
        let tools = Tools { now_ms, limits: &limits, random: &mut random, replaying: false, known_key: None };
        let (served, lookups) = waiting::serve(locked, effects, &EngineAlone(self), tools);
        self.statistics.count(lookups);
        let position = self.append(locked, effects, now_ms);
        for one in served {
            one.deliver(position.0);
        }
        position
    }
}
