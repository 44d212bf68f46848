//! The slow log: <https://redis.io/docs/latest/commands/slowlog/>

use super::help;
use crate::args::integer;
use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::observed::slowlog::SlowRequest;
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least, exactly};

const NONE: Categories = Categories::NONE;
const ADMIN: Flags = Flags::ADMIN.loading().stale();

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    help::group_row("slowlog"),
    CommandSpec { name: "slowlog|get",   arity: at_least(2), flags: ADMIN, keys: Keys::None, acl: NONE, handler: get },
    CommandSpec { name: "slowlog|len",   arity: exactly(2),  flags: ADMIN, keys: Keys::None, acl: NONE, handler: len },
    CommandSpec { name: "slowlog|reset", arity: exactly(2),  flags: ADMIN, keys: Keys::None, acl: NONE, handler: reset },
    help::row("slowlog|help", NONE),
];

/// Entries shown where no number is given.
const SHOWN: usize = 10;

fn get(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let most = match args {
        [_, _] => SHOWN,
        [_, _, count] => match integer(count)? {
            -1 => usize::MAX,
            count => usize::try_from(count)
                .map_err(|_| CommandError::other("ERR count should be greater than or equal to -1"))?,
        },
        _ => return Err(CommandError::WrongArity("slowlog|get".into())),
    };
    let entries = ctx.host.observed().map_or(Vec::new(), |observed| observed.slowlog.newest(most));
    ctx.reply.array(entries.len());
    for entry in &entries {
        show(ctx, entry);
    }
    Ok(())
}

fn show(ctx: &mut Context<'_, '_>, entry: &SlowRequest) {
    let reply = &mut ctx.reply;
    reply.array(6);
    reply.integer(entry.id as i64);
    reply.integer(entry.unixtime);
    reply.integer(entry.duration_us as i64);
    reply.array(entry.args.len());
    entry.args.iter().for_each(|arg| reply.bulk(arg));
    reply.bulk(entry.client.as_bytes());
    reply.bulk(&entry.client_name);
}

fn len(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    ctx.reply.integer(ctx.host.observed().map_or(0, |observed| observed.slowlog.len()) as i64);
    Ok(())
}

fn reset(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    if let Some(observed) = ctx.host.observed() {
        observed.slowlog.reset();
    }
    ctx.reply.ok();
    Ok(())
}
