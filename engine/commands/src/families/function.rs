//! Function libraries: <https://redis.io/docs/latest/commands/?group=scripting>

use std::sync::Arc;

use cairn_keyspace::{Library, LibraryMap};

use super::help;
use super::script::{ANY_USE, check_flags, is_read_only, keys_and_args};
use crate::args::is;
use crate::context::Context;
use crate::dispatch::unknown_subcommand;
use crate::error::{CommandError, CommandResult};
use crate::glob::glob_matches;
use crate::script::{self, Invocation, ScriptFlags};
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least, exactly};

const SCRIPTING: Categories = Categories::SCRIPTING;
const RUNS: Flags = Flags::NONE.no_script().skip_monitor().no_mandatory_keys().stale();

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    CommandSpec { name: "fcall",    arity: at_least(3), flags: RUNS.may_replicate(),    keys: ANY_USE,          acl: SCRIPTING, handler: fcall },
    CommandSpec { name: "fcall_ro", arity: at_least(3), flags: RUNS.readonly(),         keys: Keys::counted(2), acl: SCRIPTING, handler: fcall },
    help::group_row("function"),
    CommandSpec { name: "function|delete",  arity: exactly(3),  flags: Flags::WRITE.no_script(),             keys: Keys::Whole, acl: SCRIPTING, handler: function },
    CommandSpec { name: "function|dump",    arity: exactly(2),  flags: Flags::NONE.no_script(),              keys: Keys::Whole, acl: SCRIPTING, handler: function },
    CommandSpec { name: "function|flush",   arity: at_least(2), flags: Flags::WRITE.no_script(),             keys: Keys::Whole, acl: SCRIPTING, handler: function },
    help::row("function|help", SCRIPTING),
    CommandSpec { name: "function|kill",    arity: exactly(2),  flags: Flags::NONE.no_script().allow_busy(), keys: Keys::None,  acl: SCRIPTING, handler: function },
    CommandSpec { name: "function|list",    arity: at_least(2), flags: Flags::NONE.no_script(),              keys: Keys::Whole, acl: SCRIPTING, handler: function },
    CommandSpec { name: "function|load",    arity: at_least(3), flags: Flags::WRITE.deny_oom().no_script(),  keys: Keys::Whole, acl: SCRIPTING, handler: function },
    CommandSpec { name: "function|restore", arity: at_least(3), flags: Flags::WRITE.deny_oom().no_script(),  keys: Keys::Whole, acl: SCRIPTING, handler: function },
    CommandSpec { name: "function|stats",   arity: exactly(2),  flags: Flags::NONE.no_script().allow_busy(), keys: Keys::None,  acl: SCRIPTING, handler: function },
];

fn fcall(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let keyspace = ctx.data.keyspace();
    let ran = script::with_functions(|interpreter| {
        let name = std::str::from_utf8(args[1]).unwrap_or_default();
        let found = script::register(interpreter, keyspace, name).map_err(|why| format!("ERR {why}"));
        let found = found.map_err(CommandError::other)?;
        let (function, flags) = found.ok_or(CommandError::other("ERR Function not found"))?;
        let refusal = CommandError::other("ERR Bad number of keys provided");
        let [keys, arguments] = keys_and_args(args, refusal)?;
        let read_only = is_read_only(args[0]);
        check_flags(flags, read_only, ctx)?;
        let invocation =
            Invocation { name, command: args, keys, args: arguments, flags, read_only, is_function: true };
        script::execute(ctx, interpreter, &function, &invocation);
        Ok(())
    });
    ran.map_err(CommandError::other)?
}

fn function(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    match (&args[1].to_ascii_lowercase()[..], &args[2..]) {
        (b"load", rest) => load(ctx, rest),
        (b"delete", [name]) => delete(ctx, name),
        (b"flush", mode) if mode.len() <= 1 => {
            if mode.first().is_some_and(|mode| !is(mode, "sync") && !is(mode, "async")) {
                return Err(CommandError::other("ERR FUNCTION FLUSH only supports SYNC|ASYNC option"));
            }
            set(ctx, LibraryMap::new());
            ctx.reply.ok();
            Ok(())
        }
        (b"restore", [payload, policy @ ..]) if policy.len() <= 1 => restore(ctx, payload, policy.first()),
        (b"dump", []) => {
            let payload = ctx.data.keyspace().libraries.dump();
            ctx.reply.bulk(&payload);
            Ok(())
        }
        (b"list", options) => list(ctx, options),
        (b"stats", []) => stats(ctx),
        (b"kill", []) => {
            ctx.host.scripts().kill(true).map_err(CommandError::other)?;
            ctx.reply.ok();
            Ok(())
        }
        (b"flush" | b"restore", _) => {
            let name = String::from_utf8_lossy(args[1]);
            Err(refused(format!(
                "unknown subcommand or wrong number of arguments for '{name}'. Try FUNCTION HELP."
            )))
        }
        _ => Err(unknown_subcommand("function", args[1])),
    }
}

