//! A client whose request waits: until it is served, its time is over, somebody wakes it, or it goes.

use crate::clients::Client;
use crate::connection::{Outbox, Stream, wait_durable};
use crate::server::Server;
use cairn_engine::{Blocked, Inbox, Lsn};
use std::future::{pending, poll_fn};
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncReadExt};

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
    let most = server.hot.query_buffer.load(Relaxed);
    let over = loop {
        tokio::select! {
            // One that is served is told so, whatever else has happened.
            biased;
            unblocked = blocked.unblocked() => break Some(unblocked),
            () = reached(blocked.deadline()) => break None,
            () = durable(server, blocked.until_durable()) => break None,
            () = has_messages(&outbox.inbox) => {}
            ended = keep_what_comes(&mut outbox.stream, &mut outbox.early, most) => return Err(ended),
        }
        // Who waits for a key still hears of others.
        outbox.deliver().await?;
    };
    let unblocked = match over {
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

/// Resolves when others have messages for the client; they wake its task.
async fn has_messages(inbox: &Inbox) {
    poll_fn(|_| if inbox.is_filled() { Poll::Ready(()) } else { Poll::Pending }).await;
}

async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

/// Resolves when the journal is durable up to `position`, or will never be: the reply says which.
async fn durable(server: &Server, position: Option<Lsn>) {
    match position {
        Some(position) => drop(wait_durable(server, position).await),
        None => pending().await,
    }
}

/// Reads until the connection ends, or more comes than a client may have waiting.
async fn keep_what_comes<R: AsyncRead + Unpin>(
    stream: &mut R,
    early: &mut Vec<u8>,
    most: usize,
) -> io::Error {
    loop {
        match stream.read_buf(early).await {
            Ok(0) => return io::ErrorKind::UnexpectedEof.into(),
            Ok(_) if early.len() > most => return io::Error::other("client-query-buffer-limit exceeded"),
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}
