//! What others have for a client, on its way into its connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::task::Waker;
use std::time::{Duration, Instant};

use cairn_resp::Protocol;
use parking_lot::{Mutex, MutexGuard};

/// Bytes that a message in the queue costs beyond its own.
const OVERHEAD: usize = 48;

/// How much may wait for a client that does not read; `client-output-buffer-limit` of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputLimit {
    /// With so many bytes it is disconnected at once; 0 for no bound.
    pub hard_bytes: u64,
    /// With so many bytes for longer than `soft_seconds` it is disconnected; 0 for no bound.
    pub soft_bytes: u64,
    /// See `soft_bytes`.
    pub soft_seconds: u64,
}

/// The bounds of each class of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputLimits {
    /// Those of no other class, MONITOR and client tracking included.
    pub normal: OutputLimit,
    /// Those that subscribe to a channel.
    pub pubsub: OutputLimit,
}

impl Default for OutputLimits {
    fn default() -> Self {
        let pubsub = OutputLimit { hard_bytes: 32 << 20, soft_bytes: 8 << 20, soft_seconds: 60 };
        Self { normal: OutputLimit::default(), pubsub }
    }
}

/// What happens to a client that lets too much wait for it.
type Overflowed = Box<dyn Fn(usize) + Send + Sync>;

/// What is done when more waits for a client than before: little, since the hub is locked.
type Grew = Box<dyn Fn() + Send + Sync>;

/// One client's messages: others put them in, ready to be sent, and its connection takes them out in between replies.
///
/// A message goes in with the position of the journal that must be durable before it may be seen. Messages leave in the
/// order they came, so one that waits holds up those behind it.
pub struct Inbox {
    id: u64,
    /// Something is in the queue. Read without the lock, by the connection each time it waits for requests.
    is_filled: AtomicBool,
    speaks_resp3: AtomicBool,
    /// It has subscribed to a channel, a pattern or a shard channel.
    is_subscribed: AtomicBool,
    /// Its connection is gone, or going.
    is_closed: AtomicBool,
    /// Bytes that the connection took out, or made as replies, and has not written yet.
    unwritten_bytes: AtomicUsize,
    queued_bytes: AtomicUsize,
    queued_messages: AtomicUsize,
    /// The latest position of all that was taken out.
    taken_after: AtomicU64,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Message>,
    /// The connection's task.
    waker: Option<Waker>,
    overflowed: Option<Overflowed>,
    grew: Option<Grew>,
    /// Since when more waits than the soft limit allows.
    over_soft_limit: Option<Instant>,
}

struct Message {
    bytes: Arc<[u8]>,
    after: u64,
}

impl Inbox {
    /// The inbox of the client of this id.
    #[must_use]
    pub fn new(id: u64) -> Self {
        Self {
            id,
            is_filled: AtomicBool::new(false),
            speaks_resp3: AtomicBool::new(false),
            is_subscribed: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            unwritten_bytes: AtomicUsize::new(0),
            queued_bytes: AtomicUsize::new(0),
            queued_messages: AtomicUsize::new(0),
            taken_after: AtomicU64::new(0),
            queue: Mutex::default(),
        }
    }

