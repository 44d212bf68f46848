//! SORT and SORT_RO: <https://redis.io/docs/latest/commands/sort/>

use cairn_keyspace::types::{Hash, List};
use cairn_keyspace::{Object, Value};

use crate::acl;
use crate::args::{integer, is, parse_float};
use crate::context::{Context, Data};
use crate::error::{CommandError, CommandResult};
use crate::hub::Interest;
use crate::keys::{Access, KeySpec};
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least};
use crate::table::lookup;

const SORTED: Categories =
    Categories::SET.and(Categories::SORTED_SET).and(Categories::LIST).and(Categories::DANGEROUS);

const SORTED_KEY: KeySpec = KeySpec::one(1, Access::RO.access());
/// Patterns make names of what they find in the key, and STORE may be repeated.
const SORT: Keys = Keys::found(
    &[SORTED_KEY, KeySpec::unknown(Access::RO.access()), KeySpec::unknown(Access::OW.update())],
    keys_of_sort,
);
const SORT_RO: Keys = Keys::found(&[SORTED_KEY, KeySpec::unknown(Access::RO.access())], keys_of_sort_ro);

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    CommandSpec { name: "sort",    arity: at_least(2), flags: Flags::WRITE.deny_oom(), keys: SORT.and_whole_where(has_patterns),    acl: SORTED, handler: sort },
    CommandSpec { name: "sort_ro", arity: at_least(2), flags: Flags::READ,             keys: SORT_RO.and_whole_where(has_patterns), acl: SORTED, handler: sort_ro },
];

/// The options that take arguments: how many, and whether they are patterns.
const OPTIONS: &[(&str, usize, bool)] =
    &[("limit", 2, false), ("store", 1, false), ("by", 1, true), ("get", 1, true)];

/// The options among the arguments that take some, each with the index of its first one.
fn options<'a>(args: &'a [&'a [u8]]) -> impl Iterator<Item = (&'static str, bool, usize)> + 'a {
    let mut at = 2;
    std::iter::from_fn(move || {
        loop {
            let word = args.get(at)?;
            let option = OPTIONS.iter().find(|(name, ..)| is(word, name));
            let first = at + 1;
            at = first + option.map_or(0, |(_, arguments, _)| *arguments);
            if let Some((name, _, pattern)) = option.filter(|_| first < args.len()) {
                return Some((*name, *pattern, first));
            }
        }
    })
}

/// Whether a pattern reaches keys that do not stand among the arguments.
fn has_patterns(args: &[&[u8]]) -> bool {
    options(args).any(|(_, pattern, at)| pattern && args[at].contains(&b'*'))
}

fn keys_of_sort(args: &[&[u8]]) -> Vec<(usize, Access)> {
    let mut found = keys_of_sort_ro(args);
    // Of several, the last counts.
    let store = options(args).filter(|(name, ..)| *name == "store").last();
    found.extend(store.map(|(.., at)| (at, Access::OW.update())));
    found
}

fn keys_of_sort_ro(args: &[&[u8]]) -> Vec<(usize, Access)> {
    (args.len() > 1).then_some((1, Access::RO.access())).into_iter().collect()
}

fn sort(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let options = SortOptions::parse(&args[2..], true, || reads_every_key(ctx, args))?;
    run(ctx, args[1], options)
}

fn sort_ro(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let options = SortOptions::parse(&args[2..], false, || reads_every_key(ctx, args))?;
    run(ctx, args[1], options)
}

/// Whether the client may read whatever a pattern finds.
fn reads_every_key(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> bool {
    lookup(args[0]).is_none_or(|command| acl::reads_every_key(ctx.session, ctx.host, command, args))
}

const BY_DENIED: &str = "ERR BY option of SORT denied due to insufficient ACL permissions.";
const GET_DENIED: &str = "ERR GET option of SORT denied due to insufficient ACL permissions.";

/// What may stand behind the key.
struct SortOptions<'a> {
    descending: bool,
    by_text: bool,
    /// A pattern that names each element's weight.
    by: Option<&'a [u8]>,
    /// Some pattern had no `*`: nothing is to be sorted.
    as_they_are: bool,
    /// How many elements to leave out, and how many to take at most; below zero: all.
    limit: (i64, i64),
    get: Vec<&'a [u8]>,
    store: Option<&'a [u8]>,
}

