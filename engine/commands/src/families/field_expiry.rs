//! Fields of hashes that expire: <https://redis.io/docs/latest/commands/hexpire/>
//!
//! A field whose moment has come is removed with the next look at its hash, or by the active expiry: as an HDEL in the
//! journal. Moments are journaled as HPEXPIREAT.

use cairn_keyspace::types::Hash;

use super::hash::bulk_or_null;
use crate::args::{TimeUnit, integer, is, positive};
use crate::context::{Context, Data};
use crate::error::{CommandError, CommandResult};
use crate::hub::Interest;
use crate::keys::Access;
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least};

const HASH: Categories = Categories::HASH;
const EXPIRE: Flags = Flags::WRITE.deny_oom().fast();
const KEY: Keys = Keys::one(1).access(Access::RW.update());

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    CommandSpec { name: "hexpire",      arity: at_least(6), flags: EXPIRE,              keys: KEY,                              acl: HASH, handler: hexpire },
    CommandSpec { name: "hpexpire",     arity: at_least(6), flags: EXPIRE,              keys: KEY,                              acl: HASH, handler: hpexpire },
    CommandSpec { name: "hexpireat",    arity: at_least(6), flags: EXPIRE,              keys: KEY,                              acl: HASH, handler: hexpireat },
    CommandSpec { name: "hpexpireat",   arity: at_least(6), flags: EXPIRE,              keys: KEY,                              acl: HASH, handler: hpexpireat },
    CommandSpec { name: "hpersist",     arity: at_least(5), flags: Flags::WRITE.fast(), keys: KEY,                              acl: HASH, handler: hpersist },
    CommandSpec { name: "httl",         arity: at_least(5), flags: Flags::READ.fast(),  keys: Keys::one(1),                     acl: HASH, handler: httl },
    CommandSpec { name: "hpttl",        arity: at_least(5), flags: Flags::READ.fast(),  keys: Keys::one(1),                     acl: HASH, handler: hpttl },
    CommandSpec { name: "hexpiretime",  arity: at_least(5), flags: Flags::READ.fast(),  keys: Keys::one(1),                     acl: HASH, handler: hexpiretime },
    CommandSpec { name: "hpexpiretime", arity: at_least(5), flags: Flags::READ.fast(),  keys: Keys::one(1),                     acl: HASH, handler: hpexpiretime },
    CommandSpec { name: "hgetex",       arity: at_least(5), flags: Flags::WRITE.fast(), keys: Keys::one(1),                     acl: HASH, handler: hgetex },
    CommandSpec { name: "hgetdel",      arity: at_least(5), flags: Flags::WRITE.fast(), keys: Keys::one(1).access(Access::RW.access().delete()), acl: HASH, handler: hgetdel },
    CommandSpec { name: "hsetex",       arity: at_least(6), flags: EXPIRE,              keys: KEY,                              acl: HASH, handler: hsetex },
];

/// The latest moment a field may expire at, in ms since the Unix epoch: as in Redis, so that its files hold it.
const MOMENT_MAX: i64 = (1 << 46) - 1;

/// What is answered for a field that is not there, and for one that does not expire.
const NO_FIELD: i64 = -2;
const NO_EXPIRY: i64 = -1;

/// What is answered for a field whose expiry was to change.
const NOT_MET: i64 = 0;
const CHANGED: i64 = 1;
const DELETED: i64 = 2;

const SECONDS: TimeUnit = TimeUnit { ms: 1000, absolute: false };
const MILLISECONDS: TimeUnit = TimeUnit { ms: 1, absolute: false };
const UNIX_SECONDS: TimeUnit = TimeUnit { ms: 1000, absolute: true };
const UNIX_MILLISECONDS: TimeUnit = TimeUnit { ms: 1, absolute: true };

/// A moment that an argument names.
fn moment(arg: &[u8], unit: TimeUnit, now_ms: i64, command: &'static str) -> Result<i64, CommandError> {
    let amount = integer(arg)?;
    if amount < 0 {
        return Err(CommandError::other("ERR invalid expire time, must be >= 0"));
    }
    unit.at_ms(amount, now_ms).filter(|at| *at <= MOMENT_MAX).ok_or(CommandError::InvalidExpire(command))
}

