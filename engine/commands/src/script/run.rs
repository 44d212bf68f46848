//! One run of a script: the commands it calls, their locks, and what ends it early.

use std::sync::Arc;
use std::time::Duration;

use cairn_keyspace::{KeyHash, Locked};
use cairn_resp::{Protocol, push_integer};
use mlua::{Error, Function, Lua, MultiValue, Value, VmState};

use super::interpreter::{self, Interpreter};
use super::number::push_general;
use super::raise::{Raised, reply_error};
use super::registry::Running;
use super::shebang::ScriptFlags;
use super::{current, reply};
use crate::acl::{self, Place};
use crate::context::Context;
use crate::dispatch::LockPlan;
use crate::error::CommandError;
use crate::spec::Flags;
use crate::table::{Command, resolve};

/// A script that has run for so long is said to hold its locks for long, and its thread's other work is handed over.
const LONG: Duration = Duration::from_millis(2);

/// How long a script waits for a lock that it did not declare before it starts again under all locks.
const PATIENCE: Duration = Duration::from_micros(200);

/// How long it waits for an undeclared key's lock where it cannot start again.
const PATIENCE_AFTER_WRITE: Duration = Duration::from_millis(50);

/// Of so many keys the reply waits for each; of more, for all.
const EXAMINED_MAX: usize = 512;

/// What is to run.
pub(crate) struct Invocation<'s> {
    /// The digest, or the function's name.
    pub(crate) name: &'s str,
    /// The command's own words.
    pub(crate) command: &'s [&'s [u8]],
    pub(crate) keys: &'s [&'s [u8]],
    pub(crate) args: &'s [&'s [u8]],
    pub(crate) flags: ScriptFlags,
    /// Whether the command promises that nothing is written.
    pub(crate) read_only: bool,
    pub(crate) is_function: bool,
}

/// Why a script ends before it has come to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// SCRIPT KILL or FUNCTION KILL.
    Killed,
    /// It could not get a lock, and starts again under all.
    Restart,
}

impl Ending {
    fn error(self) -> Error {
        match self {
            Ending::Killed => reply_error("Script killed by user with SCRIPT KILL..."),
            Ending::Restart => reply_error("the script starts again"),
        }
    }
}

/// A script while it runs.
pub(super) struct Run<'r, 'a, 'k> {
    pub(super) context: &'r mut Context<'a, 'k>,
    invocation: &'r Invocation<'r>,
    /// The protocol of the replies that the script is given.
    pub(super) protocol: Protocol,
    /// It has called a command that writes.
    wrote: bool,
    /// A client that tracks is told of changes of the declared keys: the script has read something.
    remembers: bool,
    /// Others may know of what it did, so it cannot start again.
    told: bool,
    examined: Vec<KeyHash>,
    examined_whole: bool,
    ending: Option<Ending>,
    /// The last error that a command replied, which has been counted.
    last_error: Vec<u8>,
    watched: Option<Watched>,
    /// The words of the command being called, one behind the other.
    words: Vec<u8>,
    ends: Vec<usize>,
}

/// What others see of a script that has run for some time.
struct Watched {
    running: Arc<Running>,
    is_long: bool,
}

impl Drop for Run<'_, '_, '_> {
    fn drop(&mut self) {
        if let Some(watched) = self.watched.take() {
            self.context.host.scripts().end(&watched.running);
            if watched.is_long {
                self.context.data.keyspace().note_held_long(false);
            }
        }
    }
}