impl<'a> SortOptions<'a> {
    /// `reads_every_key` is asked where a pattern stands.
    fn parse(
        args: &[&'a [u8]],
        may_store: bool,
        mut reads_every_key: impl FnMut() -> bool,
    ) -> Result<Self, CommandError> {
        let mut options = Self {
            descending: false,
            by_text: false,
            by: None,
            as_they_are: false,
            limit: (0, -1),
            get: Vec::new(),
            store: None,
        };
        let mut rest = args;
        while let [word, behind @ ..] = rest {
            rest = behind;
            match behind {
                _ if is(word, "asc") => options.descending = false,
                _ if is(word, "desc") => options.descending = true,
                _ if is(word, "alpha") => options.by_text = true,
                [start, count, behind @ ..] if is(word, "limit") => {
                    options.limit = (integer(start)?, integer(count)?);
                    rest = behind;
                }
                [key, behind @ ..] if may_store && is(word, "store") => {
                    options.store = Some(key);
                    rest = behind;
                }
                [pattern, behind @ ..] if is(word, "by") => {
                    if pattern.contains(&b'*') && !reads_every_key() {
                        return Err(CommandError::other(BY_DENIED));
                    }
                    options.by = Some(pattern);
                    options.as_they_are |= !pattern.contains(&b'*');
                    rest = behind;
                }
                [pattern, behind @ ..] if is(word, "get") => {
                    if !reads_every_key() {
                        return Err(CommandError::other(GET_DENIED));
                    }
                    options.get.push(pattern);
                    rest = behind;
                }
                _ => return Err(CommandError::Syntax),
            }
        }
        Ok(options)
    }

    /// The part of `len` sorted elements that LIMIT leaves.
    fn range(&self, len: usize) -> std::ops::Range<usize> {
        let clamp = |number: i64| usize::try_from(number).map_or(0, |number| number.min(len));
        let start = clamp(self.limit.0);
        let end = if self.limit.1 < 0 { len } else { start.saturating_add(clamp(self.limit.1)).min(len) };
        start..end
    }
}

/// The elements of a list, set or sorted set, in the order it has them.
fn elements(ctx: &mut Context<'_, '_>, key: &[u8]) -> Result<(Vec<Vec<u8>>, bool), CommandError> {
    let elements = match ctx.data.get(key).map(|entry| entry.value()) {
        None => Vec::new(),
        Some(Value::Object(Object::List(list))) => list.iter().map(|item| item.to_vec()).collect(),
        Some(Value::Object(Object::Zset(zset))) => zset.iter().map(|(item, _)| item.to_vec()).collect(),
        Some(Value::Object(Object::Set(set))) => {
            return Ok((set.iter().map(|item| item.to_vec()).collect(), true));
        }
        Some(_) => return Err(CommandError::WrongType),
    };
    Ok((elements, false))
}

fn run(ctx: &mut Context<'_, '_>, key: &[u8], mut options: SortOptions<'_>) -> CommandResult {
    let (mut elements, unordered) = elements(ctx, key)?;
    if options.as_they_are && unordered && (options.store.is_some() || ctx.in_script) {
        // A set has no order of its own, and neither what is stored nor what a script does may depend on chance.
        (options.as_they_are, options.by_text, options.by) = (false, true, None);
    }
    if !options.as_they_are {
        elements = in_order(&mut ctx.data, elements, &options)?;
    } else if options.descending && !unordered {
        elements.reverse();
    }
    let range = options.range(elements.len());
    let chosen = &elements[range];
    match options.store {
        Some(destination) => store(ctx, destination, chosen, &options.get),
        None => reply_with(ctx, chosen, &options.get),
    }
    Ok(())
}

/// Sorts the elements, by themselves or by the weights that a pattern finds.
fn in_order(
    data: &mut Data<'_, '_>,
    elements: Vec<Vec<u8>>,
    options: &SortOptions<'_>,
) -> Result<Vec<Vec<u8>>, CommandError> {
    let direct = |order: std::cmp::Ordering| if options.descending { order.reverse() } else { order };
    if options.by_text {
        let Some(pattern) = options.by else {
            let mut elements = elements;
            elements.sort_by(|a, b| direct(a.cmp(b)));
            return Ok(elements);
        };
        // An element without a weight comes first.
        let weigh = |element: Vec<u8>| (look_up(data, pattern, &element), element);
        let mut weighed: Vec<_> = elements.into_iter().map(weigh).collect();
        weighed.sort_by(|(a, _), (b, _)| direct(a.cmp(b)));
        return Ok(weighed.into_iter().map(|(_, element)| element).collect());
    }
    let no_number = || CommandError::other("ERR One or more scores can't be converted into double");
    let mut scored = Vec::with_capacity(elements.len());
    for element in elements {
        let score = match options.by {
            None => score_of(&element).ok_or_else(no_number)?,
            Some(pattern) => match look_up(data, pattern, &element) {
                Some(weight) => score_of(&weight).ok_or_else(no_number)?,
                None => 0.0,
            },
        };
        scored.push((score, element));
    }
    // Scores are numbers, so the comparison tells; equal ones are told apart by the elements.
    scored.sort_by(|(a, x), (b, y)| {
        direct(a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal).then_with(|| x.cmp(y)))
    });
    Ok(scored.into_iter().map(|(_, element)| element).collect())
}

