//! The control socket: what an agent that follows the data directory asks and tells (`storage/docs/control.md`).
//!
//! It is served beside the threads that serve clients, and whatever waits for the disk runs on threads of its own: an agent
//! never holds up a command.

use crate::listen;
use crate::server::Server;
use cairn_engine::{Archived, JournalHold, Lsn, Position};
use serde::Deserialize;
use serde_json::{Value, json};
use std::fs::{OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// The socket's name in the data directory.
const NAME: &str = "control.sock";
/// How long a request may be, in bytes.
const LINE_MAX: u64 = 64 << 10;
/// How many agents may be connected.
const CONNECTIONS_MAX: usize = 16;

/// What may be asked.
#[derive(Debug, Deserialize)]
#[serde(tag = "request", rename_all = "lowercase")]
enum Request {
    Status,
    Archived { lsn: u64, unix_ms: u64 },
    Hold { lsn: u64 },
    Release,
    Snapshot,
    Report(Report),
}

/// What an agent tells of the repository.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Report {
    /// The archive held all that was durable then.
    pub(crate) last_success_unix_ms: Option<u64>,
    /// A verification that found everything whole began then.
    pub(crate) last_verified_unix_ms: Option<u64>,
    /// What went wrong last, where nothing has gone well since.
    pub(crate) last_error: Option<String>,
    /// Bytes that the repository holds.
    pub(crate) stored_bytes: Option<u64>,
    /// Bytes that wait to be uploaded.
    pub(crate) pending_bytes: Option<u64>,
}

impl Report {
    /// Takes what a later report says.
    pub(crate) fn update(&mut self, later: Report) {
        let keep = |old: &mut Option<u64>, new: Option<u64>| *old = new.or(*old);
        keep(&mut self.last_success_unix_ms, later.last_success_unix_ms);
        keep(&mut self.last_verified_unix_ms, later.last_verified_unix_ms);
        keep(&mut self.stored_bytes, later.stored_bytes);
        keep(&mut self.pending_bytes, later.pending_bytes);
        self.last_error = later.last_error;
    }
}

/// The socket's file: removed when the server ends.
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may be gone already; there is nothing to do about it either way.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Makes the socket in a data directory whose lock is held, and serves whoever connects on the current runtime.
pub(crate) fn start(server: &Arc<Server>, dir: &Path) -> io::Result<SocketFile> {
    let listener = bind(dir)?;
    tokio::spawn(accept(Arc::clone(server), listener));
    Ok(SocketFile(dir.join(NAME)))
}

fn bind(dir: &Path) -> io::Result<UnixListener> {
    let temporary_name = format!("{NAME}.tmp");
    let temporary = dir.join(&temporary_name);
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The directory by its number: a socket's address is short, and a data directory's path may not be.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(dir)?;
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/{temporary_name}", opened.as_raw_fd()))?;
    // Nobody finds it before it is private, and it takes the place of one that a dead server left in one step.
    std::fs::set_permissions(&temporary, Permissions::from_mode(0o600))?;
    std::fs::rename(&temporary, dir.join(NAME))?;
    Ok(listener)
}

async fn accept(server: Arc<Server>, listener: UnixListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                listen::pause(&error).await;
                continue;
            }
        };
        let connection = Connection::new(Arc::clone(&server), stream);
        match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => {
                tokio::spawn(async move {
                    connection.serve().await;
                    drop(place);
                });
            }
            Err(_) => {
                tokio::spawn(connection.turn_away());
            }
        }
    }
}

fn failed(error: impl std::fmt::Display) -> Value {
    json!({ "ok": false, "error": error.to_string() })
}

fn line(answer: &Value) -> Vec<u8> {
    let mut line = answer.to_string().into_bytes();
    line.push(b'\n');
    line
}

/// One agent, and what it holds.
struct Connection {
    server: Arc<Server>,
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    hold: Option<JournalHold>,
}

impl Connection {
    fn new(server: Arc<Server>, stream: UnixStream) -> Connection {
        let (reader, writer) = stream.into_split();
        Connection { server, reader: BufReader::new(reader), writer, hold: None }
    }

    async fn turn_away(mut self) {
        let why = format!("{CONNECTIONS_MAX} connections are served at a time, and there are as many");
        // Whether it arrives is up to the other end.
        let _ = self.writer.write_all(&line(&failed(why))).await;
    }

