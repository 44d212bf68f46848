//! Errors that functions written in Rust raise in a script.

use mlua::{Error, Lua, Table, Value};

/// The source of what stands between a script and what it calls.
const SANDBOX: &str = "=sandbox";
/// What stands for a function that another has replaced by a tail call.
const REPLACED: &str = "=(tail call)";

/// An error as a script sees it when it catches it.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Raised {
    /// A table with the field `err`, as commands raise it; begins with its code.
    #[error("{}", String::from_utf8_lossy(.0))]
    Reply(Vec<u8>),
    /// A text, as the language itself raises it.
    #[error("{0}")]
    Text(String),
}

/// The error of a command or of the API: `text` without a code of its own.
pub(super) fn reply_error(text: &str) -> Error {
    Error::external(Raised::Reply(format!("ERR {text}").into_bytes()))
}

/// An error as the interpreter raises it: with the place of the caller before it.
pub(super) fn text_error(lua: &Lua, text: &str) -> Error {
    Error::external(Raised::Text(format!("{}{text}", place(lua))))
}

/// What the interpreter says of an argument it does not want.
pub(super) fn argument_error(lua: &Lua, index: usize, function: &str, text: &str) -> Error {
    text_error(lua, &format!("bad argument #{index} to '{function}' ({text})"))
}

/// What the interpreter says of an argument of the wrong type.
pub(super) fn type_error(
    lua: &Lua,
    index: usize,
    function: &str,
    wanted: &str,
    got: Option<&Value>,
) -> Error {
    let got = got.map_or("no value", type_name);
    argument_error(lua, index, function, &format!("{wanted} expected, got {got}"))
}

/// The name the language gives a value's type.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Boolean(_) => "boolean",
        Value::Integer(_) | Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Table(_) => "table",
        Value::Function(_) => "function",
        Value::Thread(_) => "thread",
        _ => "userdata",
    }
}

/// `source:line: ` of the script's line that runs; empty where it cannot be told.
fn place(lua: &Lua) -> String {
    match script_line(lua, 1, 0) {
        Some(place) if place.line > 0 => format!("{}:{}: ", place.short_source, place.line),
        _ => String::new(),
    }
}

/// A line of a script.
pub(super) struct Place {
    pub(super) source: String,
    pub(super) short_source: String,
    /// -1 in what was not written in the language.
    pub(super) line: i64,
}

/// The line that runs in the innermost function from `level` on, the sandbox's own and so many native ones passed over.
pub(super) fn script_line(lua: &Lua, level: usize, native_skipped: usize) -> Option<Place> {
    let (mut level, mut skips_left) = (level, native_skipped);
    loop {
        let (place, is_native) = lua.inspect_stack(level, |frame| {
            let source = frame.source();
            let line = frame.current_line().map_or(-1, |line| line as i64);
            let is_native = source.what == "C";
            let short_source = source.short_src.unwrap_or_default().into_owned();
            (Place { source: source.source.unwrap_or_default().into_owned(), short_source, line }, is_native)
        })?;
        let is_skipped = is_native && skips_left > 0;
        if !is_skipped && place.source != SANDBOX && place.source != REPLACED {
            return Some(place);
        }
        skips_left -= usize::from(is_skipped);
        level += 1;
    }
}

/// Whether a text that the interpreter raised names a place in the sandbox instead of the script's.
pub(super) fn is_of_sandbox(error: &Value) -> bool {
    matches!(error, Value::String(text) if without_sandbox(&text.as_bytes()).is_some())
}

/// A text without its place, where that is one in the sandbox.
fn without_sandbox(text: &[u8]) -> Option<&[u8]> {
    let rest = text.strip_prefix(b"sandbox:")?;
    let end = rest.iter().position(|byte| *byte == b':')?;
    rest.get(end + 2..)
}

/// What was raised, if Rust raised it.
fn raised(error: &Error) -> Raised {
    let own = error.chain().find_map(|cause| cause.downcast_ref::<Raised>());
    own.cloned().unwrap_or_else(|| {
        let mut cause = error;
        while let Error::CallbackError { cause: inner, .. } = cause {
            cause = inner;
        }
        Raised::Text(match cause {
            Error::RuntimeError(text) | Error::MemoryError(text) => text.clone(),
            other => other.to_string(),
        })
    })
}

/// The table that stands for an error reply.
pub(super) fn error_table(lua: &Lua, text: &[u8]) -> mlua::Result<Table> {
    let table = lua.create_table_with_capacity(0, 1)?;
    table.raw_set("err", lua.create_string(text)?)?;
    Ok(table)
}

/// Turns what was caught into what a script may see: errors of Rust become tables and texts.
pub(super) fn caught(lua: &Lua, value: Value) -> mlua::Result<Value> {
    match value {
        Value::Error(error) => Ok(match raised(&error) {
            Raised::Reply(text) => Value::Table(error_table(lua, &text)?),
            Raised::Text(text) => Value::String(lua.create_string(text)?),
        }),
        Value::String(text) => {
            let rest = without_sandbox(&text.as_bytes()).map(<[u8]>::to_vec);
            Ok(Value::String(rest.map_or(Ok(text), |rest| lua.create_string(rest))?))
        }
        other => Ok(other),
    }
}
