//! The server: <https://redis.io/docs/latest/commands/?group=server>

use super::help;
use crate::args::{integer, is};
use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::families::connection::REDIS_VERSION;
use crate::host::{Job, SnapshotReason};
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least, exactly};

const NONE: Categories = Categories::NONE;
const KEYSPACE: Categories = Categories::KEYSPACE;
const ADMIN: Flags = Flags::ADMIN.no_script();

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    CommandSpec { name: "info",         arity: at_least(1), flags: Flags::NONE.loading().stale(),        keys: Keys::Whole, acl: Categories::DANGEROUS, handler: info },
    help::group_row("config"),
    CommandSpec { name: "config|get",       arity: at_least(3), flags: ADMIN.loading().stale(), keys: Keys::None, acl: NONE, handler: config_get },
    CommandSpec { name: "config|set",       arity: at_least(4), flags: ADMIN.loading().stale(), keys: Keys::None, acl: NONE, handler: config_set },
    CommandSpec { name: "config|rewrite",   arity: exactly(2),  flags: ADMIN.loading().stale().no_multi(), keys: Keys::None, acl: NONE, handler: config_rewrite },
    CommandSpec { name: "config|resetstat", arity: exactly(2),  flags: ADMIN.loading().stale(), keys: Keys::None, acl: NONE, handler: config_resetstat },
    help::row("config|help", NONE),
    CommandSpec { name: "time",         arity: exactly(1),  flags: Flags::NONE.loading().stale().fast(), keys: Keys::None,  acl: NONE, handler: time },
    CommandSpec { name: "lolwut",       arity: at_least(1), flags: Flags::READ.fast(),                   keys: Keys::None,  acl: NONE, handler: lolwut },
    CommandSpec { name: "dbsize",       arity: exactly(1),  flags: Flags::READ.fast(),                   keys: Keys::Whole, acl: KEYSPACE, handler: dbsize },
    CommandSpec { name: "flushdb",      arity: at_least(1), flags: Flags::WRITE,                         keys: Keys::Whole, acl: KEYSPACE.and(Categories::DANGEROUS), handler: flushdb },
    CommandSpec { name: "flushall",     arity: at_least(1), flags: Flags::WRITE,                         keys: Keys::Whole, acl: KEYSPACE.and(Categories::DANGEROUS), handler: flushall },
    CommandSpec { name: "swapdb",       arity: exactly(3),  flags: Flags::WRITE.fast(),                  keys: Keys::Whole, acl: KEYSPACE.and(Categories::DANGEROUS), handler: swapdb },
    CommandSpec { name: "save",         arity: exactly(1),  flags: Flags::ADMIN.no_script().no_async_loading().no_multi(), keys: Keys::None,  acl: NONE, handler: save },
    CommandSpec { name: "bgsave",       arity: at_least(1), flags: Flags::ADMIN.no_script().no_async_loading(), keys: Keys::None,  acl: NONE, handler: bgsave },
    CommandSpec { name: "bgrewriteaof", arity: exactly(1),  flags: Flags::ADMIN.no_script().no_async_loading(), keys: Keys::None,  acl: NONE, handler: bgrewriteaof },
    CommandSpec { name: "lastsave",     arity: exactly(1),  flags: Flags::NONE.loading().stale().fast(), keys: Keys::None,  acl: Categories::ADMIN.and(Categories::DANGEROUS), handler: lastsave },
    CommandSpec { name: "shutdown",     arity: at_least(1), flags: Flags::ADMIN.no_script().loading().stale().no_multi().allow_busy(), keys: Keys::None,  acl: NONE, handler: shutdown },
    CommandSpec { name: "debug",        arity: at_least(2), flags: ADMIN.loading().stale(),              keys: Keys::Whole, acl: NONE, handler: super::debug::debug },
];

