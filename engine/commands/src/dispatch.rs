//! From arguments to a handler: look-up, checks, which shards to lock, and the run itself.

use std::borrow::Cow;
use std::time::Instant;

use cairn_keyspace::types::Limits;
use cairn_keyspace::{Entry, KeyHash, Keyspace, Locked};
use cairn_resp::Reply;

use crate::acl::{self, Place};
use crate::context::{Context, Data, Lookups};
use crate::effects::Effects;
use crate::error::CommandError;
use crate::host::{Host, Job};
use crate::hub::Interest;
use crate::monitor;
use crate::observed::Asker;
use crate::script::{self, Scripts};
use crate::session::{Session, Transaction};
use crate::spec::{CommandSpec, Flags};
use crate::table::{Command, lookup, resolve};
use crate::waiting::Wait;

/// What is known of a request before it runs: its row in the table, and where its first key is. Found out once, so that
/// the memory the key needs can be fetched while other requests run.
#[derive(Clone, Copy, Default)]
pub struct Route {
    spec: Option<&'static Command>,
    first_key: Option<(usize, KeyHash)>,
}

impl Route {
    /// Looks up a request.
    #[inline]
    #[must_use]
    pub fn of(args: &[&[u8]], keyspace: &Keyspace) -> Self {
        let spec = args.first().and_then(|name| lookup(name)).map(|command| command.resolve(args));
        let first = spec.and_then(|spec| spec.keys.first(args));
        Self { spec, first_key: first.map(|at| (at, keyspace.hash(args[at]))) }
    }

    /// The command, where there is one of this name.
    #[inline]
    #[must_use]
    pub fn command(&self) -> Option<&'static Command> {
        self.spec
    }

    /// Whether the command administers the server or the connection, so that what a client may send can be different
    /// behind it.
    #[inline]
    #[must_use]
    pub fn may_change_limits(&self) -> bool {
        self.spec.is_some_and(|spec| spec.flags.has(Flags::ADMIN) || spec.flags.has(Flags::NO_AUTH))
    }

    /// The command's name, with that of its subcommand.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        self.spec.map(|spec| spec.name)
    }

    /// Whether what the command replies are messages, which a client gets that wants no replies.
    #[must_use]
    pub fn replies_with_messages(&self) -> bool {
        self.spec.is_some_and(|spec| spec.flags.has(Flags::PUBSUB) && spec.name.ends_with("subscribe"))
    }

    /// Whether the command waits while clients that write are paused.
    #[must_use]
    pub fn may_write(
        &self,
        session: &Session,
        args: &[&[u8]],
        scripts: &Scripts,
        keyspace: &Keyspace,
    ) -> bool {
        let writes = |spec: &CommandSpec, args: &[&[u8]]| {
            (spec.flags.has(Flags::WRITE) || spec.flags.has(Flags::MAY_REPLICATE))
                && spec.arity.allows(args.len())
                && !script::says_it_only_reads(spec, args, scripts, keyspace)
        };
        match (self.spec, &session.transaction) {
            (Some(spec), Some(transaction)) if spec.name == "exec" => transaction.queue.iter().any(|args| {
                let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
                resolve(&args).is_some_and(|spec| writes(spec, &args))
            }),
            (Some(spec), _) => writes(spec, args),
            (None, _) => false,
        }
    }

    /// The hash of the request's first key.
    #[inline]
    #[must_use]
    pub fn hash(&self) -> Option<KeyHash> {
        self.first_key.map(|(_, hash)| hash)
    }

    /// The first key among the request's arguments, with its hash.
    #[inline]
    #[must_use]
    pub fn known_key<'a>(&self, args: &[&'a [u8]]) -> Option<(&'a [u8], KeyHash)> {
        self.first_key.map(|(at, hash)| (args[at], hash))
    }

    /// The locks it needs.
    #[inline]
    fn plan(&self, spec: &CommandSpec, args: &[&[u8]], keyspace: &Keyspace) -> LockPlan {
        match (spec.keys.is_one(), self.first_key) {
            (true, Some((_, hash))) => LockPlan::One(hash),
            _ => LockPlan::of(spec, args, keyspace),
        }
    }
}