/// The fields behind `FIELDS` and their number, where `args` begins with that word.
fn fields<'a, 'b>(args: &'a [&'b [u8]], refusal: &'static str) -> Result<&'a [&'b [u8]], CommandError> {
    let [_, count, fields @ ..] = args.first().filter(|word| is(word, "fields")).map_or(&[][..], |_| args)
    else {
        return Err(CommandError::other(
            "ERR Mandatory argument FIELDS is missing or not at the right position",
        ));
    };
    if positive(count, refusal)? != fields.len() {
        return Err(CommandError::other("ERR The `numfields` parameter must match the number of arguments"));
    }
    Ok(fields)
}

/// When a new expiry takes the place of the one a field has, if any.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Always,
    IfNone,
    IfAny,
    IfLater,
    IfSooner,
}

impl Condition {
    fn parse(word: &[u8]) -> Option<Self> {
        let words =
            [("nx", Self::IfNone), ("xx", Self::IfAny), ("gt", Self::IfLater), ("lt", Self::IfSooner)];
        words.into_iter().find(|(name, _)| is(word, name)).map(|(_, condition)| condition)
    }

    /// A field that does not expire counts as one that does so at the end of time.
    fn allows(self, before: Option<i64>, at_ms: i64) -> bool {
        match self {
            Self::Always => true,
            Self::IfNone => before.is_none(),
            Self::IfAny => before.is_some(),
            Self::IfLater => before.is_some_and(|before| before < at_ms),
            Self::IfSooner => before.is_none_or(|before| before > at_ms),
        }
    }
}

/// Sets when fields that are there expire; those for which that is past go at once, but for a replay, which leaves it to
/// the journal. Returns what to answer for each.
fn set_expiry(
    data: &mut Data<'_, '_>,
    key: &[u8],
    fields: &[&[u8]],
    at_ms: i64,
    condition: Condition,
) -> Result<Vec<i64>, CommandError> {
    let past = at_ms <= data.now_ms && !data.is_replaying();
    let mut answers = vec![NO_FIELD; fields.len()];
    data.edit(key, |hash: &mut Hash| {
        for (answer, field) in answers.iter_mut().zip(fields) {
            if !hash.contains(field) {
                continue;
            }
            *answer = match condition.allows(hash.expire_at_ms(field), at_ms) {
                false => NOT_MET,
                true if past => {
                    hash.remove(field);
                    DELETED
                }
                true => {
                    hash.set_expire_at_ms(field, Some(at_ms));
                    CHANGED
                }
            };
        }
        answers.iter().filter(|answer| **answer > NOT_MET).count()
    })?;
    // All of them expire at the same moment, so it is either all or none that go.
    if answers.contains(&DELETED) {
        data.notify_taken(Interest::HASH, "hdel", key);
    } else if answers.contains(&CHANGED) {
        data.notify(Interest::HASH, "hexpire", key);
    }
    let answered = |wanted| fields.iter().zip(&answers).filter(move |(_, answer)| **answer == wanted);
    let fields_of = |wanted| answered(wanted).map(|(field, _)| *field).collect::<Vec<_>>();
    effect_of_removal(data, key, &fields_of(DELETED));
    effect_of_fields(data, &[b"HPEXPIREAT", key, at_ms.to_string().as_bytes()], &fields_of(CHANGED));
    Ok(answers)
}

fn effect_of_removal(data: &mut Data<'_, '_>, key: &[u8], fields: &[&[u8]]) {
    if !fields.is_empty() {
        data.effect(&[&[b"HDEL", key], fields].concat());
    }
}

/// Writes an effect with FIELDS, their number and the fields behind its words.
fn effect_of_fields(data: &mut Data<'_, '_>, words: &[&[u8]], fields: &[&[u8]]) {
    if !fields.is_empty() {
        let count = fields.len().to_string();
        data.effect(&[words, &[b"FIELDS", count.as_bytes()], fields].concat());
    }
}

