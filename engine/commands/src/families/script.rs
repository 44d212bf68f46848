//! Scripts: <https://redis.io/docs/latest/commands/?group=scripting>

use cairn_resp::parse_integer;

use super::help;
use crate::args::is;
use crate::context::Context;
use crate::dispatch::unknown_subcommand;
use crate::error::{CommandError, CommandResult};
use crate::keys::Access;
use crate::script::{self, Invocation, ScriptFlags, Sha, sha_of};
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least, exactly};

const SCRIPTING: Categories = Categories::SCRIPTING;
const RUNS: Flags = Flags::NONE.no_script().skip_monitor().no_mandatory_keys().stale();

/// What a script does to its keys is not known, so it may be anything.
pub(super) const ANY_USE: Keys = Keys::counted(2).access(Access::RW.access().update());

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    CommandSpec { name: "eval",       arity: at_least(3), flags: RUNS.may_replicate(),    keys: ANY_USE,          acl: SCRIPTING, handler: eval },
    CommandSpec { name: "evalsha",    arity: at_least(3), flags: RUNS.may_replicate(),    keys: ANY_USE,          acl: SCRIPTING, handler: evalsha },
    CommandSpec { name: "eval_ro",    arity: at_least(3), flags: RUNS.readonly(),         keys: Keys::counted(2), acl: SCRIPTING, handler: eval },
    CommandSpec { name: "evalsha_ro", arity: at_least(3), flags: RUNS.readonly(),         keys: Keys::counted(2), acl: SCRIPTING, handler: evalsha },
    help::group_row("script"),
    CommandSpec { name: "script|debug",  arity: exactly(3),  flags: Flags::NONE.no_script(),              keys: Keys::None, acl: SCRIPTING, handler: script },
    CommandSpec { name: "script|exists", arity: at_least(3), flags: Flags::NONE.no_script(),              keys: Keys::None, acl: SCRIPTING, handler: script },
    CommandSpec { name: "script|flush",  arity: at_least(2), flags: Flags::NONE.no_script(),              keys: Keys::None, acl: SCRIPTING, handler: script },
    help::row("script|help", SCRIPTING),
    CommandSpec { name: "script|kill",   arity: exactly(2),  flags: Flags::NONE.no_script().allow_busy(), keys: Keys::None, acl: SCRIPTING, handler: script },
    CommandSpec { name: "script|load",   arity: exactly(3),  flags: Flags::NONE.no_script().stale(),      keys: Keys::None, acl: SCRIPTING, handler: script },
];

const NO_SCRIPT: CommandError =
    CommandError::Other(std::borrow::Cow::Borrowed("NOSCRIPT No matching script. Please use EVAL."));

/// The declared keys and the arguments behind them. `refusal` is said of what is no number.
pub(crate) fn keys_and_args<'a, 'w>(
    args: &'a [&'w [u8]],
    refusal: CommandError,
) -> Result<[&'a [&'w [u8]]; 2], CommandError> {
    let count = parse_integer(args[2]).ok_or(refusal)?;
    let rest = &args[3..];
    if count > rest.len() as i64 {
        return Err(CommandError::other("ERR Number of keys can't be greater than number of args"));
    }
    let count =
        usize::try_from(count).map_err(|_| CommandError::other("ERR Number of keys can't be negative"))?;
    let (keys, args) = rest.split_at(count);
    Ok([keys, args])
}

/// Refuses a script that, by what it says of itself, may write where nothing is to be written, or where memory is short.
pub(crate) fn check_flags(flags: ScriptFlags, read_only: bool, ctx: &Context<'_, '_>) -> CommandResult {
    if flags.has(ScriptFlags::COMPATIBLE) || flags.has(ScriptFlags::NO_WRITES) {
        return Ok(());
    }
    if read_only {
        return Err(CommandError::other("ERR Can not execute a script with write flag using *_ro command."));
    }
    if ctx.session.began_out_of_memory && !flags.has(ScriptFlags::ALLOW_OOM) {
        if !ctx.in_transaction {
            return Err(CommandError::OutOfMemory);
        }
        return Err(CommandError::other(
            "OOM allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'",
        ));
    }
    Ok(())
}

