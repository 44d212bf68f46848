//! What the server does beside serving clients: it has a thread and a runtime of its own, so that it neither holds up a
//! command nor waits for one.

use std::io;
use tokio::runtime::{Builder, Handle};

/// Starts the thread, which lives as long as the process.
pub(crate) fn start() -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let run = move || runtime.block_on(std::future::pending::<()>());
    std::thread::Builder::new().name("cairn-aside".into()).spawn(run)?;
    Ok(handle)
}
