//! The table `redis`, and random numbers.

use std::cell::Cell;

use cairn_resp::Protocol;
use mlua::{Function, Lua, MultiValue, Table, Value};

use super::current;
use super::interpreter::Kind;
use super::library::{self, Registering};
use super::raise::{Raised, argument_error, error_table, reply_error, text_error, type_error};
use super::registry::sha_of;
use super::reply::{Returned, with_code};
use crate::acl;
use crate::spec::Flags;
use crate::table::resolve;

/// The version scripts are told: that whose language and API this is.
const VERSION: &str = "7.0.15";
const VERSION_NUMBER: u32 = 0x0007_000f;

/// Adds what `redis` is made of to the parts of the sandbox.
pub(super) fn add(lua: &Lua, native: &Table, kind: Kind, registering: &Registering) -> mlua::Result<()> {
    let redis = lua.create_table()?;
    add_common(lua, &redis)?;
    redis.set("call", lua.create_function(|lua, args| call(lua, args, true))?)?;
    redis.set("pcall", lua.create_function(|lua, args| call(lua, args, false))?)?;
    redis.set("sha1hex", lua.create_function(sha1hex)?)?;
    redis.set("error_reply", lua.create_function(error_reply)?)?;
    redis.set("status_reply", lua.create_function(status_reply)?)?;
    redis.set("setresp", lua.create_function(set_protocol)?)?;
    redis.set("set_repl", lua.create_function(set_replication)?)?;
    for (name, value) in [("NONE", 0), ("AOF", 1), ("SLAVE", 2), ("REPLICA", 2), ("ALL", 3)] {
        redis.set(format!("REPL_{name}"), value)?;
    }
    redis.set("acl_check_cmd", lua.create_function(acl_check)?)?;
    if kind == Kind::Scripts {
        redis.set("replicate_commands", lua.create_function(|_, _: MultiValue| Ok(true))?)?;
        // There is no debugger to stop in.
        redis.set("breakpoint", lua.create_function(|_, _: MultiValue| Ok(false))?)?;
        redis.set("debug", lua.create_function(|_, _: MultiValue| Ok(()))?)?;
    }
    native.set("redis", redis)?;
    let library = lua.create_table()?;
    add_common(lua, &library)?;
    library.set("register_function", library::register_function(lua, registering)?)?;
    native.set("library", library)?;
    let seed = Cell::new(crate::context::next_random(&mut fresh_seed()));
    let random = std::rc::Rc::new(seed);
    let shared = random.clone();
    native.set("random", lua.create_function(move |lua, args| random_number(lua, &shared, args))?)?;
    native.set("randomseed", seed_function(lua, random)?)?;
    Ok(())
}

fn add_common(lua: &Lua, redis: &Table) -> mlua::Result<()> {
    redis.set("log", lua.create_function(log)?)?;
    for (name, level) in [("DEBUG", 0), ("VERBOSE", 1), ("NOTICE", 2), ("WARNING", 3)] {
        redis.set(format!("LOG_{name}"), level)?;
    }
    redis.set("REDIS_VERSION", VERSION)?;
    redis.set("REDIS_VERSION_NUM", VERSION_NUMBER)
}

/// `redis.call`, which raises errors, and `redis.pcall`, which returns them.
fn call(lua: &Lua, args: MultiValue, raises: bool) -> mlua::Result<Value> {
    let refuse = |text: &str| {
        if raises {
            return Err(mlua::Error::external(Raised::Reply(text.as_bytes().to_vec())));
        }
        Ok(Value::Table(error_table(lua, text.as_bytes())?))
    };
    if args.is_empty() {
        return refuse("ERR Please specify at least one argument for this redis lib call");
    }
    let called = current::with(|run| {
        let Some(run) = run else {
            return Ok(Err("ERR redis.call/pcall can only be called inside a script invocation".to_owned()));
        };
        if !run.gather(&args) {
            return Ok(Err("ERR Lua redis lib command arguments must be strings or integers".to_owned()));
        }
        run.call(lua)
    })?;
    match called {
        Err(text) => refuse(&text),
        Ok(Returned::Value(value)) => Ok(value),
        Ok(Returned::Error(table)) if raises => {
            let text: mlua::LuaString = table.raw_get("err")?;
            let text = text.as_bytes().to_vec();
            Err(mlua::Error::external(Raised::Reply(text)))
        }
        Ok(Returned::Error(table)) => Ok(Value::Table(table)),
    }
}

