//! What depends on the value that is there: the conditions of SET, DELIFEQ and DELEX, and the digest they may name instead
//! of a long value. <https://redis.io/docs/latest/commands/delex/>, <https://valkey.io/commands/delifeq/>

use xxhash_rust::xxh3::xxh3_64;

use crate::args::is;
use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::hub::Interest;
use crate::keys::Access;
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least, exactly};

const STRING: Categories = Categories::STRING;
const DELEX: Access = Access::RW.delete().variable(delex_access);

/// Without a condition, DELEX removes the key unseen.
fn delex_access(args: &[&[u8]]) -> Access {
    if args.len() > 2 { Access::RW.delete() } else { Access::RM.delete() }
}

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    CommandSpec { name: "digest",  arity: exactly(2),  flags: Flags::READ.fast(),  keys: Keys::one(1), acl: STRING, handler: digest },
    CommandSpec { name: "delifeq", arity: exactly(3),  flags: Flags::WRITE.fast(), keys: Keys::one(1).access(Access::RW.access().delete()), acl: STRING, handler: delifeq },
    CommandSpec { name: "delex",   arity: at_least(2), flags: Flags::WRITE.fast(), keys: Keys::one(1).access(DELEX), acl: STRING, handler: delex },
];

/// Letters of a digest.
const DIGEST_LEN: usize = 16;

