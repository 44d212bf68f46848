//! The continuous archive of a repository: a journal in pieces, the snapshots it continues, and who may write them.
//!
//! Names alone tell what an archive holds ([`names`]), so a listing is a [`Catalogue`]: which points in time and which LSNs
//! can be restored. Whether the bytes are what their names say is for a restore or a verification to find out. The law:
//! `storage/docs/repository.md`.

mod assemble;
mod base;
pub mod catalogue;
mod control;
pub mod lease;
pub mod names;
mod point;
mod rate;
mod restore;
mod run;
mod schedule;
mod shelf;
mod ship;
#[cfg(test)]
mod tests;
mod verify;

pub use catalogue::{Base, Catalogue, Lineage, Piece, Range, Segment, Stretch};
pub use point::{Part, Plan, Point};
pub use rate::RateLimit;
pub use restore::{PointOptions, latest, plan_point, restore_point};
pub use run::{Event, RunOptions, run};
pub use schedule::Schedule;
pub use verify::verify_journal;
