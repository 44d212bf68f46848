//! The thread that frees what takes long.

use std::sync::Arc;

use cairn_keyspace::Discards;

/// Starts it. Where there can be none, whoever removes something frees it.
pub(crate) fn start(discards: &Arc<Discards>) {
    discards.open();
    let served = Arc::clone(discards);
    let spawned = std::thread::Builder::new().name("cairn-free".to_owned()).spawn(move || served.serve());
    if let Err(error) = spawned {
        tracing::warn!(%error, "large values are freed by the commands that remove them");
        discards.close();
    }
}
