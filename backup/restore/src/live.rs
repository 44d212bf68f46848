//! A running server as the target: each key is restored with RESTORE, many at a time.
//!
//! A key that is there already is compared, so that a restore that was interrupted is begun again and finds what it did.
//! Values are sent as Redis 7.0 dumps them, which every newer server reads.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use cairn_engine::rdb_file::RdbTarget;
use cairn_engine::{Entry, Limits, Usage, Value, dumped, read_libraries, value_digest};
use cairn_jobs::JobError;
use cairn_resp::{Value as Answer, decode, push_command};

use crate::error::RestoreError;
use crate::sink::Sink;

/// Commands are sent when so many bytes of them wait, or so many of them.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_COMMANDS: usize = 1_000;

/// A server may take so long for an answer: a large value takes its time.
const ANSWER: Duration = Duration::from_secs(120);

/// No answer to anything that is asked here is longer.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// Where a server is, and how to be let in. The password never stands in an address, which every process can see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    place: Place,
    user: Option<String>,
    /// As it was typed.
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Tcp(String),
    Unix(String),
}

impl Address {
    /// Reads `HOST:PORT`, `redis://[USER@]HOST[:PORT]` and `unix:///path`.
    ///
    /// # Errors
    /// [`JobError::Usage`], which says what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, JobError> {
        let bad = |why: &str| Err(JobError::Usage(format!("--to {}: {why}", without_secret(text))));
        let made = |place, user| Ok(Self { place, user, text: without_secret(text) });
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.starts_with('/') {
                made(Place::Unix(path.to_owned()), None)
            } else {
                bad("the path of a socket is absolute, as in unix:///run/redis.sock")
            };
        }
        if text.starts_with("rediss://") {
            return bad(
                "TLS is not spoken by this version; give the address of a tunnel (stunnel, ssh -L) as HOST:PORT",
            );
        }
        let (is_url, rest) = match text.strip_prefix("redis://") {
            Some(rest) => (true, rest),
            None if text.contains("://") => {
                return bad("it is HOST:PORT, redis://HOST:PORT or unix:///path");
            }
            None => (false, text),
        };
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, _)) if user.contains(':') => {
                return bad("a password on the command line is seen by everybody; set CAIRN_TO_PASSWORD");
            }
            Some((user, rest)) if is_url => (Some(user.to_owned()), rest),
            _ => (None, rest),
        };
        let host = rest.strip_suffix('/').unwrap_or(rest);
        if host.contains('/') {
            return bad("every key goes into the database it was in; choose one with --db");
        }
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, port),
            _ if is_url => (host, "6379"),
            _ => return bad("the port is missing"),
        };
        if name.is_empty() || port.parse::<u16>().is_err() {
            return bad("it is HOST:PORT");
        }
        made(Place::Tcp(format!("{name}:{port}")), user)
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// The address without a password in it.
fn without_secret(text: &str) -> String {
    let Some((before, after)) = text.rsplit_once('@') else { return text.to_owned() };
    let (scheme, user) = before.rsplit_once("://").unwrap_or(("", before));
    match user.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:***@{after}"),
        None => text.to_owned(),
    }
}

trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

/// A connection over which keys are restored.
pub(crate) struct Live {
    address: String,
    stream: Box<dyn Stream>,
    received: Vec<u8>,
    out: Vec<u8>,
    sent: Vec<Sent>,
    database: Option<u16>,
    /// Replaces keys that are there.
    force: bool,
    /// Whether it knows fields that expire.
    target: RdbTarget,
    /// The libraries it had at the beginning.
    libraries: Option<Vec<Vec<u8>>>,
    pub(crate) counts: Counts,
}

/// What became of what was sent.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Keys that were written.
    pub(crate) written: u64,
    /// Keys that were there already with the same value.
    pub(crate) same: u64,
    /// Keys and libraries that were there with another value, and were left as they are.
    pub(crate) different: u64,
}

/// A command whose answer is awaited.
enum Sent {
    Select,
    Restore { database: u16, key: Vec<u8>, payload: Vec<u8>, expires: bool },
}

