//! What changes a stream's entries: XADD, XTRIM, XDEL, XSETID.

use cairn_keyspace::types::stream::{Counters, ENTRY_BYTES_MAX, Stream, TrimTo};
use cairn_keyspace::types::{Limits, StreamId};

use super::id::{NewId, reply_id, strict, with_text};
use crate::args::{integer, is};
use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::hub::Interest;

/// How XADD and XTRIM cut a stream.
#[derive(Clone, Copy)]
struct Trim {
    to: TrimTo,
    /// Only whole nodes go.
    is_approximate: bool,
    /// The most entries that go; 0 for any number.
    limit: u64,
}

impl Trim {
    fn run(self, stream: &mut Stream) -> u64 {
        stream.trim(self.to, self.is_approximate, self.limit)
    }

    /// The words that give a stream as it is now once more, whatever its nodes are.
    fn effect(self, stream: &Stream) -> [Vec<u8>; 3] {
        let id_text = |id| with_text(id, <[u8]>::to_vec);
        let (word, to) = match self.to {
            TrimTo::Len(_) => ("MAXLEN", stream.len().to_string().into_bytes()),
            TrimTo::Id(_) if self.is_approximate => ("MINID", id_text(stream.stored_from())),
            TrimTo::Id(id) => ("MINID", id_text(id)),
        };
        [word.into(), "=".into(), to]
    }
}

/// What stands before XADD's id, and all that XTRIM takes.
#[derive(Default)]
struct Options {
    trim: Option<(TrimTo, bool)>,
    limit: Option<u64>,
    no_create: bool,
    must_trim: bool,
}

impl Options {
    /// Reads one option; how many arguments it takes, or `None` where there is none that XTRIM has too.
    fn read(&mut self, args: &[&[u8]]) -> Result<Option<usize>, CommandError> {
        let [word, rest @ ..] = args else { return Ok(None) };
        let (by_len, by_id) = (is(word, "maxlen"), is(word, "minid"));
        if (by_len || by_id) && !rest.is_empty() {
            if self.trim.is_some() {
                return Err(CommandError::other(
                    "ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
                ));
            }
            let (mode, value, taken) = match rest {
                [mode @ (b"~" | b"="), value, ..] => (*mode, value, 3),
                [value, ..] => (&b"="[..], value, 2),
                [] => return Ok(None),
            };
            let to = if by_id { TrimTo::Id(strict(value)?) } else { TrimTo::Len(length(value)?) };
            self.trim = Some((to, mode == b"~"));
            return Ok(Some(taken));
        }
        match rest {
            [value, ..] if is(word, "limit") => {
                let limit = u64::try_from(integer(value)?);
                self.limit =
                    Some(limit.map_err(|_| CommandError::other("ERR The LIMIT argument must be >= 0."))?);
                Ok(Some(2))
            }
            _ => Ok(None),
        }
    }

    /// What the options come to together.
    fn trim(&self, limits: &Limits) -> Result<Option<Trim>, CommandError> {
        let (is_trim, limit) = (self.trim.is_some(), self.limit.unwrap_or(0));
        if limit > 0 && !is_trim {
            return Err(CommandError::other(
                "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy",
            ));
        }
        if self.must_trim && !is_trim {
            return Err(CommandError::other(
                "ERR syntax error, XTRIM must be called with a trimming strategy",
            ));
        }
        let is_approximate = self.trim.is_some_and(|(_, is_approximate)| is_approximate);
        if self.limit.is_some() && !is_approximate {
            return Err(CommandError::other(
                "ERR syntax error, LIMIT cannot be used without the special ~ option",
            ));
        }
        let limit = match self.limit {
            // Unasked, one command trims no more than a hundred nodes.
            None if is_approximate => match limits.stream_node_entries.saturating_mul(100) {
                0 => 10_000,
                limit => limit.min(1_000_000),
            },
            _ => limit,
        };
        Ok(self.trim.map(|(to, _)| Trim { to, is_approximate, limit }))
    }
}

fn length(arg: &[u8]) -> Result<u64, CommandError> {
    let length = u64::try_from(integer(arg)?);
    length.map_err(|_| CommandError::other("ERR The MAXLEN argument must be >= 0."))
}

