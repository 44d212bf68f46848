//! What connections asked for and what was acknowledged, so that a crash can be judged exactly.
//!
//! Each connection runs an endless numbered list of requests that depends only on its own number: keys are set, some
//! deleted again, counters raised, and pairs of keys moved in MULTI. Its state after a crash must be the state after
//! all acknowledged requests, or that plus some of those in flight, in order: a connection's requests commit in the
//! order sent. Anything else is a lost write, a write nobody asked for, a torn transaction or an effect applied twice.

use crate::random::Random;
use crate::resp::{Client, Value, encode};
use std::collections::{BTreeMap, VecDeque};
use std::io;

/// The keys of one connection and their values.
pub type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// A request that commits as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Request {
    Set(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    Count(Vec<u8>),
    Append(Vec<u8>, Vec<u8>),
    Pair(Vec<u8>, Vec<u8>, Vec<u8>),
}

impl Request {
    /// Request `number` of `connection`.
    fn numbered(connection: usize, number: u64) -> Self {
        let key = |suffix: &dyn std::fmt::Display| format!("{connection}:{suffix}").into_bytes();
        let mut random = Random::new((connection as u64) << 40 | number);
        match number % 8 {
            5 => Self::Pair(key(&"left"), key(&"right"), number.to_string().into_bytes()),
            6 => Self::Delete(key(&(number - 6))),
            7 => Self::Count(key(&"count")),
            3 if number.is_multiple_of(5) => Self::Append(key(&(number - 1)), random.hex(9)),
            _ => {
                // Most values are small; some span many blocks of the journal.
                let length = if number.is_multiple_of(61) {
                    3_000 + random.below(9_000)
                } else {
                    1 + random.below(120)
                };
                Self::Set(key(&number), random.hex(length))
            }
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Set(key, value) => encode(out, &[b"SET", &key[..], value]),
            Self::Delete(key) => encode(out, &[b"DEL", &key[..]]),
            Self::Count(key) => encode(out, &[b"INCR", &key[..]]),
            Self::Append(key, value) => encode(out, &[b"APPEND", &key[..], value]),
            Self::Pair(left, right, value) => {
                encode(out, &[b"MULTI"]);
                encode(out, &[b"SET", &left[..], value]);
                encode(out, &[b"SET", &right[..], value]);
                encode(out, &[b"EXEC"]);
            }
        }
    }

    fn replies(&self) -> usize {
        if matches!(self, Self::Pair(..)) { 4 } else { 1 }
    }

    fn apply(&self, state: &mut State) {
        match self {
            Self::Set(key, value) => {
                state.insert(key.clone(), value.clone());
            }
            Self::Delete(key) => {
                state.remove(key);
            }
            Self::Count(key) => {
                let count: u64 =
                    state.get(key).map_or(0, |text| String::from_utf8_lossy(text).parse().unwrap_or(0));
                state.insert(key.clone(), (count + 1).to_string().into_bytes());
            }
            Self::Append(key, value) => state.entry(key.clone()).or_default().extend_from_slice(value),
            Self::Pair(left, right, value) => {
                state.insert(left.clone(), value.clone());
                state.insert(right.clone(), value.clone());
            }
        }
    }
}

/// One connection's account.
#[derive(Clone, Debug)]
pub struct Ledger {
    connection: usize,
    depth: usize,
    next: u64,
    acknowledged: State,
    in_flight: VecDeque<Request>,
}

impl Ledger {
    /// The account of `connection`, which keeps up to `depth` requests in flight.
    pub fn new(connection: usize, depth: usize) -> Self {
        Self { connection, depth, next: 1, acknowledged: State::new(), in_flight: VecDeque::new() }
    }

    /// How many requests have been acknowledged or found applied.
    pub fn done(&self) -> u64 {
        self.next - 1
    }

    /// The key of the counter that other connections may watch.
    pub fn counter(connection: usize) -> Vec<u8> {
        format!("{connection}:count").into_bytes()
    }

    /// Runs requests until the connection breaks (the server was killed). An error reply is the second outcome.
    pub fn run(&mut self, client: &mut Client) -> Result<(), String> {
        self.run_while(client, || true)
    }