    /// The client's id.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The version of the protocol that the client speaks.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        if self.speaks_resp3.load(Relaxed) { Protocol::Resp3 } else { Protocol::Resp2 }
    }

    pub(crate) fn set_protocol(&self, protocol: Protocol) {
        self.speaks_resp3.store(protocol == Protocol::Resp3, Relaxed);
    }

    /// Whether the client has subscribed to anything.
    #[must_use]
    pub fn is_subscribed(&self) -> bool {
        self.is_subscribed.load(Relaxed)
    }

    pub(crate) fn set_subscribed(&self, subscribed: bool) {
        self.is_subscribed.store(subscribed, Relaxed);
    }

    /// Whether the client's connection is gone, or will be at once.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(SeqCst)
    }

    /// Takes nothing in any more, and forgets what it holds.
    pub fn close(&self) {
        self.is_closed.store(true, SeqCst);
        let mut queue = self.queue.lock();
        *queue = Queue::default();
        self.is_filled.store(false, SeqCst);
        self.queued_bytes.store(0, Relaxed);
        self.queued_messages.store(0, Relaxed);
    }

    /// Says which task takes messages out, who is told of each that comes in, and what ends the connection; called once,
    /// before the task first waits.
    pub fn attach(
        &self,
        waker: Waker,
        grew: impl Fn() + Send + Sync + 'static,
        overflowed: impl Fn(usize) + Send + Sync + 'static,
    ) {
        let mut queue = self.queue.lock();
        queue.grew = Some(Box::new(grew));
        queue.waker = Some(waker);
        queue.overflowed = Some(Box::new(overflowed));
    }

    /// Whether there is something to take.
    #[inline]
    #[must_use]
    pub fn is_filled(&self) -> bool {
        self.is_filled.load(SeqCst)
    }

    /// Appends all messages to `out`, or none where there is none.
    pub fn take(&self, out: &mut Vec<u8>) {
        if !self.is_filled() {
            return;
        }
        let mut queue = self.queue.lock();
        let before = out.len();
        for message in queue.messages.drain(..) {
            out.extend_from_slice(&message.bytes);
            self.taken_after.fetch_max(message.after, Relaxed);
        }
        self.is_filled.store(false, SeqCst);
        self.queued_bytes.store(0, Relaxed);
        self.queued_messages.store(0, Relaxed);
        self.unwritten_bytes.fetch_add(out.len() - before, Relaxed);
    }

    /// The position that must be durable before anything taken so far is sent.
    #[must_use]
    pub fn taken_after(&self) -> u64 {
        self.taken_after.load(Relaxed)
    }

    /// Says how many bytes, messages and replies, the connection holds and has not written.
    pub fn set_unwritten(&self, bytes: usize) {
        self.unwritten_bytes.store(bytes, Relaxed);
    }

    /// Bytes that wait for the client to read.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.queued_bytes.load(Relaxed) + self.unwritten_bytes.load(Relaxed)
    }

    /// Messages in the queue.
    #[must_use]
    pub fn pending_messages(&self) -> usize {
        self.queued_messages.load(Relaxed)
    }

    /// Puts a message in, unless that would be more than the client may let wait.
    pub(super) fn push(&self, bytes: &Arc<[u8]>, after: u64, limits: &OutputLimits) {
        if self.is_closed() {
            return;
        }
        let mut queue = self.queue.lock();
        queue.messages.push_back(Message { bytes: Arc::clone(bytes), after });
        self.queued_bytes.fetch_add(bytes.len() + OVERHEAD, Relaxed);
        self.queued_messages.fetch_add(1, Relaxed);
        // Who was woken for the first message finds those that came since.
        let waker = if self.is_filled.swap(true, SeqCst) { None } else { queue.waker.clone() };
        queue.grew.iter().for_each(|grew| grew());
        self.judge(queue, limits);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Ends the connection if more waits for it than may.
    pub fn check(&self, limits: &OutputLimits) {
        self.judge(self.queue.lock(), limits);
    }

    fn judge(&self, mut queue: MutexGuard<'_, Queue>, limits: &OutputLimits) {
        let limit = if self.is_subscribed() { limits.pubsub } else { limits.normal };
        let pending = self.pending_bytes();
        let reaches = |bound: u64| bound > 0 && pending as u64 >= bound;
        let is_long_over_soft = if reaches(limit.soft_bytes) {
            let since = *queue.over_soft_limit.get_or_insert_with(Instant::now);
            since.elapsed() > Duration::from_secs(limit.soft_seconds)
        } else {
            queue.over_soft_limit = None;
            false
        };
        if !reaches(limit.hard_bytes) && !is_long_over_soft {
            return;
        }
        let overflowed = queue.overflowed.take();
        drop(queue);
        self.close();
        if let Some(overflowed) = overflowed {
            overflowed(pending);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    fn message(text: &str) -> Arc<[u8]> {
        Arc::from(text.as_bytes())
    }

    #[test]
    fn messages_leave_in_order_with_the_latest_position_of_all() {
        let (inbox, limits) = (Inbox::new(1), OutputLimits::default());
        let mut out = b"reply ".to_vec();
        inbox.take(&mut out);
        inbox.push(&message("a "), 70, &limits);
        inbox.push(&message("b"), 50, &limits);
        assert!(inbox.is_filled() && inbox.pending_messages() == 2);
        inbox.take(&mut out);
        assert_eq!(out, b"reply a b");
        assert_eq!((inbox.taken_after(), inbox.is_filled(), inbox.pending_bytes()), (70, false, 3));
        inbox.set_unwritten(0);
        assert_eq!(inbox.pending_bytes(), 0);
    }

    #[test]
    fn a_client_that_reads_nothing_is_ended_once_and_holds_nothing_afterwards() {
        static ENDED: AtomicUsize = AtomicUsize::new(0);
        let (inbox, mut limits) = (Inbox::new(1), OutputLimits::default());
        static GREW: AtomicUsize = AtomicUsize::new(0);
        let grew = || _ = GREW.fetch_add(1, Relaxed);
        inbox.attach(Waker::noop().clone(), grew, |_| {
            ENDED.fetch_add(1, Relaxed);
        });
        limits.normal.hard_bytes = 300;
        for _ in 0..5 {
            inbox.push(&message(&"x".repeat(100)), 0, &limits);
        }
        assert!(inbox.is_closed() && !inbox.is_filled());
        assert_eq!((ENDED.load(Relaxed), inbox.pending_bytes()), (1, 0));
        assert_eq!(GREW.load(Relaxed), 3, "the third overflows it");
    }

    #[test]
    fn the_soft_limit_gives_a_client_time() {
        let (inbox, mut limits) = (Inbox::new(1), OutputLimits::default());
        limits.normal = OutputLimit { hard_bytes: 0, soft_bytes: 10, soft_seconds: 60 };
        inbox.push(&message("longer than ten bytes"), 0, &limits);
        assert!(!inbox.is_closed());
        limits.normal.soft_seconds = 0;
        std::thread::sleep(Duration::from_millis(2));
        inbox.check(&limits);
        assert!(inbox.is_closed());
    }
}