impl Live {
    /// Connects, and asks what the server is.
    ///
    /// # Errors
    /// That it cannot be reached, or does not let us in.
    pub(crate) fn connect(
        address: &Address,
        password: Option<&str>,
        force: bool,
    ) -> Result<Self, RestoreError> {
        let failed = |error: std::io::Error| RestoreError::Server {
            address: address.text.clone(),
            why: format!("cannot connect: {error}; is the server running there?"),
        };
        let stream: Box<dyn Stream> = match &address.place {
            Place::Tcp(place) => {
                let stream = TcpStream::connect(place).map_err(failed)?;
                let set = stream.set_read_timeout(Some(ANSWER)).and(stream.set_write_timeout(Some(ANSWER)));
                set.and(stream.set_nodelay(true)).map_err(failed)?;
                Box::new(stream)
            }
            Place::Unix(path) => {
                let stream = UnixStream::connect(path).map_err(failed)?;
                let set = stream.set_read_timeout(Some(ANSWER)).and(stream.set_write_timeout(Some(ANSWER)));
                set.map_err(failed)?;
                Box::new(stream)
            }
        };
        let mut live = Self {
            address: address.text.clone(),
            stream,
            received: Vec::new(),
            out: Vec::new(),
            sent: Vec::new(),
            database: None,
            force,
            target: RdbTarget::default(),
            libraries: None,
            counts: Counts::default(),
        };
        match (&address.user, password) {
            (Some(user), Some(password)) => live.ask(&[b"AUTH", user.as_bytes(), password.as_bytes()])?,
            (None, Some(password)) => live.ask(&[b"AUTH", password.as_bytes()])?,
            _ => Answer::Null,
        };
        if let Answer::Bulk(info) = live.ask(&[b"INFO", b"server"])? {
            live.target = target_of(&String::from_utf8_lossy(&info));
        }
        Ok(live)
    }

    fn failed(&self, why: impl Into<String>) -> RestoreError {
        RestoreError::Server { address: self.address.clone(), why: why.into() }
    }

    /// Sends what waits and notes the answers.
    ///
    /// # Errors
    /// That the server refused a value, or went away. Run again, a restore goes on where it was.
    pub(crate) fn flush(&mut self) -> Result<(), RestoreError> {
        let (out, sent) = (std::mem::take(&mut self.out), std::mem::take(&mut self.sent));
        self.write(&out)?;
        let mut busy = Vec::new();
        for one in sent {
            match (self.answer()?, one) {
                (Answer::Error(text), Sent::Restore { database, key, payload, expires })
                    if text.starts_with("BUSYKEY") =>
                {
                    busy.push((database, key, payload, expires));
                }
                (Answer::Error(text), Sent::Restore { .. }) => {
                    return Err(self.failed(format!("it refused a key: {text}")));
                }
                (Answer::Error(text), Sent::Select) => {
                    return Err(self.failed(format!("it has no such database: {text}")));
                }
                (_, Sent::Restore { .. }) => self.counts.written += 1,
                (_, Sent::Select) => {}
            }
        }
        busy.into_iter()
            .try_for_each(|(database, key, payload, expires)| self.compare(database, &key, &payload, expires))
    }

    /// Looks whether a key that is there is the one that was to be written.
    fn compare(
        &mut self,
        database: u16,
        key: &[u8],
        payload: &[u8],
        expires: bool,
    ) -> Result<(), RestoreError> {
        if self.database != Some(database) {
            self.ask(&[b"SELECT", database.to_string().as_bytes()])?;
            self.database = Some(database);
        }
        let dumped = self.ask(&[b"DUMP", key])?;
        let expires_there = matches!(self.ask(&[b"PTTL", key])?, Answer::Integer(0..));
        let is_same = match dumped {
            Answer::Bulk(found) => digest(&found, expires_there) == digest(payload, expires),
            _ => false,
        };
        if is_same {
            self.counts.same += 1;
        } else {
            self.counts.different += 1;
        }
        Ok(())
    }

    /// Sends one command and gives its answer; an error as its answer is an error.
    fn ask(&mut self, command: &[&[u8]]) -> Result<Answer, RestoreError> {
        let mut out = Vec::new();
        push_command(&mut out, command);
        self.write(&out)?;
        let name = command.first().map(|name| String::from_utf8_lossy(name)).unwrap_or_default();
        match self.answer()? {
            Answer::Error(text) if text.starts_with("NOAUTH") => {
                Err(self.failed(format!("{text} Set CAIRN_TO_PASSWORD.")))
            }
            Answer::Error(text) => Err(self.failed(format!("{name}: {text}"))),
            answer => Ok(answer),
        }
    }

    fn write(&mut self, out: &[u8]) -> Result<(), RestoreError> {
        let written = self.stream.write_all(out).and_then(|()| self.stream.flush());
        written.map_err(|error| self.failed(format!("the connection broke: {error}; run the restore again")))
    }

    fn answer(&mut self) -> Result<Answer, RestoreError> {
        let mut chunk = vec![0; 64 << 10];
        loop {
            let decoded = decode(&self.received).map_err(|error| self.failed(error.to_string()))?;
            if let Some((answer, length)) = decoded {
                self.received.drain(..length);
                return Ok(answer);
            }
            if self.received.len() > ANSWER_BYTES_MAX {
                return Err(self.failed("its answer has no end"));
            }
            let read = self.stream.read(&mut chunk);
            match read.map_err(|error| {
                self.failed(format!("the connection broke: {error}; run the restore again"))
            })? {
                0 => return Err(self.failed("the server closed the connection; run the restore again")),
                length => self.received.extend_from_slice(chunk.get(..length).unwrap_or_default()),
            }
        }
    }
}