/// Runs a compiled script and writes its reply.
pub(crate) fn execute(
    context: &mut Context<'_, '_>,
    interpreter: &Interpreter,
    function: &Function,
    invocation: &Invocation<'_>,
) {
    let start = context.reply.len();
    // Before the commands that it calls, as those who monitor are to read them.
    if let Some(command) = resolve(invocation.command) {
        context.show_to_monitors(command, invocation.command);
    }
    let was_in_script = std::mem::replace(&mut context.in_script, true);
    let (db, client_protocol) = (context.session.db, context.reply.protocol());
    let was_in_transaction = std::mem::replace(&mut context.in_transaction, true);
    let mut run = Run {
        context,
        invocation,
        protocol: Protocol::Resp2,
        wrote: false,
        remembers: false,
        told: false,
        examined: Vec::new(),
        examined_whole: false,
        ending: None,
        last_error: Vec::new(),
        watched: None,
        words: Vec::new(),
        ends: Vec::new(),
    };
    let returned = current::lend(&mut run, || interpreter.call(function, invocation));
    let (protocol, ending, written) = (run.protocol, run.ending, run.wrote);
    let last_error = std::mem::take(&mut run.last_error);
    let examined = match (run.examined_whole, std::mem::take(&mut run.examined)) {
        (true, _) => Some(LockPlan::Whole),
        (false, hashes) if hashes.is_empty() => None,
        (false, hashes) => Some(LockPlan::Many(hashes)),
    };
    drop(run);
    context.strayed.examined = examined;
    // SELECT in a script is the script's own.
    (context.session.db, context.data.db) = (db, db);
    (context.in_transaction, context.in_script) = (was_in_transaction, was_in_script);
    context.reply.set_protocol(client_protocol);
    context.reply.truncate(start);
    // The script leaves no effect beyond those of its commands.
    context.data.effects().begin_command();
    if ending == Some(Ending::Restart) {
        debug_assert!(!written, "a script that has written cannot start again");
        context.strayed.restart = true;
        return;
    }
    match returned {
        Ok(value) => reply::write(&mut context.reply, protocol, &value),
        Err(text) => context.reply.error_bytes(&text),
    }
    note_error(context, start, &last_error);
}

