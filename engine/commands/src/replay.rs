//! From effects back to data: the stream read as commands, and those run.

use cairn_keyspace::Keyspace;
use cairn_keyspace::types::Limits;
use cairn_resp::{Args, Limits as WireLimits, Parsed, Parser, Protocol, Reply};

use crate::dispatch::{LockPlan, Tools, lookup, run};
use crate::effects::Effects;
use crate::host::Host;
use crate::session::Session;

/// Replays a stream of effects that comes in pieces.
pub struct Replayer<'a> {
    keyspace: &'a Keyspace,
    limits: &'a Limits,
    session: Session,
    parser: Parser,
    args: Args,
    /// What has come of an effect that is not whole yet.
    rest: Vec<u8>,
    reply: Vec<u8>,
    effects: Effects,
    random: u64,
    /// How many effects were replayed.
    pub commands: u64,
}

impl<'a> Replayer<'a> {
    /// Replays into `keyspace`.
    #[must_use]
    pub fn new(keyspace: &'a Keyspace, limits: &'a Limits) -> Self {
        Self {
            keyspace,
            limits,
            session: Session::new(0, true),
            parser: new_parser(),
            args: Args::new(),
            rest: Vec::new(),
            reply: Vec::new(),
            effects: Effects::default(),
            random: 0,
            commands: 0,
        }
    }

    /// Replays a piece of the stream, which begins in `db` when nothing is left of the piece before.
    ///
    /// # Errors
    /// What no program of this version writes: an unknown command, or one that fails.
    pub fn feed(&mut self, bytes: &[u8], db: u16) -> Result<(), String> {
        if self.rest.is_empty() {
            self.session.db = db;
            let done = self.replay(bytes)?;
            self.rest.extend_from_slice(&bytes[done..]);
        } else {
            let mut joined = std::mem::take(&mut self.rest);
            joined.extend_from_slice(bytes);
            let done = self.replay(&joined)?;
            joined.drain(..done);
            self.rest = joined;
        }
        Ok(())
    }

    /// Replays all whole effects; returns how many bytes they take.
    fn replay(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let mut at = 0;
        // What is left is parsed again from its start when more has come, so no state of the parser is kept.
        self.parser = new_parser();
        let mut args = std::mem::take(&mut self.args);
        while at < bytes.len() {
            let buf = &bytes[at..];
            match self.parser.parse(buf, &mut args) {
                Ok(Parsed::Request { consumed }) => {
                    if !args.is_empty() {
                        self.apply(&args.slices(buf))?;
                    }
                    at += consumed;
                }
                Ok(Parsed::Incomplete { .. }) => break,
                Err(error) => return Err(error.to_string()),
            }
        }
        self.args = args;
        Ok(at)
    }

    fn apply(&mut self, args: &[&[u8]]) -> Result<(), String> {
        self.commands += 1;
        // What belongs together was cut only at the end of the stream, and that is not delivered.
        if args[0].eq_ignore_ascii_case(b"multi") || args[0].eq_ignore_ascii_case(b"exec") {
            return Ok(());
        }
        let name = || String::from_utf8_lossy(args[0]).into_owned();
        let spec = lookup(args[0]).ok_or_else(|| format!("unknown command '{}'", name()))?;
        if !spec.arity.allows(args.len()) {
            return Err(format!("wrong number of arguments for '{}'", name()));
        }
        let mut locked = LockPlan::of(spec, args, self.keyspace).lock(self.keyspace);
        self.reply.clear();
        self.effects.clear();
        let tools = Tools {
            now_ms: 0,
            limits: self.limits,
            random: &mut self.random,
            replaying: true,
            known_key: None,
        };
        let reply = Reply::new(&mut self.reply, Protocol::Resp2);
        let ran = run(spec, args, &mut self.session, &NoHost, &mut locked, &mut self.effects, reply, tools);
        match (self.reply.first(), ran.job) {
            (Some(b'-'), _) => {
                Err(format!("'{}' answered {}", name(), String::from_utf8_lossy(&self.reply).trim()))
            }
            (_, Some(_)) => Err(format!("'{}' is no effect", name())),
            _ => Ok(()),
        }
    }

    /// Whether the stream ended between two effects.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.rest.is_empty()
    }
}

fn new_parser() -> Parser {
    // What was accepted from a client, whatever its limits were, was accepted.
    let mut parser = Parser::new(WireLimits::default());
    parser.set_authenticated(true);
    parser.set_max_bulk(1 << 40);
    parser
}

/// No effect asks anything of the process.
struct NoHost;

impl Host for NoHost {}
