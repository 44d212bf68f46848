//! The signals that end the server.
//!
//! They are heard on a thread of their own: a server whose threads all wait for something must still be possible to end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// The exit code of a program that was interrupted.
const INTERRUPTED: i32 = 130;

/// Hears SIGINT and SIGTERM. The first asks for a clean end; a second while that is under way ends the process.
pub(crate) struct Signals {
    first: mpsc::UnboundedReceiver<&'static str>,
    is_ending: Arc<AtomicBool>,
}

impl Signals {
    /// The name of a signal that asks for a clean end.
    pub(crate) async fn first(&mut self) -> &'static str {
        match self.first.recv().await {
            Some(name) => name,
            // The thread never ends before the process does.
            None => std::future::pending().await,
        }
    }

    /// The clean end did not come about: the next signal asks again.
    pub(crate) fn forget_first(&self) {
        self.is_ending.store(false, SeqCst);
    }
}

/// Hears signals from now on.
pub(crate) fn listen() -> io::Result<Signals> {
    let (sender, first) = mpsc::unbounded_channel();
    let is_ending = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let guard = runtime.enter();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    drop(guard);
    let ending = Arc::clone(&is_ending);
    std::thread::Builder::new().name("cairn-signals".into()).spawn(move || {
        runtime.block_on(async {
            loop {
                let name = tokio::select! {
                    _ = interrupt.recv() => "SIGINT",
                    _ = terminate.recv() => "SIGTERM",
                };
                if ending.swap(true, SeqCst) {
                    tracing::warn!(signal = name, "ending at once: what is not yet durable is lost");
                    std::process::exit(INTERRUPTED);
                }
                // The receiver is gone only when the process ends.
                let _ = sender.send(name);
            }
        });
    })?;
    Ok(Signals { first, is_ending })
}
