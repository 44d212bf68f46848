//! Requests of several connections in the order in which they came, where one thread serves all (`server-threads 1`).
//!
//! Of tasks that are woken together tokio runs the one woken last first. With several threads nobody could say which of
//! two requests came first anyway; with one it can be said, and what holds in Redis holds here then: what two connections
//! send one after the other runs in that order, even where nobody has waited for the reply to the first.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Poll, Wake, Waker};

/// Numbers for those who wait for their turn.
#[derive(Default)]
pub(crate) struct Turns {
    /// The last number handed out.
    last: AtomicU64,
    /// The highest number that has had its turn. One that went away without is passed over with the next.
    served: AtomicU64,
}

/// A connection's place among those that have something to read.
pub(crate) struct Turn {
    ticket: Arc<Ticket>,
    /// Draws a number and wakes the connection's task.
    pub(crate) waker: Waker,
}

struct Ticket {
    turns: Arc<Turns>,
    task: Waker,
    /// 0: none is drawn.
    number: AtomicU64,
}

impl Wake for Ticket {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.number.load(Relaxed) == 0 {
            self.number.store(self.turns.last.fetch_add(1, Relaxed) + 1, Relaxed);
        }
        self.task.wake_by_ref();
    }
}

impl Turn {
    /// For the connection of this task.
    pub(crate) fn new(turns: &Arc<Turns>, task: Waker) -> Turn {
        let ticket = Arc::new(Ticket { turns: Arc::clone(turns), task, number: AtomicU64::new(0) });
        Turn { waker: Waker::from(Arc::clone(&ticket)), ticket }
    }

    /// Lets those go first whose requests came earlier: they are ready, so going to the end of the line once is enough.
    pub(crate) async fn come(&self) {
        let Ticket { turns, number, .. } = &*self.ticket;
        let mut waits = number.load(Relaxed) > turns.served.load(Relaxed) + 1;
        poll_fn(|context| {
            if !std::mem::take(&mut waits) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        turns.served.fetch_max(number.swap(0, Relaxed), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::Context;

    #[test]
    fn who_came_later_waits_for_those_before() {
        let turns = Arc::new(Turns::default());
        let [first, gone, last] = [(); 3].map(|()| Turn::new(&turns, Waker::noop().clone()));
        let mut context = Context::from_waker(Waker::noop());
        [&first, &gone, &last].into_iter().for_each(|turn| turn.waker.wake_by_ref());
        let mut comes = pin!(last.come());
        assert!(comes.as_mut().poll(&mut context).is_pending(), "two came before it");
        drop(gone);
        assert!(pin!(first.come()).poll(&mut context).is_ready());
        assert!(comes.poll(&mut context).is_ready(), "nobody is waited for twice");
        // Whoever is alone never waits.
        for _ in 0..3 {
            first.waker.wake_by_ref();
            assert!(pin!(first.come()).poll(&mut context).is_ready());
        }
        assert!(pin!(last.come()).poll(&mut context).is_ready(), "it was not woken, and is not held up");
    }
}
