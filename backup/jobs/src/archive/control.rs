//! Talking to the server that runs on a data directory, over its control socket: `storage/docs/control.md`.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::JobError;

/// The socket's name in a data directory.
const SOCKET: &str = "control.sock";
/// The longest path a socket address takes.
const PATH_BYTES_MAX: usize = 107;
/// An answer that takes longer will not come; snapshots are waited for without end.
const ANSWER: Duration = Duration::from_secs(20);

/// What a server says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Status {
    pub(crate) lineage: String,
    pub(crate) durable_lsn: u64,
    /// All that was appended until then is durable.
    #[serde(default)]
    pub(crate) durable_unix_ms: u64,
    /// Whether a journal is written.
    #[serde(default = "yes")]
    pub(crate) journal: bool,
}

fn yes() -> bool {
    true
}

/// A snapshot that the manifest names.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Taken {
    pub(crate) lsn: u64,
    #[serde(default)]
    pub(crate) digest: Option<String>,
}

/// What the server is to show of the archive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    pub(crate) last_success_unix_ms: Option<u64>,
    pub(crate) last_error: Option<String>,
    pub(crate) stored_bytes: Option<u64>,
    pub(crate) pending_bytes: Option<u64>,
}

/// A connection to a server.
pub(crate) struct Control {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Control {
    /// Connects; `None` where no server runs.
    pub(crate) async fn connect(dir: &Path) -> Option<Self> {
        let path = dir.join(SOCKET);
        let stream = connect(dir, &path).await.ok()?;
        Some(Self { path, stream: BufReader::new(stream) })
    }

    pub(crate) async fn status(&mut self) -> Result<Status, JobError> {
        self.ask(json!({"request": "status"}), Some(ANSWER)).await
    }

    /// Tells that the archive holds all below this LSN.
    pub(crate) async fn archived(&mut self, lsn: u64, unix_ms: u64) -> Result<Status, JobError> {
        self.ask(json!({"request": "archived", "lsn": lsn, "unix_ms": unix_ms}), Some(ANSWER)).await
    }

    /// Keeps the journal from this LSN on for as long as this connection lives.
    pub(crate) async fn hold(&mut self, lsn: u64) -> Result<(), JobError> {
        self.ask::<Value>(json!({"request": "hold", "lsn": lsn}), Some(ANSWER)).await.map(drop)
    }

    pub(crate) async fn report(&mut self, report: &Report) -> Result<(), JobError> {
        let mut request = serde_json::to_value(report).map_err(JobError::Json)?;
        if let Some(fields) = request.as_object_mut() {
            fields.insert("request".to_owned(), "report".into());
        }
        self.ask::<Value>(request, Some(ANSWER)).await.map(drop)
    }

    /// Has a snapshot taken, and waits until the manifest names it.
    pub(crate) async fn snapshot(&mut self) -> Result<Taken, JobError> {
        self.ask(json!({"request": "snapshot"}), None).await
    }

    fn failed(&self, why: impl Into<String>) -> JobError {
        JobError::Server { server: self.path.display().to_string(), why: why.into() }
    }

    async fn ask<T: DeserializeOwned>(
        &mut self,
        request: Value,
        limit: Option<Duration>,
    ) -> Result<T, JobError> {
        let answer = match limit {
            None => self.exchange(&request).await?,
            Some(limit) => timeout(limit, self.exchange(&request))
                .await
                .map_err(|_| self.failed(format!("no answer within {} s", limit.as_secs())))??,
        };
        if answer.get("ok").and_then(Value::as_bool) != Some(true) {
            let why = answer.get("error").and_then(Value::as_str).unwrap_or("an answer that says nothing");
            return Err(self.failed(why));
        }
        serde_json::from_value(answer)
            .map_err(|error| self.failed(format!("an answer that is not understood: {error}")))
    }

    async fn exchange(&mut self, request: &Value) -> Result<Value, JobError> {
        let broke = |error: std::io::Error| format!("the connection broke: {error}");
        let line = format!("{request}\n");
        let sent = self.stream.get_mut().write_all(line.as_bytes()).await;
        sent.map_err(|error| self.failed(broke(error)))?;
        let mut answer = String::new();
        let read = self.stream.read_line(&mut answer).await;
        if read.map_err(|error| self.failed(broke(error)))? == 0 {
            return Err(self.failed("the server ended"));
        }
        serde_json::from_str(&answer)
            .map_err(|error| self.failed(format!("an answer that is no JSON: {error}")))
    }
}

/// Connects to the socket, by way of its open directory where the path is too long for an address.
async fn connect(dir: &Path, path: &Path) -> std::io::Result<UnixStream> {
    if path.as_os_str().len() <= PATH_BYTES_MAX {
        return UnixStream::connect(path).await;
    }
    let dir = File::open(dir)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd())).await
}
