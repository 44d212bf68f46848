//! XINFO: what a stream, its groups and their consumers are made of.

use cairn_keyspace::types::stream::{Consumer, Group};
use cairn_keyspace::types::{Stream, StreamId};
use cairn_resp::Reply;

use super::group::{no_group, wrong_subcommand};
use super::id::{reply_entry, reply_id};
use crate::args::{integer, is};
use crate::context::Context;
use crate::error::{CommandError, CommandResult};

/// How many entries XINFO STREAM FULL shows unasked.
const FULL_DEFAULT: usize = 10;

pub(super) fn consumers(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let now_ms = ctx.data.now_ms;
    let stream = ctx.data.read::<Stream>(args[2])?.ok_or(CommandError::NoSuchKey)?;
    let group = stream.group(args[3]).ok_or_else(|| no_group(args[2], args[3]))?;
    ctx.reply.array(group.consumers().len());
    group.consumers().for_each(|consumer| show_consumer(&mut ctx.reply, consumer, now_ms));
    Ok(())
}

pub(super) fn groups(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let stream = ctx.data.read::<Stream>(args[2])?.ok_or(CommandError::NoSuchKey)?;
    ctx.reply.array(stream.groups().len());
    stream.groups().for_each(|(name, group)| show_group(&mut ctx.reply, stream, name, group));
    Ok(())
}

pub(super) fn stream(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let stream = ctx.data.read::<Stream>(args[2])?.ok_or(CommandError::NoSuchKey)?;
    let most = match &args[3..] {
        [] => {
            show_stream(&mut ctx.reply, stream);
            return Ok(());
        }
        [word] if is(word, "full") => FULL_DEFAULT,
        [word, option, count] if is(word, "full") && is(option, "count") => {
            match usize::try_from(integer(count)?) {
                Ok(0) => usize::MAX,
                Ok(most) => most,
                Err(_) => FULL_DEFAULT,
            }
        }
        _ => return Err(wrong_subcommand("XINFO", args[1])),
    };
    show_all(&mut ctx.reply, stream, most);
    Ok(())
}

fn number(reply: &mut Reply<'_>, name: &str, value: i64) {
    reply.bulk(name.as_bytes());
    reply.integer(value);
}

fn number_or_null(reply: &mut Reply<'_>, name: &str, value: Option<i64>) {
    reply.bulk(name.as_bytes());
    match value {
        Some(value) => reply.integer(value),
        None => reply.null(),
    }
}

fn id(reply: &mut Reply<'_>, name: &str, id: StreamId) {
    reply.bulk(name.as_bytes());
    reply_id(reply, id);
}

fn show_consumer(reply: &mut Reply<'_>, consumer: &Consumer, now_ms: i64) {
    reply.map(3);
    reply.bulk(b"name");
    reply.bulk(consumer.name());
    number(reply, "pending", consumer.pending().len() as i64);
    number(reply, "idle", now_ms.saturating_sub(consumer.seen_at_ms).max(0));
}

fn show_group(reply: &mut Reply<'_>, stream: &Stream, name: &[u8], group: &Group) {
    reply.map(6);
    reply.bulk(b"name");
    reply.bulk(name);
    number(reply, "consumers", group.consumers().len() as i64);
    number(reply, "pending", group.pending().len() as i64);
    show_progress(reply, stream, group);
}

fn show_progress(reply: &mut Reply<'_>, stream: &Stream, group: &Group) {
    id(reply, "last-delivered-id", group.last_id);
    number_or_null(reply, "entries-read", group.entries_read.map(u64::cast_signed));
    number_or_null(reply, "lag", stream.lag(group));
}

/// What both forms of XINFO STREAM begin with.
fn show_counters(reply: &mut Reply<'_>, stream: &Stream) {
    let counters = stream.counters();
    number(reply, "length", counters.len.cast_signed());
    number(reply, "radix-tree-keys", stream.nodes().len() as i64);
    number(reply, "radix-tree-nodes", stream.radix_nodes() as i64);
    id(reply, "last-generated-id", counters.last_id);
    id(reply, "max-deleted-entry-id", counters.max_deleted_id);
    number(reply, "entries-added", counters.entries_added.cast_signed());
    id(reply, "recorded-first-entry-id", counters.first_id);
}

fn show_stream(reply: &mut Reply<'_>, stream: &Stream) {
    reply.map(10);
    show_counters(reply, stream);
    number(reply, "groups", stream.groups().len() as i64);
    let first = stream.range(StreamId::MIN, StreamId::MAX).next();
    let last = stream.range_back(StreamId::MIN, StreamId::MAX).next();
    for (name, entry) in [("first-entry", first), ("last-entry", last)] {
        reply.bulk(name.as_bytes());
        match entry {
            Some(entry) => reply_entry(reply, &entry),
            None => reply.null(),
        }
    }
}

/// Everything, of each list no more than `most`.
fn show_all(reply: &mut Reply<'_>, stream: &Stream, most: usize) {
    reply.map(9);
    show_counters(reply, stream);
    reply.bulk(b"entries");
    reply.array(stream.len().min(most));
    let entries = stream.range(StreamId::MIN, StreamId::MAX).take(most);
    entries.for_each(|entry| reply_entry(reply, &entry));
    reply.bulk(b"groups");
    reply.array(stream.groups().len());
    for (name, group) in stream.groups() {
        reply.map(7);
        reply.bulk(b"name");
        reply.bulk(name);
        show_progress(reply, stream, group);
        show_pending(reply, group, most);
        reply.bulk(b"consumers");
        reply.array(group.consumers().len());
        group.consumers().for_each(|consumer| show_whole_consumer(reply, group, consumer, most));
    }
}

fn show_pending(reply: &mut Reply<'_>, group: &Group, most: usize) {
    number(reply, "pel-count", group.pending().len() as i64);
    reply.bulk(b"pending");
    reply.array(group.pending().len().min(most));
    for (id, pending) in group.pending().iter().take(most) {
        reply.array(4);
        reply_id(reply, *id);
        reply.bulk(group.consumer(pending.consumer).name());
        reply.integer(pending.delivered_at_ms);
        reply.integer(pending.deliveries.cast_signed());
    }
}

fn show_whole_consumer(reply: &mut Reply<'_>, group: &Group, consumer: &Consumer, most: usize) {
    reply.map(4);
    reply.bulk(b"name");
    reply.bulk(consumer.name());
    number(reply, "seen-time", consumer.seen_at_ms);
    number(reply, "pel-count", consumer.pending().len() as i64);
    reply.bulk(b"pending");
    let of = group.find(consumer.name());
    let pending = || group.pending_from(StreamId::MIN, of).take(most);
    reply.array(pending().count());
    for (id, pending) in pending() {
        reply.array(3);
        reply_id(reply, id);
        reply.integer(pending.delivered_at_ms);
        reply.integer(pending.deliveries.cast_signed());
    }
}