/// Whether the command's name says that it reads only.
pub(crate) fn is_read_only(name: &[u8]) -> bool {
    name.len() > 3 && name[name.len() - 3..].eq_ignore_ascii_case(b"_ro")
}

fn eval(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    run(ctx, args, sha_of(args[1]), Some(args[1]))
}

fn evalsha(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let mut sha: Sha = args[1].try_into().map_err(|_| NO_SCRIPT)?;
    sha.make_ascii_lowercase();
    run(ctx, args, sha, None)
}

fn run(ctx: &mut Context<'_, '_>, args: &[&[u8]], sha: Sha, body: Option<&[u8]>) -> CommandResult {
    let [keys, arguments] = keys_and_args(args, CommandError::NotInteger)?;
    let ran = script::with_scripts(|interpreter| {
        let scripts = ctx.host.scripts();
        let (function, flags) = match interpreter.compiled(&sha, scripts.version()) {
            Some(compiled) => compiled,
            None => {
                let known = scripts.source(&sha);
                let body = known.as_deref().or(body).ok_or(NO_SCRIPT)?;
                let compiled = script::compile(interpreter, sha, body).map_err(CommandError::other)?;
                if known.is_none() {
                    scripts.remember(sha, body, false);
                }
                compiled
            }
        };
        let read_only = is_read_only(args[0]);
        check_flags(flags, read_only, ctx)?;
        let name = std::str::from_utf8(&sha).unwrap_or_default();
        let invocation =
            Invocation { name, command: args, keys, args: arguments, flags, read_only, is_function: false };
        script::execute(ctx, interpreter, &function, &invocation);
        Ok(())
    });
    ran.map_err(CommandError::other)?
}