/// A number as the C library reads it: nothing is zero, blanks may stand in front, and the text ends at a zero byte.
fn score_of(text: &[u8]) -> Option<f64> {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    if text.is_empty() {
        return Some(0.0);
    }
    let text = text.trim_ascii_start();
    parse_float(text)
}

/// What a pattern of BY or GET stands for, for one element: `#` for the element itself, otherwise the value of the key
/// that has the element in place of `*`, or of the field of it that stands behind `->`.
fn look_up(data: &mut Data<'_, '_>, pattern: &[u8], element: &[u8]) -> Option<Vec<u8>> {
    if pattern == b"#" {
        return Some(element.to_vec());
    }
    let star = pattern.iter().position(|byte| *byte == b'*')?;
    let (prefix, rest) = (&pattern[..star], &pattern[star + 1..]);
    let arrow = rest.windows(2).position(|pair| pair == b"->").filter(|at| at + 2 < rest.len());
    let (suffix, field) = match arrow {
        Some(at) => (&rest[..at], Some(&rest[at + 2..])),
        None => (rest, None),
    };
    let key = [prefix, element, suffix].concat();
    match field {
        None => data.get(&key)?.as_str().map(<[u8]>::to_vec),
        // A key of another type has no such field.
        Some(field) => data.read::<Hash>(&key).ok()??.get(field).map(|item| item.to_vec()),
    }
}

fn reply_with(ctx: &mut Context<'_, '_>, chosen: &[Vec<u8>], get: &[&[u8]]) {
    if get.is_empty() {
        ctx.reply.array(chosen.len());
        chosen.iter().for_each(|element| ctx.reply.bulk(element));
        return;
    }
    ctx.reply.array(chosen.len() * get.len());
    for element in chosen {
        for pattern in get {
            match look_up(&mut ctx.data, pattern, element) {
                Some(value) => ctx.reply.bulk(&value),
                None => ctx.reply.null(),
            }
        }
    }
}