fn info(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let words: Vec<String> =
        args[1..].iter().map(|arg| String::from_utf8_lossy(arg).to_lowercase()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let text = ctx.host.info(&words, ctx.data.locked());
    ctx.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

fn config_get(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let found = ctx.host.config_get(&args[2..]);
    ctx.reply.map(found.len());
    for (name, value) in found {
        ctx.reply.bulk(name.as_bytes());
        ctx.reply.bulk(value.as_bytes());
    }
    Ok(())
}

fn config_set(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    if !args.len().is_multiple_of(2) {
        return Err(CommandError::Syntax);
    }
    let pairs: Vec<_> = args[2..].chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    ctx.host.config_set(&pairs).map_err(CommandError::other)?;
    ctx.reply.ok();
    Ok(())
}

fn config_rewrite(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    ctx.host.config_rewrite().map_err(CommandError::other)?;
    ctx.reply.ok();
    Ok(())
}

fn config_resetstat(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    ctx.host.reset_statistics();
    ctx.reply.ok();
    Ok(())
}

fn time(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    ctx.reply.array(2);
    ctx.reply.bulk(now.as_secs().to_string().as_bytes());
    ctx.reply.bulk(now.subsec_micros().to_string().as_bytes());
    Ok(())
}

/// There is no art here, whatever VERSION asks for: only the version, as a Redis without a picture of its own shows it.
fn lolwut(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    if let [_, word, version, ..] = args
        && is(word, "version")
    {
        integer(version)?;
    }
    ctx.reply.verbatim("txt", format!("Redis ver. {REDIS_VERSION}\n").as_bytes());
    Ok(())
}

fn dbsize(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    ctx.reply.integer(ctx.data.locked().len(ctx.data.db) as i64);
    Ok(())
}

/// Whether the memory may go back after the command has ended.
fn is_async(args: &[&[u8]]) -> Result<bool, CommandError> {
    match args {
        [_] => Ok(false),
        [_, mode] if is(mode, "sync") => Ok(false),
        [_, mode] if is(mode, "async") => Ok(true),
        _ => Err(CommandError::Syntax),
    }
}

fn flushdb(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let later = is_async(args)?;
    let db = ctx.data.db;
    ctx.data.flush(db, later);
    ctx.data.effect(&[b"FLUSHDB"]);
    ctx.reply.ok();
    Ok(())
}

fn flushall(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let later = is_async(args)?;
    for db in 0..ctx.data.keyspace().databases() {
        ctx.data.flush(db, later);
    }
    ctx.data.effect(&[b"FLUSHALL"]);
    ctx.reply.ok();
    Ok(())
}

fn swapdb(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let databases = ctx.data.keyspace().databases();
    let number = |arg, which: &str| {
        let number = integer(arg).ok().and_then(|number| i32::try_from(number).ok());
        number.ok_or_else(|| CommandError::other(format!("ERR invalid {which} DB index")))
    };
    let (a, b) = (number(args[1], "first")?, number(args[2], "second")?);
    let index =
        |number| u16::try_from(number).ok().filter(|db| *db < databases).ok_or(CommandError::NoSuchDatabase);
    let (a, b) = (index(a)?, index(b)?);
    if a != b {
        ctx.data.swap_databases(a, b);
    }
    ctx.reply.ok();
    Ok(())
}

fn save(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    ctx.job = Some(Job::Save);
    Ok(())
}

fn start(ctx: &mut Context<'_, '_>, why: SnapshotReason) -> CommandResult {
    let text = ctx.host.start_snapshot(why).map_err(CommandError::other)?;
    ctx.reply.simple(text);
    Ok(())
}

fn bgsave(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    match args {
        [_] => start(ctx, SnapshotReason::BgSave),
        [_, word] if is(word, "schedule") => start(ctx, SnapshotReason::BgSaveSchedule),
        _ => Err(CommandError::Syntax),
    }
}

fn bgrewriteaof(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    let mark = ctx.reply.len();
    start(ctx, SnapshotReason::Rewrite)?;
    if ctx.in_transaction {
        // It waits for the locks that the transaction holds.
        ctx.reply.truncate(mark);
        ctx.reply.simple("Background append only file rewriting scheduled");
    }
    Ok(())
}

fn lastsave(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    ctx.reply.integer(ctx.host.last_save_unixtime());
    Ok(())
}

fn shutdown(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (mut save, mut force) = (None, false);
    for arg in &args[1..] {
        if is(arg, "save") && save != Some(false) {
            save = Some(true);
        } else if is(arg, "nosave") && save != Some(true) {
            save = Some(false);
        } else if is(arg, "force") {
            force = true;
        } else if !is(arg, "now") {
            // There is no replica to wait for, so NOW changes nothing.
            return Err(CommandError::Syntax);
        }
    }
    ctx.job = Some(Job::Shutdown { save, force });
    Ok(())
}