fn expire(ctx: &mut Context<'_, '_>, args: &[&[u8]], unit: TimeUnit, command: &'static str) -> CommandResult {
    ctx.data.look::<Hash>(args[1])?;
    let at_ms = moment(args[2], unit, ctx.data.now_ms, command)?;
    let condition = Condition::parse(args[3]);
    let rest = if condition.is_some() { &args[4..] } else { &args[3..] };
    let fields = fields(rest, "ERR Parameter `numFields` should be greater than 0")?;
    let condition = condition.unwrap_or(Condition::Always);
    let answers = set_expiry(&mut ctx.data, args[1], fields, at_ms, condition)?;
    ctx.reply.array(answers.len());
    answers.iter().for_each(|answer| ctx.reply.integer(*answer));
    Ok(())
}

fn hexpire(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    expire(ctx, args, SECONDS, "hexpire")
}

fn hpexpire(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    expire(ctx, args, MILLISECONDS, "hpexpire")
}

fn hexpireat(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    expire(ctx, args, UNIX_SECONDS, "hexpireat")
}

fn hpexpireat(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    expire(ctx, args, UNIX_MILLISECONDS, "hpexpireat")
}

/// What the number of fields is, if it is none.
const NOT_POSITIVE: &str = "ERR Number of fields must be a positive integer";

/// Lets fields no longer expire; returns what to answer for each.
fn persist(data: &mut Data<'_, '_>, key: &[u8], fields: &[&[u8]]) -> Result<Vec<i64>, CommandError> {
    let mut answers = vec![NO_FIELD; fields.len()];
    data.edit(key, |hash: &mut Hash| {
        for (answer, field) in answers.iter_mut().zip(fields) {
            if !hash.contains(field) {
                continue;
            }
            *answer = if hash.expire_at_ms(field).is_some() { CHANGED } else { NO_EXPIRY };
            hash.set_expire_at_ms(field, None);
        }
        answers.iter().filter(|answer| **answer == CHANGED).count()
    })?;
    let changed = fields.iter().zip(&answers).filter(|(_, answer)| **answer == CHANGED);
    let changed: Vec<&[u8]> = changed.map(|(field, _)| *field).collect();
    if !changed.is_empty() {
        data.notify(Interest::HASH, "hpersist", key);
    }
    effect_of_fields(data, &[b"HPERSIST", key], &changed);
    Ok(answers)
}

fn hpersist(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    ctx.data.look::<Hash>(args[1])?;
    let answers = persist(&mut ctx.data, args[1], fields(&args[2..], NOT_POSITIVE)?)?;
    ctx.reply.array(answers.len());
    answers.iter().for_each(|answer| ctx.reply.integer(*answer));
    Ok(())
}

/// Replies when each field expires, as `shown` makes a number of it.
fn reply_expiries(
    ctx: &mut Context<'_, '_>,
    args: &[&[u8]],
    shown: impl Fn(i64, i64) -> i64,
) -> CommandResult {
    let now_ms = ctx.data.now_ms;
    let hash = ctx.data.read::<Hash>(args[1])?;
    let fields = fields(&args[2..], NOT_POSITIVE)?;
    ctx.reply.array(fields.len());
    for field in fields {
        ctx.reply.integer(match hash.filter(|hash| hash.contains(field)) {
            None => NO_FIELD,
            Some(hash) => hash.expire_at_ms(field).map_or(NO_EXPIRY, |at| shown(at, now_ms)),
        });
    }
    Ok(())
}

fn httl(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    reply_expiries(ctx, args, |at, now| (at - now + 999) / 1000)
}

fn hpttl(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    reply_expiries(ctx, args, |at, now| at - now)
}

fn hexpiretime(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    reply_expiries(ctx, args, |at, _| (at + 999) / 1000)
}

fn hpexpiretime(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    reply_expiries(ctx, args, |at, _| at)
}

/// Replies with the values of fields, as they are before the command changes anything.
fn reply_values(ctx: &mut Context<'_, '_>, key: &[u8], fields: &[&[u8]]) -> CommandResult {
    let hash = ctx.data.read::<Hash>(key)?;
    ctx.reply.array(fields.len());
    for field in fields {
        bulk_or_null(&mut ctx.reply, hash.and_then(|hash| hash.get(field)));
    }
    Ok(())
}

