//! A load at a steady rate: an open loop, which sends when a request is due whatever became of those before.
//!
//! A closed loop (redis-benchmark) waits for the reply before it sends again, so that a server that stands still for 20 ms
//! delays one request and hides the four hundred that would have come meanwhile. Here each request has its moment, and its
//! latency counts from that moment ("coordinated omission", Gil Tene).

use crate::load;
use crate::process::{FIRST, prefer};
use cairn_tests::random::Random;
use cairn_tests::resp::encode;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 8;
/// How long the generator sleeps when nothing is due and no reply has come; the kernel adds about as much.
const NAP: Duration = Duration::from_micros(50);
/// After the end, replies that are still under way are awaited for so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is sent: GET and SET by turns over `keys` keys of the standard dataset.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) rate: usize,
    pub(crate) keys: usize,
    pub(crate) value_bytes: usize,
}

/// One request: when it was due, in seconds from the start, and how long after that its reply was there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) due: f32,
    pub(crate) latency_ms: f32,
}

/// Runs `work` under this load; `work` is given the moment the load began. All requests, in the order of their replies.
pub(crate) fn under_load<T>(
    address: SocketAddr,
    pace: Pace,
    work: impl FnOnce(Instant) -> T,
) -> (T, Vec<Request>) {
    let done = AtomicBool::new(false);
    let start = Instant::now() + Duration::from_millis(100);
    thread::scope(|scope| {
        let generator = scope.spawn(|| {
            prefer(FIRST);
            Generator::new(address, pace, start).run(&done)
        });
        // The load ends with the work even where that panics, or nobody would ever learn of it.
        let result = {
            let _end = SetOnDrop(&done);
            work(start)
        };
        (result, generator.join().expect("the generator ran to its end"))
    })
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

struct Connection {
    stream: TcpStream,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    /// When the requests without a reply were due.
    waiting: VecDeque<Duration>,
}

struct Generator {
    pace: Pace,
    start: Instant,
    connections: Vec<Connection>,
    random: Random,
    value: Vec<u8>,
    sent: usize,
    requests: Vec<Request>,
}

impl Generator {
    fn new(address: SocketAddr, pace: Pace, start: Instant) -> Self {
        let connections = (0..CONNECTIONS).map(|_| {
            let stream = TcpStream::connect(address).expect("the server takes connections");
            stream.set_nodelay(true).expect("TCP_NODELAY");
            stream.set_nonblocking(true).expect("O_NONBLOCK");
            let (outgoing, incoming) = (Vec::new(), Vec::with_capacity(1 << 20));
            Connection { stream, outgoing, incoming, waiting: VecDeque::new() }
        });
        Self {
            pace,
            start,
            connections: connections.collect(),
            random: Random::new(6),
            value: vec![0; pace.value_bytes],
            sent: 0,
            requests: Vec::with_capacity(pace.rate * 60),
        }
    }

    fn due(&self, number: usize) -> Duration {
        Duration::from_nanos((number as u64 * 1_000_000_000) / self.pace.rate as u64)
    }

    fn run(mut self, done: &AtomicBool) -> Vec<Request> {
        thread::sleep(self.start.saturating_duration_since(Instant::now()));
        let mut end = None;
        loop {
            if end.is_none() && done.load(Ordering::Acquire) {
                end = Some(Instant::now() + PATIENCE);
            }
            if end.is_none() {
                self.send_due();
            }
            let moved = self.exchange();
            let idle = self.connections.iter().all(|connection| connection.waiting.is_empty());
            if end.is_some_and(|end| idle || Instant::now() > end) {
                return self.requests;
            }
            if !moved {
                thread::sleep(NAP);
            }
        }
    }

    fn send_due(&mut self) {
        let now = self.start.elapsed();
        while self.due(self.sent) <= now {
            let key = load::key(self.random.below(self.pace.keys));
            let due = self.due(self.sent);
            let connection = &mut self.connections[self.sent % CONNECTIONS];
            // By turns on every connection, not odd on some and even on others.
            if (self.sent / CONNECTIONS).is_multiple_of(2) {
                encode(&mut connection.outgoing, &["GET", &key]);
            } else {
                load::hex(&mut self.random, &mut self.value);
                encode(&mut connection.outgoing, &[b"SET", key.as_bytes(), &self.value]);
            }
            connection.waiting.push_back(due);
            self.sent += 1;
        }
    }

    /// Writes and reads what the sockets take and give; whether there was anything.
    fn exchange(&mut self) -> bool {
        let mut moved = false;
        for connection in &mut self.connections {
            connection.write();
            if connection.waiting.is_empty() {
                continue;
            }
            let replies = connection.read();
            let now = self.start.elapsed();
            moved |= replies > 0;
            for due in connection.waiting.drain(..replies) {
                let latency_ms = (now.saturating_sub(due)).as_secs_f32() * 1e3;
                self.requests.push(Request { due: due.as_secs_f32(), latency_ms });
            }
        }
        moved
    }
}

impl Connection {
    fn write(&mut self) {
        while !self.outgoing.is_empty() {
            match self.stream.write(&self.outgoing) {
                Ok(count) => drop(self.outgoing.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("the server closed a connection of the load: {error}"),
            }
        }
    }

    /// Reads what there is; how many replies are complete by it.
    fn read(&mut self) -> usize {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => panic!("the server closed a connection of the load"),
                Ok(count) => self.incoming.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("the server closed a connection of the load: {error}"),
            }
        }
        let (mut at, mut replies) = (0, 0);
        while let Some(length) = reply_length(&self.incoming[at..]) {
            at += length;
            replies += 1;
        }
        self.incoming.drain(..at);
        replies
    }
}

/// The length of the first reply, a line or a bulk string; `None` where it is not complete.
fn reply_length(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    assert!(bytes[0] != b'-', "the load met an error: {}", bytes[..line].escape_ascii());
    if bytes[0] != b'$' || bytes[1] == b'-' {
        return Some(line + 2);
    }
    let length: usize = std::str::from_utf8(&bytes[1..line]).ok()?.parse().ok()?;
    let whole = line + 2 + length + 2;
    (bytes.len() >= whole).then_some(whole)
}

/// The latency below which this share of the requests stayed, in milliseconds.
pub(crate) fn percentile(requests: &[Request], share: f64) -> f64 {
    let mut latencies: Vec<f32> = requests.iter().map(|request| request.latency_ms).collect();
    if latencies.is_empty() {
        return 0.0;
    }
    latencies.sort_by(f32::total_cmp);
    f64::from(latencies[(((latencies.len() as f64) * share) as usize).min(latencies.len() - 1)])
}

/// The longest, in milliseconds.
pub(crate) fn longest(requests: &[Request]) -> f64 {
    percentile(requests, 1.0)
}

/// The requests that were due in this time.
pub(crate) fn between(requests: &[Request], from: f64, to: f64) -> Vec<Request> {
    let within = |request: &&Request| (from..to).contains(&f64::from(request.due));
    requests.iter().filter(within).copied().collect()
}
