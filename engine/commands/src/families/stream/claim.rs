//! XCLAIM and XAUTOCLAIM: what is pending for one consumer becomes another's.

use cairn_keyspace::types::stream::{Group, Pending};
use cairn_keyspace::types::{Stream, StreamId};
use cairn_resp::Reply;

use super::effect::{Delivery, GroupEffects, Progress};
use super::id::{range_start, reply_entry, reply_id, strict};
use crate::args::{integer, is, positive};
use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::hub::Interest;

/// The most that XAUTOCLAIM may be asked for: more bytes for ids than this could not be counted.
const COUNT_MAX: usize = i64::MAX as usize / 16;

/// XAUTOCLAIM looks at ten times as many entries as it may claim.
const LOOKS_PER_CLAIM: usize = 10;

/// The error where a key or its group is not there.
fn no_group(key: &[u8], group: &[u8]) -> CommandError {
    let (key, group) = (String::from_utf8_lossy(key), String::from_utf8_lossy(group));
    CommandError::other(format!("NOGROUP No such key '{key}' or consumer group '{group}'"))
}

fn milliseconds(arg: &[u8], refusal: &'static str) -> Result<i64, CommandError> {
    integer(arg).map_err(|_| CommandError::other(refusal))
}

/// What XCLAIM takes behind the shortest idle time.
#[derive(Default)]
struct Options {
    ids: Vec<StreamId>,
    delivered_at_ms: Option<i64>,
    deliveries: Option<u64>,
    force: bool,
    just_ids: bool,
    last_id: StreamId,
}

impl Options {
    fn parse(args: &[&[u8]], now_ms: i64) -> Result<Self, CommandError> {
        let ids: Vec<StreamId> = args.iter().map_while(|arg| strict(arg).ok()).collect();
        let mut rest = &args[ids.len()..];
        let mut options = Self { ids, ..Self::default() };
        while let [word, behind @ ..] = rest {
            rest = behind;
            match behind {
                _ if is(word, "force") => options.force = true,
                _ if is(word, "justid") => options.just_ids = true,
                [value, behind @ ..] => {
                    rest = behind;
                    options.read(word, value, now_ms)?;
                }
                [] => return Err(unrecognized(word)),
            }
        }
        Ok(options)
    }

    /// Reads an option that has a value.
    fn read(&mut self, word: &[u8], value: &[u8], now_ms: i64) -> Result<(), CommandError> {
        match &word.to_ascii_lowercase()[..] {
            b"idle" => {
                let idle = milliseconds(value, "ERR Invalid IDLE option argument for XCLAIM")?;
                self.delivered_at_ms = Some(now_ms.saturating_sub(idle));
            }
            b"time" => {
                self.delivered_at_ms =
                    Some(milliseconds(value, "ERR Invalid TIME option argument for XCLAIM")?);
            }
            b"retrycount" => {
                let count = milliseconds(value, "ERR Invalid RETRYCOUNT option argument for XCLAIM")?;
                self.deliveries = u64::try_from(count).ok();
            }
            b"lastid" => self.last_id = strict(value)?,
            _ => return Err(unrecognized(word)),
        }
        Ok(())
    }
}

fn unrecognized(word: &[u8]) -> CommandError {
    CommandError::other(format!("ERR Unrecognized XCLAIM option '{}'", String::from_utf8_lossy(word)))
}

/// A claim under way: who claims for whom, and what has come of it.
struct Claim<'a> {
    effects: GroupEffects<'a>,
    consumer: &'a [u8],
    /// When the consumer is seen.
    seen_at_ms: i64,
    /// Whether ids alone are replied.
    just_ids: bool,
    claimed: Vec<(StreamId, Delivery)>,
    /// Whether the consumer has come into being by it.
    made_consumer: bool,
    /// What was pending although the stream has it no longer.
    released: Vec<StreamId>,
}