fn hgetex(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let key = args[1];
    ctx.data.look::<Hash>(key)?;
    let (at_ms, rest) = match TimeUnit::of_option(args[2]) {
        Some(unit) => (Some(moment(args[3], unit, ctx.data.now_ms, "hgetex")?), &args[4..]),
        None if is(args[2], "persist") => (None, &args[3..]),
        None => {
            let fields = fields(&args[2..], NOT_POSITIVE)?;
            return reply_values(ctx, key, fields);
        }
    };
    let fields = fields(rest, NOT_POSITIVE)?;
    reply_values(ctx, key, fields)?;
    match at_ms {
        Some(at) => set_expiry(&mut ctx.data, key, fields, at, Condition::Always)?,
        None => persist(&mut ctx.data, key, fields)?,
    };
    Ok(())
}

fn hgetdel(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let key = args[1];
    ctx.data.look::<Hash>(key)?;
    let fields = fields(&args[2..], NOT_POSITIVE)?;
    let hash = ctx.data.read::<Hash>(key)?;
    let mut seen = std::collections::HashSet::new();
    ctx.reply.array(fields.len());
    for field in fields {
        // A field that is named again is gone by then.
        let value = hash.and_then(|hash| hash.get(field)).filter(|_| seen.insert(*field));
        bulk_or_null(&mut ctx.reply, value);
    }
    ctx.data.edit(key, |hash: &mut Hash| fields.iter().filter(|field| hash.remove(field)).count())?;
    if !seen.is_empty() {
        ctx.data.notify_taken(Interest::HASH, "hdel", key);
        effect_of_removal(&mut ctx.data, key, fields);
    }
    Ok(())
}

/// What becomes of the expiry of fields that HSETEX sets.
#[derive(Clone, Copy)]
enum Expiry {
    None,
    Keep,
    At(i64),
}

/// What HSETEX is told.
struct SetOptions<'a, 'b> {
    /// FXX and FNX: only if all fields are there, or none.
    only_if_present: Option<bool>,
    expiry: Expiry,
    /// Fields and values in turn.
    pairs: &'a [&'b [u8]],
}

impl<'a, 'b> SetOptions<'a, 'b> {
    fn parse(args: &'a [&'b [u8]], now_ms: i64) -> Result<Self, CommandError> {
        let mut options = Self { only_if_present: None, expiry: Expiry::None, pairs: &[] };
        let mut rest = args;
        loop {
            let [word, behind @ ..] = rest else {
                // Options without fields behind them: Redis's parser cannot get here, as its arity sees to that.
                return Err(CommandError::WrongArity("hsetex".into()));
            };
            rest = behind;
            if is(word, "fields") {
                options.pairs = pairs(behind)?;
                return Ok(options);
            } else if is(word, "fxx") || is(word, "fnx") {
                if options.only_if_present.replace(is(word, "fxx")).is_some() {
                    return Err(CommandError::other("ERR Only one of FXX or FNX arguments can be specified"));
                }
                continue;
            }
            let unit = TimeUnit::of_option(word);
            if unit.is_none() && !is(word, "keepttl") {
                let word = String::from_utf8_lossy(word);
                return Err(CommandError::other(format!("ERR unknown argument: {word}")));
            }
            if !matches!(options.expiry, Expiry::None) {
                return Err(CommandError::other(
                    "ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified",
                ));
            }
            options.expiry = Expiry::Keep;
            if let Some(unit) = unit {
                let [amount, behind @ ..] = rest else {
                    return Err(CommandError::other("ERR missing expire time"));
                };
                rest = behind;
                options.expiry = Expiry::At(moment(amount, unit, now_ms, "hsetex")?);
            }
        }
    }

    fn fields(&self) -> impl Iterator<Item = &'b [u8]> {
        self.pairs.chunks_exact(2).map(|pair| pair[0])
    }
}

