//! Interpreters: what a thread compiles scripts with and runs them in.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cairn_keyspace::Library;
use mlua::{Error, Function, HookTriggers, Lua, LuaOptions, MultiValue, StdLib, Table, Value, VmState};

use super::library::{Loaded, Registering};
use super::registry::{FUNCTION_BYTES, SCRIPT_BYTES, Sha};
use super::run::{Invocation, uncaught};
use super::shebang::{self, ScriptFlags};
use super::{bit, cjson, cmsgpack, current, raise, redis_api, structs};

/// Instructions between two calls of the hook: about a millisecond.
pub(super) const HOOK_EVERY: u32 = 100_000;

/// A script that needs more memory fails.
const MEMORY_MAX: usize = 512 << 20;

/// The next collection begins when memory has grown to so many percent of what the last one left.
const GC_PAUSE: i32 = 120;

/// Results that `unpack` may give: what the interpreter's stack holds.
const RESULTS_MAX: usize = 8_000;

/// Compiled scripts that a thread keeps; when there are more, all are compiled anew.
const COMPILED_MAX: usize = 1_000;

/// What an interpreter is for: scripts and functions do not see each other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Scripts,
    Functions,
}

/// One interpreter.
pub(crate) struct Interpreter {
    pub(super) lua: Lua,
    /// `run` for scripts, `call` for functions.
    entry: Function,
    pub(super) load: Function,
    compiled: RefCell<HashMap<Sha, (Function, ScriptFlags)>>,
    /// Of the known scripts that `compiled` belongs to.
    version: Cell<u64>,
    pub(super) registering: Registering,
    pub(super) libraries: RefCell<HashMap<String, Loaded>>,
    /// Functions that were called, all of the libraries of this version.
    pub(super) functions: RefCell<HashMap<String, (Function, ScriptFlags)>>,
    pub(super) libraries_version: Cell<u64>,
    json: Rc<Cell<cjson::Settings>>,
    /// Where its bytes are told, and how many are.
    bytes: &'static AtomicUsize,
    told_bytes: Cell<usize>,
    runs: Cell<u32>,
}

thread_local! {
    static SCRIPTS: RefCell<Option<Interpreter>> = const { RefCell::new(None) };
    static FUNCTIONS: RefCell<Option<Interpreter>> = const { RefCell::new(None) };
    /// Whether another thread has taken over what this one did beside the script it runs.
    static GAVE_AWAY: Cell<bool> = const { Cell::new(false) };
}

/// Gives this thread's interpreter for scripts to `f`.
pub(crate) fn with_scripts<R>(f: impl FnOnce(&Interpreter) -> R) -> Result<R, String> {
    let result = SCRIPTS.with_borrow_mut(|slot| made(slot, Kind::Scripts).map(f));
    forget_what_is_not_needed();
    result
}

/// Gives this thread's interpreter for functions to `f`.
pub(crate) fn with_functions<R>(f: impl FnOnce(&Interpreter) -> R) -> Result<R, String> {
    let result = FUNCTIONS.with_borrow_mut(|slot| made(slot, Kind::Functions).map(f));
    forget_what_is_not_needed();
    result
}

/// Says that another thread takes over: this one will serve nobody for a while, and need no interpreter.
pub(super) fn note_step_aside() {
    GAVE_AWAY.set(true);
}

fn forget_what_is_not_needed() {
    // One is in use where a script loads a library; then it is done when the script ends.
    let forget = |slot: &RefCell<Option<Interpreter>>| slot.try_borrow_mut().map(|mut slot| *slot = None);
    if GAVE_AWAY.get() && SCRIPTS.with(forget).is_ok() && FUNCTIONS.with(forget).is_ok() {
        GAVE_AWAY.set(false);
    }
}

fn made(slot: &mut Option<Interpreter>, kind: Kind) -> Result<&Interpreter, String> {
    if slot.is_none() {
        *slot = Some(Interpreter::new(kind).map_err(|error| format!("ERR no interpreter: {error}"))?);
    }
    slot.as_ref().ok_or_else(|| "ERR no interpreter".to_owned())
}

/// Frees what this thread has compiled.
pub(crate) fn forget_compiled() {
    SCRIPTS.with_borrow_mut(|slot| *slot = None);
}