/// What the language makes of a value where a string is wanted: of strings and numbers.
fn as_text(lua: &Lua, value: Option<&Value>) -> mlua::Result<Option<Vec<u8>>> {
    let Some(value) = value else { return Ok(None) };
    Ok(lua.coerce_string(value.clone())?.map(|text| text.as_bytes().to_vec()))
}

/// What the language makes of a value where a number is wanted; anything else counts as 0.
fn as_number(lua: &Lua, value: Option<&Value>) -> mlua::Result<f64> {
    let Some(value) = value else { return Ok(0.0) };
    Ok(lua.coerce_number(value.clone())?.unwrap_or(0.0))
}

fn sha1hex(lua: &Lua, args: MultiValue) -> mlua::Result<Value> {
    if args.len() != 1 {
        return Err(reply_error("wrong number of arguments"));
    }
    let text = as_text(lua, args.front())?.unwrap_or_default();
    Ok(Value::String(lua.create_string(sha_of(&text))?))
}

fn only_string(args: &MultiValue) -> Option<&mlua::LuaString> {
    match (args.len(), args.front()) {
        (1, Some(Value::String(text))) => Some(text),
        _ => None,
    }
}

fn wrong_argument(lua: &Lua) -> mlua::Result<Table> {
    error_table(lua, b"ERR wrong number or type of arguments")
}

fn error_reply(lua: &Lua, args: MultiValue) -> mlua::Result<Table> {
    let Some(text) = only_string(&args) else { return wrong_argument(lua) };
    error_table(lua, with_code(&text.as_bytes()).trim_ascii_end_of_line())
}

/// Taking line ends off a text's end.
trait TrimEnd {
    fn trim_ascii_end_of_line(&self) -> &[u8];
}

impl TrimEnd for Vec<u8> {
    fn trim_ascii_end_of_line(&self) -> &[u8] {
        let end = self.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
        &self[..end]
    }
}

fn status_reply(lua: &Lua, args: MultiValue) -> mlua::Result<Table> {
    let Some(text) = only_string(&args) else { return wrong_argument(lua) };
    let table = lua.create_table_with_capacity(0, 1)?;
    table.raw_set("ok", text)?;
    Ok(table)
}

fn set_protocol(lua: &Lua, args: MultiValue) -> mlua::Result<()> {
    current::with(|run| {
        let run =
            run.ok_or_else(|| reply_error("redis.setresp can only be called inside a script invocation"))?;
        if args.len() != 1 {
            return Err(reply_error("redis.setresp() requires one argument."));
        }
        run.protocol = match as_number(lua, args.front())?.trunc() {
            2.0 => Protocol::Resp2,
            3.0 => Protocol::Resp3,
            _ => return Err(reply_error("RESP version must be 2 or 3.")),
        };
        Ok(())
    })
}

/// What a script writes is always journaled: a choice of less would lose it. It is checked and has no effect.
fn set_replication(lua: &Lua, args: MultiValue) -> mlua::Result<()> {
    if current::with(|run| run.is_none()) {
        return Err(reply_error("redis.set_repl can only be called inside a script invocation"));
    }
    if args.len() != 1 {
        return Err(reply_error("redis.set_repl() requires two arguments."));
    }
    if as_number(lua, args.front())? as i64 & !3 != 0 {
        return Err(reply_error(
            "Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.",
        ));
    }
    Ok(())
}

