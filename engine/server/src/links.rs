//! Connections to other servers, to which MIGRATE sends keys.
//!
//! They are kept for some seconds, since keys are often moved one by one. Whoever uses one has it alone, on a thread that
//! may block. A connection that somebody has authenticated serves only those who bring a password of their own.

use cairn_engine::{Delivery, DeliveryFailure, Destination, Parcel};
use cairn_resp::{Value, decode, push_command};
use parking_lot::Mutex;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// How many connections are kept, and for how long.
const KEPT_MAX: usize = 64;
const KEPT: Duration = Duration::from_secs(10);
/// A piece of a request: the time-out is about each.
const PIECE: usize = 64 << 10;
/// No reply that is expected is longer.
const REPLY_MAX: usize = 64 << 10;

/// Connections that nobody uses at the moment, those used last at the end.
#[derive(Default)]
pub(crate) struct Links(Mutex<Vec<Link>>);

struct Link {
    host: String,
    port: u16,
    authenticated: bool,
    /// The database selected there, where that is known.
    db: Option<i64>,
    stream: TcpStream,
    /// What was received behind the last reply.
    input: Vec<u8>,
    used: Instant,
    /// Requests or replies may be on it that nobody knows of.
    is_broken: bool,
}

/// How an exchange ended early.
enum Broken {
    /// What was to be done took too long, or the connection is gone.
    Writing(io::Error),
    Reading(io::Error),
    Refused(String),
}

impl Broken {
    /// Whether the other end may have closed the connection while it was not used.
    fn may_be_stale(&self) -> bool {
        match self {
            Broken::Writing(error) | Broken::Reading(error) => {
                !matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
            }
            Broken::Refused(_) => false,
        }
    }

    fn failure(self) -> DeliveryFailure {
        match self {
            Broken::Writing(_) => DeliveryFailure::Writing,
            Broken::Reading(_) => DeliveryFailure::Reading,
            Broken::Refused(error) => DeliveryFailure::Refused(error),
        }
    }
}

impl Links {
    /// How many connections are kept.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().len()
    }

    /// Closes those that have not been used for a while.
    pub(crate) fn close_idle(&self) {
        self.0.lock().retain(|link| link.used.elapsed() < KEPT);
    }

    /// Sends parcels, and waits for the answers.
    pub(crate) fn deliver(&self, to: &Destination<'_>, parcels: &[Parcel<'_>]) -> Delivery {
        if let Some(link) = self.take(to) {
            let (delivery, broken) = self.deliver_by(link, to, parcels);
            match broken {
                Some(broken) if delivery.arrived.is_empty() && broken.may_be_stale() => {}
                broken => return Delivery { failure: broken.map(Broken::failure), ..delivery },
            }
        }
        let Some(link) = Link::connect(to) else {
            return Delivery::failed(DeliveryFailure::Connecting);
        };
        let (delivery, broken) = self.deliver_by(link, to, parcels);
        Delivery { failure: broken.map(Broken::failure), ..delivery }
    }

    /// Sends by this connection, and keeps it where it is still good.
    fn deliver_by(
        &self,
        mut link: Link,
        to: &Destination<'_>,
        parcels: &[Parcel<'_>],
    ) -> (Delivery, Option<Broken>) {
        let mut delivery = Delivery::default();
        let broken = link.deliver(to, parcels, &mut delivery.arrived).err();
        if !link.is_broken {
            self.keep(link);
        }
        (delivery, broken)
    }

    fn take(&self, to: &Destination<'_>) -> Option<Link> {
        let mut links = self.0.lock();
        let fits = |link: &Link| {
            link.host == to.host
                && link.port == to.port
                && link.authenticated == to.credentials.is_some()
                && link.used.elapsed() < KEPT
        };
        links.iter().rposition(fits).map(|at| links.remove(at))
    }

    fn keep(&self, mut link: Link) {
        let mut links = self.0.lock();
        if links.len() == KEPT_MAX {
            links.remove(0);
        }
        link.used = Instant::now();
        links.push(link);
    }
}

impl Link {
    fn connect(to: &Destination<'_>) -> Option<Link> {
        let addresses = (to.host, to.port).to_socket_addrs().ok()?;
        let stream =
            addresses.filter_map(|address| TcpStream::connect_timeout(&address, to.timeout).ok()).next()?;
        // Where it cannot be set, small requests take longer.
        let _ = stream.set_nodelay(true);
        Some(Link {
            host: to.host.to_owned(),
            port: to.port,
            authenticated: to.credentials.is_some(),
            db: None,
            stream,
            input: Vec::new(),
            used: Instant::now(),
            is_broken: false,
        })
    }