/// Puts other libraries in place of all, and says so.
fn set(ctx: &mut Context<'_, '_>, libraries: LibraryMap) {
    ctx.data.keyspace().libraries.set(libraries);
    ctx.data.effects().note_whole(1);
}

fn load(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let Some((source, options)) = args.split_last() else {
        return Err(CommandError::other("ERR Function code is missing"));
    };
    for option in options {
        if !is(option, "replace") {
            let text = format!("ERR Unknown option given: {}", String::from_utf8_lossy(option));
            return Err(CommandError::other(text));
        }
    }
    let replaying = ctx.data.is_replaying();
    let mut libraries = (*ctx.data.keyspace().libraries.get()).clone();
    let library = script::extract(source, !replaying).map_err(refused)?;
    if options.is_empty() && libraries.contains_key(&library.name) {
        return Err(refused(format!("Library '{}' already exists", library.name)));
    }
    libraries.remove(&library.name);
    join(&mut libraries, &library).map_err(refused)?;
    set(ctx, libraries);
    ctx.reply.bulk(library.name.as_bytes());
    Ok(())
}

fn refused(why: String) -> CommandError {
    CommandError::other(format!("ERR {why}"))
}

/// Adds a library unless one of its functions has a name that is taken.
fn join(libraries: &mut LibraryMap, library: &Arc<Library>) -> Result<(), String> {
    let taken = |name: &str| {
        libraries
            .values()
            .flat_map(|other| &other.functions)
            .any(|function| function.name.eq_ignore_ascii_case(name))
    };
    if let Some(function) = library.functions.iter().find(|function| taken(&function.name)) {
        return Err(format!("Function {} already exists", function.name));
    }
    libraries.insert(library.name.clone(), Arc::clone(library));
    Ok(())
}

fn delete(ctx: &mut Context<'_, '_>, name: &[u8]) -> CommandResult {
    let mut libraries = (*ctx.data.keyspace().libraries.get()).clone();
    let name = std::str::from_utf8(name).unwrap_or_default();
    if libraries.remove(name).is_none() {
        return Err(CommandError::other("ERR Library not found"));
    }
    set(ctx, libraries);
    ctx.reply.ok();
    Ok(())
}

fn restore(ctx: &mut Context<'_, '_>, payload: &[u8], policy: Option<&&[u8]>) -> CommandResult {
    let (flush, replace) = match policy {
        None => (false, false),
        Some(word) if is(word, "append") => (false, false),
        Some(word) if is(word, "replace") => (false, true),
        Some(word) if is(word, "flush") => (true, false),
        Some(_) => {
            return Err(CommandError::other(
                "ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.",
            ));
        }
    };
    let sources = cairn_keyspace::read_libraries(payload).map_err(|why| refused(why.to_owned()))?;
    let mut restored = LibraryMap::new();
    for source in &sources {
        let library = script::extract(source, !ctx.data.is_replaying()).map_err(refused)?;
        if restored.contains_key(&library.name) {
            return Err(refused(format!("Library '{}' already exists", library.name)));
        }
        join(&mut restored, &library).map_err(refused)?;
    }
    let mut libraries =
        if flush { LibraryMap::new() } else { (*ctx.data.keyspace().libraries.get()).clone() };
    for name in restored.keys() {
        if libraries.remove(name).is_some() && !replace {
            return Err(refused(format!("Library {name} already exists")));
        }
    }
    for library in restored.values() {
        join(&mut libraries, library).map_err(refused)?;
    }
    set(ctx, libraries);
    ctx.reply.ok();
    Ok(())
}

