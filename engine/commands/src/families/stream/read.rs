//! XREAD and XREADGROUP: entries of several streams behind the last ones that a client or a group knows.

use cairn_keyspace::types::stream::Pending;
use cairn_keyspace::types::{Stream, StreamId};
use cairn_resp::Protocol;

use super::effect::{Delivery, GroupEffects, Progress};
use super::id::{reply_entry, reply_id, strict};
use crate::args::{integer, is};
use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::hub::Interest;
use crate::waiting::{Awaited, KeyWait, Until, timeout_of_milliseconds};

/// What one of the two commands asks for.
struct Read<'a> {
    /// For how long it waits where it finds nothing, if at all, in milliseconds; the inner `None` is for ever.
    block_ms: Option<Option<u64>>,
    /// The most entries of each stream.
    most: usize,
    reader: Option<Reader<'a>>,
    /// The streams, and what stands for the last entry known of each.
    streams: Vec<(&'a [u8], &'a [u8])>,
}

/// Who reads, where a group does.
#[derive(Clone, Copy)]
struct Reader<'a> {
    group: &'a [u8],
    consumer: &'a [u8],
    /// What is read need not be acknowledged.
    no_ack: bool,
}

/// The entries of a stream that are asked for, as the call found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// Those behind this one; for a consumer of a group, of those that are pending for it.
    Id(StreamId),
    /// Those that its group was not given yet.
    Delivered,
}

