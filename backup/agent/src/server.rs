//! Asking a running server for a snapshot, over its own protocol.

use std::time::Duration;

use cairn_jobs::JobError;
use cairn_resp::{Value, decode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// How long the server may take for one answer; snapshots are waited for without end.
const ANSWER: Duration = Duration::from_secs(30);
/// How often it is asked whether the snapshot is done: the protocol has no way to be told.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// A connection to a server.
pub(crate) struct Server {
    address: String,
    stream: TcpStream,
    received: Vec<u8>,
}

/// What INFO persistence says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Persistence {
    journal: bool,
    saving: bool,
    last_failed: bool,
    /// The history the server's data belongs to, 32 hex digits.
    pub(crate) lineage: Option<String>,
    /// The LSN of its newest snapshot.
    pub(crate) snapshot_lsn: Option<u64>,
    /// The LSN up to which its journal is durable.
    pub(crate) durable_lsn: Option<u64>,
}

impl Server {
    /// Connects, and authenticates if there is a password.
    pub(crate) async fn connect(address: &str, password: Option<&str>) -> Result<Self, JobError> {
        let failed = |why: String| JobError::Server { server: address.to_owned(), why };
        let stream = timeout(Duration::from_secs(5), TcpStream::connect(address))
            .await
            .map_err(|_| failed("no answer within 5 s; is the server running there?".to_owned()))?
            .map_err(|error| failed(format!("cannot connect: {error}; is the server running there?")))?;
        let mut server = Self { address: address.to_owned(), stream, received: Vec::new() };
        if let Some(password) = password {
            server.ask(&["AUTH", password]).await?;
        }
        Ok(server)
    }

    fn failed(&self, why: impl Into<String>) -> JobError {
        JobError::Server { server: self.address.clone(), why: why.into() }
    }

    /// Refuses a server that keeps no journal.
    pub(crate) async fn need_journal(&mut self) -> Result<(), JobError> {
        if self.persistence().await?.journal {
            return Ok(());
        }
        Err(JobError::JournalOff { place: self.address.clone() })
    }

    /// Has the server take a snapshot that begins after this call, and says how it stands once the manifest names that.
    pub(crate) async fn snapshot(&mut self) -> Result<Persistence, JobError> {
        loop {
            let answer = self.answer(&["BGSAVE"]).await?;
            match answer {
                Value::Error(text) if text.contains("in progress") => {
                    // That one began before us; ours comes after it.
                    self.saved().await?;
                }
                Value::Error(text) => return Err(self.failed(format!("BGSAVE: {text}"))),
                _ => break,
            }
        }
        let done = self.saved().await?;
        if done.last_failed {
            return Err(self.failed("the snapshot failed; the server's log says why"));
        }
        Ok(done)
    }

    /// Waits until no snapshot is being taken.
    async fn saved(&mut self) -> Result<Persistence, JobError> {
        loop {
            let found = self.persistence().await?;
            if !found.saving {
                return Ok(found);
            }
            sleep(ASK_EVERY).await;
        }
    }

    async fn persistence(&mut self) -> Result<Persistence, JobError> {
        match self.ask(&["INFO", "persistence"]).await? {
            Value::Bulk(text) => Ok(parse(&String::from_utf8_lossy(&text))),
            other => Err(self.failed(format!("INFO persistence: unexpected answer {other:?}"))),
        }
    }

    /// Sends a command; an error as its answer is an error.
    async fn ask(&mut self, command: &[&str]) -> Result<Value, JobError> {
        match self.answer(command).await? {
            Value::Error(text) if text.starts_with("NOAUTH") => {
                Err(self.failed(format!("{text} Set CAIRN_SERVER_PASSWORD.")))
            }
            Value::Error(text) => {
                let name = command.first().copied().unwrap_or_default();
                Err(self.failed(format!("{name}: {text}")))
            }
            answer => Ok(answer),
        }
    }

