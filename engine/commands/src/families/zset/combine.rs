//! Unions, intersections and differences of sorted sets. Plain sets take part, as if each score were 1.

use cairn_keyspace::types::{Item, Limits, Set, Zset};
use cairn_keyspace::{Entry, Object, Value};

use super::{members_header, reply_member};
use crate::args::{integer, is, natural, parse_float};
use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::hub::Interest;

/// The score of a plain set's members.
const PLAIN_SCORE: f64 = 1.0;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Union,
    Intersection,
    Difference,
}

/// How the scores that one member has in several sets become one.
#[derive(Clone, Copy)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn of(self, so_far: f64, score: f64) -> f64 {
        match self {
            // Infinity and its opposite make nothing.
            Aggregate::Sum => number_or_zero(so_far + score),
            Aggregate::Min if score < so_far => score,
            Aggregate::Max if score > so_far => score,
            Aggregate::Min | Aggregate::Max => so_far,
        }
    }
}

fn number_or_zero(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

/// One input.
#[derive(Clone, Copy)]
enum Input<'a> {
    Absent,
    Plain(&'a Set),
    Scored(&'a Zset),
}

impl<'a> Input<'a> {
    fn of(entry: Option<&'a Entry>) -> Result<Self, CommandError> {
        match entry.map(Entry::value) {
            None => Ok(Input::Absent),
            Some(Value::Object(Object::Set(set))) => Ok(Input::Plain(set)),
            Some(Value::Object(Object::Zset(zset))) => Ok(Input::Scored(zset)),
            Some(_) => Err(CommandError::WrongType),
        }
    }

    fn len(self) -> usize {
        match self {
            Input::Absent => 0,
            Input::Plain(set) => set.len(),
            Input::Scored(zset) => zset.len(),
        }
    }

    fn score(self, member: &[u8]) -> Option<f64> {
        match self {
            Input::Absent => None,
            Input::Plain(set) => set.contains(member).then_some(PLAIN_SCORE),
            Input::Scored(zset) => zset.score(member),
        }
    }

    /// Calls `visit` with each member and its score as long as it returns true.
    fn each(self, mut visit: impl FnMut(Item<'_>, f64) -> bool) {
        match self {
            Input::Absent => {}
            Input::Plain(set) => _ = set.iter().all(|member| visit(member, PLAIN_SCORE)),
            Input::Scored(zset) => _ = zset.iter().all(|(member, score)| visit(member, score)),
        }
    }
}

/// Splits what stands behind a count at `count_at` into the keys it announces and the options behind them.
fn keys_at<'a, 'b>(
    args: &'a [&'b [u8]],
    count_at: usize,
    command: &str,
) -> Result<[&'a [&'b [u8]]; 2], CommandError> {
    let count = integer(args[count_at])?;
    let Some(count) = usize::try_from(count).ok().filter(|count| *count > 0) else {
        return Err(CommandError::other(format!(
            "ERR at least 1 input key is needed for '{command}' command"
        )));
    };
    let (keys, options) = args[count_at + 1..].split_at_checked(count).ok_or(CommandError::Syntax)?;
    Ok([keys, options])
}

/// Looks at the keys, so that what has expired is gone, and refuses other types.
fn check_types(ctx: &mut Context<'_, '_>, keys: &[&[u8]]) -> CommandResult {
    keys.iter().try_for_each(|key| Input::of(ctx.data.get(key)).map(|_| ()))
}

struct Options {
    weights: Option<Vec<f64>>,
    aggregate: Aggregate,
    with_scores: bool,
}

impl Options {
    fn parse(args: &[&[u8]], keys: usize, operation: Operation, stored: bool) -> Result<Self, CommandError> {
        let mut options = Self { weights: None, aggregate: Aggregate::Sum, with_scores: false };
        let mut rest = args;
        while let Some((word, behind)) = rest.split_first() {
            rest = behind;
            if operation != Operation::Difference && behind.len() >= keys && is(word, "weights") {
                let (weights, behind) = behind.split_at(keys);
                let refusal = CommandError::other("ERR weight value is not a float");
                let weights: Option<Vec<f64>> = weights.iter().map(|weight| parse_float(weight)).collect();
                options.weights = Some(weights.ok_or(refusal)?);
                rest = behind;
            } else if operation != Operation::Difference && !behind.is_empty() && is(word, "aggregate") {
                options.aggregate = match &behind[0].to_ascii_lowercase()[..] {
                    b"sum" => Aggregate::Sum,
                    b"min" => Aggregate::Min,
                    b"max" => Aggregate::Max,
                    _ => return Err(CommandError::Syntax),
                };
                rest = &behind[1..];
            } else if !stored && is(word, "withscores") {
                options.with_scores = true;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }
}

/// The result, not flat whatever its size: a flat one does not tell -0 from 0, and a score on its way to others must.
fn combine(inputs: &[Input<'_>], options: &Options, operation: Operation) -> Zset {
    let limits = &Limits { zset_entries: 0, ..Limits::default() };
    let weight = |at: usize| options.weights.as_ref().map_or(1.0, |weights| weights[at]);
    let mut weighted: Vec<(Input<'_>, f64)> =
        inputs.iter().enumerate().map(|(at, one)| (*one, weight(at))).collect();
    if operation != Operation::Difference {
        // The smallest first. The order also decides how sums of doubles come out, so it must follow from the data alone.
        weighted.sort_by_key(|(input, _)| input.len());
    }
    let mut result = Zset::new();
    let Some(((first, first_weight), others)) = weighted.split_first() else { return result };
    match operation {
        Operation::Union => {
            for (input, weight) in &weighted {
                input.each(|member, score| {
                    let score = number_or_zero(score * weight);
                    member.with_bytes(|member| {
                        let sum =
                            result.score(member).map_or(score, |before| options.aggregate.of(before, score));
                        result.add(member, sum, limits);
                    });
                    true
                });
            }
        }
        Operation::Intersection => first.each(|member, score| {
            let start = number_or_zero(score * first_weight);
            member.with_bytes(|member| {
                let sum = others.iter().try_fold(start, |so_far, (input, weight)| {
                    input.score(member).map(|score| options.aggregate.of(so_far, score * weight))
                });
                if let Some(sum) = sum {
                    result.add(member, sum, limits);
                }
            });
            true
        }),
        Operation::Difference => first.each(|member, score| {
            member.with_bytes(|member| {
                if others.iter().all(|(input, _)| input.score(member).is_none()) {
                    result.add(member, score, limits);
                }
            });
            true
        }),
    }
    result
}

/// Flat where the limits allow it, as one that is built by ZADD.
fn as_small_as_allowed(zset: Zset, limits: &Limits) -> Zset {
    let mut small = Zset::with_capacity(zset.len(), limits);
    if !small.is_flat() {
        return zset;
    }
    for (member, score) in zset.iter() {
        member.with_bytes(|member| small.add_ascending(member, score, limits));
    }
    small
}

fn run(
    ctx: &mut Context<'_, '_>,
    keys: &[&[u8]],
    options: &[&[u8]],
    operation: Operation,
    stored: bool,
) -> Result<(Zset, bool), CommandError> {
    check_types(ctx, keys)?;
    let options = Options::parse(options, keys.len(), operation, stored)?;
    let limits = ctx.data.limits;
    let inputs = keys.iter().map(|key| Input::of(ctx.data.settled(key))).collect::<Result<Vec<_>, _>>()?;
    let result = combine(&inputs, &options, operation);
    let result = if stored { as_small_as_allowed(result, limits) } else { result };
    Ok((result, options.with_scores))
}

fn reply(ctx: &mut Context<'_, '_>, args: &[&[u8]], operation: Operation, command: &str) -> CommandResult {
    let [keys, options] = keys_at(args, 1, command)?;
    let (result, with_scores) = run(ctx, keys, options, operation, false)?;
    members_header(&mut ctx.reply, result.len(), with_scores);
    result.iter().for_each(|one| reply_member(&mut ctx.reply, one, with_scores));
    Ok(())
}

fn store(
    ctx: &mut Context<'_, '_>,
    args: &[&[u8]],
    operation: Operation,
    command: &'static str,
) -> CommandResult {
    let [keys, options] = keys_at(args, 2, command)?;
    let (result, _) = run(ctx, keys, options, operation, true)?;
    let len = result.len();
    ctx.data.store_as(Interest::ZSET, command, args[1], result);
    ctx.reply.integer(len as i64);
    Ok(())
}

pub(super) fn zunion(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    reply(ctx, args, Operation::Union, "zunion")
}

pub(super) fn zinter(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    reply(ctx, args, Operation::Intersection, "zinter")
}

pub(super) fn zdiff(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    reply(ctx, args, Operation::Difference, "zdiff")
}

pub(super) fn zunionstore(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    store(ctx, args, Operation::Union, "zunionstore")
}

pub(super) fn zinterstore(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    store(ctx, args, Operation::Intersection, "zinterstore")
}

pub(super) fn zdiffstore(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    store(ctx, args, Operation::Difference, "zdiffstore")
}

pub(super) fn zintercard(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let [keys, options] = keys_at(args, 1, "zintercard")?;
    check_types(ctx, keys)?;
    let mut limit = 0;
    for option in options.chunks(2) {
        match option {
            [word, value] if is(word, "limit") => limit = natural(value, "ERR LIMIT can't be negative")?,
            _ => return Err(CommandError::Syntax),
        }
    }
    let mut inputs =
        keys.iter().map(|key| Input::of(ctx.data.settled(key))).collect::<Result<Vec<_>, _>>()?;
    inputs.sort_by_key(|input| input.len());
    let mut count = 0;
    if let Some((first, others)) = inputs.split_first() {
        first.each(|member, _| {
            let everywhere =
                member.with_bytes(|member| others.iter().all(|input| input.score(member).is_some()));
            count += usize::from(everywhere);
            limit == 0 || count < limit
        });
    }
    ctx.reply.integer(count as i64);
    Ok(())
}