impl<'a> Claim<'a> {
    fn new(args: &[&'a [u8]], seen_at_ms: i64, just_ids: bool) -> Self {
        let effects = GroupEffects { key: args[1], group: args[2] };
        let (claimed, released) = (Vec::new(), Vec::new());
        Self { effects, consumer: args[3], seen_at_ms, just_ids, claimed, made_consumer: false, released }
    }

    /// Gives an entry to the consumer and replies with it.
    fn take(&mut self, stream: &mut Stream, id: StreamId, delivery: Delivery, reply: &mut Reply<'_>) {
        let Some(group) = stream.group_mut(self.effects.group) else { return };
        let (consumer, is_new) = group.see(self.consumer, self.seen_at_ms);
        self.made_consumer |= is_new;
        let Delivery { at_ms: delivered_at_ms, deliveries } = delivery;
        group.assign(id, Pending { consumer, delivered_at_ms, deliveries });
        self.claimed.push((id, delivery));
        match stream.get(id) {
            Some(entry) if !self.just_ids => reply_entry(reply, &entry),
            _ => reply_id(reply, id),
        }
    }

    /// Takes an entry that the stream no longer has from what is pending.
    fn release(&mut self, group: &mut Group, id: StreamId) {
        if group.acknowledge(id) {
            self.released.push(id);
        }
    }

    fn changes(&self) -> usize {
        self.claimed.len() + self.released.len()
    }

    fn write_effects(&self, ctx: &mut Context<'_, '_>) {
        if self.made_consumer {
            ctx.data.notify(Interest::STREAM, "xgroup-createconsumer", self.effects.key);
        }
        if !self.released.is_empty() {
            self.effects.released(&mut ctx.data, &self.released);
        }
        if !self.claimed.is_empty() {
            self.effects.claimed(&mut ctx.data, self.consumer, self.seen_at_ms, &self.claimed);
        }
    }
}

pub(super) fn xclaim(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (key, name) = (args[1], args[2]);
    let (now_ms, replaying) = (ctx.data.now_ms, ctx.data.is_replaying());
    if ctx.data.read::<Stream>(key)?.and_then(|stream| stream.group(name)).is_none() {
        return Err(no_group(key, name));
    }
    let idle_min_ms = milliseconds(args[4], "ERR Invalid min-idle-time argument for XCLAIM")?;
    let options = Options::parse(&args[5..], now_ms)?;
    let (delivered_at_ms, seen_at_ms) = match options.delivered_at_ms {
        // The clock stands still while the journal is replayed, and what is in it was checked.
        Some(at_ms) if replaying => (at_ms, at_ms),
        Some(at_ms) if (0..=now_ms).contains(&at_ms) => (at_ms, now_ms),
        _ => (now_ms, now_ms),
    };
    let mut claim = Claim::new(args, seen_at_ms, options.just_ids);
    let mut progress = None;
    let at = ctx.reply.deferred();
    let reply = &mut ctx.reply;
    ctx.data.edit(key, |stream: &mut Stream| {
        let Some(group) = stream.group_mut(name) else { return 0 };
        if replaying {
            group.see(claim.consumer, seen_at_ms);
        }
        if options.last_id > group.last_id {
            group.last_id = options.last_id;
            progress = Some(Progress::of(group));
        }
        for id in &options.ids {
            let is_there = stream.get(*id).is_some();
            let Some(group) = stream.group_mut(name) else { break };
            let before = group.pending().get(id).copied();
            if !is_there {
                claim.release(group, *id);
                continue;
            }
            let idle = before.map(|pending| now_ms.saturating_sub(pending.delivered_at_ms));
            let may_go = match idle {
                Some(idle) => idle_min_ms <= 0 || idle >= idle_min_ms,
                None => options.force,
            };
            if may_go {
                let by = u64::from(!options.just_ids);
                // One made by FORCE begins as one that was delivered once.
                let counted = before.map_or(1, |pending| pending.deliveries).saturating_add(by);
                let deliveries = options.deliveries.unwrap_or(counted);
                claim.take(stream, *id, Delivery { at_ms: delivered_at_ms, deliveries }, reply);
            }
        }
        claim.changes() + usize::from(progress.is_some() || replaying)
    })?;
    ctx.reply.finish_array(at, claim.claimed.len());
    claim.write_effects(ctx);
    if let Some(progress) = progress {
        claim.effects.moved(&mut ctx.data, progress);
    }
    Ok(())
}

pub(super) fn xautoclaim(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (key, name, now_ms) = (args[1], args[2], ctx.data.now_ms);
    let idle_min_ms = milliseconds(args[4], "ERR Invalid min-idle-time argument for XAUTOCLAIM")?;
    let from = range_start(args[5])?;
    let (mut most, mut just_ids) = (100, false);
    let mut rest = &args[6..];
    while !rest.is_empty() {
        rest = match rest {
            [word, count, rest @ ..] if is(word, "count") => {
                const REFUSAL: &str = "ERR COUNT must be > 0";
                most = positive(count, REFUSAL)?;
                if most > COUNT_MAX {
                    return Err(CommandError::other(REFUSAL));
                }
                rest
            }
            [word, rest @ ..] if is(word, "justid") => {
                just_ids = true;
                rest
            }
            _ => return Err(CommandError::Syntax),
        };
    }
    let stream = ctx.data.read::<Stream>(key)?;
    let group = stream.and_then(|stream| stream.group(name)).ok_or_else(|| no_group(key, name))?;
    let looks = most.saturating_mul(LOOKS_PER_CLAIM);
    let mut candidates: Vec<_> = group.pending_from(from, None).take(looks.saturating_add(1)).collect();
    let mut next = if candidates.len() > looks { candidates.pop().map(|(id, _)| id) } else { None };

    let mut claim = Claim::new(args, now_ms, just_ids);
    ctx.reply.array(3);
    let mut claimed = Vec::new();
    let mut reply = Reply::new(&mut claimed, ctx.reply.protocol());
    ctx.data.edit(key, |stream: &mut Stream| {
        for (id, pending) in candidates {
            if claim.changes() == most {
                next = Some(id);
                break;
            }
            if stream.get(id).is_none() {
                if let Some(group) = stream.group_mut(name) {
                    claim.release(group, id);
                }
            } else if idle_min_ms <= 0 || now_ms.saturating_sub(pending.delivered_at_ms) >= idle_min_ms {
                let deliveries = pending.deliveries.saturating_add(u64::from(!just_ids));
                claim.take(stream, id, Delivery { at_ms: now_ms, deliveries }, &mut reply);
            }
        }
        claim.changes()
    })?;
    reply_id(&mut ctx.reply, next.unwrap_or(StreamId::MIN));
    ctx.reply.array(claim.claimed.len());
    ctx.reply.raw(&claimed);
    ctx.reply.array(claim.released.len());
    claim.released.iter().for_each(|id| reply_id(&mut ctx.reply, *id));
    claim.write_effects(ctx);
    Ok(())
}