impl Interpreter {
    fn new(kind: Kind) -> mlua::Result<Self> {
        let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH;
        let lua = Lua::new_with(libraries, LuaOptions::new())?;
        lua.set_memory_limit(MEMORY_MAX)?;
        // Collecting begins again soon: many threads have interpreters, and scripts leave little behind.
        lua.gc_set_mode(mlua::state::GcMode::Incremental(
            mlua::state::GcIncParams::default().pause(GC_PAUSE),
        ));
        let registering = Registering::default();
        let json = Rc::new(Cell::new(cjson::Settings::default()));
        let native = native(&lua, kind, &registering, &json)?;
        let sandbox = lua.load(include_str!("sandbox.lua")).set_name("=sandbox").into_function()?;
        let world: Table = sandbox.call(native)?;
        lua.set_globals(world.get("env")?)?;
        let entry = world.get(if kind == Kind::Scripts { "run" } else { "call" })?;
        let load = world.get("load")?;
        let interpreter = Self {
            lua,
            entry,
            load,
            compiled: RefCell::default(),
            version: Cell::new(0),
            registering,
            libraries: RefCell::default(),
            functions: RefCell::default(),
            libraries_version: Cell::new(0),
            json,
            bytes: match kind {
                Kind::Scripts => &SCRIPT_BYTES,
                Kind::Functions => &FUNCTION_BYTES,
            },
            told_bytes: Cell::new(0),
            runs: Cell::new(0),
        };
        interpreter.install_hook()?;
        // What building it left behind.
        interpreter.lua.gc_collect()?;
        interpreter.tell_memory(interpreter.lua.used_memory());
        Ok(interpreter)
    }

    /// Lets the script that runs be looked at from time to time.
    pub(super) fn install_hook(&self) -> mlua::Result<()> {
        self.lua.set_global_hook(HookTriggers::new().every_nth_instruction(HOOK_EVERY), |_, _| {
            current::with(|run| run.map_or(Ok(VmState::Continue), |run| run.tick()))
        })
    }

    /// Compiles source text.
    pub(super) fn chunk(&self, code: &[u8], name: &str) -> Result<Function, String> {
        let chunk = self.lua.load(code).set_name(name).set_mode(mlua::chunk::ChunkMode::Text);
        chunk.into_function().map_err(|error| match error {
            Error::SyntaxError { message, .. } => message,
            other => other.to_string(),
        })
    }

    /// The compiled script of a digest, where this thread has it and it has not been flushed since.
    pub(crate) fn compiled(&self, sha: &Sha, version: u64) -> Option<(Function, ScriptFlags)> {
        if self.version.get() != version {
            self.compiled.borrow_mut().clear();
            self.version.set(version);
        }
        self.compiled.borrow().get(sha).cloned()
    }

    fn keep(&self, sha: Sha, function: &Function, flags: ScriptFlags) {
        let mut compiled = self.compiled.borrow_mut();
        if compiled.len() >= COMPILED_MAX {
            compiled.clear();
        }
        compiled.insert(sha, (function.clone(), flags));
    }

    /// Runs a function with its keys and arguments; the error is the text of the reply.
    pub(super) fn call(&self, function: &Function, invocation: &Invocation<'_>) -> Result<Value, Vec<u8>> {
        self.json.set(cjson::Settings::default());
        let result = self.try_call(function, invocation);
        self.after_run();
        result.unwrap_or_else(|error| Err(uncaught(invocation.name, &error)))
    }

    fn try_call(
        &self,
        function: &Function,
        invocation: &Invocation<'_>,
    ) -> mlua::Result<Result<Value, Vec<u8>>> {
        let list = |words: &[&[u8]]| -> mlua::Result<Table> {
            let table = self.lua.create_table_with_capacity(words.len(), 0)?;
            for (index, word) in words.iter().enumerate() {
                table.raw_set(index + 1, self.lua.create_string(word)?)?;
            }
            Ok(table)
        };
        let (keys, args) = (list(invocation.keys)?, list(invocation.args)?);
        let (succeeded, value): (bool, Value) = self.entry.call((function, keys, args))?;
        if succeeded {
            return Ok(Ok(value));
        }
        Ok(Err(failure_text(invocation.name, &value)))
    }

    /// Tells how much memory is used, and now and then collects what is not.
    fn after_run(&self) {
        const COLLECT_EVERY: u32 = 50;
        self.runs.set(self.runs.get() + 1);
        if self.runs.get().is_multiple_of(COLLECT_EVERY) {
            // What it cannot collect now it collects later.
            let _ = self.lua.gc_step();
            self.tell_memory(self.lua.used_memory());
        }
    }

    fn tell_memory(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes.fetch_sub(self.told_bytes.replace(bytes), Ordering::Relaxed);
    }
}

impl Drop for Interpreter {
    fn drop(&mut self) {
        self.tell_memory(0);
    }
}

