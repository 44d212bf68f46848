//! XLEN, XRANGE, XREVRANGE.

use cairn_keyspace::types::Stream;

use super::id::{range_end, range_start, reply_entry};
use crate::args::{integer, is};
use crate::context::Context;
use crate::error::{CommandError, CommandResult};

pub(super) fn xlen(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let len = ctx.data.read::<Stream>(args[1])?.map_or(0, Stream::len);
    ctx.reply.integer(len as i64);
    Ok(())
}

pub(super) fn xrange(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    range(ctx, args, false)
}

pub(super) fn xrevrange(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    range(ctx, args, true)
}

fn range(ctx: &mut Context<'_, '_>, args: &[&[u8]], backwards: bool) -> CommandResult {
    let (from, to) = if backwards { (args[3], args[2]) } else { (args[2], args[3]) };
    let (from, to) = (range_start(from)?, range_end(to)?);
    let mut most = usize::MAX;
    for option in args[4..].chunks(2) {
        match option {
            [word, count] if is(word, "count") => most = usize::try_from(integer(count)?).unwrap_or(0),
            _ => return Err(CommandError::Syntax),
        }
    }
    let reply = &mut ctx.reply;
    let Some(stream) = ctx.data.read::<Stream>(args[1])? else {
        reply.array(0);
        return Ok(());
    };
    if most == 0 {
        reply.null_array();
        return Ok(());
    }
    let at = reply.deferred();
    let mut count = 0;
    let mut show = |entry| {
        reply_entry(reply, &entry);
        count += 1;
    };
    if backwards {
        stream.range_back(from, to).take(most).for_each(&mut show);
    } else {
        stream.range(from, to).take(most).for_each(&mut show);
    }
    ctx.reply.finish_array(at, count);
    Ok(())
}