/// Whether a command may change data: by its own flags, or by those of what it may run.
#[must_use]
pub fn may_write(spec: &CommandSpec) -> bool {
    spec.flags.has(Flags::WRITE) || (script::runs_script(spec) && !spec.flags.has(Flags::READ))
}

/// Whether a request is answered although a script has run for too long.
#[must_use]
pub fn is_allowed_while_busy(args: &[&[u8]]) -> bool {
    let is_allowed = resolve(args).is_some_and(|spec| spec.flags.has(Flags::ALLOW_BUSY));
    // Of the ways to end the server only the one that waits for nothing.
    let ends = args.first().is_some_and(|name| name.eq_ignore_ascii_case(b"shutdown"));
    is_allowed && (!ends || (args.len() == 2 && args[1].eq_ignore_ascii_case(b"nosave")))
}

/// What to do with a request.
pub enum Decision {
    /// Run it, under these locks.
    Run(&'static Command, LockPlan),
    /// The reply (an error, or QUEUED) is written.
    Replied,
}

/// The shards a command needs, and the keys its reply tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockPlan {
    /// None.
    None,
    /// That of one key.
    One(KeyHash),
    /// Those of several keys.
    Many(Vec<KeyHash>),
    /// All.
    Whole,
}

impl LockPlan {
    /// Takes the locks; `None` when somebody has one who is known to keep it for long.
    #[inline]
    #[must_use]
    pub fn try_lock<'k>(&self, keyspace: &'k Keyspace) -> Option<Locked<'k>> {
        match self {
            LockPlan::None => Some(keyspace.lock_none()),
            LockPlan::One(hash) => keyspace.try_lock_one(*hash),
            LockPlan::Many(hashes) => keyspace.try_lock_many(hashes.iter().copied()),
            LockPlan::Whole => keyspace.try_lock_all(),
        }
    }

    /// Takes the locks, where nobody keeps one for long.
    ///
    /// # Panics
    /// When somebody does.
    #[must_use]
    pub fn lock<'k>(&self, keyspace: &'k Keyspace) -> Locked<'k> {
        self.try_lock(keyspace).expect("scripts run where locks are tried")
    }

    pub(crate) fn of(spec: &CommandSpec, args: &[&[u8]], keyspace: &Keyspace) -> Self {
        if spec.keys.is_one() {
            return spec.keys.first(args).map_or(LockPlan::None, |at| LockPlan::One(keyspace.hash(args[at])));
        }
        if spec.keys.reach_everywhere(args) {
            return LockPlan::Whole;
        }
        let (mut first, mut more) = (None, Vec::new());
        spec.keys.each(args, |at| {
            let hash = keyspace.hash(args[at]);
            match first {
                None => first = Some(hash),
                Some(first) => {
                    if more.is_empty() {
                        more.push(first);
                    }
                    more.push(hash);
                }
            }
        });
        match first {
            None => LockPlan::None,
            Some(first) if more.is_empty() => LockPlan::One(first),
            Some(_) => LockPlan::Many(more),
        }
    }

    /// For a command that ends the watches of a client.
    fn of_watches(session: &Session, keyspace: &Keyspace) -> Self {
        let hashes: Vec<_> = session.watches.iter().map(|watch| keyspace.hash(&watch.key)).collect();
        if hashes.is_empty() { LockPlan::None } else { LockPlan::Many(hashes) }
    }

    /// For EXEC: the keys of all that is queued, and those watched.
    fn of_session(session: &Session, keyspace: &Keyspace) -> Self {
        let mut hashes: Vec<_> = session.watches.iter().map(|watch| keyspace.hash(&watch.key)).collect();
        for args in session.transaction.iter().flat_map(|transaction| &transaction.queue) {
            let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
            let Some(spec) = resolve(&args) else { continue };
            if script::runs_script(spec) {
                // What it will touch is known only when it does, and by then others of the transaction may have written.
                return LockPlan::Whole;
            }
            match Self::of(spec, &args, keyspace) {
                LockPlan::None => {}
                LockPlan::One(hash) => hashes.push(hash),
                LockPlan::Many(more) => hashes.extend(more),
                LockPlan::Whole => return LockPlan::Whole,
            }
        }
        if hashes.is_empty() { LockPlan::None } else { LockPlan::Many(hashes) }
    }
}

