//! DEBUG, for those who test the server: <https://redis.io/docs/latest/commands/debug/>

use cairn_keyspace::{Entry, Object, Value, dumped};

use super::generic::encoding;
use crate::args::{float, integer, is};
use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::host::{Job, Reload};

const NOT_ALLOWED: &str = "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can run it from a local connection, otherwise you need to set this option in the configuration file, and then restart the server.";

/// What there is, as HELP tells it.
const HELP: &[&str] = &[
    "DEBUG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CONFIG-REWRITE-FORCE-ALL",
    "    Writes all directives back to the configuration file, those with their defaults too.",
    "DIGEST",
    "    A digest of all data.",
    "DIGEST-VALUE <key> [<key> ...]",
    "    Digests of the values of these keys.",
    "ERROR <string>",
    "    Replies with this error.",
    "HTSTATS <dbid>",
    "    How many keys, and keys that expire, the tables of a database hold.",
    "HTSTATS-KEY <key>",
    "    How many elements the table of a large collection holds.",
    "LOADAOF",
    "    Empties the keyspace and loads what a restart would find on the disk.",
    "LOG <message>",
    "    Writes a line to the log.",
    "MALLCTL <name>",
    "    A number that the allocator tells.",
    "MALLCTL-STR <name> [VOID]",
    "    A text that the allocator tells; with VOID, something that it does.",
    "OBJECT <key>",
    "    How the value of a key is kept.",
    "PAUSE-CRON <0|1>",
    "    1 stops the housekeeping, 0 lets it go on.",
    "POPULATE <count> [<prefix>] [<size>]",
    "    Sets so many strings, where they are not there yet.",
    "PROTOCOL <type>",
    "    A reply of this type: string, integer, double, bignum, null, array, set, map, attrib, push, verbatim, true, false.",
    "QUICKLIST-PACKED-THRESHOLD <size>",
    "    Taken for the sake of tests: an element too large for a node of a list always stands alone.",
    "REPLYBUFFER PEAK-RESET-TIME <NEVER|RESET|milliseconds>, or RESIZING <0|1>",
    "    Taken for the sake of tests: a client's buffer is given back when it is empty.",
    "RELOAD [MERGE] [NOFLUSH] [NOSAVE]",
    "    Writes a snapshot and loads it again.",
    "SET-ACTIVE-EXPIRE <0|1>",
    "    0 leaves expired keys where they are until somebody looks at them.",
    "SET-DISABLE-DENY-SCRIPTS <0|1>",
    "    1 lets scripts call every command.",
    "SLEEP <seconds>",
    "    Holds everything up for so long.",
    "HELP",
    "    Prints this help.",
];

pub(super) fn debug(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    if !ctx.host.debug_allowed(ctx.session.id) {
        return Err(CommandError::other(NOT_ALLOWED));
    }
    match (&args[1].to_ascii_lowercase()[..], &args[2..]) {
        (b"help", []) => {
            ctx.reply.array(HELP.len());
            HELP.iter().for_each(|line| ctx.reply.simple(line));
        }
        (b"digest", []) => ctx.reply.simple(&hex(&ctx.data.locked().digest())),
        (b"digest-value", keys) => {
            ctx.reply.array(keys.len());
            for key in keys {
                let digest = ctx.data.peek(key).map_or([0; 20], Entry::value_digest);
                ctx.reply.simple(&hex(&digest));
            }
        }
        (b"reload", options) => reload(ctx, options)?,
        (b"loadaof", []) => {
            deny_in_transaction(ctx)?;
            ctx.job = Some(Job::LoadJournal);
        }
        (b"sleep", [seconds]) => sleep(ctx, seconds)?,
        (b"object", [key]) => object(ctx, key)?,
        (b"populate", [count, options @ ..]) if options.len() <= 2 => populate(ctx, count, options)?,
        (b"htstats", [db]) => table_of_database(ctx, db)?,
        (b"htstats-key", [key]) => table_of_value(ctx, key)?,
        (b"error", [text]) => {
            return Err(CommandError::other(String::from_utf8_lossy(text).replace(['\r', '\n'], " ")));
        }
        (b"protocol", [kind]) => super::protocol::example(&mut ctx.reply, kind)?,
        (b"config-rewrite-force-all", []) => {
            let failed = |why| CommandError::other(format!("ERR CONFIG-REWRITE-FORCE-ALL failed: {why}"));
            ctx.host.config_rewrite_all().map_err(failed)?;
            ctx.reply.ok();
        }
        (b"mallctl", [name]) => {
            let value = ctx.host.allocator_number(name).map_err(CommandError::other)?;
            ctx.reply.integer(value);
        }
        (b"mallctl-str", [name]) => {
            let text = ctx.host.allocator_text(name).map_err(CommandError::other)?;
            ctx.reply.bulk(text.as_bytes());
        }
        (word, args) => switch(ctx, word, args)?,
    }
    Ok(())
}