/// Stores the result as a list; its effect is the list, since the order of equals is nothing to be replayed.
fn store(ctx: &mut Context<'_, '_>, destination: &[u8], chosen: &[Vec<u8>], get: &[&[u8]]) {
    let values: Vec<Vec<u8>> = if get.is_empty() {
        chosen.to_vec()
    } else {
        let pairs = chosen.iter().flat_map(|element| get.iter().map(move |pattern| (pattern, element)));
        pairs.map(|(pattern, element)| look_up(&mut ctx.data, pattern, element).unwrap_or_default()).collect()
    };
    let replaced = ctx.data.exists(destination);
    let mut list = List::new();
    values.iter().for_each(|value| list.push_back(value, ctx.data.limits));
    ctx.data.store_as(Interest::LIST, "sortstore", destination, list);
    if replaced {
        ctx.data.effect(&[b"DEL", destination]);
    }
    if !values.is_empty() {
        let words = [&b"RPUSH"[..], destination].into_iter().chain(values.iter().map(Vec::as_slice));
        ctx.data.effect(&words.collect::<Vec<_>>());
    }
    ctx.reply.integer(values.len() as i64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Engine;

    #[test]
    fn keys_are_the_sorted_one_and_the_destination_and_only_patterns_reach_others() {
        let args = |line: &'static str| line.split(' ').map(str::as_bytes).collect::<Vec<_>>();
        let keys = |line| keys_of_sort(&args(line)).into_iter().map(|(at, _)| at).collect::<Vec<_>>();
        assert_eq!(keys("sort a get store store b limit 1"), [1, 5]);
        assert_eq!(keys("sort a store b desc store c"), [1, 6]);
        assert_eq!(keys("sort a desc store"), [1]);
        assert!(has_patterns(&args("sort a limit 0 1 BY w_*")));
        assert!(has_patterns(&args("sort a by nosort get # get *->field")));
        assert!(!has_patterns(&args("sort a by nosort get # store b*")));
    }

    #[test]
    fn elements_are_sorted_by_themselves_or_by_what_patterns_find() {
        let mut engine = Engine::new();
        engine.check(
            "RPUSH l 3 1 2 -> :3
             SORT l -> *3 $1 1 $1 2 $1 3
             SORT l DESC LIMIT 1 1 -> *1 $1 2
             SORT l LIMIT 5 2 -> *0
             SORT l LIMIT -3 -1 -> *3 $1 1 $1 2 $1 3
             MSET w_1 30 w_2 20 w_3 10 -> +OK
             SORT_RO l BY w_* GET # GET w_* -> *6 $1 3 $2 10 $1 2 $2 20 $1 1 $2 30
             HSET h_1 f b -> :1
             HSET h_2 f a -> :1
             SORT l BY nosort DESC -> *3 $1 2 $1 1 $1 3
             RPUSH words b a -> :2
             SORT words -> -ERR One or more scores can't be converted into double
             SORT words ALPHA DESC -> *2 $1 b $1 a
             SORT w_1 -> -WRONGTYPE Operation against a key holding the wrong kind of value
             SORT_RO l STORE x -> -ERR syntax error
             SORT l LIMIT 0 x -> -ERR value is not an integer or out of range
             SORT absent -> *0",
        );
        // The element without a field comes first.
        let by_field = engine.say("SORT l BY h_*->f ALPHA GET h_*->f GET none");
        assert_eq!(by_field, "*6 $-1 $-1 $1 a $-1 $1 b $-1");
    }

    #[test]
    fn what_is_stored_is_journaled_as_the_list_it_is() {
        let mut engine = Engine::new();
        engine.check("SADD s 2 1 -> :2\nSET d x -> +OK\nMSET w_1 5 -> +OK");
        engine.effects();
        engine.check(
            "SORT s BY w_* GET # GET w_* STORE d -> :4
             LRANGE d 0 -1 -> *4 $1 2 $0  $1 1 $1 5
             SORT absent STORE d -> :0
             SORT absent STORE d -> :0
             EXISTS d -> :0",
        );
        assert_eq!(engine.effects(), "MULTI\nDEL d\nRPUSH d 2  1 5\nEXEC\nDEL d");
    }
}
