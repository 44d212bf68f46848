//! The heap after a child: its huge pages were split where parent and child wrote, and split they stay, so that the next
//! fork would copy hundreds of times as many page table entries. They are put together again before it.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The heap of the process, as far as forks and the limit of memory ask for it. An engine without one leaves its heap to
/// the system, and has no limit.
pub trait Heap: Send + Sync {
    /// Puts split huge pages together again, in steps of less than a millisecond. `go_on` is called between two steps
    /// with the time the last one took, waits as long as it likes, and says whether to go on.
    fn mend(&self, go_on: &dyn Fn(Duration) -> bool);

    /// How many bytes the program has allocated and not freed.
    fn used_bytes(&self) -> u64;

    /// How many bytes the process may still take before the system has none, as far as the system tells.
    fn available_bytes(&self) -> Option<u64> {
        None
    }

    /// How many bytes this thread has allocated, less those it has freed. Asked for by many commands, so it must be cheap.
    fn thread_balance(&self) -> i64;
}

/// A pause is this many times as long as the work since the last one: commands that it held up get through.
const PAUSE_FACTOR: u32 = 3;

/// Work shorter than this is nothing that anybody could notice. It adds up, since most steps find a page that is whole: in
/// a heap of gigabytes they were tens of milliseconds without a pause, and who shared the core waited for 5 ms at a time.
const UNNOTICED: Duration = Duration::from_micros(100);

/// So long a snapshot waits for a mending that is under way, which goes on without pauses meanwhile.
const HURRY_LIMIT: Duration = Duration::from_secs(1);

/// At most one mending at a time, never while a child lives.
pub(crate) struct Mending {
    heap: Option<Arc<dyn Heap>>,
    running: Mutex<Option<JoinHandle<()>>>,
    wishes: Arc<Wishes>,
}

/// What is wished of the thread that mends.
#[derive(Default)]
struct Wishes {
    hurry: AtomicBool,
    stop: AtomicBool,
}

impl Mending {
    pub(crate) fn new(heap: Option<Arc<dyn Heap>>) -> Self {
        Self { heap, running: Mutex::new(None), wishes: Arc::default() }
    }

    /// Begins to mend, in the background: to be called when a child has ended.
    pub(crate) fn start(&self) {
        let Some(heap) = self.heap.clone() else { return };
        let mut running = self.running.lock();
        self.wishes.hurry.store(false, Ordering::Relaxed);
        let wishes = Arc::clone(&self.wishes);
        let mend = move || {
            let worked = Cell::new(Duration::ZERO);
            heap.mend(&|took| {
                worked.set(wishes.pause_after(worked.get() + took));
                !wishes.stop.load(Ordering::Relaxed)
            });
        };
        match std::thread::Builder::new().name("cairn-heap".to_owned()).spawn(mend) {
            Ok(thread) => *running = Some(thread),
            Err(error) => {
                tracing::warn!(%error, "cannot mend the heap after a snapshot: the next fork takes longer")
            }
        }
    }

    /// Lets a mending that is under way come to its end, quickly: to be called before a fork.
    pub(crate) fn finish(&self) {
        let Some(thread) = self.running.lock().take() else { return };
        self.wishes.hurry.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + HURRY_LIMIT;
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.wishes.stop.store(true, Ordering::Relaxed);
        if thread.join().is_err() {
            tracing::error!("the thread that mends the heap panicked");
        }
        self.wishes.stop.store(false, Ordering::Relaxed);
    }
}

impl Wishes {
    /// Waits if there was so much work since the last pause; gives the work since the last pause now.
    fn pause_after(&self, worked: Duration) -> Duration {
        if worked <= UNNOTICED || self.hurry.load(Ordering::Relaxed) {
            return worked;
        }
        std::thread::sleep(worked * PAUSE_FACTOR);
        Duration::ZERO
    }
}

impl Drop for Mending {
    fn drop(&mut self) {
        // It ends at its next step; nobody needs to wait for that.
        self.wishes.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    /// A heap of so many steps.
    #[derive(Default)]
    struct Steps {
        wanted: u64,
        step: Duration,
        done: AtomicU64,
    }

    impl Heap for Steps {
        fn mend(&self, go_on: &dyn Fn(Duration) -> bool) {
            while self.done.fetch_add(1, Ordering::SeqCst) + 1 < self.wanted && go_on(self.step) {}
        }

        fn used_bytes(&self) -> u64 {
            0
        }

        fn thread_balance(&self) -> i64 {
            0
        }
    }

    #[test]
    fn what_is_under_way_is_hurried_to_its_end_before_a_fork() {
        let heap = Arc::new(Steps { wanted: 1_000, step: Duration::from_millis(20), ..Steps::default() });
        let mending = Mending::new(Some(heap.clone()));
        mending.start();
        mending.finish();
        assert_eq!(heap.done.load(Ordering::SeqCst), 1_000, "without pauses all steps are done at once");
        mending.finish();
    }

    #[test]
    fn a_mending_without_end_is_stopped_and_another_one_may_begin() {
        let heap = Arc::new(Steps { wanted: u64::MAX, ..Steps::default() });
        let mending = Mending::new(Some(heap.clone()));
        let begun = Instant::now();
        mending.start();
        mending.finish();
        assert!(begun.elapsed() >= HURRY_LIMIT);
        let before = heap.done.load(Ordering::SeqCst);
        mending.start();
        while heap.done.load(Ordering::SeqCst) <= before {
            std::thread::yield_now();
        }
    }

    #[test]
    fn short_steps_add_up_to_a_pause() {
        let (steps, step) = (1_000, UNNOTICED / 10);
        let heap = Arc::new(Steps { wanted: steps, step, ..Steps::default() });
        let mending = Mending::new(Some(heap.clone()));
        let begun = Instant::now();
        mending.start();
        while heap.done.load(Ordering::SeqCst) < steps {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(begun.elapsed() >= step * 900 * PAUSE_FACTOR, "{:?}", begun.elapsed());
    }

    #[test]
    fn without_a_heap_there_is_nothing_to_do() {
        let mending = Mending::new(None);
        mending.start();
        mending.finish();
    }
}
