//! The harness of the whole-program tests: it starts the programs as a person would, talks to them over sockets, and
//! kills them without warning.
//!
//! What holds here:
//! - The programs are child processes found in `CAIRN_BIN_DIR`, or in the target directory beside the test's own
//!   executable. One that is missing fails the test with the command that builds it; nothing is ever skipped.
//! - Every process listens on a free port of the loopback interface, works in a temporary directory, and ends with
//!   the value that owns it, by its process id.
//! - Readiness is awaited by a condition (a PING that is answered), never by a guessed delay.
//! - Random tests draw from [`random::Random`], print their seed, and replay it from `CAIRN_SEED`.
//! - Counts come from [`counts`]: bounded for `make test`, full for `make prove` (`CAIRN_PROVE=1`).
//!
//! It must never know: the inside of any cairn crate. It speaks RESP, runs commands and reads exit codes, so that a
//! promise is tested where the user meets it.

pub mod control;
pub mod counts;
pub mod encodings;
pub mod files;
pub mod ledger;
pub mod minio;
pub mod process;
pub mod programs;
pub mod random;
pub mod resp;
pub mod server;
pub mod shim;
pub mod signal;
pub mod workload;