/// What changes how the server behaves from now on.
fn switch(ctx: &mut Context<'_, '_>, word: &[u8], args: &[&[u8]]) -> CommandResult {
    let is_set = |flag: &[u8]| integer(flag).is_ok_and(|flag| flag != 0);
    match (word, args) {
        (b"set-active-expire", [flag]) => ctx.host.set_active_expire(is_set(flag)),
        (b"pause-cron", [flag]) => ctx.host.set_housekeeping(!is_set(flag)),
        (b"set-disable-deny-scripts", [flag]) => ctx.host.scripts().allow_every_command(is_set(flag)),
        (b"log", [text]) => ctx.host.debug_log(&String::from_utf8_lossy(text)),
        (b"mallctl-str", [name, void]) if *void == b"VOID" => {
            ctx.host.allocator_action(name).map_err(CommandError::other)?;
        }
        // No buffer is resized from time to time: there is no such time to set.
        (b"replybuffer", [what, flag]) if is(what, "resizing") && integer(flag).is_ok() => {}
        (b"replybuffer", [what, time])
            if is(what, "peak-reset-time")
                && (is(time, "never") || is(time, "reset") || integer(time).is_ok()) => {}
        // A node is full at its size, whatever is to be added: there is no such threshold to move.
        (b"quicklist-packed-threshold", [size]) => {
            if memory_value(size).is_none_or(|bytes| bytes > u64::from(u32::MAX)) {
                return Err(CommandError::other(
                    "ERR argument must be a memory value bigger than 1 and smaller than 4gb",
                ));
            }
        }
        _ => {
            let word = String::from_utf8_lossy(word);
            return Err(CommandError::other(format!(
                "ERR unknown subcommand or wrong number of arguments for '{word}'. Try DEBUG HELP."
            )));
        }
    }
    ctx.reply.ok();
    Ok(())
}

/// A number of bytes, with units as a configuration has them.
fn memory_value(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, unit) = text.split_at(digits);
    let factor = match &unit.to_ascii_lowercase()[..] {
        b"" | b"b" => 1,
        b"k" => 1000,
        b"kb" => 1 << 10,
        b"m" => 1_000_000,
        b"mb" => 1 << 20,
        b"g" => 1_000_000_000,
        b"gb" => 1 << 30,
        _ => return None,
    };
    std::str::from_utf8(number).ok()?.parse::<u64>().ok()?.checked_mul(factor)
}

fn reload(ctx: &mut Context<'_, '_>, options: &[&[u8]]) -> CommandResult {
    let mut reload = Reload { save: true, flush: true, merge: false };
    for word in options {
        if is(word, "merge") {
            reload.merge = true;
        } else if is(word, "noflush") {
            reload.flush = false;
        } else if is(word, "nosave") {
            reload.save = false;
        } else {
            return Err(CommandError::other(
                "ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.",
            ));
        }
    }
    deny_in_transaction(ctx)?;
    ctx.job = Some(Job::Reload(reload));
    Ok(())
}

fn sleep(ctx: &mut Context<'_, '_>, seconds: &[u8]) -> CommandResult {
    let seconds = float(seconds)?;
    if !(0.0..=86_400.0).contains(&seconds) {
        return Err(CommandError::other("ERR DEBUG SLEEP takes between 0 and 86400 seconds"));
    }
    if ctx.in_transaction {
        // Everything is held already, as it is to be.
        std::thread::sleep(std::time::Duration::from_secs_f64(seconds));
        ctx.reply.ok();
    } else {
        ctx.job = Some(Job::Sleep(seconds));
    }
    Ok(())
}

fn object(ctx: &mut Context<'_, '_>, key: &[u8]) -> CommandResult {
    /// Of a dump, what is not the value: its type in front, version and checksum behind.
    const AROUND: usize = 1 + 2 + 8;
    let now_ms = ctx.data.now_ms;
    let access = ctx.data.keyspace().access();
    let entry = ctx.data.find_even_expired(key).ok_or(CommandError::NoSuchKey)?;
    let mut text = format!(
        "Value at:0x0 refcount:1 encoding:{} serializedlength:{} lru:{} lru_seconds_idle:{}",
        encoding(entry),
        dumped::dump(entry.value()).len() - AROUND,
        entry.clock(),
        access.idle_seconds(entry.clock(), now_ms)
    );
    if let Value::Object(Object::List(list)) = entry.value() {
        let nodes = list.nodes();
        let each = list.len() as f64 / nodes.max(1) as f64;
        text.push_str(&format!(" ql_nodes:{nodes} ql_avg_node:{each:.2} ql_compressed:0"));
    }
    ctx.reply.simple(&text);
    Ok(())
}