/// Checks what can be checked of a request before it runs; in a transaction, queues it.
#[inline]
pub fn decide(
    session: &mut Session,
    host: &dyn Host,
    args: &[&[u8]],
    route: &Route,
    keyspace: &Keyspace,
    reply: &mut Reply<'_>,
) -> Decision {
    let refusal = match route.spec {
        None if is_http(args[0]) => {
            // A browser was made to speak to us: what follows in its request must not run as commands.
            session.closing = true;
            return Decision::Replied;
        }
        None => unknown(args),
        Some(group) if group.flags.has(Flags::GROUP) && args.len() > 1 => {
            unknown_subcommand(group.name, args[1])
        }
        Some(spec) if !spec.arity.allows(args.len()) => CommandError::WrongArity(Cow::Borrowed(spec.name)),
        Some(spec)
            if !session.authenticated
                && !spec.flags.has(Flags::NO_AUTH)
                && host.acl().is_stranger(session) =>
        {
            CommandError::other("NOAUTH Authentication required.")
        }
        Some(spec) if session.is_in_subscriber_mode() && !spec.is_for_subscribers() => {
            not_for_subscribers(spec)
        }
        Some(spec) if session.transaction.is_some() && spec.flags.has(Flags::NO_MULTI) => {
            CommandError::other("ERR Command not allowed inside a transaction")
        }
        Some(spec) => match (acl::permit(session, host, spec, args, Place::Top), &mut session.transaction) {
            (Err(refusal), _) => refusal,
            (Ok(()), transaction) if spec.ends_watches_at_once(transaction.is_some()) => {
                return Decision::Run(spec, LockPlan::of_watches(session, keyspace));
            }
            (Ok(()), None) if spec.flags.has(Flags::DENY_OOM) && host.is_out_of_memory() => {
                CommandError::OutOfMemory
            }
            (Ok(()), None) => {
                if spec.flags.has(Flags::NO_SCRIPT) && script::runs_script(spec) {
                    session.began_out_of_memory = host.is_out_of_memory();
                }
                return Decision::Run(spec, route.plan(spec, args, keyspace));
            }
            (Ok(()), Some(transaction)) if spec.name == "exec" => {
                let needs_memory = transaction.has(|spec| spec.flags.has(Flags::DENY_OOM));
                let asks = needs_memory || transaction.has(script::runs_script);
                session.began_out_of_memory = asks && host.is_out_of_memory();
                transaction.out_of_memory = needs_memory && session.began_out_of_memory;
                return Decision::Run(spec, LockPlan::of_session(session, keyspace));
            }
            // They touch no key: MULTI and WATCH are refused here.
            (Ok(()), Some(_)) if matches!(spec.name, "multi" | "watch" | "quit") => {
                return Decision::Run(spec, LockPlan::None);
            }
            // Whatever is queued takes memory.
            (Ok(()), Some(_)) if host.is_out_of_memory() => CommandError::OutOfMemory,
            (Ok(()), Some(transaction)) => {
                transaction.push(args);
                reply.simple("QUEUED");
                return Decision::Replied;
            }
        },
    };
    let refusal = refusal.to_string();
    if let Some(observed) = host.observed() {
        observed.errors.note(&refusal);
    }
    if args[0].eq_ignore_ascii_case(b"exec") {
        session.transaction = None;
        reply.error(&format!("EXECABORT Transaction discarded because of: {refusal}"));
        return Decision::Replied;
    }
    if let Some(transaction) = &mut session.transaction {
        transaction.broken = true;
    }
    reply.error(&refusal);
    Decision::Replied
}

