//! The command table: one family a file, rows on top, handlers below.
//!
//! Invariants:
//! - A row says all there is to know of a command: dispatch, locking, COMMAND read nothing else.
//! - A handler checks before it changes; an error it returns means that nothing happened.
//! - What a write did is an effect that replays to the same state: no clock, no random number, no expiry in it.
//! - Nothing here blocks; long work is handed out as a [`Job`]. Scripts and MIGRATE, which keep their locks for long, say so
//!   first ([`Host::step_aside`]).
//!
//! It knows the keyspace and the shape of replies. It must never know sockets, files or the journal.

pub mod acl;
pub mod args;
mod context;
mod dispatch;
pub mod effects;
mod error;
mod families;
mod glob;
mod host;
pub mod hub;
mod keys;
pub mod memory;
mod migration;
mod monitor;
pub mod observed;
mod replay;
mod scan;
pub mod script;
mod session;
mod spec;
mod table;
#[cfg(test)]
mod testing;
pub mod waiting;

pub use cairn_resp::{Protocol, Reply};
pub use context::{Collection, Context, Data, Lookups, next_random};
pub use dispatch::{
    Decision, Expired, LockPlan, Ran, Route, Strayed, Tools, decide, evict_key, expire_shard,
    is_allowed_while_busy, may_write, run,
};
pub use effects::Effects;
pub use error::{CommandError, CommandResult};
pub use families::pubsub::end_messages;
pub use glob::glob_matches;
pub use host::{ClientClass, ClientFilter, Host, Job, KeyJob, Pause, Reload, SnapshotReason};
pub use hub::Hub;
pub use keys::{Access, AccessOf, Begin, Find, Finder, KeySpec, Keys};
pub use migration::{Delivery, DeliveryFailure, Destination, Parcel};
pub use replay::{Piece, ReplayError, Replayer, replay};
pub use session::{Replies, Session, Transaction, Watch};
pub use spec::{Arity, Categories, CommandSpec, Flags, Handler, at_least, exactly};
pub use table::{Command, all, lookup, lookup_full, numbered, resolve};
