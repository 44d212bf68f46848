//! The clients of a run: what they ask, what they were answered and when they heard of it, held against the promises.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use cairn_commands::{Protocol, Reply, Session};
use cairn_format::Lsn;
use cairn_journal::{AdmissionWait, Fsync};

use super::history::{Digest, History};
use super::random::Random;
use super::requests::{self, Request};
use super::trace::Trace;
use crate::blocked::Blocked;
use crate::engine::{Engine, Outcome};
use crate::process::Embedded;

const CLIENTS: usize = 3;
/// Where the ledgers are: nobody moves or flushes what is in here.
const LEDGER_DB: u16 = 2;

/// All that ask, and what is known of the data by what they were answered.
pub(super) struct Clients {
    clients: Vec<Client>,
    random: Random,
    pub(super) history: History,
    pub(super) trace: Trace,
    /// The end of the last commit that changed a key, by database and key.
    changed: BTreeMap<(u16, Vec<u8>), Lsn>,
    /// What each client has counted up to, and what it was told of that, one key for each: a model of its own.
    ledgers: [Ledger; CLIENTS],
    /// The first promise that was broken.
    pub(super) broken: Option<String>,
}

#[derive(Clone, Copy, Default)]
struct Ledger {
    asked: u64,
    told: u64,
}

struct Client {
    session: Session,
    next: VecDeque<Request>,
    state: State,
    /// Replies that wait for the journal, with the count they tell.
    held: VecDeque<(Lsn, Option<u64>)>,
}

enum State {
    Ready,
    /// The request waits for room in the journal.
    Admission(Request, Pin<Box<AdmissionWait>>),
    /// It waits for somebody to push, and for so many turns still.
    Blocked(Box<Blocked>, usize),
}

impl Clients {
    pub(super) fn new(random: Random, digest: Digest) -> Clients {
        Clients {
            clients: Vec::new(),
            random,
            history: History::new(digest),
            trace: Trace::default(),
            changed: BTreeMap::new(),
            ledgers: [Ledger::default(); CLIENTS],
            broken: None,
        }
    }

    /// Notes a promise that was broken.
    pub(super) fn break_promise(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    /// Connects to an engine that was opened just now: what it found is all there is.
    pub(super) fn connect(&mut self, engine: &Engine) {
        self.changed.clear();
        self.clients = (0..CLIENTS)
            .map(|number| {
                let mut session = engine.session();
                session.db = (number % 2) as u16;
                Client { session, next: VecDeque::new(), state: State::Ready, held: VecDeque::new() }
            })
            .collect();
        for number in 0..CLIENTS {
            let found = self.count_of(engine, number);
            let Ledger { asked, told } = self.ledgers[number];
            if !(told..=asked).contains(&found) {
                self.break_promise(format!(
                    "client {number} was told {told} of {asked}, and {found} is there"
                ));
            }
            self.ledgers[number] = Ledger { asked: found, told: found };
        }
    }

    /// Loses all connections.
    pub(super) fn disconnect(&mut self, engine: &Engine) {
        for client in self.clients.drain(..) {
            drop(client.state);
            engine.end_session(client.session);
        }
    }

    fn count_of(&mut self, engine: &Engine, number: usize) -> u64 {
        let mut session = engine.session();
        session.db = LEDGER_DB;
        let (key, mut out) = (ledger_key(number), Vec::new());
        let request: [&[u8]; 2] = [b"GET", &key];
        engine.execute(&mut session, &Embedded, &request, &mut Reply::new(&mut out, Protocol::Resp2));
        let text = String::from_utf8_lossy(&out);
        text.lines().nth(1).and_then(|count| count.parse().ok()).unwrap_or(0)
    }

    /// One client goes on; then those hear whose replies are durable.
    pub(super) fn step(&mut self, engine: &Engine, now_ns: u64) {
        let number = self.random.below(self.clients.len());
        match std::mem::replace(&mut self.clients[number].state, State::Ready) {
            State::Admission(request, mut wait) => match poll(wait.as_mut()) {
                Some(()) => self.ask(engine, number, request, now_ns),
                None => self.clients[number].state = State::Admission(request, wait),
            },
            State::Blocked(blocked, turns) => self.look_after(number, blocked, turns),
            State::Ready => {
                let request = self.next_request(number);
                self.ask(engine, number, request, now_ns);
            }
        }
        self.hear(engine);
    }

    fn look_after(&mut self, number: usize, blocked: Box<Blocked>, turns: usize) {
        if turns == 0 {
            blocked.time_out();
        }
        let unblocked = poll(pin!(blocked.unblocked()));
        match unblocked {
            Some(unblocked) => self.clients[number].held.push_back((unblocked.hold, None)),
            None => self.clients[number].state = State::Blocked(blocked, turns.saturating_sub(1)),
        }
    }

    fn next_request(&mut self, number: usize) -> Request {
        if self.clients[number].next.is_empty() {
            let requests = if self.random.once_in(4) {
                vec![
                    vec![b"SELECT".to_vec(), LEDGER_DB.to_string().into_bytes()],
                    vec![b"INCR".to_vec(), ledger_key(number)],
                    vec![b"SELECT".to_vec(), (number % 2).to_string().into_bytes()],
                ]
            } else {
                requests::draw(&mut self.random)
            };
            self.clients[number].next = requests.into();
        }
        self.clients[number].next.pop_front().expect("a request was drawn")
    }

    fn ask(&mut self, engine: &Engine, number: usize, request: Request, now_ns: u64) {
        let client = &mut self.clients[number];
        let before = engine.0.log.end();
        let args: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, Protocol::Resp2);
        let outcome = engine.execute(&mut client.session, &Embedded, &args, &mut reply);
        let after = engine.0.log.end();
        self.trace.request(number, &request, &out, after);
        let hold = match outcome {
            Outcome::Done { hold } | Outcome::Close { hold } => hold,
            Outcome::Wait(wait) => {
                client.state = State::Admission(request, Box::pin(wait));
                return;
            }
            Outcome::Blocked(blocked) => {
                let turns = self.random.below(12);
                self.clients[number].state = State::Blocked(blocked, turns);
                Lsn::ZERO
            }
            Outcome::Contended | Outcome::Blocking(_) => unreachable!("one thread, and no such requests"),
        };
        if after > before {
            let at_ns = requests::is_write(&request).then_some(now_ns);
            self.history.commit(after, super::digest(engine), at_ns);
        }
        self.judge(engine, number, &request, &out, (before, after), hold);
        if !matches!(self.clients[number].state, State::Blocked(..)) {
            let count = is_count(&request).then(|| count_in(&out)).flatten();
            if let Some(count) = count {
                self.ledgers[number].asked = count;
            }
            self.clients[number].held.push_back((hold, count));
        }
    }