    async fn answer(&mut self, command: &[&str]) -> Result<Value, JobError> {
        let mut request = format!("*{}\r\n", command.len());
        for word in command {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        let exchanged = timeout(ANSWER, self.exchange(request.as_bytes())).await;
        exchanged.unwrap_or_else(|_| Err(self.failed(format!("no answer within {} s", ANSWER.as_secs()))))
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<Value, JobError> {
        let written = self.stream.write_all(request).await;
        written.map_err(|error| self.failed(format!("the connection broke: {error}")))?;
        loop {
            let decoded = decode(&self.received).map_err(|error| self.failed(error.to_string()))?;
            if let Some((value, length)) = decoded {
                self.received.drain(..length);
                return Ok(value);
            }
            let read = self.stream.read_buf(&mut self.received).await;
            match read.map_err(|error| self.failed(format!("the connection broke: {error}")))? {
                0 => return Err(self.failed("the server closed the connection")),
                _ if self.received.len() > 16 << 20 => return Err(self.failed("the answer has no end")),
                _ => {}
            }
        }
    }
}

fn parse(info: &str) -> Persistence {
    let mut found = Persistence::default();
    for (name, value) in info.lines().filter_map(|line| line.trim_end().split_once(':')) {
        match name {
            "aof_enabled" => found.journal = value == "1",
            "rdb_bgsave_in_progress" => found.saving = value == "1",
            "rdb_last_bgsave_status" => found.last_failed = value != "ok",
            "cairn_lineage" => found.lineage = Some(value.to_owned()),
            "cairn_journal_durable_lsn" => found.durable_lsn = value.parse().ok(),
            "cairn_snapshot_lsn" => found.snapshot_lsn = value.parse().ok(),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn info_is_read() {
        let info = "# Persistence\r\naof_enabled:1\r\nrdb_bgsave_in_progress:0\r\nrdb_last_bgsave_status:err\r\n\
                    cairn_snapshot_lsn:42\r\ncairn_lineage:00ff\r\ncairn_journal_durable_lsn:50\r\n";
        let expected = Persistence {
            journal: true,
            saving: false,
            last_failed: true,
            lineage: Some("00ff".to_owned()),
            snapshot_lsn: Some(42),
            durable_lsn: Some(50),
        };
        assert_eq!(parse(info), expected);
        assert!(!parse("").journal);
    }

    /// A server that gives these answers in turn and notes what it was asked.
    async fn scripted(answers: Vec<&'static str>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            for answer in answers {
                let mut bytes = vec![0; 4096];
                let length = stream.read(&mut bytes).await.unwrap();
                asked.push(
                    String::from_utf8_lossy(&bytes[..length])
                        .split("\r\n")
                        .nth(2)
                        .unwrap_or_default()
                        .to_owned(),
                );
                let text = match answer.strip_prefix("info ") {
                    Some(text) => format!("${}\r\n{text}\r\n", text.len()),
                    None => format!("{answer}\r\n"),
                };
                stream.write_all(text.as_bytes()).await.unwrap();
            }
            asked
        });
        (address, task)
    }

    #[tokio::test]
    async fn a_snapshot_under_way_is_waited_for_and_followed_by_ours() {
        let busy = "info aof_enabled:1\r\nrdb_bgsave_in_progress:1\r\n";
        let idle = "info aof_enabled:1\r\nrdb_bgsave_in_progress:0\r\nrdb_last_bgsave_status:ok\r\ncairn_snapshot_lsn:7\r\n";
        let answers = vec![
            "+OK",
            idle,
            "-ERR Background save already in progress",
            busy,
            idle,
            "+Background saving started",
            busy,
            busy,
            idle,
        ];
        let (address, task) = scripted(answers).await;
        let mut server = Server::connect(&address, Some("secret")).await.unwrap();
        server.need_journal().await.unwrap();
        assert_eq!(server.snapshot().await.unwrap().snapshot_lsn, Some(7));
        assert_eq!(
            task.await.unwrap(),
            ["AUTH", "INFO", "BGSAVE", "INFO", "INFO", "BGSAVE", "INFO", "INFO", "INFO"]
        );
    }

    #[tokio::test]
    async fn failures_name_the_server_and_the_reason() {
        let failed = "info aof_enabled:0\r\nrdb_bgsave_in_progress:0\r\nrdb_last_bgsave_status:err\r\n";
        let (address, _task) =
            scripted(vec![failed, "+Background saving started", failed, "-NOAUTH Authentication required."])
                .await;
        let mut server = Server::connect(&address, None).await.unwrap();
        assert!(
            matches!(server.need_journal().await, Err(JobError::JournalOff { place }) if place == address)
        );
        let error = server.snapshot().await.unwrap_err().to_string();
        assert!(error.contains(&address) && error.contains("snapshot failed"), "{error}");
        let error = server.need_journal().await.unwrap_err().to_string();
        assert!(error.contains("CAIRN_SERVER_PASSWORD"), "{error}");
        let gone = Server::connect("127.0.0.1:1", None).await.err().unwrap();
        assert_eq!(gone.exit_code(), 1);
    }
}