/// What a server can read, by what it says of itself.
fn target_of(info: &str) -> RdbTarget {
    let field = |name: &str| {
        info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim_end)
    };
    let version = |text: &str| {
        let mut numbers = text.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    };
    // Valkey has fields that expire since 9.0, in a form of its own.
    let knows = field("cairn_version").is_some()
        || field("valkey_version").is_none()
            && field("redis_version").is_some_and(|text| version(text) >= (7, 4));
    if knows { RdbTarget::Redis74 } else { RdbTarget::Redis70 }
}

/// What a payload of DUMP holds, whatever its encoding.
fn digest(payload: &[u8], expires: bool) -> Option<[u8; 20]> {
    let object = dumped::restore(payload, &Limits::default()).ok()?;
    Some(value_digest(Value::Object(&object), expires))
}

impl Sink for Live {
    fn entry(&mut self, database: u16, entry: &Entry, usage: Option<Usage>) -> Result<(), RestoreError> {
        if !self.target.takes(entry) {
            let what = "a hash has fields that expire, which this server cannot take";
            return Err(RestoreError::FieldExpiry { place: self.address.clone(), what });
        }
        if self.database != Some(database) {
            push_command(&mut self.out, &[b"SELECT", database.to_string().as_bytes()]);
            self.sent.push(Sent::Select);
            self.database = Some(database);
        }
        let payload = dumped::dump(entry.value());
        let expiry = entry.expire_at_ms().unwrap_or(0).to_string();
        let used = match usage {
            Some(Usage::IdleSeconds(seconds)) => Some(("IDLETIME", seconds.to_string())),
            Some(Usage::Frequency(counter)) => Some(("FREQ", counter.to_string())),
            None => None,
        };
        let mut command: Vec<&[u8]> = vec![b"RESTORE", entry.key(), expiry.as_bytes(), &payload, b"ABSTTL"];
        if let Some((word, number)) = &used {
            command.extend([word.as_bytes(), number.as_bytes()]);
        }
        if self.force {
            command.push(b"REPLACE");
        }
        push_command(&mut self.out, &command);
        let (key, expires) = (entry.key().to_vec(), entry.expire_at_ms().is_some());
        self.sent.push(Sent::Restore { database, key, payload, expires });
        if self.out.len() >= BATCH_BYTES || self.sent.len() >= BATCH_COMMANDS { self.flush() } else { Ok(()) }
    }

    fn library(&mut self, source: &[u8]) -> Result<(), RestoreError> {
        if self.force {
            return self.ask(&[b"FUNCTION", b"LOAD", b"REPLACE", source]).map(drop);
        }
        if self.libraries.is_none() {
            let found = match self.ask(&[b"FUNCTION", b"DUMP"])? {
                Answer::Bulk(dump) => read_libraries(&dump).map_err(|why| self.failed(why))?,
                other => return Err(self.failed(format!("FUNCTION DUMP: unexpected answer {other:?}"))),
            };
            self.libraries = Some(found);
        }
        if self.libraries.iter().flatten().any(|known| known == source) {
            self.counts.same += 1;
            return Ok(());
        }
        let mut out = Vec::new();
        push_command(&mut out, &[b"FUNCTION", b"LOAD", source]);
        self.write(&out)?;
        match self.answer()? {
            Answer::Error(text) if text.contains("already exists") => self.counts.different += 1,
            Answer::Error(text) => return Err(self.failed(format!("FUNCTION LOAD: {text}"))),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let tcp = |text: &str| match Address::parse(text).unwrap() {
            Address { place: Place::Tcp(place), user, .. } => (place, user),
            other => panic!("{other:?}"),
        };
        assert_eq!(tcp("localhost:6379"), ("localhost:6379".to_owned(), None));
        assert_eq!(tcp("redis://cache.example"), ("cache.example:6379".to_owned(), None));
        assert_eq!(tcp("redis://ann@[::1]:7000/"), ("[::1]:7000".to_owned(), Some("ann".to_owned())));
        let unix = Address::parse("unix:///run/redis.sock").unwrap();
        assert_eq!(unix.place, Place::Unix("/run/redis.sock".to_owned()));
        for bad in [
            "localhost",
            "host:port",
            ":6379",
            "redis://host:1/2",
            "rediss://host:1",
            "redis://ann:secret@host:1",
            "unix://run",
            "http://host:1",
        ] {
            let error = Address::parse(bad).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{bad}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_server_tells_what_it_can_read() {
        assert_eq!(target_of("redis_version:7.0.15\r\nos:Linux\r\n"), RdbTarget::Redis70);
        assert_eq!(target_of("redis_version:7.0.15\r\ncairn_version:0.1.0\r\n"), RdbTarget::Redis74);
        assert_eq!(target_of("redis_version:8.0.1\r\n"), RdbTarget::Redis74);
        assert_eq!(target_of("redis_version:7.2.4\r\nvalkey_version:9.0.0\r\n"), RdbTarget::Redis70);
        assert_eq!(target_of(""), RdbTarget::Redis70);
    }
}