    /// Runs requests until the connection breaks or, with nothing left in flight, `go_on` says no.
    pub fn run_while(&mut self, client: &mut Client, go_on: impl Fn() -> bool) -> Result<(), String> {
        while go_on() {
            let mut bytes = Vec::new();
            for step in 0..self.depth as u64 {
                let request = Request::numbered(self.connection, self.next + step);
                request.encode(&mut bytes);
                self.in_flight.push_back(request);
            }
            if client.send(&bytes).is_err() {
                return Ok(());
            }
            while let Some(request) = self.in_flight.front() {
                match replies(client, request.replies()) {
                    Ok(Some(error)) => return Err(format!("connection {}: {error:?}", self.connection)),
                    Ok(None) => {
                        request.apply(&mut self.acknowledged);
                        self.in_flight.pop_front();
                        self.next += 1;
                    }
                    Err(_) => return Ok(()),
                }
            }
        }
        Ok(())
    }

    /// Judges the state found after a restart and goes on from it.
    pub fn settle(&mut self, found: &State) -> Result<(), String> {
        let mut state = self.acknowledged.clone();
        let first = difference(&state, found);
        let mut applied = 0;
        while difference(&state, found).is_some() {
            let Some(request) = self.in_flight.get(applied) else {
                return Err(format!(
                    "connection {}: after {} acknowledged requests and {} in flight, {}",
                    self.connection,
                    self.done(),
                    self.in_flight.len(),
                    first.unwrap_or_default()
                ));
            };
            request.apply(&mut state);
            applied += 1;
        }
        self.next += applied as u64;
        self.acknowledged = state;
        self.in_flight.clear();
        Ok(())
    }
}

/// Reads `count` replies; the first error among them.
fn replies(client: &mut Client, count: usize) -> io::Result<Option<Value>> {
    let mut error = None;
    for _ in 0..count {
        let reply = client.reply()?;
        if reply.is_error() || reply == Value::Null {
            error.get_or_insert(reply);
        }
    }
    Ok(error)
}

/// The first difference, in words; keys of tests are no secret.
fn difference(expected: &State, found: &State) -> Option<String> {
    for (key, value) in expected {
        match found.get(key) {
            None => return Some(format!("{} is lost", key.escape_ascii())),
            Some(other) if other != value => {
                let (expected, found) = (shorten(value), shorten(other));
                return Some(format!("{} is {found} instead of {expected}", key.escape_ascii()));
            }
            Some(_) => {}
        }
    }
    found
        .keys()
        .find(|key| !expected.contains_key(*key))
        .map(|key| format!("{} was not asked for", key.escape_ascii()))
}

fn shorten(value: &[u8]) -> String {
    let text = value.escape_ascii().to_string();
    if text.len() > 40 { format!("{}… ({} bytes)", &text[..40], value.len()) } else { text }
}

/// Reads every string key of the server, grouped by the connection that its name starts with.
#[track_caller]
pub fn read_all(client: &mut Client) -> BTreeMap<usize, State> {
    let mut all: BTreeMap<usize, State> = BTreeMap::new();
    let mut cursor = b"0".to_vec();
    loop {
        let reply = client.args(&[&b"SCAN"[..], &cursor, b"COUNT", b"2000"]);
        let [Value::Bulk(next), Value::Array(keys)] = &reply.items()[..] else {
            panic!("SCAN gave something else")
        };
        let mut request = vec![b"MGET".to_vec()];
        request.extend(keys.iter().map(|key| match key {
            Value::Bulk(key) => key.clone(),
            other => panic!("SCAN gave {other:?} as a key"),
        }));
        if request.len() > 1 {
            for (key, value) in request[1..].iter().zip(client.args(&request).items()) {
                let Value::Bulk(value) = value else { panic!("{} is {value:?}", key.escape_ascii()) };
                let name = String::from_utf8_lossy(key);
                let connection = name.split(':').next().and_then(|text| text.parse().ok());
                let connection = connection.unwrap_or_else(|| panic!("the key {name} was not asked for"));
                all.entry(connection).or_default().insert(key.clone(), value);
            }
        }
        if next == b"0" {
            return all;
        }
        cursor = next.clone();
    }
}
