//! Ranges of a sorted set, by rank, by score or by member: reading, counting, storing and removing them.
//!
//! Whatever names a range, it becomes a range of ranks.

use std::ops::Range;

use cairn_keyspace::types::{LexBound, ScoreBound, Zset};

use super::{members_header, reply_member};
use crate::args::{clamp_range, integer, is};
use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::hub::Interest;

/// What the two bounds of a range are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Lex,
}

/// Two bounds.
enum Bounds<'a> {
    /// Indexes, both included, negative ones from the end.
    Rank(i64, i64),
    Score(ScoreBound, ScoreBound),
    Lex(LexBound<'a>, LexBound<'a>),
}

impl<'a> Bounds<'a> {
    fn parse(by: By, min: &'a [u8], max: &'a [u8]) -> Result<Self, CommandError> {
        match by {
            By::Rank => Ok(Bounds::Rank(integer(min)?, integer(max)?)),
            By::Score => match (score_bound(min), score_bound(max)) {
                (Some(min), Some(max)) => Ok(Bounds::Score(min, max)),
                _ => Err(CommandError::other("ERR min or max is not a float")),
            },
            By::Lex => match (lex_bound(min), lex_bound(max)) {
                (Some(min), Some(max)) => Ok(Bounds::Lex(min, max)),
                _ => Err(CommandError::other("ERR min or max not valid string range item")),
            },
        }
    }

    /// The ranks between the bounds; reversed, ranks of the bounds themselves count from the highest score.
    fn ranks(&self, zset: &Zset, reverse: bool) -> Range<usize> {
        match self {
            Bounds::Rank(start, stop) => {
                let range = clamp_range(*start, *stop, zset.len()).unwrap_or(0..0);
                if reverse { zset.len() - range.end..zset.len() - range.start } else { range }
            }
            Bounds::Score(min, max) => zset.rank_range_by_score(*min, *max),
            Bounds::Lex(min, max) => zset.rank_range_by_lex(*min, *max),
        }
    }
}

/// A score, behind `(` when it is left out itself. Read as the C library does: nothing is 0.
fn score_bound(arg: &[u8]) -> Option<ScoreBound> {
    let number = |digits: &[u8]| -> Option<f64> {
        let text = std::str::from_utf8(digits).ok()?.trim_start();
        if digits.is_empty() {
            return Some(0.0);
        }
        text.parse::<f64>().ok().filter(|score| !score.is_nan())
    };
    match arg.strip_prefix(b"(") {
        Some(rest) => number(rest).map(ScoreBound::Excluded),
        None => number(arg).map(ScoreBound::Included),
    }
}

fn lex_bound(arg: &[u8]) -> Option<LexBound<'_>> {
    match arg {
        b"-" => Some(LexBound::Lowest),
        b"+" => Some(LexBound::Highest),
        [b'[', member @ ..] => Some(LexBound::Included(member)),
        [b'(', member @ ..] => Some(LexBound::Excluded(member)),
        _ => None,
    }
}

/// Which members a command of the ZRANGE family means.
struct Query<'a> {
    bounds: Bounds<'a>,
    reverse: bool,
    offset: i64,
    /// Below zero for all.
    limit: i64,
    with_scores: bool,
}