/// The pairs behind their number.
fn pairs<'a, 'b>(args: &'a [&'b [u8]]) -> Result<&'a [&'b [u8]], CommandError> {
    let wrong_arity = || CommandError::WrongArity("hsetex".into());
    let [count, pairs @ ..] = args else { return Err(wrong_arity()) };
    if pairs.is_empty() {
        return Err(wrong_arity());
    }
    let count = positive(count, "ERR invalid number of fields")?;
    if !pairs.len().is_multiple_of(2) || count != pairs.len() / 2 {
        return Err(wrong_arity());
    }
    Ok(pairs)
}

fn hsetex(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let key = args[1];
    let options = SetOptions::parse(&args[2..], ctx.data.now_ms)?;
    let (now_ms, replaying) = (ctx.data.now_ms, ctx.data.is_replaying());
    let hash = ctx.data.look::<Hash>(key)?;
    let is_there = |field: &[u8]| hash.is_some_and(|hash| hash.contains(field));
    if options.only_if_present.is_some_and(|wanted| options.fields().any(|field| is_there(field) != wanted)) {
        ctx.reply.integer(0);
        return Ok(());
    }
    let past = matches!(options.expiry, Expiry::At(at) if at <= now_ms && !replaying);
    if past {
        // What is set to expire before now is removed.
        let gone: Vec<&[u8]> = options.fields().filter(|field| is_there(field)).collect();
        ctx.data.edit(key, |hash: &mut Hash| gone.iter().filter(|field| hash.remove(field)).count())?;
        if !gone.is_empty() {
            ctx.data.notify_taken(Interest::HASH, "hdel", key);
        }
        effect_of_removal(&mut ctx.data, key, &gone);
    } else {
        set_pairs(ctx, key, &options)?;
    }
    ctx.reply.integer(1);
    Ok(())
}

