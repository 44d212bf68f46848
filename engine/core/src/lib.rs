//! The engine of Cairn as a library: a durable keyspace that runs Redis commands, without a server around it.
//!
//! ```
//! use cairn_engine::{Embedded, Engine, Options, Outcome, Protocol, Reply};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let engine = Engine::open(Options::new(dir.path()))?;
//! let mut session = engine.session();
//! let mut out = Vec::new();
//!
//! let request: [&[u8]; 3] = [b"SET", b"greeting", b"hello"];
//! match engine.execute(&mut session, &Embedded, &request, &mut Reply::new(&mut out, Protocol::Resp2)) {
//!     Outcome::Done { hold } => engine.block_until_durable(hold)?,
//!     _ => unreachable!("a SET with room in the journal is done at once"),
//! }
//! assert_eq!(out, b"+OK\r\n");
//!
//! // A consistent point in time, compressed, and the journal trimmed up to it.
//! let snapshot = engine.snapshot()?;
//! assert_eq!(snapshot.entries, 1);
//! engine.shutdown(Some(false))?;
//! # Ok(())
//! # }
//! ```
//!
//! Invariants:
//! - The journal's order is the commit order: an effect is appended under the locks it was applied under.
//! - With `appendfsync always` a reply that tells of a change names the position to wait for ([`Outcome`]).
//! - A start either recovers everything that was durable, or says what is wrong and changes nothing.
//!
//! It knows the command table, the keyspace, journal, snapshots and keys. It must never know sockets, configuration
//! files, or where backups go.

mod archive;
mod attention;
mod blocked;
mod catalog;
mod check;
mod dataset;
mod ending;
mod engine;
mod error;
mod eviction;
mod figures;
mod freeing;
mod host;
mod info;
mod keys;
mod loading;
mod log;
mod mending;
mod options;
mod process;
mod readiness;
mod recovery;
mod settings;
#[cfg(test)]
mod simulation;
mod snapshots;
mod trimming;

pub use archive::{ArchiveLag, Archived, JournalHold, NamedSnapshot, Position, PositionError};
pub use blocked::{Blocked, Unblocked};
pub use cairn_commands::acl::{Acl, UserLine, UserLineError};
pub use cairn_commands::hub::{Hub, HubCounts, Inbox, Interest, OutputLimit, OutputLimits};
pub use cairn_commands::memory::Memory;
pub use cairn_commands::observed;
pub use cairn_commands::{
    ClientClass, ClientFilter, Command, Delivery, DeliveryFailure, Destination, Flags, Job, Parcel, Pause,
    Piece, Protocol, ReplayError, Replayer, Replies, Reply, Route, Session, glob_matches,
};
pub use cairn_format::Lsn;
pub use cairn_journal::{AdmissionWait, AdmitError, Driver, Fsync, Poisoned, WaitDurable};
pub use cairn_keyspace::dumped;
pub use cairn_keyspace::encode::value_digest;
pub use cairn_keyspace::rdb_file;
pub use cairn_keyspace::types::Limits;
pub use cairn_keyspace::{Entry, Stored, Usage, Value, read_libraries, store_library};
pub use cairn_snapshot::{Forked, Origin, Unforked};
pub use catalog::holds_data;
pub use check::{Checked, CheckedFile, check};
pub use dataset::{Dataset, DatasetFacts};
pub use engine::{Engine, JobDone, Outcome};
pub use error::{OpenError, SaveError, ShutdownError};
pub use eviction::{EvictionPolicy, MemoryLimit};
pub use figures::{DatabaseFigures, Figures, JournalFigures, SnapshotFigures};
pub use info::human_bytes;
pub use keys::{KeyError, KeyUse};
pub use mending::Heap;
pub use options::{AutoRewrite, CopyLimit, Options, SavePoint};
pub use process::{Embedded, Process};
pub use readiness::{NotReady, NotReadyReason};
pub use recovery::Recovery;
pub use snapshots::SnapshotInfo;
pub use trimming::JournalUsage;