impl Run<'_, '_, '_> {
    /// Gathers the words of a call; false where one is neither a string nor a number.
    pub(super) fn gather(&mut self, args: &MultiValue) -> bool {
        self.words.clear();
        self.ends.clear();
        for arg in args {
            match arg {
                Value::String(text) => self.words.extend_from_slice(&text.as_bytes()),
                Value::Integer(number) => push_integer(&mut self.words, *number),
                Value::Number(number) => push_general(&mut self.words, *number, 17),
                _ => return false,
            }
            self.ends.push(self.words.len());
        }
        true
    }

    /// The words that were gathered.
    pub(super) fn gathered(&self) -> Vec<&[u8]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(from, end)| &self.words[from..*end]).collect()
    }

    /// Calls the command whose words were gathered; what it replied, or the text of a refusal.
    pub(super) fn call(&mut self, lua: &Lua) -> mlua::Result<Result<reply::Returned, String>> {
        if let Some(ending) = self.ending {
            return Err(ending.error());
        }
        let (words, ends) = (std::mem::take(&mut self.words), std::mem::take(&mut self.ends));
        let begins = std::iter::once(0).chain(ends.iter().copied());
        let args: Vec<&[u8]> = begins.zip(&ends).map(|(from, end)| &words[from..*end]).collect();
        let known = resolve(&args).filter(|spec| !spec.flags.has(Flags::GROUP) || args.len() == 1);
        let result = match known {
            None => Ok(Err("ERR Unknown Redis command called from script".to_owned())),
            Some(spec) => match self.check(spec, &args) {
                Ok(()) => self.call_checked(lua, spec, &args),
                Err(refusal) => {
                    if let Some(observed) = self.context.host.observed() {
                        observed.usage.note_rejected(spec.number());
                        observed.errors.note(&refusal);
                        self.last_error = refusal.clone().into_bytes();
                    }
                    Ok(Err(refusal))
                }
            },
        };
        drop(args);
        (self.words, self.ends) = (words, ends);
        result
    }

    /// Whether the script may call this command.
    fn check(&mut self, spec: &'static Command, args: &[&[u8]]) -> Result<(), String> {
        if !spec.arity.allows(args.len()) {
            return Err("ERR Wrong number of args calling Redis command from script".to_owned());
        }
        if spec.flags.has(Flags::NO_SCRIPT) && !self.context.host.scripts().allows_every_command() {
            return Err("ERR This Redis command is not allowed from script".to_owned());
        }
        acl::permit(self.context.session, self.context.host, spec, args, Place::Script)
            .map_err(|denial| denial.to_string())?;
        let flags = self.invocation.flags;
        let declared = |flag| !flags.has(ScriptFlags::COMPATIBLE) && flags.has(flag);
        let acts = spec.flags.has(Flags::WRITE) || spec.flags.has(Flags::MAY_REPLICATE);
        if acts && (self.invocation.read_only || declared(ScriptFlags::NO_WRITES)) {
            return Err("ERR Write commands are not allowed from read-only scripts.".to_owned());
        }
        // Once it has written it goes on to its end: half of what it does would be worse than some more memory.
        if spec.flags.has(Flags::DENY_OOM)
            && self.context.session.began_out_of_memory
            && !self.wrote
            && !declared(ScriptFlags::ALLOW_OOM)
        {
            return Err(CommandError::OutOfMemory.to_string());
        }
        Ok(())
    }

    fn call_checked(
        &mut self,
        lua: &Lua,
        spec: &Command,
        args: &[&[u8]],
    ) -> mlua::Result<Result<reply::Returned, String>> {
        let plan = LockPlan::of(spec, args, self.context.data.keyspace());
        if !self.hold(&plan) {
            if self.wrote || self.told {
                return Ok(Err(
                    "ERR Script attempted to access a key that it had not declared while another client held it"
                        .to_owned(),
                ));
            }
            self.ending = Some(Ending::Restart);
            return Err(Ending::Restart.error());
        }
        self.note_examined(plan);
        if spec.flags.has(Flags::WRITE) {
            if self.watched.as_ref().is_some_and(|watched| !watched.running.may_write()) {
                self.ending = Some(Ending::Killed);
                return Err(Ending::Killed.error());
            }
            self.wrote = true;
        }
        self.told |= spec.flags.has(Flags::PUBSUB);
        let context = &mut *self.context;
        let start = context.reply.len();
        context.reply.set_protocol(self.protocol);
        let mut guard = AbortOnPanic { armed: true };
        context.run_inner(spec, args);
        guard.armed = false;
        if spec.flags.has(Flags::READ) && !self.remembers {
            self.remembers = true;
            context.remember(self.invocation.keys);
        }
        let replied = context.reply.since(start);
        if let Some(error) = replied.strip_prefix(b"-") {
            self.last_error = error.trim_ascii_end().to_vec();
        }
        let returned = reply::read(lua, replied);
        context.reply.truncate(start);
        returned.map(Ok)
    }

    /// Holds what a command needs. The first undeclared key makes a script hold everything while it still can start again:
    /// once it has written, it must not depend on a lock that somebody else has.
    fn hold(&mut self, plan: &LockPlan) -> bool {
        let has_acted = self.wrote || self.told;
        let locked = self.context.data.locked_mut();
        let is_held = match plan {
            LockPlan::None => true,
            LockPlan::One(hash) => locked.holds(hash.shard()),
            LockPlan::Many(hashes) => hashes.iter().all(|hash| locked.holds(hash.shard())),
            LockPlan::Whole => locked.holds_all(),
        };
        match plan {
            _ if is_held => true,
            _ if !has_acted => locked.extend_to_all(PATIENCE),
            LockPlan::None => true,
            LockPlan::One(hash) => {
                locked.extend([hash.shard()], PATIENCE_AFTER_WRITE) && hold_destinations(locked)
            }
            LockPlan::Many(hashes) => {
                locked.extend(hashes.iter().map(|hash| hash.shard()), PATIENCE_AFTER_WRITE)
                    && hold_destinations(locked)
            }
            LockPlan::Whole => locked.extend_to_all(PATIENCE_AFTER_WRITE),
        }
    }

    fn note_examined(&mut self, plan: LockPlan) {
        match plan {
            LockPlan::None => {}
            LockPlan::One(hash) if self.examined.last() == Some(&hash) => {}
            LockPlan::One(hash) => self.examined.push(hash),
            LockPlan::Many(hashes) => self.examined.extend(hashes),
            LockPlan::Whole => self.examined_whole = true,
        }
        if self.examined.len() > EXAMINED_MAX {
            self.examined.clear();
            // All of them can be told of only where all are held; a look at more than a few keys may as well wait.
            self.examined_whole = true;
        }
    }

    /// Called by the interpreter from time to time.
    pub(super) fn tick(&mut self) -> mlua::Result<VmState> {
        if let Some(ending) = self.ending {
            return Err(ending.error());
        }
        let host = self.context.host;
        let Some(watched) = &mut self.watched else {
            let Invocation { name, command, is_function, .. } = self.invocation;
            let command = command.iter().map(|word| word.to_vec()).collect();
            let running = Arc::new(Running::new((*name).to_owned(), command, *is_function, self.wrote));
            host.scripts().begin(Arc::clone(&running));
            self.watched = Some(Watched { running, is_long: false });
            return Ok(VmState::Continue);
        };
        let running = &watched.running;
        let elapsed = running.started.elapsed();
        if !watched.is_long && elapsed >= LONG {
            watched.is_long = true;
            // First, so that nobody waits on the thread that takes over.
            self.context.data.keyspace().note_held_long(true);
            host.step_aside();
            interpreter::note_step_aside();
        }
        if !running.is_busy() && host.scripts().busy_after().is_some_and(|limit| elapsed >= limit) {
            let kill = if running.is_function { "FUNCTION KILL" } else { "SCRIPT KILL" };
            let ms = elapsed.as_millis();
            host.script_log(
                3,
                &format!(
                    "Slow script detected: still in execution after {ms} milliseconds. You can try killing the script using the {kill} command. Script name is: {}.",
                    running.name
                ),
            );
            host.scripts().note_busy(running);
        }
        if running.is_killed() {
            self.ending = Some(Ending::Killed);
            return Err(Ending::Killed.error());
        }
        Ok(VmState::Continue)
    }

    /// Fails where the script is to end: nothing that it catches keeps it alive.
    pub(super) fn go_on(&self) -> mlua::Result<()> {
        self.ending.map_or(Ok(()), |ending| Err(ending.error()))
    }
}