impl<'a> Query<'a> {
    /// `args` begins with the two bounds. What `by` and `reverse` leave open may be said by an option; `stored` allows no
    /// WITHSCORES.
    fn parse(
        args: &[&'a [u8]],
        mut by: Option<By>,
        mut reverse: Option<bool>,
        stored: bool,
    ) -> Result<Self, CommandError> {
        let (mut offset, mut limit, mut with_scores) = (0, -1, false);
        let mut rest = args[2..].iter();
        while let Some(word) = rest.next() {
            if !stored && is(word, "withscores") {
                with_scores = true;
            } else if is(word, "limit") && rest.len() >= 2 {
                let mut number = || rest.next().map_or(Err(CommandError::Syntax), |arg| integer(arg));
                (offset, limit) = (number()?, number()?);
            } else if reverse.is_none() && is(word, "rev") {
                reverse = Some(true);
            } else if by.is_none() && is(word, "bylex") {
                by = Some(By::Lex);
            } else if by.is_none() && is(word, "byscore") {
                by = Some(By::Score);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        let (by, reverse) = (by.unwrap_or(By::Rank), reverse.unwrap_or(false));
        if limit != -1 && by == By::Rank {
            return Err(CommandError::other(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
            ));
        }
        if with_scores && by == By::Lex {
            return Err(CommandError::other(
                "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
            ));
        }
        // A reversed range of scores or members begins with its highest.
        let (min, max) = if reverse && by != By::Rank { (args[1], args[0]) } else { (args[0], args[1]) };
        let bounds = Bounds::parse(by, min, max)?;
        if by == By::Rank {
            offset = 0;
        }
        Ok(Self { bounds, reverse, offset, limit, with_scores })
    }

    /// The ranks of the members meant; reversed, they are to be walked from the highest.
    fn ranks(&self, zset: &Zset) -> Range<usize> {
        let all = self.bounds.ranks(zset, self.reverse);
        // An offset below zero skips everything, as it does in Redis.
        let skipped = usize::try_from(self.offset).map_or(all.len(), |offset| offset.min(all.len()));
        let left = all.len() - skipped;
        let taken = usize::try_from(self.limit).map_or(left, |limit| limit.min(left));
        if self.reverse {
            let end = all.end - skipped;
            end - taken..end
        } else {
            let start = all.start + skipped;
            start..start + taken
        }
    }
}

fn reply_range(
    ctx: &mut Context<'_, '_>,
    args: &[&[u8]],
    by: Option<By>,
    reverse: Option<bool>,
) -> CommandResult {
    let query = Query::parse(&args[2..], by, reverse, false)?;
    let Some(zset) = ctx.data.read::<Zset>(args[1])? else {
        ctx.reply.array(0);
        return Ok(());
    };
    let ranks = query.ranks(zset);
    let reply = &mut ctx.reply;
    members_header(reply, ranks.len(), query.with_scores);
    if query.reverse {
        zset.range(ranks).rev().for_each(|one| reply_member(reply, one, query.with_scores));
    } else {
        zset.range(ranks).for_each(|one| reply_member(reply, one, query.with_scores));
    }
    Ok(())
}

pub(super) fn zrange(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    reply_range(ctx, args, None, None)
}

pub(super) fn zrevrange(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    reply_range(ctx, args, Some(By::Rank), Some(true))
}

pub(super) fn zrangebyscore(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    reply_range(ctx, args, Some(By::Score), Some(false))
}

pub(super) fn zrevrangebyscore(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    reply_range(ctx, args, Some(By::Score), Some(true))
}

pub(super) fn zrangebylex(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    reply_range(ctx, args, Some(By::Lex), Some(false))
}

pub(super) fn zrevrangebylex(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    reply_range(ctx, args, Some(By::Lex), Some(true))
}

pub(super) fn zrangestore(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let query = Query::parse(&args[3..], None, None, true)?;
    let limits = ctx.data.limits;
    let mut result = Zset::new();
    if let Some(zset) = ctx.data.read::<Zset>(args[2])? {
        let ranks = query.ranks(zset);
        result = Zset::with_capacity(ranks.len(), limits);
        for (member, score) in zset.range(ranks) {
            member.with_bytes(|member| result.add(member, score, limits));
        }
    }
    let len = result.len();
    ctx.data.store_as(Interest::ZSET, "zrangestore", args[1], result);
    ctx.reply.integer(len as i64);
    Ok(())
}

fn count(ctx: &mut Context<'_, '_>, args: &[&[u8]], by: By) -> CommandResult {
    let bounds = Bounds::parse(by, args[2], args[3])?;
    let count = ctx.data.read::<Zset>(args[1])?.map_or(0, |zset| bounds.ranks(zset, false).len());
    ctx.reply.integer(count as i64);
    Ok(())
}

pub(super) fn zcount(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    count(ctx, args, By::Score)
}

pub(super) fn zlexcount(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    count(ctx, args, By::Lex)
}

fn remove(ctx: &mut Context<'_, '_>, args: &[&[u8]], by: By) -> CommandResult {
    let bounds = Bounds::parse(by, args[2], args[3])?;
    let removed =
        ctx.data.edit(args[1], |zset: &mut Zset| zset.remove_ranks(bounds.ranks(zset, false), |_, _| {}))?;
    if removed > 0 {
        let event = match by {
            By::Rank => "zremrangebyrank",
            By::Score => "zremrangebyscore",
            By::Lex => "zremrangebylex",
        };
        ctx.data.notify_taken(Interest::ZSET, event, args[1]);
    }
    ctx.reply.integer(removed as i64);
    Ok(())
}

pub(super) fn zremrangebyrank(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    remove(ctx, args, By::Rank)
}

pub(super) fn zremrangebyscore(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    remove(ctx, args, By::Score)
}

pub(super) fn zremrangebylex(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    remove(ctx, args, By::Lex)
}
