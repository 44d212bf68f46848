//! Function libraries: read, run once to register their functions, and called.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_keyspace::{FunctionInfo, Keyspace, Library};
use mlua::{Function, HookTriggers, Lua, MultiValue, Table, Value, VmState};

use super::interpreter;
use super::interpreter::{Interpreter, is_same, with_functions};
use super::raise::reply_error;
use super::shebang::{ScriptFlags, words};

/// A library only registers functions when it is loaded; one that takes longer is refused.
const LOAD_LIMIT: Duration = Duration::from_millis(500);

const BAD_NAME: &str = "Library names can only contain letters, numbers, or underscores(_) and must be at least one character long";

/// A function that a library registers while it is loaded.
pub(super) struct Registered {
    info: FunctionInfo,
    callback: Function,
}

/// Where functions go while a library is loaded; `None` at any other time.
#[derive(Clone, Default)]
pub(super) struct Registering(Rc<RefCell<Option<Vec<Registered>>>>);

/// A library as one interpreter has it.
pub(super) struct Loaded {
    pub(super) library: Arc<Library>,
    callbacks: HashMap<String, Function>,
}

/// Name and code of a library's source; the code keeps the end of the first line.
fn metadata(source: &[u8]) -> Result<(String, &[u8]), String> {
    if !source.starts_with(b"#!") {
        return Err("Missing library metadata".to_owned());
    }
    let invalid = || "Invalid library metadata".to_owned();
    let end = source.iter().position(|byte| *byte == b'\n').ok_or_else(invalid)?;
    let (line, code) = source.split_at(end);
    let parts = words(line).ok_or_else(invalid)?;
    let (engine, options) = parts.split_first().ok_or_else(invalid)?;
    let mut name = None;
    for option in options {
        match option.split_at_checked(5) {
            Some((key, value)) if key.eq_ignore_ascii_case(b"name=") => {
                if name.replace(value).is_some() {
                    return Err("Invalid metadata value, name argument was given multiple times".to_owned());
                }
            }
            _ => return Err(format!("Invalid metadata value given: {}", String::from_utf8_lossy(option))),
        }
    }
    let name = name.ok_or("Library name was not given")?;
    let name = valid_name(name).ok_or(BAD_NAME)?;
    let engine = engine.get(2..).unwrap_or_default();
    if !engine.eq_ignore_ascii_case(b"lua") {
        return Err(format!("Engine '{}' not found", String::from_utf8_lossy(engine)));
    }
    Ok((name, code))
}

fn valid_name(name: &[u8]) -> Option<String> {
    let is_valid = !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    is_valid.then(|| String::from_utf8_lossy(name).into_owned())
}

/// Runs a library's source once; what it is, and what it registers. The error is the reply without its code.
pub(crate) fn extract(source: &[u8], is_limited: bool) -> Result<Arc<Library>, String> {
    let (name, code) = metadata(source)?;
    with_functions(|interpreter| {
        let registered = register_all(interpreter, code, is_limited)?;
        if registered.is_empty() {
            return Err("No functions registered".to_owned());
        }
        let functions = registered.iter().map(|registered| registered.info.clone()).collect();
        let library = Arc::new(Library { name: name.clone(), code: source.to_vec(), functions });
        // Kept apart from what runs until the library is put among the others.
        let callbacks = registered.into_iter().map(|one| (one.info.name, one.callback)).collect();
        let loaded = Loaded { library: Arc::clone(&library), callbacks };
        interpreter.libraries.borrow_mut().insert(name, loaded);
        interpreter.libraries_version.set(0);
        Ok(library)
    })?
}

fn register_all(interpreter: &Interpreter, code: &[u8], is_limited: bool) -> Result<Vec<Registered>, String> {
    let chunk = interpreter
        .chunk(code, "@user_function")
        .map_err(|why| format!("Error compiling function: {why}"))?;
    *interpreter.registering.0.borrow_mut() = Some(Vec::new());
    let deadline = Instant::now() + LOAD_LIMIT;
    let lua = &interpreter.lua;
    let hooked =
        lua.set_hook(HookTriggers::new().every_nth_instruction(interpreter::HOOK_EVERY), move |_, _| {
            if is_limited && Instant::now() > deadline {
                return Err(reply_error("FUNCTION LOAD timeout"));
            }
            Ok(VmState::Continue)
        });
    let result = hooked.and_then(|()| interpreter.load.call::<(bool, Value)>(chunk));
    // A thread's own hook stands before that of all threads.
    let unhooked = interpreter.install_hook();
    let registered = interpreter.registering.0.borrow_mut().take().unwrap_or_default();
    match result.and_then(|result| unhooked.map(|()| result)) {
        Ok((true, _)) => Ok(registered),
        Ok((false, Value::Table(table))) => {
            let text: Option<mlua::LuaString> = table.get("err").ok().flatten();
            let text = text.map(|text| String::from_utf8_lossy(&text.as_bytes()).into_owned());
            Err(format!("Error registering functions: {}", text.unwrap_or_default()))
        }
        Ok((false, other)) => Err(format!(
            "Error registering functions: ERR {}",
            other.to_string().unwrap_or_else(|_| "execution failure".to_owned())
        )),
        Err(error) => Err(format!("Error registering functions: ERR {error}")),
    }
}

