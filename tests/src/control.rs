//! A client of the control socket (`storage/docs/control.md`), as an agent would be one.

use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// No answer takes longer; a test that waits for ever says nothing.
const LIMIT: Duration = Duration::from_secs(60);

/// A connection.
#[derive(Debug)]
pub struct Agent {
    stream: BufReader<UnixStream>,
}

impl Agent {
    /// Connects to the server of a data directory.
    pub fn connect(dir: &Path) -> std::io::Result<Self> {
        let stream = UnixStream::connect(dir.join("control.sock"))?;
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// The next answer; `None` when the connection has ended.
    pub fn answer(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))),
        }
    }

    /// Sends a request and gives its answer.
    #[track_caller]
    pub fn ask(&mut self, request: &Value) -> Value {
        self.send(format!("{request}\n").as_bytes()).expect("the server takes requests");
        self.answer().unwrap_or_else(|| panic!("no answer to {request}"))
    }
}