    async fn serve(mut self) {
        let mut request = Vec::new();
        loop {
            request.clear();
            match (&mut self.reader).take(LINE_MAX).read_until(b'\n', &mut request).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let (answer, goes_on) = match request.strip_suffix(b"\n").map(serde_json::from_slice) {
                Some(Ok(value)) => (self.answer(value).await, true),
                Some(Err(error)) => (failed(format_args!("no JSON document: {error}")), false),
                None => (failed(format_args!("no whole line within {LINE_MAX} bytes")), false),
            };
            if self.writer.write_all(&line(&answer)).await.is_err() || !goes_on {
                return;
            }
        }
    }

    async fn answer(&mut self, value: Value) -> Value {
        let request = match serde_json::from_value(value) {
            Ok(request) => request,
            Err(error) => return failed(error),
        };
        let engine = self.server.engine.clone();
        match request {
            Request::Status => status(&self.server),
            Request::Archived { lsn, unix_ms } => {
                match engine.note_archived(Archived { lsn: Lsn(lsn), unix_ms }) {
                    Ok(()) => status(&self.server),
                    Err(error) => failed(error),
                }
            }
            // It may have to wait until a trim has been written down.
            Request::Hold { lsn } => match blocking(move || engine.hold_journal(Lsn(lsn))).await {
                Ok(hold) => {
                    // The new one is there before the old one goes.
                    self.hold = Some(hold);
                    let journal_lsn = self.server.engine.position().map(|position| position.journal_from.0);
                    json!({ "ok": true, "journal_lsn": journal_lsn })
                }
                Err(error) => failed(error),
            },
            Request::Release => {
                self.hold = None;
                json!({ "ok": true })
            }
            Request::Snapshot => match blocking(move || engine.snapshot_or_join()).await {
                Ok(taken) => json!({
                    "ok": true,
                    "file": taken.path.file_name().map(|name| name.to_string_lossy()),
                    "lsn": taken.lsn.0,
                    "entries": taken.entries,
                    "bytes": taken.bytes,
                }),
                Err(error) => failed(error),
            },
            Request::Report(report) => {
                self.server.backup.report(report);
                json!({ "ok": true })
            }
        }
    }
}

/// Runs what waits for the disk on a thread where that holds up nobody.
async fn blocking<T: Send + 'static, E: std::fmt::Display + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(error) => Err(format!("the server failed while it did this: {error}")),
    }
}

fn status(server: &Server) -> Value {
    let Some(position) = server.engine.position() else { return failed("the data is being loaded") };
    let Position { lineage, epoch, databases, is_encrypted, has_journal, .. } = position;
    let snapshot = position
        .snapshot
        .map(|snapshot| json!({ "file": snapshot.file, "lsn": snapshot.lsn.0, "entries": snapshot.entries }));
    json!({
        "ok": true,
        "lineage": lineage,
        "epoch": epoch,
        "databases": databases,
        "encrypted": is_encrypted,
        "journal": has_journal,
        "journal_lsn": position.journal_from.0,
        "durable_lsn": position.durable.0,
        "durable_unix_ms": position.durable_unix_ms,
        "next_lsn": position.end.0,
        "archived_lsn": position.archived.map(|archived| archived.lsn.0),
        "snapshot": snapshot,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Result<Request, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn requests_are_those_of_the_document() {
        assert!(matches!(request(r#"{"request":"status","x":1}"#), Ok(Request::Status)));
        assert!(matches!(
            request(r#"{"request":"archived","lsn":18446744073709551615,"unix_ms":2}"#),
            Ok(Request::Archived { lsn: u64::MAX, unix_ms: 2 })
        ));
        assert!(matches!(request(r#"{"request":"hold","lsn":3}"#), Ok(Request::Hold { lsn: 3 })));
        assert!(matches!(request(r#"{"request":"release"}"#), Ok(Request::Release)));
        assert!(matches!(request(r#"{"request":"snapshot"}"#), Ok(Request::Snapshot)));
        assert!(matches!(request(r#"{"request":"report"}"#), Ok(Request::Report(_))));
        for wrong in
            [r#"{"request":"hold"}"#, r#"{"request":"hold","lsn":-1}"#, r#"{"request":"format"}"#, "[]", "1"]
        {
            assert!(request(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_report_changes_what_it_tells_and_clears_an_error_it_does_not_repeat() {
        let mut report = Report::default();
        report.update(Report { last_error: Some("away".into()), stored_bytes: Some(7), ..Report::default() });
        report.update(Report { last_success_unix_ms: Some(5), ..Report::default() });
        assert_eq!(
            report,
            Report { last_success_unix_ms: Some(5), stored_bytes: Some(7), ..Report::default() }
        );
    }
}