/// As many keys as asked for that are not there yet, each with an effect of its own.
fn populate(ctx: &mut Context<'_, '_>, count: &[u8], options: &[&[u8]]) -> CommandResult {
    let number = |arg| {
        let number = integer(arg).ok().and_then(|number| usize::try_from(number).ok());
        number.ok_or_else(|| CommandError::other("ERR value is out of range, must be positive"))
    };
    let count = number(count)?;
    let prefix = options.first().copied().unwrap_or(b"key");
    let size = options.get(1).map(|size| number(size)).transpose()?;
    if size.is_some_and(|size| size > ctx.data.limits.string_bytes) {
        return Err(CommandError::other("ERR string exceeds maximum allowed size (proto-max-bulk-len)"));
    }
    for number in 0..count {
        let key = [prefix, format!(":{number}").as_bytes()].concat();
        if ctx.data.exists(&key) {
            continue;
        }
        let mut value = format!("value:{number}").into_bytes();
        if let Some(size) = size {
            value.resize(size, 0);
        }
        ctx.data.set_string(&key, &value, None);
        ctx.data.effect(&[b"SET", &key, &value]);
    }
    ctx.reply.ok();
    Ok(())
}

fn table_of_database(ctx: &mut Context<'_, '_>, db: &[u8]) -> CommandResult {
    let locked = ctx.data.locked();
    let db = u16::try_from(integer(db)?).ok().filter(|db| *db < locked.keyspace().databases());
    let db = db.ok_or_else(|| CommandError::other("ERR Out of range database"))?;
    let text = format!(
        "[Dictionary HT]\n number of elements: {}\n[Expires HT]\n number of elements: {}\n",
        locked.len(db),
        locked.expiring(db)
    );
    ctx.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

fn table_of_value(ctx: &mut Context<'_, '_>, key: &[u8]) -> CommandResult {
    let entry = ctx.data.inspect(key).ok_or(CommandError::NoSuchKey)?;
    let elements = match entry.value() {
        Value::Object(Object::Set(set)) if encoding(entry) == "hashtable" => set.len(),
        Value::Object(Object::Hash(hash)) if encoding(entry) == "hashtable" => hash.len(),
        Value::Object(Object::Zset(zset)) if encoding(entry) == "skiplist" => zset.len(),
        _ => {
            return Err(CommandError::other(
                "ERR The value stored at the specified key is not represented using an hash table",
            ));
        }
    };
    ctx.reply.verbatim("txt", format!("[Value HT]\n number of elements: {elements}\n").as_bytes());
    Ok(())
}

fn deny_in_transaction(ctx: &Context<'_, '_>) -> CommandResult {
    if ctx.in_transaction {
        return Err(CommandError::other("ERR Command not allowed inside a transaction"));
    }
    Ok(())
}

fn hex(digest: &[u8; 20]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use crate::testing::Engine;

    #[test]
    fn populate_sets_what_is_not_there_and_replays() {
        let mut engine = Engine::new();
        engine.check(
            "SET key:1 mine -> +OK
             DEBUG POPULATE 3 -> +OK
             MGET key:0 key:1 key:2 -> *3 $7 value:0 $4 mine $7 value:2
             DEBUG POPULATE 1 other 3 -> +OK
             GET other:0 -> $3 val
             DEBUG POPULATE -1 -> -ERR value is out of range, must be positive
             DEBUG POPULATE 1 k x -> -ERR value is out of range, must be positive",
        );
        assert_eq!(engine.replayed().digest(), engine.digest());
    }

    #[test]
    fn values_are_told_of_as_in_redis() {
        let mut engine = Engine::new();
        engine.check("SET k value:1 -> +OK\nDEBUG OBJECT absent -> -ERR no such key\nSET old v PX 1 -> +OK");
        engine.now_ms += 2;
        assert!(engine.say("DEBUG OBJECT old").starts_with("+Value"), "it looks, and removes nothing");
        let told = engine.say("DEBUG OBJECT k");
        assert!(
            told.starts_with("+Value at:0x0 refcount:1 encoding:embstr serializedlength:8 lru:"),
            "{told}"
        );
        engine.check(
            "DEBUG HTSTATS-KEY k -> -ERR The value stored at the specified key is not represented using an hash table
             DEBUG HTSTATS 99 -> -ERR Out of range database
             DEBUG QUICKLIST-PACKED-THRESHOLD 5b -> +OK
             DEBUG REPLYBUFFER RESIZING 0 -> +OK
             DEBUG REPLYBUFFER peak-reset-time never -> +OK
             DEBUG REPLYBUFFER PEAK-RESET-TIME 100 -> +OK
             DEBUG REPLYBUFFER x 1 -> -ERR unknown subcommand or wrong number of arguments for 'replybuffer'. Try DEBUG HELP.
             DEBUG MALLCTL arenas.page -> -ERR there is no server around this engine
             DEBUG QUICKLIST-PACKED-THRESHOLD 5gb -> -ERR argument must be a memory value bigger than 1 and smaller than 4gb
             DEBUG RELOAD AGAIN -> -ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.
             DEBUG JMAP -> -ERR unknown subcommand or wrong number of arguments for 'jmap'. Try DEBUG HELP.",
        );
    }
}