/// Whether the client's user may run a command.
fn acl_check(_: &Lua, args: MultiValue) -> mlua::Result<bool> {
    current::with(|run| {
        let run = run.ok_or_else(|| {
            reply_error("redis.acl_check_cmd can only be called inside a script invocation")
        })?;
        if args.is_empty() {
            return Err(reply_error("Please specify at least one argument for this redis lib call"));
        }
        if !run.gather(&args) {
            return Err(reply_error("Lua redis lib command arguments must be strings or integers"));
        }
        let user = acl::current_user(run.context.session, run.context.host);
        let words = run.gathered();
        match resolve(&words) {
            Some(spec) if !spec.flags.has(Flags::GROUP) => {
                Ok(user.is_none_or(|user| acl::denial_of(&user, spec, &words).is_none()))
            }
            _ => Err(reply_error("Invalid command passed to redis.acl_check_cmd()")),
        }
    })
}

fn log(lua: &Lua, args: MultiValue) -> mlua::Result<()> {
    if args.len() < 2 {
        return Err(reply_error("redis.log() requires two arguments or more."));
    }
    let level = args.front().map(|level| lua.coerce_number(level.clone())).transpose()?.flatten();
    let level = level.ok_or_else(|| reply_error("First argument must be a number (log level)."))?;
    if !(0.0..4.0).contains(&level) {
        return Err(reply_error("Invalid debug level."));
    }
    let mut text = Vec::new();
    for (index, word) in args.iter().skip(1).enumerate() {
        if let Some(word) = as_text(lua, Some(word))? {
            if index > 0 {
                text.push(b' ');
            }
            text.extend_from_slice(&word);
        }
    }
    let text = String::from_utf8_lossy(&text);
    current::with(|run| run.map(|run| run.context.host.script_log(level as u8, &text)));
    Ok(())
}

fn fresh_seed() -> u64 {
    // Random numbers of scripts are no secret: an address and the time tell interpreters apart.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let local = 0_u8;
    now.as_nanos() as u64 ^ (std::ptr::from_ref(&local).addr() as u64).rotate_left(32)
}

/// The generator that POSIX calls drand48: the same numbers from a seed wherever a script runs.
const MULTIPLIER: u64 = 0x5_deec_e66d;
const MASK: u64 = (1 << 48) - 1;
const RANDOM_MAX: u64 = 0x7fff_ffff;

fn random_number(lua: &Lua, state: &Cell<u64>, args: MultiValue) -> mlua::Result<f64> {
    if current::with(|run| run.is_none()) {
        return Err(text_error(lua, "math.random can only be called inside a script invocation"));
    }
    state.set(state.get().wrapping_mul(MULTIPLIER).wrapping_add(0xb) & MASK);
    let fraction = ((state.get() >> 17) % RANDOM_MAX) as f64 / RANDOM_MAX as f64;
    let bound = |index: usize| {
        let value = args.get(index - 1);
        let number = value.map(|value| lua.coerce_number(value.clone())).transpose()?.flatten();
        number.map(f64::trunc).ok_or_else(|| type_error(lua, index, "random", "number", value))
    };
    match args.len() {
        0 => Ok(fraction),
        1 => {
            let most = bound(1)?;
            if most < 1.0 {
                return Err(argument_error(lua, 1, "random", "interval is empty"));
            }
            Ok((fraction * most).floor() + 1.0)
        }
        2 => {
            let (least, most) = (bound(1)?, bound(2)?);
            if least > most {
                return Err(argument_error(lua, 2, "random", "interval is empty"));
            }
            Ok((fraction * (most - least + 1.0)).floor() + least)
        }
        _ => Err(text_error(lua, "wrong number of arguments")),
    }
}

fn seed_function(lua: &Lua, state: std::rc::Rc<Cell<u64>>) -> mlua::Result<Function> {
    lua.create_function(move |lua, seed: MultiValue| {
        if current::with(|run| run.is_none()) {
            return Err(text_error(lua, "math.randomseed can only be called inside a script invocation"));
        }
        let number = seed.front().map(|seed| lua.coerce_number(seed.clone())).transpose()?.flatten();
        let number = number.ok_or_else(|| type_error(lua, 1, "randomseed", "number", seed.front()))?;
        let seed = number as i64 as u64 & 0xffff_ffff;
        state.set(seed << 16 | 0x330e);
        Ok(())
    })
}