fn script(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    match (&args[1].to_ascii_lowercase()[..], &args[2..]) {
        (b"load", [body]) => {
            let sha = sha_of(body);
            let compiled =
                script::with_scripts(|interpreter| script::compile(interpreter, sha, body).map(drop));
            compiled.and_then(|result| result).map_err(CommandError::other)?;
            ctx.host.scripts().remember(sha, body, true);
            ctx.reply.bulk(&sha);
        }
        (b"exists", digests) => {
            ctx.reply.array(digests.len());
            for digest in digests {
                let sha = Sha::try_from(*digest).map(|sha| sha.map(|byte| byte.to_ascii_lowercase()));
                let is_known = sha.is_ok_and(|sha| ctx.host.scripts().source(&sha).is_some());
                ctx.reply.integer(i64::from(is_known));
            }
        }
        (b"flush", mode) => {
            if !(mode.is_empty() || mode.len() == 1 && (is(mode[0], "sync") || is(mode[0], "async"))) {
                return Err(CommandError::other("ERR SCRIPT FLUSH only support SYNC|ASYNC option"));
            }
            ctx.host.scripts().flush();
            script::forget_compiled();
            ctx.reply.ok();
        }
        (b"kill", []) => {
            ctx.host.scripts().kill(false).map_err(CommandError::other)?;
            ctx.reply.ok();
        }
        (b"debug", [mode]) if is(mode, "no") => ctx.reply.ok(),
        (b"debug", [mode]) if is(mode, "yes") || is(mode, "sync") => {
            return Err(CommandError::other(
                "ERR this server has no script debugger: it would hold the keys of a script while somebody looks at it",
            ));
        }
        (b"debug", _) => return Err(CommandError::other("ERR Use SCRIPT DEBUG YES/SYNC/NO")),
        _ => return Err(unknown_subcommand("script", args[1])),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use cairn_resp::Protocol;

    use crate::testing::Engine;

    fn eval(engine: &mut Engine, script: &str, keys_and_args: &[&str]) -> String {
        let keys = keys_and_args.iter().take_while(|word| **word != "|").count().to_string();
        let mut args = vec![&b"EVAL"[..], script.as_bytes(), keys.as_bytes()];
        args.extend(keys_and_args.iter().filter(|word| **word != "|").map(|word| word.as_bytes()));
        String::from_utf8_lossy(&engine.run(&args)).replace("\r\n", " ").trim_end().to_owned()
    }

    #[test]
    fn values_go_to_replies_and_back() {
        let mut engine = Engine::new();
        for (script, reply) in [
            ("return 'hello'", "$5 hello"),
            ("return 3.99", ":3"),
            ("return true", ":1"),
            ("return false", "$-1"),
            ("return {1, 'two', {3}, nil, 5}", "*3 :1 $3 two *1 :3"),
            ("return {ok='fine'}", "+fine"),
            ("return {err='My Err'}", "-My Err"),
            ("return {double=1.5}", "$3 1.5"),
            ("return redis.call('SET', 'k', 0.5)", "+OK"),
            ("return redis.call('GET', 'k')", "$3 0.5"),
            ("return redis.call('GET', 'none') == false", ":1"),
            ("return redis.pcall('INCR', 'k').err", "$43 ERR value is not an integer or out of range"),
            ("redis.setresp(3) return type(redis.call('GET', 'none'))", "$3 nil"),
            ("local a = {} a[1] = a return #tostring(a) > 0", ":1"),
        ] {
            assert_eq!(eval(&mut engine, script, &[]), reply, "{script}");
        }
        engine.speak(Protocol::Resp3);
        for (script, reply) in [
            ("return {double=1.5}", ",1.5"),
            ("return {map={a=1}}", "%1 $1 a :1"),
            ("return {set={a=true}}", "~1 $1 a"),
            ("return true", ":1"),
            ("redis.setresp(3) return true", "#t"),
            (
                "redis.setresp(3) redis.call('HSET', 'h', 'f', 'v') return redis.call('HGETALL', 'h').map.f",
                "$1 v",
            ),
        ] {
            assert_eq!(eval(&mut engine, script, &[]), reply, "{script}");
        }
    }

    #[test]
    fn an_error_tells_script_and_line() {
        let mut engine = Engine::new();
        engine.say("SET k text");
        let reply = eval(&mut engine, "\nreturn redis.call('INCR', KEYS[1])", &["k"]);
        let sha = "b9ed5ea2fc31c2a04b2c8e4e6dfdc26a1e29a4e4".len();
        let text = "-ERR value is not an integer or out of range script: ";
        assert!(reply.starts_with(text) && reply.ends_with(", on @user_script:2."), "{reply}");
        assert_eq!(reply.len(), text.len() + sha + ", on @user_script:2.".len());
        let reply = eval(&mut engine, "return nosuch", &[]);
        let text =
            "-ERR user_script:1: Script attempted to access nonexistent global variable 'nosuch' script: ";
        assert!(reply.starts_with(text), "{reply}");
        let reply = eval(&mut engine, "x y", &[]);
        assert!(reply.starts_with("-ERR Error compiling script (new function): user_script:1:"), "{reply}");
    }

    #[test]
    fn nothing_outlives_a_script() {
        let mut engine = Engine::new();
        for script in [
            "leaked = 1",
            "_G.leaked = 1",
            "rawset(_G, 'leaked', 1)",
            "redis.call = 1",
            "string.rep = 1",
            "getmetatable('').__index = {}",
            "getmetatable('').__index.rep = 1",
            "getmetatable(_G).__index = {}",
            "setmetatable(_G, {})",
            "table.insert(redis, 1)",
            "cjson.encode = 1",
            "for name in pairs(redis) do redis[name] = nil end",
        ] {
            let reply = eval(&mut engine, script, &[]);
            assert!(reply.contains("Attempt to modify a readonly table"), "{script}: {reply}");
        }
        for name in ["io", "require", "package", "debug", "print", "loadfile", "dofile", "setfenv", "getfenv"]
        {
            let reply = eval(&mut engine, &format!("return {name}"), &[]);
            assert!(reply.contains("nonexistent global variable"), "{name}: {reply}");
        }
        assert_eq!(eval(&mut engine, "return loadstring(string.dump(function() end))", &[]), "$-1");
        assert_eq!(
            eval(&mut engine, "local _, t = pairs(redis) t.call = nil return type(redis.call)", &[]),
            "$8 function"
        );
    }

    #[test]
    fn what_a_script_writes_is_one_transaction() {
        let mut engine = Engine::new();
        let script = "redis.call('SADD', KEYS[1], 'a') redis.call('SPOP', KEYS[1]) redis.call('SELECT', 2) redis.call('SET', 'x', 1)";
        assert_eq!(eval(&mut engine, script, &["s"]), "$-1");
        assert_eq!(engine.effects(), "MULTI\nSADD s a\nDEL s\nSET x 1\nEXEC");
        engine.check("GET x -> $-1\nSELECT 2 -> +OK\nGET x -> $1 1\nSELECT 0 -> +OK");
        // What was written before an error stays, as in Redis.
        assert!(eval(&mut engine, "redis.call('SET', 'y', 1) error('late')", &["y"]).starts_with("-ERR"));
        assert_eq!(engine.effects(), "SET y 1");
        engine.check("MULTI -> +OK\nINCR n -> +QUEUED");
        assert_eq!(eval(&mut engine, "return redis.call('INCR', 'n')", &[]), "+QUEUED");
        engine.check("EXEC -> *2 :1 :2");
        assert_eq!(engine.effects(), "MULTI\nINCR n\nINCR n\nEXEC");

        // Looking at effects takes them out of the journal, so another engine shows what they replay to.
        let mut engine = Engine::new();
        eval(&mut engine, script, &["s"]);
        eval(&mut engine, "redis.call('SET', 'y', 1) error('late')", &["y"]);
        engine.check("MULTI -> +OK\nINCR n -> +QUEUED\nEXEC -> *1 :1\nSADD t a -> :1");
        assert_eq!(engine.replayed().digest(), engine.digest());
    }

    #[test]
    fn keys_expire_in_scripts_too() {
        let mut engine = Engine::new();
        engine.say("SET k v PX 5");
        engine.now_ms += 10;
        assert_eq!(eval(&mut engine, "return redis.call('EXISTS', KEYS[1])", &["k"]), ":0");
    }

    #[test]
    fn commands_that_scripts_may_not_call_are_refused() {
        let mut engine = Engine::new();
        for (call, refusal) in [
            ("redis.call('MULTI')", "This Redis command is not allowed from script"),
            ("redis.call('WATCH', 'k')", "This Redis command is not allowed from script"),
            ("redis.call('EVAL', 'return 1', 0)", "This Redis command is not allowed from script"),
            ("redis.call('NOSUCH')", "Unknown Redis command called from script"),
            ("redis.call('GET')", "Wrong number of args calling Redis command from script"),
            ("redis.call()", "Please specify at least one argument for this redis lib call"),
            ("redis.call({})", "Lua redis lib command arguments must be strings or integers"),
        ] {
            let reply = eval(&mut engine, call, &[]);
            assert!(reply.starts_with(&format!("-ERR {refusal} script: ")), "{call}: {reply}");
        }
        let read_only = |engine: &mut Engine, script: &str| {
            let reply = engine.run(&[b"EVAL_RO", script.as_bytes(), b"1", b"k"]);
            String::from_utf8_lossy(&reply).into_owned()
        };
        let refusal = "-ERR Write commands are not allowed from read-only scripts.";
        assert!(read_only(&mut engine, "return redis.call('SET', 'k', 1)").starts_with(refusal));
        let refusal = "-ERR Can not execute a script with write flag using *_ro command.";
        assert!(read_only(&mut engine, "#!lua\nreturn 1").starts_with(refusal));
        let script = "#!lua flags=no-writes\nreturn redis.call('SET', 'k', 1)";
        assert!(eval(&mut engine, script, &["k"]).starts_with("-ERR Write commands are not allowed"));
        engine.check("EXISTS k -> :0");
    }

    #[test]
    fn a_script_that_only_reads_tells_nobody_anything() {
        let mut engine = Engine::new();
        let refusal = "-ERR Write commands are not allowed from read-only scripts.";
        for call in ["'PUBLISH', 'c', 'm'", "'SPUBLISH', 'c', 'm'", "'PFCOUNT', 'k'"] {
            let script = format!("return redis.call({call})");
            let reply = engine.run(&[b"EVAL_RO", script.as_bytes(), b"0"]);
            assert!(reply.starts_with(refusal.as_bytes()), "{call}");
            assert!(eval(&mut engine, &format!("#!lua flags=no-writes\n{script}"), &[]).starts_with(refusal));
            assert_eq!(eval(&mut engine, &script, &[]), ":0");
        }
    }

    #[test]
    fn where_memory_is_short_a_script_may_only_go_on() {
        let mut engine = Engine::new();
        engine.say("SET k 1");
        engine.lacks_memory(true);
        let refusal = "-OOM command not allowed when used memory > 'maxmemory'.";
        let write = "return redis.call('SET', KEYS[1], 2)";
        let reply = eval(&mut engine, write, &["k"]);
        assert!(reply.starts_with(&format!("{refusal} script: ")), "{reply}");
        assert_eq!(eval(&mut engine, &format!("#!lua\n{write}"), &["k"]), refusal);
        assert_eq!(eval(&mut engine, &format!("#!lua flags=allow-oom\n{write}"), &["k"]), "+OK");
        assert_eq!(eval(&mut engine, "return redis.call('GET', KEYS[1])", &["k"]), "$1 2");
        let reads = "#!lua flags=no-writes\nreturn redis.call('GET', KEYS[1])";
        assert_eq!(eval(&mut engine, reads, &["k"]), "$1 2");
        // Half of what it does would be worse than some more memory.
        let begun = format!("redis.call('DEL', KEYS[1]) {write}");
        assert_eq!(eval(&mut engine, &begun, &["k"]), "+OK");
        engine.lacks_memory(false);
        assert_eq!(eval(&mut engine, write, &["k"]), "+OK");
    }

    #[test]
    fn unpack_gives_no_more_than_the_stack_holds() {
        let mut engine = Engine::new();
        for range in ["-2, 2147483647", "0, 2147483647", "-2147483648, -2", "1, 8001"] {
            let reply = eval(&mut engine, &format!("return {{unpack({{1, 2, 3}}, {range})}}"), &[]);
            assert!(reply.contains("too many results to unpack"), "{range}: {reply}");
        }
        for (script, reply) in [
            ("return {unpack({1, 2, 3})}", "*3 :1 :2 :3"),
            ("return {unpack({1, 2, 3}, '2')}", "*2 :2 :3"),
            ("return {unpack({1, 2, 3}, 2, 2)}", "*1 :2"),
            ("return {unpack({1, 2, 3}, 1, -1)}", "*0"),
            ("return {unpack({1, 2, 3}, 1e300, 2147483647)}", "*0"),
            ("local t = {} for i = 1, 7999 do t[i] = i end return select('#', unpack(t))", ":7999"),
        ] {
            assert_eq!(eval(&mut engine, script, &[]), reply, "{script}");
        }
        let reply = eval(&mut engine, "return unpack('text')", &[]);
        assert!(reply.contains("bad argument #1 to 'unpack' (table expected, got string)"), "{reply}");
    }

    #[test]
    fn nothing_in_a_script_blocks_and_sets_are_sorted() {
        let mut engine = Engine::new();
        let reply = eval(&mut engine, "return redis.call('xread', 'BLOCK', 0, 'STREAMS', 's', '$')", &["s"]);
        let refusal = "-ERR xread command is not allowed with BLOCK option from scripts script: ";
        assert!(reply.starts_with(refusal), "{reply}");
        engine.say("SADD t d b a e c");
        let sorted = "return table.concat(redis.call('SORT', KEYS[1], 'BY', 'nosort'))";
        assert_eq!(eval(&mut engine, sorted, &["t"]), "$5 abcde");
    }

    #[test]
    fn scripts_are_known_by_their_digest_until_they_are_flushed() {
        let mut engine = Engine::new();
        let sha = "7413dc2440db1fea7c0a0bde841fa68eefaf149c";
        engine.check("EVALSHA 7413dc2440db1fea7c0a0bde841fa68eefaf149c 0 -> -NOSCRIPT No matching script. Please use EVAL.");
        let reply = engine.run(&[b"SCRIPT", b"LOAD", b"return 1"]);
        let given = String::from_utf8_lossy(&reply).lines().nth(1).unwrap_or_default().to_owned();
        engine.check(&format!("EVALSHA {given} 0 -> :1\nEVALSHA {} 0 -> :1", given.to_uppercase()));
        engine.check(&format!("SCRIPT EXISTS {given} {sha} -> *2 :1 :{}", u8::from(given == sha)));
        engine.check(&format!("SCRIPT FLUSH -> +OK\nSCRIPT EXISTS {given} -> *1 :0"));
        engine.check(&format!("EVALSHA {given} 0 -> -NOSCRIPT No matching script. Please use EVAL."));
        engine.check("SCRIPT KILL -> -NOTBUSY No scripts in execution right now.");
    }

    #[test]
    fn caught_errors_look_as_scripts_expect_them() {
        let mut engine = Engine::new();
        engine.say("SET k text");
        for (script, reply) in [
            (
                "local ok, e = pcall(redis.call, 'INCR', 'k') return e",
                "$43 ERR value is not an integer or out of range",
            ),
            ("local ok, e = pcall(error, 'boo') return e", "$3 boo"),
            (
                "local ok, e = pcall(cjson.decode, 'x') return e",
                "$55 Expected value but found invalid token at character 1",
            ),
            (
                "local ok, e = xpcall(function() redis.call('INCR', 'k') end, function(e) return e.err end) return e",
                "$43 ERR value is not an integer or out of range",
            ),
            (
                "local co = coroutine.create(function() redis.call('INCR', 'k') end) local ok, e = coroutine.resume(co) return e.err",
                "$43 ERR value is not an integer or out of range",
            ),
        ] {
            let got = eval(&mut engine, script, &[]);
            let text = |reply: &str| reply.split_once(' ').map(|(_, text)| text.to_owned());
            assert_eq!(text(&got), text(reply), "{script}");
        }
    }

    #[test]
    fn libraries_for_json_messagepack_structs_and_bits() {
        let mut engine = Engine::new();
        for (script, text) in [
            (
                "return cjson.encode({1, 'a/b', true, cjson.null, {x=0.1}})",
                r#"[1,"a\/b",true,null,{"x":0.1}]"#,
            ),
            (
                "return cjson.encode(cjson.decode('{\"k\":[1.5e3,\"\\\\u20ac\",[]]}'))",
                "{\"k\":[1500,\"€\",{}]}",
            ),
            (
                "local t = cmsgpack.unpack(cmsgpack.pack({1, -1, 2^40, 0.5, {a='b'}})) return t[1] .. t[2] .. t[3] .. t[4] .. t[5].a",
                "1-110995116277760.5b",
            ),
            (
                "local a, b, at = struct.unpack('>I2s', struct.pack('>I2s', 258, 'xyz')) return a .. b .. at",
                "258xyz7",
            ),
            (
                "return bit.tohex(bit.bxor(0xff00, 0x0ff0)) .. bit.rshift(-1, 28) .. bit.tobit(2^32 + 5)",
                "0000f0f0155",
            ),
            ("return redis.sha1hex('abc')", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (
                "math.randomseed(10) local a = math.random() math.randomseed(10) return tostring(a == math.random())",
                "true",
            ),
        ] {
            let reply = eval(&mut engine, script, &[]);
            assert_eq!(reply.split_once(' ').map_or("", |(_, text)| text), text, "{script}");
        }
    }
}
