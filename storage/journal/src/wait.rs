//! Waiting: for durability and for admission, as futures of any runtime or by blocking the thread.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use cairn_format::Lsn;

use crate::error::{AdmitError, Poisoned};
use crate::shared::Shared;

/// Resolves once an LSN is durable, or to [`Poisoned`] when that will never be known. Made by
/// [`crate::Journal::wait_durable`]; holds no borrow, and may be dropped at any time.
#[must_use = "a future does nothing unless it is awaited"]
pub struct WaitDurable {
    shared: Arc<Shared>,
    lsn: Lsn,
    id: Option<u64>,
}

impl WaitDurable {
    pub(crate) fn new(shared: Arc<Shared>, lsn: Lsn) -> WaitDurable {
        WaitDurable { shared, lsn, id: None }
    }

    /// Blocks the calling thread until the LSN is durable. Kicks nobody.
    ///
    /// # Errors
    /// [`Poisoned`] when it will never be known.
    pub fn block(self) -> Result<(), Poisoned> {
        block_on(self)
    }
}

impl Future for WaitDurable {
    type Output = Result<(), Poisoned>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let settled = this.shared.settled(this.lsn);
        let settled = settled.or_else(|| this.shared.register(&mut this.id, this.lsn, context.waker()));
        settled.map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for WaitDurable {
    fn drop(&mut self) {
        // A sweep has taken out all that are satisfied; only one that gave up early is still there.
        if let Some(id) = self.id
            && self.shared.durable() < self.lsn
        {
            self.shared.unregister(id);
        }
    }
}

/// The answer to [`crate::Journal::admit`].
#[derive(Debug)]
pub enum Admission<'a> {
    /// Go on; drop the permit after the append.
    Granted(Permit<'a>),
    /// Not now: wait for it, then ask again.
    Wait(AdmissionWait),
    /// No, and why. Nothing was applied.
    Refused(AdmitError),
}

/// Room reserved for a write that was admitted. Dropping it gives the reservation back.
#[must_use = "the reservation ends when the permit is dropped"]
pub struct Permit<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) bytes: u64,
}

impl std::fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Permit({} bytes)", self.bytes)
    }
}

impl Drop for Permit<'_> {
    #[inline]
    fn drop(&mut self) {
        self.shared.reserved.fetch_sub(self.bytes, Ordering::SeqCst);
        self.shared.wake_admission();
    }
}

/// Resolves when asking for admission again is worth it: with a grant or a refusal to be expected.
#[must_use = "a future does nothing unless it is awaited"]
pub struct AdmissionWait {
    shared: Arc<Shared>,
    bytes: u64,
    id: Option<u64>,
}

impl AdmissionWait {
    pub(crate) fn new(shared: Arc<Shared>, bytes: u64) -> AdmissionWait {
        AdmissionWait { shared, bytes, id: None }
    }

    /// Blocks the calling thread instead. In `always` mode the caller has kicked the journal before.
    pub fn block(self) {
        block_on(self);
    }
}

impl std::fmt::Debug for AdmissionWait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AdmissionWait({} bytes)", self.bytes)
    }
}

impl Future for AdmissionWait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.shared.wait_for_admission(&mut this.id, this.bytes, context.waker()) {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }
}

impl Drop for AdmissionWait {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.shared.leave_admission(id);
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        thread::park();
    }
}