fn set_pairs(ctx: &mut Context<'_, '_>, key: &[u8], options: &SetOptions<'_, '_>) -> CommandResult {
    let limits = ctx.data.limits;
    let expiry = options.expiry;
    ctx.data.edit_or_create(key, |hash: &mut Hash| {
        for pair in options.pairs.chunks_exact(2) {
            hash.set_keeping_expiry(pair[0], pair[1], limits);
            match expiry {
                Expiry::Keep => {}
                Expiry::None => hash.set_expire_at_ms(pair[0], None),
                Expiry::At(at) => hash.set_expire_at_ms(pair[0], Some(at)),
            }
        }
        options.pairs.len() / 2
    })?;
    ctx.data.notify(Interest::HASH, "hset", key);
    if let Expiry::At(_) = expiry {
        ctx.data.notify(Interest::HASH, "hexpire", key);
    }
    let count = (options.pairs.len() / 2).to_string();
    let at = if let Expiry::At(at) = expiry { at.to_string() } else { String::new() };
    let words: &[&[u8]] = match expiry {
        Expiry::None => &[b"HSETEX", key],
        Expiry::Keep => &[b"HSETEX", key, b"KEEPTTL"],
        Expiry::At(_) => &[b"HSETEX", key, b"PXAT", at.as_bytes()],
    };
    ctx.data.effect(&[words, &[b"FIELDS", count.as_bytes()], options.pairs].concat());
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::context::next_random;
    use crate::testing::Engine;

    #[test]
    fn expiries_are_set_under_conditions_and_told() {
        let mut engine = Engine::new();
        engine.check(
            "HSET h a 1 b 2 c 3 -> :3
             HEXPIRE h 100 FIELDS 2 a z -> *2 :1 :-2
             HTTL h FIELDS 3 a b z -> *3 :100 :-1 :-2
             HPTTL h FIELDS 1 a -> *1 :100000
             HEXPIRETIME h FIELDS 1 a -> *1 :1700000100
             HPEXPIRETIME h FIELDS 1 a -> *1 :1700000100000
             HEXPIRE h 50 NX FIELDS 2 a b -> *2 :0 :1
             HEXPIRE h 60 XX FIELDS 2 b c -> *2 :1 :0
             HEXPIRE h 70 GT FIELDS 3 a b c -> *3 :0 :1 :0
             HPEXPIRE h 60000 LT FIELDS 3 a b c -> *3 :1 :1 :1
             OBJECT ENCODING h -> $10 listpackex
             HPERSIST h FIELDS 3 a b z -> *3 :1 :1 :-2
             HPERSIST h FIELDS 1 a -> *1 :-1
             HPEXPIREAT h 1600000000000 FIELDS 1 a -> *1 :2
             HEXPIREAT h 1600000000 FIELDS 2 b c -> *2 :2 :2
             EXISTS h -> :0
             HTTL h FIELDS 1 a -> *1 :-2
             HEXPIRE h 1 FIELDS 1 a -> *1 :-2",
        );
        assert_eq!(
            engine.effects(),
            "HSET h a 1 b 2 c 3\nHPEXPIREAT h 1700000100000 FIELDS 1 a\nHPEXPIREAT h 1700000050000 FIELDS 1 b\n\
             HPEXPIREAT h 1700000060000 FIELDS 1 b\nHPEXPIREAT h 1700000070000 FIELDS 1 b\n\
             HPEXPIREAT h 1700000060000 FIELDS 3 a b c\nHPERSIST h FIELDS 2 a b\nHDEL h a\nHDEL h b c"
        );
    }

    #[test]
    fn mistakes_are_told_in_the_words_of_redis() {
        Engine::new().check(
            "HSET h a 1 -> :1
             SET s x -> +OK
             HEXPIRE s 1 FIELDS 1 a -> -WRONGTYPE Operation against a key holding the wrong kind of value
             HEXPIRE h x FIELDS 1 a -> -ERR value is not an integer or out of range
             HEXPIRE h -1 FIELDS 1 a -> -ERR invalid expire time, must be >= 0
             HEXPIRE h 70368744178 FIELDS 1 a -> -ERR invalid expire time in 'hexpire' command
             HEXPIRE h 1 FIELD 1 a -> -ERR Mandatory argument FIELDS is missing or not at the right position
             HEXPIRE h 1 FIELDS 0 a -> -ERR Parameter `numFields` should be greater than 0
             HEXPIRE h 1 FIELDS 2 a -> -ERR The `numfields` parameter must match the number of arguments
             HTTL h FIELDS x a -> -ERR Number of fields must be a positive integer
             HGETEX h EX 10 FIELDS -> -ERR Mandatory argument FIELDS is missing or not at the right position
             HGETEX h EX -1 FIELDS 1 a -> -ERR invalid expire time, must be >= 0
             HSETEX h EX 1 PX 1 FIELDS 1 a 1 -> -ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified
             HSETEX h FXX FNX FIELDS 1 a 1 -> -ERR Only one of FXX or FNX arguments can be specified
             HSETEX h FIELDS 2 a 1 -> -ERR wrong number of arguments for 'hsetex' command
             HSETEX h FIELDS 0 a 1 -> -ERR invalid number of fields
             HSETEX h NX FIELDS 1 a 1 -> -ERR unknown argument: NX
             HGETDEL h FIELDS 2 a -> -ERR The `numfields` parameter must match the number of arguments",
        );
    }

    #[test]
    fn fields_go_when_their_moment_has_come_and_the_key_with_the_last() {
        let mut engine = Engine::new();
        engine.check(
            "HSET h a 1 b 2 -> :2\nHPEXPIRE h 10 FIELDS 1 a -> *1 :1\nHPEXPIRE h 20 FIELDS 1 b -> *1 :1",
        );
        engine.effects();
        engine.now_ms += 10;
        engine.check("HGETALL h -> *2 $1 b $1 2\nHLEN h -> :1");
        assert_eq!(engine.effects(), "HDEL h a");
        engine.now_ms += 10;
        engine.check("HSETNX h b 3 -> :1\nHTTL h FIELDS 1 b -> *1 :-1");
        assert_eq!(engine.effects(), "MULTI\nHDEL h b\nHSETNX h b 3\nEXEC");
    }

    #[test]
    fn an_overwritten_field_no_longer_expires_but_a_changed_one_does() {
        let mut engine = Engine::new();
        engine.check(
            "HSET h a 1 b 1 c 1.5 -> :3
             HEXPIRE h 100 FIELDS 3 a b c -> *3 :1 :1 :1
             HSET h a 2 -> :0
             HINCRBY h b 1 -> :2
             HINCRBYFLOAT h c 1 -> $3 2.5
             HTTL h FIELDS 3 a b c -> *3 :-1 :100 :100
             RENAME h g -> +OK
             COPY g h -> :1
             HTTL h FIELDS 1 b -> *1 :100
             HDEL h b c -> :2
             HSET h b 1 -> :1
             HTTL h FIELDS 1 b -> *1 :-1",
        );
        assert!(engine.effects().contains("HSETEX h KEEPTTL FIELDS 1 c 2.5"));
    }

    #[test]
    fn fields_are_read_and_removed_or_given_another_expiry() {
        let mut engine = Engine::new();
        engine.check(
            "HSETEX h EX 100 FIELDS 2 a 1 b 2 -> :1
             HSETEX h FNX FIELDS 2 c 3 a 9 -> :0
             HSETEX h FXX KEEPTTL FIELDS 1 a 5 -> :1
             HTTL h FIELDS 2 a b -> *2 :100 :100
             HSETEX h FIELDS 1 a 6 -> :1
             HTTL h FIELDS 1 a -> *1 :-1
             HGETEX h PX 5000 FIELDS 2 a z -> *2 $1 6 $-1
             HGETEX h PERSIST FIELDS 1 a -> *1 $1 6
             HGETEX h FIELDS 1 b -> *1 $1 2
             HGETEX no EX 1 FIELDS 1 b -> *1 $-1
             HGETEX h EXAT 1 FIELDS 1 b -> *1 $1 2
             HGETDEL h FIELDS 3 a a z -> *3 $1 6 $-1 $-1
             EXISTS h -> :0
             HSETEX h PXAT 1 FIELDS 1 a 1 -> :1
             HSETEX h FXX FIELDS 1 a 1 -> :0
             EXISTS h -> :0",
        );
        assert_eq!(
            engine.effects(),
            "HSETEX h PXAT 1700000100000 FIELDS 2 a 1 b 2\nHSETEX h KEEPTTL FIELDS 1 a 5\nHSETEX h FIELDS 1 a 6\n\
             HPEXPIREAT h 1700000005000 FIELDS 1 a\nHPERSIST h FIELDS 1 a\nHDEL h b\nHDEL h a a z"
        );
    }

    #[test]
    fn effects_replay_to_the_same_fields_and_the_active_expiry_finds_every_one() {
        for seed in 1..6 {
            let (mut engine, mut state) = (Engine::new(), seed);
            engine.limits.hash_entries = 5;
            for _ in 0..1_500 {
                let mut below = |bound: u64| next_random(&mut state) % bound;
                let (key, other, field, amount) = (below(4), below(4), below(9), below(60));
                engine.now_ms += (below(5)) as i64;
                engine.say(&match below(14) {
                    0..3 => format!("HSET h{key} f{field} {amount}"),
                    3..6 => format!("HPEXPIRE h{key} {amount} FIELDS 2 f{field} f{amount}"),
                    6 => format!("HSETEX h{key} PX {amount} FIELDS 1 f{field} v"),
                    7 => format!("HGETEX h{key} PERSIST FIELDS 1 f{field}"),
                    8 => format!("HGETDEL h{key} FIELDS 1 f{field}"),
                    9 => format!("HINCRBYFLOAT h{key} n{field} 0.5"),
                    10 => format!("RENAME h{key} h{other}"),
                    11 => format!("COPY h{key} h{other} REPLACE"),
                    12 => format!("SET h{key} x"),
                    _ => format!("DEL h{key}"),
                });
                if below(10) == 0 {
                    engine.expire_all();
                }
            }
            assert_eq!(engine.replayed().digest(), engine.digest(), "seed {seed}");
            engine.now_ms += 1_000;
            engine.expire_all();
            let locked = engine.keyspace.lock_all();
            let mut entries = locked.all_shards().into_iter().flat_map(|shard| shard.database(0).iter());
            assert!(entries.all(|entry| entry.fields_expire_at_ms().is_none()), "seed {seed}");
        }
    }
}