    /// Sends parcels and notes of each whether it has arrived, as far as that is known. What the other server refuses is
    /// the error, once it has answered for all.
    fn deliver(
        &mut self,
        to: &Destination<'_>,
        parcels: &[Parcel<'_>],
        arrived: &mut Vec<bool>,
    ) -> Result<(), Broken> {
        self.prepare(to)?;
        // Until all has been answered.
        self.is_broken = true;
        let mut out = Vec::new();
        for parcel in parcels {
            let ttl = parcel.ttl_ms.to_string();
            let words = [&b"RESTORE"[..], parcel.key, ttl.as_bytes(), &parcel.payload, b"REPLACE"];
            push_command(&mut out, if to.replace { &words } else { &words[..4] });
            if out.len() >= PIECE {
                self.write(&mut out, to.timeout)?;
            }
        }
        self.write(&mut out, to.timeout)?;
        let mut refused = Ok(());
        for _ in parcels {
            match self.reply(to.timeout) {
                Ok(()) => arrived.push(true),
                Err(Broken::Refused(error)) => {
                    arrived.push(false);
                    refused = refused.and(Err(Broken::Refused(error)));
                }
                Err(broken) => return refused.and(Err(broken)),
            }
        }
        self.is_broken = false;
        refused
    }

    /// Authenticates and selects the database. Answered before any key is sent, which would else go to the wrong one.
    fn prepare(&mut self, to: &Destination<'_>) -> Result<(), Broken> {
        if let Some((user, password)) = to.credentials {
            let words = [Some(&b"AUTH"[..]), user, Some(password)];
            self.ask(&words.into_iter().flatten().collect::<Vec<_>>(), to.timeout)?;
        }
        if self.db != Some(to.db) {
            self.ask(&[b"SELECT", to.db.to_string().as_bytes()], to.timeout)?;
            self.db = Some(to.db);
        }
        Ok(())
    }

    fn ask(&mut self, words: &[&[u8]], timeout: Duration) -> Result<(), Broken> {
        let mut out = Vec::new();
        push_command(&mut out, words);
        self.is_broken = true;
        self.write(&mut out, timeout)?;
        let answered = self.reply(timeout);
        self.is_broken = !matches!(answered, Ok(()) | Err(Broken::Refused(_)));
        answered
    }

    /// Writes and empties `out`; each piece may take as long as `timeout` says.
    fn write(&mut self, out: &mut Vec<u8>, timeout: Duration) -> Result<(), Broken> {
        for piece in out.chunks(PIECE) {
            let deadline = Instant::now() + timeout;
            let mut rest = piece;
            while !rest.is_empty() {
                let written = left_until(deadline)
                    .and_then(|left| self.stream.set_write_timeout(Some(left)))
                    .and_then(|()| self.stream.write(rest))
                    .map_err(Broken::Writing)?;
                rest = rest.get(written..).unwrap_or_default();
            }
        }
        out.clear();
        Ok(())
    }

    /// Reads one reply: an error is that, and anything else is consent.
    fn reply(&mut self, timeout: Duration) -> Result<(), Broken> {
        let deadline = Instant::now() + timeout;
        let malformed = || Broken::Reading(io::Error::from(ErrorKind::InvalidData));
        loop {
            match decode(&self.input) {
                Ok(Some((value, length))) => {
                    self.input.drain(..length);
                    return match value {
                        Value::Error(error) => Err(Broken::Refused(error)),
                        _ => Ok(()),
                    };
                }
                Ok(None) if self.input.len() <= REPLY_MAX => {}
                _ => return Err(malformed()),
            }
            let mut bytes = [0; 4096];
            let count = left_until(deadline)
                .and_then(|left| self.stream.set_read_timeout(Some(left)))
                .and_then(|()| self.stream.read(&mut bytes))
                .map_err(Broken::Reading)?;
            if count == 0 {
                return Err(Broken::Reading(ErrorKind::UnexpectedEof.into()));
            }
            self.input.extend_from_slice(bytes.get(..count).unwrap_or_default());
        }
    }
}

/// The time that is left; none is an error.
fn left_until(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}