/// The reply for an error that the script did not catch, which `handler` has made a table.
pub(super) fn failure_text(name: &str, error: &Value) -> Vec<u8> {
    let Value::Table(table) = error else {
        let text = error.to_string().unwrap_or_else(|_| "execution failure".to_owned());
        let text: String = text.chars().take(100).collect();
        return format!("ERR Error running script {name}, {text}").into_bytes();
    };
    let field = |name: &str| table.get::<Option<mlua::LuaString>>(name).ok().flatten();
    let mut text =
        field("err").map_or_else(|| b"ERR unknown error".to_vec(), |text| text.as_bytes().to_vec());
    if let (Some(source), Some(line)) = (field("source"), field("line")) {
        text.extend_from_slice(format!(" script: {name}, on ").as_bytes());
        text.extend_from_slice(&source.as_bytes());
        text.push(b':');
        text.extend_from_slice(&line.as_bytes());
        text.push(b'.');
    }
    text
}

/// Compiles a script for this thread; the error is the reply.
pub(crate) fn compile(
    interpreter: &Interpreter,
    sha: Sha,
    body: &[u8],
) -> Result<(Function, ScriptFlags), String> {
    let (flags, from) = shebang::of_script(body).map_err(|why| format!("ERR {why}"))?;
    let code = body.get(from..).unwrap_or_default();
    let function = interpreter
        .chunk(code, "@user_script")
        .map_err(|why| format!("ERR Error compiling script (new function): {why}"))?;
    interpreter.keep(sha, &function, flags);
    Ok((function, flags))
}

/// What the sandbox is made of beside the language's own libraries.
fn native(
    lua: &Lua,
    kind: Kind,
    registering: &Registering,
    json: &Rc<Cell<cjson::Settings>>,
) -> mlua::Result<Table> {
    let native = lua.create_table()?;
    native.set("caught", lua.create_function(raise::caught)?)?;
    native.set("handler", lua.create_function(handler)?)?;
    native.set(
        "go_on",
        lua.create_function(|_, ()| current::with(|run| run.map_or(Ok(()), |run| run.go_on())))?,
    )?;
    native.set(
        "readonly",
        lua.create_function(|lua, _: MultiValue| -> mlua::Result<()> {
            Err(raise::text_error(lua, "Attempt to modify a readonly table"))
        })?,
    )?;
    native.set(
        "denied",
        lua.create_function(|_, _: MultiValue| -> mlua::Result<()> {
            Err(Error::external(raise::Raised::Text("Attempt to modify a readonly table".to_owned())))
        })?,
    )?;
    native.set("missing", lua.create_function(missing)?)?;
    native.set("results_max", RESULTS_MAX)?;
    native.set("clock", lua.create_function(|_, ()| Ok(processor_seconds()))?)?;
    redis_api::add(lua, &native, kind, registering)?;
    native.set("bit", bit::library(lua)?)?;
    native.set("cjson", cjson::library(lua, json)?)?;
    native.set("cmsgpack", cmsgpack::library(lua)?)?;
    native.set("struct", structs::library(lua)?)?;
    Ok(native)
}

/// Turns an uncaught error into a table that also says where it was raised, while the stack still tells.
fn handler(lua: &Lua, error: Value) -> mlua::Result<Table> {
    let place = raise::script_line(lua, 1, 1);
    let table = match raise::caught(lua, error.clone())? {
        Value::Table(table) => table,
        other => {
            let mut text = b"ERR ".to_vec();
            match (&other, &place) {
                (Value::String(message), Some(place)) if raise::is_of_sandbox(&error) => {
                    text.extend_from_slice(format!("{}:{}: ", place.short_source, place.line).as_bytes());
                    text.extend_from_slice(&message.as_bytes());
                }
                (Value::String(message), _) => text.extend_from_slice(&message.as_bytes()),
                (other, _) => text.extend_from_slice(other.to_string()?.as_bytes()),
            }
            raise::error_table(lua, &text)?
        }
    };
    if let Some(place) = place {
        table.raw_set("source", place.source)?;
        table.raw_set("line", place.line)?;
    }
    Ok(table)
}

/// Reading a global that is not there.
fn missing(lua: &Lua, (_, name): (Value, Value)) -> mlua::Result<()> {
    let name = match &name {
        Value::String(_) | Value::Integer(_) | Value::Number(_) => name.to_string()?,
        _ => {
            return Err(raise::text_error(
                lua,
                "Second argument to luaProtectedTableError must be a string or number",
            ));
        }
    };
    Err(raise::text_error(lua, &format!("Script attempted to access nonexistent global variable '{name}'")))
}

/// What `os.clock` measures from: only differences mean anything.
fn processor_seconds() -> f64 {
    thread_local! {
        static START: std::time::Instant = std::time::Instant::now();
    }
    START.with(|start| start.elapsed().as_secs_f64())
}

/// A library that was loaded, and the one in the keyspace it was loaded from.
pub(super) fn is_same(loaded: &Loaded, library: &std::sync::Arc<Library>) -> bool {
    std::sync::Arc::ptr_eq(&loaded.library, library)
}