impl Transaction {
    fn push(&mut self, args: &[&[u8]]) {
        self.queued_bytes += args.iter().map(|arg| arg.len()).sum::<usize>();
        self.queue.push(args.iter().map(|arg| arg.to_vec()).collect());
    }

    /// Whether something holds for one of its commands.
    fn has(&self, holds: impl Fn(&CommandSpec) -> bool) -> bool {
        self.queue.iter().any(|args| {
            let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
            resolve(&args).is_some_and(|spec| holds(spec))
        })
    }
}

impl CommandSpec {
    /// Commands for clients that wait for messages and speak version 2.
    fn is_for_subscribers(&self) -> bool {
        matches!(self.name, "ping" | "quit" | "reset")
            || (self.flags.has(Flags::PUBSUB) && self.name.ends_with("subscribe"))
    }

    /// Commands that end the watches as soon as they come; in a transaction UNWATCH waits for EXEC, as everything else does.
    fn ends_watches_at_once(&self, in_transaction: bool) -> bool {
        matches!(self.name, "discard" | "reset") || (self.name == "unwatch" && !in_transaction)
    }
}

/// What a web page's request begins with, or has as its second line.
fn is_http(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
}

/// The error for a subcommand that is not there.
pub(crate) fn unknown_subcommand(command: &str, word: &[u8]) -> CommandError {
    let command = command.to_uppercase();
    CommandError::other(format!("ERR unknown subcommand '{}'. Try {command} HELP.", shown(word)))
}

#[cold]
fn not_for_subscribers(spec: &CommandSpec) -> CommandError {
    CommandError::other(format!(
        "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
        spec.name
    ))
}

fn unknown(args: &[&[u8]]) -> CommandError {
    let mut text = format!("ERR unknown command '{}', with args beginning with: ", shown(args[0]));
    for arg in &args[1..] {
        if text.len() > 128 {
            break;
        }
        text += &format!("'{}' ", shown(arg));
    }
    CommandError::other(text)
}

fn shown(arg: &[u8]) -> String {
    String::from_utf8_lossy(&arg[..arg.len().min(128)]).into_owned()
}

/// What the run of a command left behind.
#[derive(Default)]
pub struct Ran {
    /// Long work to do instead of replying.
    pub job: Option<Job>,
    /// What to wait for instead of replying.
    pub wait: Option<Box<Wait>>,
    /// Counters to add up.
    pub lookups: Lookups,
    /// What a script did beyond the keys it had declared.
    pub strayed: Strayed,
}

/// What a script touched beyond the keys it had declared.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Strayed {
    /// It could not get their locks and has done nothing yet: the command is to be run again under all locks.
    pub restart: bool,
    /// What its reply tells of.
    pub examined: Option<LockPlan>,
}

/// The parts that every run of a command needs and that outlive it.
pub struct Tools<'a> {
    /// The clock, in milliseconds since the Unix epoch.
    pub now_ms: i64,
    /// When small collections change their encoding.
    pub limits: &'a Limits,
    /// State of the random numbers.
    pub random: &'a mut u64,
    /// Whether the journal is being replayed.
    pub replaying: bool,
    /// A key whose hash is known already: one of the command's own arguments.
    pub known_key: Option<(&'a [u8], KeyHash)>,
}

/// Runs a command under its locks. Its reply and its effects are complete afterwards.
#[allow(clippy::too_many_arguments, reason = "each is a part of the world that the caller holds apart")]
#[inline]
pub fn run(
    spec: &CommandSpec,
    args: &[&[u8]],
    session: &mut Session,
    host: &dyn Host,
    locked: &mut Locked<'_>,
    effects: &mut Effects,
    reply: Reply<'_>,
    tools: Tools<'_>,
) -> Ran {
    let db = session.db;
    let data = Data::new(locked, effects, db, tools);
    let strayed = Strayed::default();
    let mut context = Context {
        data,
        reply,
        session,
        host,
        job: None,
        wait: None,
        in_transaction: false,
        in_script: false,
        strayed,
    };
    if context.session.no_touch {
        context.data.clock = context.data.clock.paused();
    }
    context.run(spec, args);
    let Context { job, wait, data, strayed, .. } = context;
    Ran { job, wait, lookups: data.lookups, strayed }
}

