//! What goes wrong, and when.

use std::io;
use std::sync::Arc;

/// The faults that were asked for.
#[derive(Default)]
pub(super) struct Faults {
    pub(super) read: Option<Fault>,
    pub(super) write: Option<Fault>,
    pub(super) sync: Option<Fault>,
    /// Changes that still succeed before the power goes.
    pub(super) power_off_after: Option<u64>,
    pub(super) space_bytes: Option<u64>,
    /// Takes the time that a sync takes.
    pub(super) slowness: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// Some operations of one kind that fail.
pub(super) struct Fault {
    /// The first, counted from 0 over the life of the disk.
    pub(super) first: u64,
    /// How many.
    pub(super) count: u64,
}

impl Fault {
    pub(super) fn hits(fault: &Option<Fault>, number: u64) -> bool {
        fault.as_ref().is_some_and(|fault| number >= fault.first && number - fault.first < fault.count)
    }
}

pub(super) fn broken() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

pub(super) fn full() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSPC)
}