impl<'a> Read<'a> {
    fn parse(args: &[&'a [u8]], is_group: bool) -> Result<Self, CommandError> {
        let only_groups = |option: &str| {
            let is_for = "is only supported by XREADGROUP. You called XREAD instead.";
            if is_group {
                Ok(())
            } else {
                Err(CommandError::other(format!("ERR The {option} option {is_for}")))
            }
        };
        let (mut block_ms, mut most, mut names, mut no_ack) = (None, 0, None, false);
        let mut rest = &args[1..];
        let streams = loop {
            rest = match rest {
                [word, timeout, rest @ ..] if is(word, "block") => {
                    block_ms = Some(timeout_of_milliseconds(timeout)?);
                    rest
                }
                [word, count, rest @ ..] if is(word, "count") => {
                    most = usize::try_from(integer(count)?).unwrap_or(0);
                    rest
                }
                [word, streams @ ..] if is(word, "streams") && !streams.is_empty() => break streams,
                [word, group, consumer, rest @ ..] if is(word, "group") => {
                    only_groups("GROUP")?;
                    names = Some((*group, *consumer));
                    rest
                }
                [word, rest @ ..] if is(word, "noack") => {
                    only_groups("NOACK")?;
                    no_ack = true;
                    rest
                }
                _ => return Err(CommandError::Syntax),
            };
        };
        if !streams.len().is_multiple_of(2) {
            return Err(CommandError::other(
                "ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified.",
            ));
        }
        if is_group && names.is_none() {
            return Err(CommandError::other("ERR Missing GROUP option for XREADGROUP"));
        }
        let (keys, ids) = streams.split_at(streams.len() / 2);
        Ok(Self {
            block_ms,
            most: if most == 0 { usize::MAX } else { most },
            reader: names.map(|(group, consumer)| Reader { group, consumer, no_ack }),
            streams: keys.iter().copied().zip(ids.iter().copied()).collect(),
        })
    }

    /// Looks at every stream before anything is done: what its id means now.
    fn resolve(&self, ctx: &mut Context<'_, '_>) -> Result<Vec<After>, CommandError> {
        let mut resolved = Vec::with_capacity(self.streams.len());
        for (key, id) in &self.streams {
            let stream = ctx.data.read::<Stream>(key)?;
            if let Some(reader) = self.reader
                && stream.and_then(|stream| stream.group(reader.group)).is_none()
            {
                let (key, group) = (String::from_utf8_lossy(key), String::from_utf8_lossy(reader.group));
                return Err(CommandError::other(format!(
                    "NOGROUP No such key '{key}' or consumer group '{group}' in XREADGROUP with GROUP option"
                )));
            }
            resolved.push(match (*id, self.reader) {
                (b"$", None) => After::Id(stream.map_or(StreamId::MIN, |stream| stream.counters().last_id)),
                (b"$", Some(_)) => return Err(CommandError::other(NO_DOLLAR)),
                (b">", Some(_)) => After::Delivered,
                (b">", None) => return Err(CommandError::other(NO_GREATER)),
                (id, reader) => match strict(id)? {
                    // Redis has no other mark for what the group was not given yet.
                    StreamId::MAX if reader.is_some() => After::Delivered,
                    id => After::Id(id),
                },
            });
        }
        Ok(resolved)
    }
}

const NO_DOLLAR: &str = "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer by specifying a proper ID, or use the > ID to get new messages. The $ ID would just return an empty result set.";

const NO_GREATER: &str =
    "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.";

pub(super) fn xread(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    read(ctx, args, &Read::parse(args, false)?)
}

pub(super) fn xreadgroup(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    read(ctx, args, &Read::parse(args, true)?)
}

fn read(ctx: &mut Context<'_, '_>, args: &[&[u8]], read: &Read<'_>) -> CommandResult {
    if ctx.in_script && read.block_ms.is_some() {
        let name = String::from_utf8_lossy(args[0]);
        let text = format!("ERR {name} command is not allowed with BLOCK option from scripts");
        return Err(CommandError::other(text));
    }
    let after = read.resolve(ctx)?;
    let (begin, at) = (ctx.reply.len(), ctx.reply.deferred());
    let mut served = 0;
    for ((key, _), after) in read.streams.iter().zip(&after) {
        if !has_entries(ctx, key, read.reader, *after) {
            continue;
        }
        served += 1;
        if ctx.reply.protocol() == Protocol::Resp2 {
            ctx.reply.array(2);
        }
        ctx.reply.bulk(key);
        match (read.reader, *after) {
            (None, After::Delivered) => {}
            (None, After::Id(id)) => show_behind(ctx, key, id, read.most),
            (Some(reader), After::Id(id)) => show_pending(ctx, key, reader, id, read.most)?,
            (Some(reader), After::Delivered) => deliver(ctx, key, reader, read.most)?,
        }
    }
    match (served, ctx.reply.protocol()) {
        (0, _) => {
            ctx.reply.truncate(begin);
            ctx.reply.null_array();
            if let Some(timeout_ms) = read.block_ms {
                let streams = read.streams.iter().zip(&after);
                let waits = streams.map(|((key, _), after)| read.wait_for(key, *after));
                ctx.wait(timeout_ms, Until::Keys(waits.collect()));
            }
        }
        (_, Protocol::Resp2) => ctx.reply.finish_array(at, served),
        (_, Protocol::Resp3) => ctx.reply.finish_map(at, served),
    }
    Ok(())
}

/// As many entries a client that has waited gets at once, unless it asked for another number.
const MOST_AFTER_WAIT: usize = 1000;

impl Read<'_> {
    /// What a client that has found nothing waits for at one of its streams: the same again, behind the entry that was
    /// the last one known.
    fn wait_for(&self, key: &[u8], after: After) -> KeyWait {
        let (mut request, mut awaited) = (vec![&b"XREAD"[..]], Awaited::Stream);
        if let Some(Reader { group, consumer, no_ack }) = self.reader {
            awaited = Awaited::Group;
            request = vec![b"XREADGROUP", b"GROUP", group, consumer];
            request.extend(no_ack.then_some(&b"NOACK"[..]));
        }
        let most = if self.most == usize::MAX { MOST_AFTER_WAIT } else { self.most };
        let (most, id) = (
            most.to_string(),
            match after {
                After::Id(id) => id.to_string(),
                After::Delivered => ">".to_owned(),
            },
        );
        request.extend([&b"COUNT"[..], most.as_bytes(), b"BLOCK", b"0", b"STREAMS", key, id.as_bytes()]);
        KeyWait::new(key, awaited, &request)
    }
}

/// Whether a stream is part of the reply. The pending entries of a consumer always are, even if there are none.
fn has_entries(ctx: &Context<'_, '_>, key: &[u8], reader: Option<Reader<'_>>, after: After) -> bool {
    let Some(stream) = ctx.data.settled_as::<Stream>(key) else { return false };
    let known = match (after, reader) {
        (After::Id(_), Some(_)) => return true,
        (After::Id(id), None) => Some(id),
        (After::Delivered, reader) => {
            reader.and_then(|reader| stream.group(reader.group)).map(|group| group.last_id)
        }
    };
    known.is_some_and(|known| stream.top().is_some_and(|top| top > known))
}

