//! XACK and XPENDING: what waits for its acknowledgement.

use cairn_keyspace::types::stream::Group;
use cairn_keyspace::types::{Stream, StreamId};
use cairn_resp::Reply;

use super::id::{range_end, range_start, reply_id, strict};
use crate::args::{integer, is};
use crate::context::Context;
use crate::error::{CommandError, CommandResult};

pub(super) fn xack(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (key, name) = (args[1], args[2]);
    if ctx.data.read::<Stream>(key)?.and_then(|stream| stream.group(name)).is_none() {
        ctx.reply.integer(0);
        return Ok(());
    }
    let ids = args[3..].iter().map(|arg| strict(arg)).collect::<Result<Vec<_>, _>>()?;
    let acknowledged = ctx.data.edit(key, |stream: &mut Stream| {
        let Some(group) = stream.group_mut(name) else { return 0 };
        ids.iter().filter(|id| group.acknowledge(**id)).count()
    })?;
    ctx.reply.integer(acknowledged as i64);
    Ok(())
}

/// Which pending entries XPENDING is to list.
struct Listing<'a> {
    idle_min_ms: i64,
    from: StreamId,
    to: StreamId,
    most: usize,
    consumer: Option<&'a [u8]>,
}

impl<'a> Listing<'a> {
    /// `None` where only an overview is asked for.
    fn parse(args: &[&'a [u8]]) -> Result<Option<Self>, CommandError> {
        let (idle_min_ms, range) = match &args[3..] {
            [] => return Ok(None),
            options if !(3..=6).contains(&options.len()) => return Err(CommandError::Syntax),
            [word, idle, range @ ..] if is(word, "idle") => (integer(idle)?, range),
            range => (0, range),
        };
        let (from, to, most, consumer) = match range {
            [from, to, most] => (from, to, most, None),
            [from, to, most, consumer, ..] => (from, to, most, Some(*consumer)),
            _ => return Err(CommandError::Syntax),
        };
        let most = usize::try_from(integer(most)?).unwrap_or(0);
        let (from, to) = (range_start(from)?, range_end(to)?);
        Ok(Some(Self { idle_min_ms, from, to, most, consumer }))
    }
}

pub(super) fn xpending(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let listing = Listing::parse(args)?;
    let now_ms = ctx.data.now_ms;
    let stream = ctx.data.read::<Stream>(args[1])?;
    let group = stream.and_then(|stream| stream.group(args[2])).ok_or_else(|| {
        let (key, group) = (String::from_utf8_lossy(args[1]), String::from_utf8_lossy(args[2]));
        CommandError::other(format!("NOGROUP No such key '{key}' or consumer group '{group}'"))
    })?;
    match listing {
        None => overview(&mut ctx.reply, group),
        Some(listing) => list(&mut ctx.reply, group, &listing, now_ms),
    }
    Ok(())
}

fn overview(reply: &mut Reply<'_>, group: &Group) {
    let pending = group.pending();
    reply.array(4);
    reply.integer(pending.len() as i64);
    let (Some((first, _)), Some((last, _))) = (pending.first_key_value(), pending.last_key_value()) else {
        reply.null();
        reply.null();
        reply.null_array();
        return;
    };
    reply_id(reply, *first);
    reply_id(reply, *last);
    let consumers = || group.consumers().filter(|consumer| !consumer.pending().is_empty());
    reply.array(consumers().count());
    for consumer in consumers() {
        reply.array(2);
        reply.bulk(consumer.name());
        reply.bulk_int(consumer.pending().len() as i64);
    }
}

fn list(reply: &mut Reply<'_>, group: &Group, listing: &Listing<'_>, now_ms: i64) {
    let of = match listing.consumer.map(|name| group.find(name)) {
        Some(None) => return reply.array(0),
        Some(found) => found,
        None => None,
    };
    let at = reply.deferred();
    let mut count = 0;
    let pending = group.pending_from(listing.from, of).take_while(|(id, _)| *id <= listing.to);
    let idle = pending.map(|(id, pending)| (id, pending, now_ms.saturating_sub(pending.delivered_at_ms)));
    let long_idle = idle.filter(|(_, _, idle)| listing.idle_min_ms == 0 || *idle >= listing.idle_min_ms);
    for (id, pending, idle) in long_idle.take(listing.most) {
        count += 1;
        reply.array(4);
        reply_id(reply, id);
        reply.bulk(group.consumer(pending.consumer).name());
        reply.integer(idle.max(0));
        reply.integer(pending.deliveries.cast_signed());
    }
    reply.finish_array(at, count);
}