/// The function of this name as this interpreter can call it, with its flags.
pub(crate) fn register(
    interpreter: &Interpreter,
    keyspace: &Keyspace,
    name: &str,
) -> Result<Option<(Function, ScriptFlags)>, String> {
    // Names of functions, unlike those of libraries, are the same in any case.
    let name = &name.to_ascii_lowercase();
    let version = keyspace.libraries.version();
    if interpreter.libraries_version.get() == version
        && let Some(known) = interpreter.functions.borrow().get(name)
    {
        return Ok(Some(known.clone()));
    }
    let current = keyspace.libraries.get();
    if interpreter.libraries_version.get() != version {
        let is_current = |name: &String, loaded: &mut Loaded| {
            current.get(name).is_some_and(|library| is_same(loaded, library))
        };
        interpreter.libraries.borrow_mut().retain(is_current);
        interpreter.functions.borrow_mut().clear();
        interpreter.libraries_version.set(version);
    }
    let found = current.values().find_map(|library| {
        let info = library.functions.iter().find(|function| function.name.eq_ignore_ascii_case(name))?;
        Some((library, info))
    });
    let Some((library, info)) = found else { return Ok(None) };
    let flags = ScriptFlags(info.flags);
    if !interpreter.libraries.borrow().contains_key(&library.name) {
        let (_, code) = metadata(&library.code)?;
        let registered = register_all(interpreter, code, false)?;
        let callbacks = registered.into_iter().map(|one| (one.info.name, one.callback)).collect();
        let loaded = Loaded { library: Arc::clone(library), callbacks };
        interpreter.libraries.borrow_mut().insert(library.name.clone(), loaded);
    }
    let libraries = interpreter.libraries.borrow();
    let callback = libraries.get(&library.name).and_then(|loaded| loaded.callbacks.get(&info.name)).cloned();
    Ok(callback.map(|callback| {
        interpreter.functions.borrow_mut().insert(name.to_owned(), (callback.clone(), flags));
        (callback, flags)
    }))
}

/// Puts a library that a snapshot or a file holds among the others of a keyspace.
///
/// # Errors
/// What is wrong with it, as FUNCTION LOAD says it.
pub fn load_library(keyspace: &Keyspace, source: &[u8]) -> Result<(), String> {
    let library = extract(source, false)?;
    let mut libraries = (*keyspace.libraries.get()).clone();
    libraries.insert(library.name.clone(), library);
    keyspace.libraries.set(libraries);
    Ok(())
}

/// `redis.register_function`.
pub(super) fn register_function(lua: &Lua, registering: &Registering) -> mlua::Result<Function> {
    let registering = registering.clone();
    lua.create_function(move |_, args: MultiValue| {
        let mut slot = registering.0.borrow_mut();
        let Some(registered) = slot.as_mut() else {
            return Err(reply_error("redis.register_function can only be called on FUNCTION LOAD command"));
        };
        let new = match args.len() {
            1 => named(args.front()),
            2 => positional(&args),
            _ => Err("wrong number of arguments to redis.register_function"),
        };
        let new = new.map_err(reply_error)?;
        if registered.iter().any(|known| known.info.name.eq_ignore_ascii_case(&new.info.name)) {
            return Err(reply_error("Function already exists in the library"));
        }
        registered.push(new);
        Ok(())
    })
}

fn positional(args: &MultiValue) -> Result<Registered, &'static str> {
    let name = text_of(args.front()).ok_or("first argument to redis.register_function must be a string")?;
    let Some(Value::Function(callback)) = args.get(1) else {
        return Err("second argument to redis.register_function must be a function");
    };
    let name = valid_name(&name).ok_or(BAD_NAME)?;
    Ok(Registered { info: FunctionInfo { name, description: None, flags: 0 }, callback: callback.clone() })
}

fn text_of(value: Option<&Value>) -> Option<Vec<u8>> {
    match value {
        Some(Value::String(text)) => Some(text.as_bytes().to_vec()),
        Some(number @ (Value::Integer(_) | Value::Number(_))) => Some(number.to_string().ok()?.into_bytes()),
        _ => None,
    }
}

fn named(table: Option<&Value>) -> Result<Registered, &'static str> {
    let Some(Value::Table(table)) = table else {
        return Err(
            "calling redis.register_function with a single argument is only applicable to Lua table (representing named arguments).",
        );
    };
    let (mut name, mut description, mut callback, mut flags) = (None, None, None, ScriptFlags::default());
    for (key, value) in table.pairs::<Value, Value>().flatten() {
        let key = text_of(Some(&key))
            .ok_or("named argument key given to redis.register_function is not a string")?;
        match &key.to_ascii_lowercase()[..] {
            b"function_name" => {
                let text = text_of(Some(&value));
                name = Some(
                    text.ok_or("function_name argument given to redis.register_function must be a string")?,
                );
            }
            b"description" => {
                let text = text_of(Some(&value));
                description = Some(
                    text.ok_or("description argument given to redis.register_function must be a string")?,
                );
            }
            b"callback" => match value {
                Value::Function(function) => callback = Some(function),
                _ => return Err("callback argument given to redis.register_function must be a function"),
            },
            b"flags" => match value {
                Value::Table(names) => flags = flags_of(&names).ok_or("unknown flag given")?,
                _ => {
                    return Err(
                        "flags argument to redis.register_function must be a table representing function flags",
                    );
                }
            },
            _ => return Err("unknown argument given to redis.register_function"),
        }
    }
    let name = name.ok_or("redis.register_function must get a function name argument")?;
    let callback = callback.ok_or("redis.register_function must get a callback argument")?;
    let name = valid_name(&name).ok_or(BAD_NAME)?;
    Ok(Registered { info: FunctionInfo { name, description, flags: flags.0 }, callback })
}

fn flags_of(names: &Table) -> Option<ScriptFlags> {
    let mut flags = ScriptFlags::default();
    for index in 1.. {
        match names.get::<Value>(index).ok()? {
            Value::Nil => break,
            name => {
                let name = text_of(Some(&name))?;
                if !flags.add(&name, true) {
                    return None;
                }
            }
        }
    }
    Some(flags)
}