fn show_behind(ctx: &mut Context<'_, '_>, key: &[u8], id: StreamId, most: usize) {
    let at = ctx.reply.deferred();
    let mut count = 0;
    if let (Some(from), Some(stream)) = (id.next(), ctx.data.settled_as::<Stream>(key)) {
        for entry in stream.range(from, StreamId::MAX).take(most) {
            reply_entry(&mut ctx.reply, &entry);
            count += 1;
        }
    }
    ctx.reply.finish_array(at, count);
}

/// Gives a consumer what its group was not given yet.
fn deliver(ctx: &mut Context<'_, '_>, key: &[u8], reader: Reader<'_>, most: usize) -> CommandResult {
    let delivery = Delivery { at_ms: ctx.data.now_ms, deliveries: 1 };
    let (mut entries, mut progress, mut is_new) = (Vec::new(), Progress::default(), false);
    let at = ctx.reply.deferred();
    let reply = &mut ctx.reply;
    ctx.data.edit(key, |stream: &mut Stream| {
        let Some(group) = stream.group_mut(reader.group) else { return 0 };
        let consumer;
        (consumer, is_new) = group.see(reader.consumer, delivery.at_ms);
        let pending = Pending { consumer, delivered_at_ms: delivery.at_ms, deliveries: 1 };
        stream.deliver(reader.group, most, (!reader.no_ack).then_some(pending), |entry| {
            entries.push((entry.id, delivery));
            reply_entry(reply, &entry);
        });
        progress = stream.group(reader.group).map_or(progress, Progress::of);
        1
    })?;
    ctx.reply.finish_array(at, entries.len());
    tell_of_consumer(ctx, key, is_new);
    if reader.no_ack {
        entries.clear();
    }
    let effects = GroupEffects { key, group: reader.group };
    effects.claimed(&mut ctx.data, reader.consumer, delivery.at_ms, &entries);
    effects.moved(&mut ctx.data, progress);
    Ok(())
}

/// Gives a consumer once more what is pending for it.
fn show_pending(
    ctx: &mut Context<'_, '_>,
    key: &[u8],
    reader: Reader<'_>,
    id: StreamId,
    most: usize,
) -> CommandResult {
    let now_ms = ctx.data.now_ms;
    let (mut entries, mut count, mut is_new) = (Vec::new(), 0, false);
    let at = ctx.reply.deferred();
    let reply = &mut ctx.reply;
    ctx.data.edit(key, |stream: &mut Stream| {
        let Some(group) = stream.group_mut(reader.group) else { return 0 };
        let consumer;
        (consumer, is_new) = group.see(reader.consumer, now_ms);
        let pending: Vec<_> = match id.next() {
            Some(from) => group.pending_from(from, Some(consumer)).take(most).collect(),
            None => Vec::new(),
        };
        count = pending.len();
        for (id, pending) in pending {
            match stream.get(id) {
                Some(entry) => {
                    reply_entry(reply, &entry);
                    let deliveries = pending.deliveries.saturating_add(1);
                    entries.push((id, Delivery { at_ms: now_ms, deliveries }));
                }
                None => {
                    reply.array(2);
                    reply_id(reply, id);
                    reply.null_array();
                }
            }
        }
        if let Some(group) = stream.group_mut(reader.group) {
            for (id, delivery) in &entries {
                let pending = Pending { consumer, delivered_at_ms: now_ms, deliveries: delivery.deliveries };
                group.assign(*id, pending);
            }
        }
        1
    })?;
    ctx.reply.finish_array(at, count);
    tell_of_consumer(ctx, key, is_new);
    GroupEffects { key, group: reader.group }.claimed(&mut ctx.data, reader.consumer, now_ms, &entries);
    Ok(())
}

/// Tells of a consumer that has come into being because it reads.
fn tell_of_consumer(ctx: &mut Context<'_, '_>, key: &[u8], is_new: bool) {
    if is_new {
        ctx.data.notify(Interest::STREAM, "xgroup-createconsumer", key);
    }
}
