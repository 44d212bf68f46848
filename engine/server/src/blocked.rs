//! A client whose request waits: until it is served, its time is over, somebody wakes it, or it goes.

use crate::clients::Client;
use crate::connection::{Outbox, Stream, reached, wait_durable};
use crate::server::Server;
use cairn_engine::{Blocked, Lsn};
use std::future::pending;
use std::io;
use std::sync::atomic::Ordering::Relaxed;

/// Waits, then writes the reply. What the client sends meanwhile is kept for later: requests behind one that waits wait
/// with it. Returns whether the reply is an error.
///
/// # Errors
/// When the connection has ended, or has to. The request waits no longer then, and nothing is taken for it.
pub(crate) async fn wait<S: Stream>(
    server: &Server,
    client: &Client,
    blocked: Box<Blocked>,
    outbox: &mut Outbox<'_, S>,
) -> io::Result<bool> {
    outbox.flush().await?;
    client.is_blocked.store(true, Relaxed);
    // A server that ends does not wait for it, and who kills it need not either.
    server.clients.leave(client);
    if client.is_doomed.load(Relaxed) {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    let over = async {
        tokio::select! {
            // One that is served is told so, whatever else has happened.
            biased;
            unblocked = blocked.unblocked() => Some(unblocked),
            () = reached(blocked.deadline()) => None,
            () = durable(server, blocked.until_durable()) => None,
        }
    };
    // Who waits for a key still hears of others.
    let unblocked = match outbox.deliver_until(over).await? {
        Some(unblocked) => unblocked,
        None => {
            blocked.time_out();
            blocked.unblocked().await
        }
    };
    // Only new requests wait behind the gate of a server that ends; what was taken for this one is still told.
    client.is_busy.store(true, std::sync::atomic::Ordering::SeqCst);
    client.is_blocked.store(false, Relaxed);
    client.active_at.store(server.uptime_seconds(), Relaxed);
    drop(blocked);
    outbox.bytes.extend_from_slice(&unblocked.reply);
    outbox.hold = outbox.hold.max(unblocked.hold);
    outbox.flush().await?;
    server.clients.enter(client).await;
    Ok(unblocked.reply.first() == Some(&b'-'))
}

/// Resolves when the journal is durable up to `position`, or will never be: the reply says which.
async fn durable(server: &Server, position: Option<Lsn>) {
    match position {
        Some(position) => drop(wait_durable(server, position).await),
        None => pending().await,
    }
}
