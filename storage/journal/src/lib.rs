//! The journal: effects go in, in commit order, and are durable when the journal says so.
//!
//! [`Journal`] is the group-commit writer; [`reader`] reads one segment; [`scan()`] reads them all at a start and applies
//! the tail rules. The bytes are described in `storage/docs/journal.md`.
//!
//! Invariants: an effect is acknowledged only when it, the file it lies in and that file's name in the manifest are
//! synced; the order of appends is the order on disk; a durable page is never written again; an append neither blocks
//! on I/O nor fails; a scan delivers each commit once, in order and wholly, or says which bytes are damaged.
//!
//! This crate must never know what an effect means, who a client is, or how the manifest is kept.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation
    )
)]

mod chain;
mod cut;
mod driver;
mod error;
mod follow;
mod journal;
mod pace;
mod pending;
pub mod reader;
pub mod scan;
mod segment;
mod shared;
mod supply;
#[cfg(test)]
mod tests;
mod wait;
mod writer;

pub use cut::{CutSegment, CutTo, Until, cut_segment};
pub use driver::Driver;
pub use error::{AdmitError, Damage, JournalError, Poisoned, Refusal, ScanError};
pub use follow::{Boundary, Follower};
pub use journal::{Catalog, Fsync, Journal, Options, Resume, Status, Tail};
pub use reader::{DurablePrefix, Frame, OpenSegment, PassedFrame, SegmentReader, durable_prefix};
pub use scan::{Cut, ScanReport, Sink, scan};
pub use wait::{Admission, AdmissionWait, Permit, WaitDurable};