/// What [`expire_shard`] removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    /// Keys whose moment had come.
    pub keys: usize,
    /// Fields of hashes.
    pub fields: usize,
}

/// Removes up to `most` expired keys of one shard, and as many fields of its hashes.
pub fn expire_shard(
    locked: &mut Locked<'_>,
    shard: usize,
    db: u16,
    most: usize,
    effects: &mut Effects,
    tools: Tools<'_>,
) -> Expired {
    let mut data = Data::new(locked, effects, db, tools);
    let keys = (0..most).take_while(|_| data.expire_next(shard, db)).count();
    let mut fields = 0;
    while fields < most {
        match data.expire_next_fields(shard, db, most - fields) {
            0 => break,
            removed => fields += removed,
        }
    }
    Expired { keys, fields }
}

/// Removes a key because memory is short, and gives what it was, to be freed when its lock is.
pub fn evict_key(
    locked: &mut Locked<'_>,
    db: u16,
    key: &[u8],
    effects: &mut Effects,
    tools: Tools<'_>,
) -> Option<Entry> {
    Data::new(locked, effects, db, tools).evict(key)
}

impl Context<'_, '_> {
    /// Runs one command, alone or as part of EXEC; an error becomes its reply.
    #[inline]
    pub(crate) fn run(&mut self, spec: &CommandSpec, args: &[&[u8]]) {
        let start = self.reply.len();
        self.data.begin_command(spec.flags.has(Flags::READ));
        let db = self.data.db;
        match (spec.handler)(self, args) {
            Ok(()) => self.data.effects().end_command(db, args),
            Err(error) => {
                // An error says that nothing happened; a change without an effect would be lost at the next start.
                debug_assert!(
                    !self.data.effects().is_dirty(),
                    "{} failed after it had changed something",
                    spec.name
                );
                self.reply.truncate(start);
                let error = error.to_string();
                if let Some(observed) = self.host.observed() {
                    observed.errors.note(&error);
                }
                self.reply.error(&error);
            }
        }
        if self.data.effects().news().is_wanted(Interest::MONITOR.and(Interest::TRACKING)) {
            self.tell_observers(spec, args);
        }
    }

    /// Runs a command of a transaction or of a script, and notes how that went.
    pub(crate) fn run_inner(&mut self, spec: &Command, args: &[&[u8]]) {
        let Some(observed) = self.host.observed() else { return self.run(spec, args) };
        let (start, began) = (self.reply.len(), Instant::now());
        self.run(spec, args);
        let failed = self.reply.since(start).first() == Some(&b'-');
        let duration_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        observed.note(spec, duration_us, failed, |note| {
            let address = self.host.client_address(self.session.id);
            note(args, &Asker { address: &address, name: &self.session.name });
        });
    }

    /// Shows a command to those who monitor, if there are any.
    pub(crate) fn show_to_monitors(&mut self, spec: &CommandSpec, args: &[&[u8]]) {
        if self.data.effects().news().is_wanted(Interest::MONITOR) && !spec.flags.has(Flags::ADMIN) {
            let source = match self.in_script {
                true => "lua".to_owned(),
                false => self.host.client_address(self.session.id),
            };
            let line = monitor::line(self.data.db, &source, spec, args);
            self.data.effects().news().line(&line);
        }
    }