    /// Whether a reply may be what it is, and waits for all it tells of.
    fn judge(
        &mut self,
        engine: &Engine,
        number: usize,
        request: &Request,
        out: &[u8],
        (before, after): (Lsn, Lsn),
        hold: Lsn,
    ) {
        let name = String::from_utf8_lossy(&request[0]).into_owned();
        if out.starts_with(b"-MISCONF") && after > before {
            self.break_promise(format!("{name} was refused, and changed something"));
        }
        if engine.0.settings.fsync() != Fsync::Always {
            return;
        }
        // Who waits for a key has found that it has expired, and was told nothing yet.
        let waits = matches!(self.clients[number].state, State::Blocked(..));
        if after > before && hold < after && !waits {
            self.break_promise(format!("the reply to {name} does not wait for its commit at LSN {after}"));
        }
        let Some(key) = request.get(1) else { return };
        let place = (self.clients[number].session.db, key.clone());
        if after > before && requests::is_write_of_one_key(request) {
            self.changed.insert(place, after);
        } else if requests::is_read_of_one_key(request) && self.clients[number].session.transaction.is_none()
        {
            let changed = self.changed.get(&place).copied().unwrap_or(Lsn::ZERO);
            if changed > engine.durable() && hold < changed {
                self.break_promise(format!("{name} tells of a change at LSN {changed} that is not durable"));
            }
        }
    }

    /// Lets those hear whose replies are durable.
    pub(super) fn hear(&mut self, engine: &Engine) {
        let durable = engine.durable();
        let always = engine.0.settings.fsync() == Fsync::Always;
        for (client, ledger) in self.clients.iter_mut().zip(&mut self.ledgers) {
            while let Some((hold, count)) = client.held.pop_front_if(|held| held.0 <= durable) {
                self.history.acknowledge(hold);
                if let Some(count) = count.filter(|_| always) {
                    ledger.told = ledger.told.max(count);
                }
            }
        }
    }
}

fn ledger_key(number: usize) -> Vec<u8> {
    format!("ledger:{number}").into_bytes()
}

fn is_count(request: &Request) -> bool {
    request[0] == b"INCR" && request[1].starts_with(b"ledger:")
}

fn count_in(reply: &[u8]) -> Option<u64> {
    std::str::from_utf8(reply.strip_prefix(b":")?).ok()?.trim_end().parse().ok()
}

/// Asks a future once.
fn poll<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