/// What a string must be like for a command to do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition<'a> {
    /// IFEQ: this very value.
    Equals(&'a [u8]),
    /// IFNE: another one; an absent one is another too.
    Differs(&'a [u8]),
    /// IFDEQ: one of this digest.
    HasDigest(&'a [u8]),
    /// IFDNE: one of another digest.
    HasOtherDigest(&'a [u8]),
}

impl<'a> Condition<'a> {
    /// The condition of this name, if it is one.
    ///
    /// # Errors
    /// For a digest of another length.
    pub(super) fn parse(word: &[u8], operand: &'a [u8]) -> Result<Option<Self>, CommandError> {
        let condition = match word {
            word if is(word, "ifeq") => Self::Equals(operand),
            word if is(word, "ifne") => Self::Differs(operand),
            word if is(word, "ifdeq") => Self::HasDigest(operand),
            word if is(word, "ifdne") => Self::HasOtherDigest(operand),
            _ => return Ok(None),
        };
        let of_digest = matches!(condition, Self::HasDigest(_) | Self::HasOtherDigest(_));
        if of_digest && operand.len() != DIGEST_LEN {
            return Err(CommandError::other("ERR digest must be exactly 16 hexadecimal characters"));
        }
        Ok(Some(condition))
    }

    /// Whether a key with this value meets it.
    pub(super) fn holds(&self, value: Option<&[u8]>) -> bool {
        match (self, value) {
            (Self::Equals(_) | Self::HasDigest(_), None) => false,
            (Self::Differs(_) | Self::HasOtherDigest(_), None) => true,
            (Self::Equals(operand), Some(value)) => value == *operand,
            (Self::Differs(operand), Some(value)) => value != *operand,
            (Self::HasDigest(digest), Some(value)) => has_digest(value, digest),
            (Self::HasOtherDigest(digest), Some(value)) => !has_digest(value, digest),
        }
    }
}

fn has_digest(value: &[u8], digest: &[u8]) -> bool {
    digest_of(value).as_bytes().eq_ignore_ascii_case(digest)
}

fn digest_of(value: &[u8]) -> String {
    format!("{:016x}", xxh3_64(value))
}

fn digest(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    match ctx.data.get_str(args[1])? {
        Some(value) => ctx.reply.bulk(digest_of(value).as_bytes()),
        None => ctx.reply.null(),
    }
    Ok(())
}

/// Removes the key and says whether there was one.
fn remove(ctx: &mut Context<'_, '_>, key: &[u8]) {
    let removed = ctx.data.remove(key).is_some();
    if removed {
        ctx.data.effect(&[b"DEL", key]);
        ctx.data.notify(Interest::GENERIC, "del", key);
    }
    ctx.reply.integer(i64::from(removed));
}

fn delifeq(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let value = match ctx.data.peek(args[1]) {
        Some(entry) => Some(entry.as_str().ok_or(CommandError::WrongType)?),
        None => None,
    };
    if Condition::Equals(args[2]).holds(value) {
        remove(ctx, args[1]);
    } else {
        ctx.reply.integer(0);
    }
    Ok(())
}

fn delex(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let (word, operand) = match args {
        [_, key] => {
            remove(ctx, key);
            return Ok(());
        }
        [_, _, word, operand] => (word, operand),
        _ => return Err(CommandError::WrongArity("delex".into())),
    };
    let Some(entry) = ctx.data.peek(args[1]) else {
        ctx.reply.integer(0);
        return Ok(());
    };
    let value = entry
        .as_str()
        .ok_or(CommandError::other("ERR Key should be of string type if conditions are specified"))?;
    let condition = Condition::parse(word, operand)?
        .ok_or(CommandError::other("ERR Invalid condition. Use IFEQ, IFNE, IFDEQ, or IFDNE"))?;
    if condition.holds(Some(value)) {
        remove(ctx, args[1]);
    } else {
        ctx.reply.integer(0);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Engine;

    #[test]
    fn keys_are_removed_where_the_value_is_as_said() {
        let mut engine = Engine::new();
        engine.check(
            "SET k hello -> +OK
             DELIFEQ k other -> :0
             DELIFEQ k hello -> :1
             DELIFEQ k hello -> :0
             SET k hello -> +OK
             DELEX k IFEQ other -> :0
             DELEX k IFNE hello -> :0
             DELEX k IFDEQ 0000000000000000 -> :0
             DELEX k IFDNE 9555E8555C62DCFD -> :0
             DELEX k IFDEQ 0123 -> -ERR digest must be exactly 16 hexadecimal characters
             DELEX k IF hello -> -ERR Invalid condition. Use IFEQ, IFNE, IFDEQ, or IFDNE
             DELEX k IFEQ -> -ERR wrong number of arguments for 'delex' command
             DELEX k IFDEQ 9555e8555c62dcfd -> :1
             DELEX k IFEQ hello -> :0
             LPUSH l x -> :1
             DELIFEQ l x -> -WRONGTYPE Operation against a key holding the wrong kind of value
             DELEX l IFEQ x -> -ERR Key should be of string type if conditions are specified
             DELEX l -> :1",
        );
        let expected = "SET k hello\nDEL k\nSET k hello\nDEL k\nLPUSH l x\nDEL l";
        assert_eq!(engine.effects(), expected);
    }

    #[test]
    fn digests_are_those_of_redis() {
        let mut engine = Engine::new();
        engine.run(&[b"SET", b"empty", b""]);
        engine.check(
            "SET k hello -> +OK
             DIGEST k -> $16 9555e8555c62dcfd
             DIGEST empty -> $16 2d06800538d394c2
             SET k v8 -> +OK
             DIGEST k -> $16 0cc76dbb41381419
             DIGEST no -> $-1",
        );
    }

    #[test]
    fn set_looks_at_the_value_before() {
        let mut engine = Engine::new();
        engine.check(
            "SET k new IFEQ old -> $-1
             EXISTS k -> :0
             SET k old IFNE other -> +OK
             SET k new IFEQ other -> $-1
             SET k new IFEQ other GET -> $3 old
             SET k new IFEQ old GET EX 100 -> $3 old
             GET k -> $3 new
             TTL k -> :100
             SET k newer IFNE new -> $-1
             SET k newer IFDEQ 1234567890123456 -> $-1
             SET k newer IFDNE 1234567890123456 KEEPTTL -> +OK
             SET k again EX 5 EX 100 IFEQ newer -> +OK
             SET k newer PX 5 EX 100 -> -ERR syntax error
             SET k x IFEQ -> -ERR syntax error
             SET k x IFEQ a NX -> -ERR syntax error
             SET k x XX IFEQ a -> -ERR syntax error
             SET k x IFEQ a IFNE b -> -ERR syntax error
             LPUSH l x -> :1
             SET l x IFNE a -> -WRONGTYPE Operation against a key holding the wrong kind of value",
        );
        let expected = "SET k old\nSET k new PXAT 1700000100000\nSET k newer PXAT 1700000100000\n\
                        SET k again PXAT 1700000100000\nLPUSH l x";
        assert_eq!(engine.effects(), expected);
    }
}