fn list(ctx: &mut Context<'_, '_>, options: &[&[u8]]) -> CommandResult {
    let (mut with_code, mut pattern) = (false, None);
    let mut rest = options.iter();
    while let Some(option) = rest.next() {
        if !with_code && is(option, "withcode") {
            with_code = true;
        } else if pattern.is_none() && is(option, "libraryname") {
            let given = rest.next().ok_or(CommandError::other("ERR library name argument was not given"))?;
            pattern = Some(given.to_ascii_lowercase());
        } else {
            return Err(refused(format!("Unknown argument {}", String::from_utf8_lossy(option))));
        }
    }
    let libraries = ctx.data.keyspace().libraries.get();
    let is_wanted = |library: &&Arc<Library>| {
        let name = library.name.to_ascii_lowercase();
        pattern.as_ref().is_none_or(|pattern| glob_matches(pattern, name.as_bytes()))
    };
    let wanted: Vec<_> = libraries.values().filter(is_wanted).collect();
    ctx.reply.array(wanted.len());
    for library in wanted {
        describe(ctx, library, with_code);
    }
    Ok(())
}

fn describe(ctx: &mut Context<'_, '_>, library: &Library, with_code: bool) {
    let reply = &mut ctx.reply;
    reply.map(if with_code { 4 } else { 3 });
    reply.bulk(b"library_name");
    reply.bulk(library.name.as_bytes());
    reply.bulk(b"engine");
    reply.bulk(b"LUA");
    reply.bulk(b"functions");
    reply.array(library.functions.len());
    for function in &library.functions {
        reply.map(3);
        reply.bulk(b"name");
        reply.bulk(function.name.as_bytes());
        reply.bulk(b"description");
        match &function.description {
            Some(description) => reply.bulk(description),
            None => reply.null(),
        }
        reply.bulk(b"flags");
        let flags: Vec<_> = ScriptFlags(function.flags).names().collect();
        reply.set(flags.len());
        flags.iter().for_each(|flag| reply.simple(flag));
    }
    if with_code {
        reply.bulk(b"library_code");
        reply.bulk(&library.code);
    }
}