/// Counts an error that the script replies, unless it is that of a command, which has been counted.
fn note_error(context: &Context<'_, '_>, start: usize, last_error: &[u8]) {
    let Some(error) = context.reply.since(start).strip_prefix(b"-") else { return };
    if (last_error.is_empty() || !error.starts_with(last_error))
        && let Some(observed) = context.host.observed()
    {
        observed.errors.note(&String::from_utf8_lossy(error));
    }
}

/// Holds what serving those who wait for the held keys may need.
fn hold_destinations(locked: &mut Locked<'_>) -> bool {
    !locked.has_destinations() || locked.extend_to_all(PATIENCE_AFTER_WRITE)
}

/// A command that panics has changed part of what it was to change; the interpreter would let the script catch that.
struct AbortOnPanic {
    armed: bool,
}

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if self.armed {
            // What the panic said has been printed.
            std::process::abort();
        }
    }
}

/// What a script is told of an error that it did not catch.
pub(super) fn uncaught(name: &str, error: &Error) -> Vec<u8> {
    let own = error.chain().find_map(|cause| cause.downcast_ref::<Raised>());
    match own {
        Some(Raised::Reply(text)) => text.clone(),
        _ => {
            let text: String = error.to_string().chars().take(100).collect();
            format!("ERR Error running script {name}, {text}").into_bytes()
        }
    }
}
