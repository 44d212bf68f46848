//! The whole engine over a faulty disk, in simulated time and on one thread: one seed is one run.
//!
//! A run is some lives of an engine on one disk. In each, clients ask for random things of all families, time passes, snapshots
//! are taken, segments change, and the disk fails now and then; then the power goes and leaves what it likes of all that was
//! not synced. The next start must find the data as it was after some commit, with every commit that anybody was told is
//! durable: never a part of one, never less, and of what `everysec` lets go no more than a second. Where bytes have
//! changed afterwards it must say so, or lose nothing.
//!
//! A seed that fails replays by `SEEDS=7`; `CAIRN_TRACE=1` shows all that happens in it. What differs between two runs of
//! a seed is what is drawn from the system: names of files, keys, and the order of hash tables.

mod bytes;
mod clients;
mod history;
mod lies;
mod life;
mod random;
mod requests;
mod run;
mod script;
mod seeds;
mod steps;
pub(crate) mod time;
mod trace;

use crate::engine::Engine;

/// Whether the full counts are asked for (`CAIRN_PROVE=1`).
fn is_to_be_proven() -> bool {
    std::env::var_os("CAIRN_PROVE").is_some_and(|value| value == "1")
}

/// What all data of an engine is.
fn digest(engine: &Engine) -> history::Digest {
    let libraries = engine.0.keyspace.libraries.get();
    let sources = libraries.values().flat_map(|library| library.code.clone()).collect();
    (engine.0.keyspace.lock_all().digest(), sources)
}