pub(super) fn xadd(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (key, mut options, mut at, mut new_id) = (args[1], Options::default(), 2, NewId::Next);
    while at < args.len() {
        if args[at] == b"*" {
            break;
        }
        if let Some(taken) = options.read(&args[at..])? {
            at += taken;
        } else if is(args[at], "nomkstream") {
            options.no_create = true;
            at += 1;
        } else {
            new_id = NewId::parse(args[at])?;
            break;
        }
    }
    let limits = ctx.data.limits;
    let trim = options.trim(limits)?;
    let fields = args.get(at + 1..).unwrap_or_default();
    if fields.is_empty() || !fields.len().is_multiple_of(2) {
        return Err(CommandError::WrongArity("xadd".into()));
    }
    if new_id == NewId::Given(StreamId::MIN) {
        return Err(CommandError::other("ERR The ID specified in XADD must be greater than 0-0"));
    }
    let counters = match ctx.data.look::<Stream>(key)? {
        Some(stream) => *stream.counters(),
        None if options.no_create => {
            ctx.reply.null();
            return Ok(());
        }
        None => Counters::default(),
    };
    let id = resolve(new_id, &counters, ctx.data.now_ms)?;
    if fields.iter().map(|text| text.len()).sum::<usize>() > ENTRY_BYTES_MAX {
        return Err(CommandError::other("ERR Elements are too large to be stored"));
    }
    let mut trimmed = None;
    ctx.data.edit_or_create(key, |stream: &mut Stream| {
        stream.append(id, fields, limits);
        trimmed = trim.filter(|trim| trim.run(stream) > 0).map(|trim| trim.effect(stream));
        1
    })?;
    ctx.data.notify(Interest::STREAM, "xadd", key);
    if trimmed.is_some() {
        ctx.data.notify(Interest::STREAM, "xtrim", key);
    }
    with_text(id, |id| {
        let mut effect = vec![&b"XADD"[..], key];
        effect.extend(trimmed.iter().flatten().map(Vec::as_slice));
        effect.push(id);
        effect.extend_from_slice(fields);
        ctx.data.effect(&effect);
    });
    reply_id(&mut ctx.reply, id);
    Ok(())
}

/// The id that a new entry gets.
fn resolve(new_id: NewId, counters: &Counters, now_ms: i64) -> Result<StreamId, CommandError> {
    let last = counters.last_id;
    if last == StreamId::MAX {
        return Err(CommandError::other(
            "ERR The stream has exhausted the last possible ID, unable to add more items",
        ));
    }
    let now_ms = u64::try_from(now_ms).unwrap_or(0);
    let id = match new_id {
        NewId::Given(id) => Some(id),
        NewId::NextOf(ms) if ms == last.ms => last.seq.checked_add(1).map(|seq| StreamId { ms, seq }),
        NewId::NextOf(ms) => Some(StreamId { ms, seq: 0 }),
        NewId::Next if now_ms > last.ms => Some(StreamId { ms: now_ms, seq: 0 }),
        NewId::Next => last.next(),
    };
    id.filter(|id| *id > last).ok_or(CommandError::other(
        "ERR The ID specified in XADD is equal or smaller than the target stream top item",
    ))
}

pub(super) fn xtrim(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (key, mut at) = (args[1], 2);
    let mut options = Options { must_trim: true, ..Options::default() };
    while at < args.len() {
        at += options.read(&args[at..])?.ok_or(CommandError::Syntax)?;
    }
    let trim = options.trim(ctx.data.limits)?.ok_or(CommandError::Syntax)?;
    let mut effect = None;
    let trimmed = ctx.data.edit(key, |stream: &mut Stream| {
        let trimmed = trim.run(stream) as usize;
        effect = (trimmed > 0).then(|| trim.effect(stream));
        trimmed
    })?;
    if let Some([word, mode, to]) = &effect {
        ctx.data.effect(&[b"XTRIM", key, word, mode, to]);
        ctx.data.notify(Interest::STREAM, "xtrim", key);
    }
    ctx.reply.integer(trimmed as i64);
    Ok(())
}

pub(super) fn xdel(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    if ctx.data.look::<Stream>(args[1])?.is_none() {
        ctx.reply.integer(0);
        return Ok(());
    }
    let ids = args[2..].iter().map(|arg| strict(arg)).collect::<Result<Vec<_>, _>>()?;
    let deleted =
        ctx.data.edit(args[1], |stream: &mut Stream| ids.iter().filter(|id| stream.delete(**id)).count())?;
    if deleted > 0 {
        ctx.data.notify(Interest::STREAM, "xdel", args[1]);
    }
    ctx.reply.integer(deleted as i64);
    Ok(())
}

pub(super) fn xsetid(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (key, last_id) = (args[1], strict(args[2])?);
    let (mut entries_added, mut max_deleted_id) = (None, StreamId::MIN);
    for option in args[3..].chunks(2) {
        match option {
            [word, value] if is(word, "entriesadded") => {
                let added = u64::try_from(integer(value)?);
                entries_added =
                    Some(added.map_err(|_| CommandError::other("ERR entries_added must be positive"))?);
            }
            [word, value] if is(word, "maxdeletedid") => {
                max_deleted_id = strict(value)?;
                if last_id < max_deleted_id {
                    return Err(CommandError::other(
                        "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
                    ));
                }
            }
            _ => return Err(CommandError::Syntax),
        }
    }
    let stream = ctx.data.look::<Stream>(key)?.ok_or(CommandError::NoSuchKey)?;
    if stream.top().is_some_and(|top| last_id < top) {
        return Err(CommandError::other(
            "ERR The ID specified in XSETID is smaller than the target stream top item",
        ));
    }
    if entries_added.is_some_and(|added| added < stream.counters().len) {
        return Err(CommandError::other(
            "ERR The entries_added specified in XSETID is smaller than the target stream length",
        ));
    }
    ctx.data.edit(key, |stream: &mut Stream| {
        stream.set_history(last_id, entries_added, max_deleted_id);
        1
    })?;
    ctx.data.notify(Interest::STREAM, "xsetid", key);
    ctx.reply.ok();
    Ok(())
}
