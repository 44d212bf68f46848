//! Watching a child while it works: what it may take, and how it is found out that it takes more.

use std::time::{Duration, Instant};

use crate::{Child, ChildError, Progress};

/// How often a child is looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Who stops a child (a debugger, SIGSTOP by mistake) and does not let it go on for so long gets it ended, since memory is
/// copied for as long as it is there.
const STOPPED_LIMIT: Duration = Duration::from_secs(5);

/// What a child may take; beyond it is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChildLimits {
    /// So long it may go without any progress. That it says it is alive is none: the thread that says so may be the only one.
    pub stall: Duration,
    /// So many bytes of memory may be copied because of it; `None` for any number.
    pub copied_bytes: Option<u64>,
}

impl ChildLimits {
    /// No more than time.
    #[must_use]
    pub fn of_time(stall: Duration) -> ChildLimits {
        ChildLimits { stall, copied_bytes: None }
    }
}

/// What has been seen of a child.
pub(crate) struct Watch {
    limits: ChildLimits,
    newest: Progress,
    moved_at: Instant,
    looked_at: Option<Instant>,
    stopped_at: Option<Instant>,
    /// What the parent had of memory at first.
    resident_bytes: u64,
    /// Where the estimate of what was copied is below this the exact figure, which is dear, is not asked for.
    suspect_bytes: u64,
}

impl Watch {
    pub(crate) fn new(limits: ChildLimits) -> Watch {
        Watch {
            limits,
            newest: Progress::default(),
            moved_at: Instant::now(),
            looked_at: None,
            stopped_at: None,
            resident_bytes: resident_bytes(),
            suspect_bytes: limits.copied_bytes.unwrap_or(u64::MAX),
        }
    }

    /// Notes what the child has told.
    pub(crate) fn told(&mut self, progress: Progress) {
        if progress != self.newest {
            self.newest = progress;
            self.moved_at = Instant::now();
        }
    }

    /// The newest of it.
    pub(crate) fn newest(&self) -> Progress {
        self.newest
    }

    /// The newest progress, where the child is due to be looked at.
    pub(crate) fn due(&mut self) -> Option<Progress> {
        let now = Instant::now();
        if self.looked_at.is_some_and(|at| now.duration_since(at) < LOOK_EVERY) {
            return None;
        }
        self.looked_at = Some(now);
        Some(self.newest)
    }

    /// Looks at the child.
    ///
    /// # Errors
    /// Why it is to be ended.
    pub(crate) fn look(&mut self, child: &Child) -> Result<(), ChildError> {
        self.look_at_time(child)?;
        self.look_at_memory(child)
    }

    fn look_at_time(&mut self, child: &Child) -> Result<(), ChildError> {
        if !child.is_stopped() {
            self.stopped_at = None;
        } else if self.stopped_at.get_or_insert_with(Instant::now).elapsed() >= STOPPED_LIMIT {
            return Err(ChildError::Stopped { seconds: STOPPED_LIMIT.as_secs() });
        }
        if self.moved_at.elapsed() >= self.limits.stall {
            return Err(ChildError::Stalled { seconds: self.limits.stall.as_secs() });
        }
        Ok(())
    }

    /// The estimate is rather too much than too little: before a child is ended for it, the kernel is asked for the truth,
    /// and then not again before it can have become too much. What the parent has given back meanwhile is not there twice,
    /// though the child still has it.
    fn look_at_memory(&mut self, child: &Child) -> Result<(), ChildError> {
        let Some(limit_bytes) = self.limits.copied_bytes else { return Ok(()) };
        let estimate = child.copied_bytes();
        if estimate <= self.suspect_bytes {
            return Ok(());
        }
        let given_back = self.resident_bytes.saturating_sub(resident_bytes());
        let copied_bytes = match child.private_bytes() {
            Some(bytes) => bytes.saturating_sub(given_back),
            // It has done what it was to do; that it is looked at late is no reason to doubt it.
            None if child.has_ended() => return Ok(()),
            None => estimate,
        };
        if copied_bytes > limit_bytes {
            return Err(ChildError::CopiedTooMuch { copied_bytes, limit_bytes });
        }
        // At least an eighth further on, so that close to the limit the page tables are not walked all the time.
        self.suspect_bytes = estimate.saturating_add((limit_bytes - copied_bytes).max(limit_bytes / 8));
        Ok(())
    }
}

/// The physical memory of this process; 0 where the system does not tell.
fn resident_bytes() -> u64 {
    let line = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = line.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    field
        .and_then(|text| text.trim().strip_suffix(" kB")?.parse::<u64>().ok())
        .unwrap_or(0)
        .saturating_mul(1024)
}