fn stats(ctx: &mut Context<'_, '_>) -> CommandResult {
    let running = ctx.host.scripts().longest();
    if running.as_ref().is_some_and(|running| !running.is_function) {
        return Err(CommandError::other(script::BUSY_SCRIPT));
    }
    let libraries = ctx.data.keyspace().libraries.get();
    let reply = &mut ctx.reply;
    reply.map(2);
    reply.bulk(b"running_script");
    match running {
        None => reply.null(),
        Some(running) => {
            reply.map(3);
            reply.bulk(b"name");
            reply.bulk(running.name.as_bytes());
            reply.bulk(b"command");
            reply.array(running.command.len());
            running.command.iter().for_each(|word| reply.bulk(word));
            reply.bulk(b"duration_ms");
            reply.integer(running.started.elapsed().as_millis() as i64);
        }
    }
    reply.bulk(b"engines");
    reply.map(1);
    reply.bulk(b"LUA");
    reply.map(2);
    reply.bulk(b"libraries_count");
    reply.integer(libraries.len() as i64);
    reply.bulk(b"functions_count");
    reply.integer(libraries.values().map(|library| library.functions.len() as i64).sum());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Engine;

    fn load(engine: &mut Engine, code: &str) -> String {
        let reply = engine.run(&[b"FUNCTION", b"LOAD", code.as_bytes()]);
        String::from_utf8_lossy(&reply).replace("\r\n", " ").trim_end().to_owned()
    }

    const COUNTING: &str = "#!lua name=counting\nredis.register_function('up', function(keys, args) return redis.call('INCRBY', keys[1], args[1]) end)\nredis.register_function{function_name='look', callback=function(keys) return redis.call('GET', keys[1]) end, flags={'no-writes'}, description='shows'}";

    #[test]
    fn functions_are_called_by_name() {
        let mut engine = Engine::new();
        assert_eq!(load(&mut engine, COUNTING), "$8 counting");
        engine.check("FCALL up 1 n 5 -> :5\nFCALL UP 1 n 1 -> :6\nFCALL_RO look 1 n -> $1 6");
        engine
            .check("FCALL_RO up 1 n 5 -> -ERR Can not execute a script with write flag using *_ro command.");
        engine
            .check("FCALL none 0 -> -ERR Function not found\nFCALL up x -> -ERR Bad number of keys provided");
        assert_eq!(load(&mut engine, COUNTING), "-ERR Library 'counting' already exists");
        let other = "#!lua name=other\nredis.register_function('up', function() end)";
        assert_eq!(load(&mut engine, other), "-ERR Function up already exists");
        engine.check("FUNCTION DELETE counting -> +OK\nFCALL up 1 n 5 -> -ERR Function not found");
        engine.check("FUNCTION DELETE counting -> -ERR Library not found");
    }

    #[test]
    fn a_library_that_is_none_changes_nothing() {
        let mut engine = Engine::new();
        for (code, refusal) in [
            ("return 1", "Missing library metadata"),
            ("#!lua\nreturn 1", "Library name was not given"),
            ("#!js name=a\nreturn 1", "Engine 'js' not found"),
            ("#!lua name=a\nreturn 1", "No functions registered"),
            ("#!lua name=a\nx y", "Error compiling function: user_function:1: '=' expected near 'y'"),
            (
                "#!lua name=a\nredis.call('PING')",
                "Error registering functions: ERR user_function:2: Script attempted to access nonexistent global variable 'call'",
            ),
            (
                "#!lua name=a\nmath.abs(1)",
                "Error registering functions: ERR user_function:2: Script attempted to access nonexistent global variable 'math'",
            ),
            (
                "#!lua name=a\nredis.register_function('f', 1)",
                "Error registering functions: ERR second argument to redis.register_function must be a function",
            ),
        ] {
            let reply = load(&mut engine, code);
            if code.ends_with("x y") {
                assert!(reply.starts_with("-ERR Error compiling function: user_function:2:"), "{reply}");
            } else {
                assert_eq!(reply, format!("-ERR {refusal}"), "{code}");
            }
        }
        engine.check("FUNCTION LIST -> *0");
        assert_eq!(engine.effects(), "");
    }

    #[test]
    fn a_library_that_never_ends_is_refused_however_it_comes() {
        let mut engine = Engine::new();
        let code = b"#!lua name=endless\nwhile true do end".to_vec();
        let library = Library { name: "endless".to_owned(), code: code.clone(), functions: Vec::new() };
        engine.keyspace.libraries.set([(library.name.clone(), Arc::new(library))].into());
        let payload = engine.keyspace.libraries.dump();
        engine.keyspace.libraries.set(LibraryMap::new());
        for words in [[&b"FUNCTION"[..], b"LOAD", &code], [b"FUNCTION", b"RESTORE", &payload]] {
            let reply = engine.run(&words);
            assert!(reply.starts_with(b"-ERR ") && contains(&reply, b"timeout"), "{}", reply.escape_ascii());
        }
        engine.check("FUNCTION LIST -> *0");
    }

    fn contains(text: &[u8], part: &[u8]) -> bool {
        text.windows(part.len()).any(|window| window == part)
    }

    #[test]
    fn libraries_are_journaled_and_replay() {
        let mut engine = Engine::new();
        load(&mut engine, COUNTING);
        load(&mut engine, "#!lua name=gone\nredis.register_function('gone', function() end)");
        engine.check("FUNCTION DELETE gone -> +OK\nFCALL up 1 n 5 -> :5");
        let mut replayed = engine.replayed();
        let list = engine.say("FUNCTION LIST WITHCODE");
        assert!(list.contains("counting") && !list.contains("gone"), "{list}");
        assert_eq!(replayed.say("FUNCTION LIST WITHCODE"), list);
        assert_eq!(replayed.digest(), engine.digest());
    }

    #[test]
    fn a_dump_restores_by_the_policy_asked_for() {
        let mut engine = Engine::new();
        load(&mut engine, COUNTING);
        let reply = engine.run(&[b"FUNCTION", b"DUMP"]);
        let start = reply.iter().position(|byte| *byte == b'\n').unwrap_or(0) + 1;
        let dump = reply[start..reply.len() - 2].to_vec();
        let mut restore = |policy: &[u8]| {
            let reply = engine.run(&[b"FUNCTION", b"RESTORE", &dump, policy]);
            String::from_utf8_lossy(&reply).trim_end().to_owned()
        };
        assert_eq!(restore(b"APPEND"), "-ERR Library counting already exists");
        assert_eq!(restore(b"REPLACE"), "+OK");
        assert_eq!(restore(b"FLUSH"), "+OK");
        assert!(restore(b"BAD").starts_with("-ERR Wrong restore policy given"));
        engine.check(
            "FUNCTION RESTORE bad -> -ERR DUMP payload version or checksum are wrong\nFCALL up 1 n 1 -> :1",
        );
    }
}