    /// Shows the command to those who monitor, and remembers what a client that tracks has read.
    #[cold]
    fn tell_observers(&mut self, spec: &CommandSpec, args: &[&[u8]]) {
        if !spec.flags.has(Flags::SKIP_MONITOR) {
            self.show_to_monitors(spec, args);
        }
        // What a script reads, its commands tell.
        if spec.flags.has(Flags::READ) && !spec.flags.has(Flags::PUBSUB) && !script::runs_script(spec) {
            let mut read = Vec::new();
            spec.keys.each(args, |at| read.push(args[at]));
            self.remember(&read);
        }
        let Some(tracking) = &mut self.session.tracking else { return };
        // CLIENT CACHING is about one command, or one transaction.
        if !self.in_transaction && self.session.transaction.is_none() && !spec.name.starts_with("client|") {
            tracking.caching = false;
        }
    }

    /// Notes that the client has read keys, where it wants to hear of their changes.
    pub(crate) fn remember(&mut self, keys: &[&[u8]]) {
        if self.session.tracking.as_ref().is_some_and(|tracking| tracking.remembers()) {
            let id = self.session.id;
            self.data.effects().news().read(keys, id);
        }
    }

    /// Runs what a transaction queued.
    pub(crate) fn run_queue(&mut self, transaction: &Transaction) {
        /// It is not asked what the bound is for replies up to here.
        const REPLY_LOOKED_AT: usize = 64 << 10;
        self.in_transaction = true;
        self.reply.array(transaction.queue.len());
        for args in &transaction.queue {
            let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
            let Some(spec) = resolve(&args) else { continue };
            let start = self.reply.len();
            // What a user may do can have changed since the command was queued.
            match acl::permit(self.session, self.host, spec, &args, Place::Exec) {
                Ok(()) => self.run_inner(spec, &args),
                Err(refusal) => {
                    if let Some(observed) = self.host.observed() {
                        observed.usage.note_rejected(spec.number());
                    }
                    self.reply.error(&refusal.to_string());
                }
            }
            // What has been queued takes effect, read or not.
            if self.session.reply_given_up {
                self.reply.truncate(start);
            } else if self.reply.len() > REPLY_LOOKED_AT && self.reply.len() > self.reply_max() {
                // Nothing has gone wrong for the command.
                let _ = self.give_up_reply();
            }
        }
        self.in_transaction = false;
        // EXEC itself leaves no effect beyond those of its commands.
        self.data.effects().begin_command();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that has nothing to say.
    struct Nobody;
    impl Host for Nobody {}

    /// The locks that the requests are run under, as one client sends them; none for what is only queued.
    fn plans(requests: &[&str]) -> Vec<Option<LockPlan>> {
        let (keyspace, mut session, mut out) = (Keyspace::new(1), Session::new(1, true), Vec::new());
        let mut plan = |request: &&str| {
            let args: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
            let (route, protocol) = (Route::of(&args, &keyspace), session.protocol);
            let mut reply = Reply::new(&mut out, protocol);
            match decide(&mut session, &Nobody, &args, &route, &keyspace, &mut reply) {
                Decision::Run(spec, plan) => {
                    if spec.name == "multi" {
                        session.transaction.get_or_insert_default();
                    }
                    Some(plan)
                }
                Decision::Replied => None,
            }
        };
        requests.iter().map(&mut plan).collect()
    }

    #[test]
    fn only_exec_locks_what_is_queued() {
        let plans = plans(&["MULTI", "SET a 1", "GET b", "WATCH c", "MULTI", "QUIT", "DISCARD", "EXEC"]);
        let [multi, set, get, at_once @ .., exec] = &plans[..] else { panic!("a plan each") };
        assert_eq!((multi, set, get), (&Some(LockPlan::None), &None, &None));
        assert_eq!(at_once, vec![Some(LockPlan::None); 4]);
        assert!(matches!(exec, Some(LockPlan::Many(keys)) if keys.len() == 2), "{exec:?}");
    }

    #[test]
    fn what_is_queued_is_counted_as_it_comes() {
        let mut transaction = Transaction::default();
        transaction.push(&[b"SET", b"key", b"value"]);
        transaction.push(&[b"GET", b"key"]);
        let bytes: usize = transaction.queue.iter().flatten().map(Vec::len).sum();
        assert_eq!((transaction.queued_bytes, bytes), (17, 17));
    }
}
