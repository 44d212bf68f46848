//! What a command is: one row, read by dispatch, key extraction, locking, COMMAND and, later, ACL alike.

use crate::Context;
use crate::error::CommandResult;

/// One command.
#[derive(Clone, Copy)]
pub struct CommandSpec {
    /// In lower case.
    pub name: &'static str,
    /// How many arguments it takes, its own name included.
    pub arity: Arity,
    /// What it does to the keyspace and where it may run.
    pub flags: Flags,
    /// Where its keys are.
    pub keys: Keys,
    /// The categories it belongs to, beyond those its flags imply.
    pub acl: Categories,
    /// What runs it, under the locks of its keys.
    pub handler: Handler,
}

/// Runs a command; `args[0]` is its name. It checks before it changes anything, so an error means nothing happened.
pub type Handler = fn(&mut Context<'_, '_>, &[&[u8]]) -> CommandResult;

/// What stands behind a command that is only the name of a group (CONFIG, OBJECT): checked with the command itself, so
/// that MULTI does not queue what cannot run.
#[derive(Clone, Copy)]
pub(crate) struct Subcommand {
    /// In lower case.
    pub name: &'static str,
    /// How many arguments it takes, both names included.
    pub arity: Arity,
}

/// A row of a table of subcommands.
pub(crate) const fn subcommand(name: &'static str, arity: Arity) -> Subcommand {
    Subcommand { name, arity }
}

/// How many arguments a command takes, its own name included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arity {
    min: usize,
    max: Option<usize>,
}

/// Exactly `n` arguments, the command's name included.
#[must_use]
pub const fn exactly(n: usize) -> Arity {
    Arity { min: n, max: Some(n) }
}

/// `n` arguments or more, the command's name included.
#[must_use]
pub const fn at_least(n: usize) -> Arity {
    Arity { min: n, max: None }
}

impl Arity {
    /// Whether so many arguments are right.
    #[inline]
    #[must_use]
    pub const fn allows(self, count: usize) -> bool {
        match self.max {
            Some(max) => count == max,
            None => count >= self.min,
        }
    }

    /// The number COMMAND shows: negative for "at least".
    #[must_use]
    pub const fn shown(self) -> i64 {
        match self.max {
            Some(max) => max as i64,
            None => -(self.min as i64),
        }
    }
}

/// A command's flags, named as Redis names them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flags(u32);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident, $with:ident, $bit:literal, $shown:literal;)*) => {
        impl Flags {
            $($(#[$doc])* pub const $name: Flags = Flags(1 << $bit);)*
            $(/// Adds the flag of the same name.
            #[must_use] pub const fn $with(self) -> Flags { Flags(self.0 | 1 << $bit) })*
            const SHOWN: &'static [(u32, &'static str)] = &[$((1 << $bit, $shown)),*];
        }
    };
}

flags! {
    /// It may change data.
    WRITE, write, 0, "write";
    /// It only reads data.
    READ, readonly, 1, "readonly";
    /// It may need more memory.
    DENY_OOM, deny_oom, 2, "denyoom";
    /// It administers the server.
    ADMIN, admin, 3, "admin";
    /// It is about channels.
    PUBSUB, pubsub, 4, "pubsub";
    /// A script may not call it.
    NO_SCRIPT, no_script, 5, "noscript";
    /// It may run while the data is loading.
    LOADING, loading, 6, "loading";
    /// It may run on a stale replica.
    STALE, stale, 7, "stale";
    /// It takes constant or logarithmic time.
    FAST, fast, 8, "fast";
    /// It may run before AUTH.
    NO_AUTH, no_auth, 9, "no_auth";
    /// It may not be queued by MULTI.
    NO_MULTI, no_multi, 10, "no_multi";
    /// Its keys are not at fixed places.
    MOVABLE_KEYS, movable_keys, 11, "movablekeys";
    /// MONITOR does not show it.
    SKIP_MONITOR, skip_monitor, 12, "skip_monitor";
    /// It may block its client.
    BLOCKING, blocking, 13, "blocking";
    /// The slow log does not show it.
    SKIP_SLOWLOG, skip_slowlog, 14, "skip_slowlog";
}

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);

    /// Whether all of `other` are set.
    #[inline]
    #[must_use]
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// The names COMMAND shows.
    pub fn shown(self) -> impl Iterator<Item = &'static str> {
        Self::SHOWN.iter().filter(move |(bit, _)| self.0 & bit != 0).map(|(_, name)| *name)
    }
}

/// Where a command's keys are among its arguments (`args[0]` is its name).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keys {
    /// It has none.
    None,
    /// From `first` to `last` (negative: from the end), every `step`.
    Range {
        /// Index of the first key.
        first: usize,
        /// Index of the last key; -1 is the last argument.
        last: i32,
        /// Distance from one key to the next.
        step: usize,
    },
    /// A number of keys stands at `count_at`, the keys follow it; `first` is one more key before (a destination).
    Counted {
        /// Index of a destination key.
        first: Option<usize>,
        /// Index of the number of keys.
        count_at: usize,
    },
    /// It looks at the whole keyspace.
    Whole,
}

impl Keys {
    /// One key at `at`.
    #[must_use]
    pub const fn one(at: usize) -> Keys {
        Keys::Range { first: at, last: at as i32, step: 1 }
    }

    /// Keys from `first` to `last` (negative: from the end), every `step`.
    #[must_use]
    pub const fn every(first: usize, last: i32, step: usize) -> Keys {
        Keys::Range { first, last, step }
    }

    /// A number of keys at `count_at`, then the keys.
    #[must_use]
    pub const fn counted(count_at: usize) -> Keys {
        Keys::Counted { first: None, count_at }
    }

    /// A destination at `first`, a number of keys at `count_at`, then the keys.
    #[must_use]
    pub const fn destination_and_counted(first: usize, count_at: usize) -> Keys {
        Keys::Counted { first: Some(first), count_at }
    }

    /// The indexes of the keys among `args`; those that the arguments do not reach are left out.
    pub fn indexes<'a>(self, args: &'a [&'a [u8]]) -> impl Iterator<Item = usize> + 'a {
        let (destination, range) = match self {
            Keys::None | Keys::Whole => (None, (1, 0, 1)),
            Keys::Range { first, last, step } => {
                let last = if last < 0 { args.len() as i64 + i64::from(last) } else { i64::from(last) };
                (None, (first, last, step))
            }
            Keys::Counted { first, count_at } => {
                let count = args
                    .get(count_at)
                    .and_then(|arg| std::str::from_utf8(arg).ok())
                    .and_then(|text| text.parse::<u32>().ok())
                    .map_or(0, i64::from);
                (first, (count_at + 1, count_at as i64 + count, 1))
            }
        };
        let (first, last, step) = range;
        let end = usize::try_from(last + 1).unwrap_or(0).min(args.len());
        destination.into_iter().filter(|at| *at < args.len()).chain((first..end.max(first)).step_by(step))
    }

    /// Whether there is exactly one key, at a fixed place.
    #[inline]
    #[must_use]
    pub const fn is_one(self) -> bool {
        matches!(self, Keys::Range { first, last, .. } if last == first as i32)
    }

    /// The index of the first key, where the arguments reach it.
    #[inline]
    #[must_use]
    pub fn first(self, args: &[&[u8]]) -> Option<usize> {
        match self {
            Keys::None | Keys::Whole => None,
            Keys::Range { first, .. } => (first < args.len()).then_some(first),
            Keys::Counted { .. } => self.indexes(args).next(),
        }
    }

    /// First key, last key and step as COMMAND shows them.
    #[must_use]
    pub const fn shown(self) -> (i64, i64, i64) {
        match self {
            Keys::None | Keys::Whole | Keys::Counted { first: None, .. } => (0, 0, 0),
            Keys::Range { first, last, step } => (first as i64, last as i64, step as i64),
            Keys::Counted { first: Some(first), .. } => (first as i64, first as i64, 1),
        }
    }
}

/// Categories as ACL names them, beyond read, write, admin, dangerous, fast and slow, which follow from the flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Categories(u16);

macro_rules! categories {
    ($($name:ident, $bit:literal, $shown:literal;)*) => {
        impl Categories {
            $(/// The category of this name.
            pub const $name: Categories = Categories(1 << $bit);)*
            const SHOWN: &'static [(u16, &'static str)] = &[$((1 << $bit, $shown)),*];
        }
    };
}

categories! {
    KEYSPACE, 0, "@keyspace";
    STRING, 1, "@string";
    LIST, 2, "@list";
    SET, 3, "@set";
    HASH, 4, "@hash";
    SORTED_SET, 5, "@sortedset";
    CONNECTION, 6, "@connection";
    TRANSACTION, 7, "@transaction";
    DANGEROUS, 8, "@dangerous";
}

impl Categories {
    /// No category beyond those the flags imply.
    pub const NONE: Categories = Categories(0);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Categories) -> Categories {
        Categories(self.0 | other.0)
    }
}

impl CommandSpec {
    /// All categories COMMAND shows.
    pub fn categories(&self) -> impl Iterator<Item = &'static str> {
        let implied = [
            (self.flags.has(Flags::WRITE), "@write"),
            (self.flags.has(Flags::READ) && self.acl != Categories::CONNECTION, "@read"),
            (self.flags.has(Flags::ADMIN), "@admin"),
            (self.flags.has(Flags::ADMIN), "@dangerous"),
            (self.flags.has(Flags::FAST), "@fast"),
            (!self.flags.has(Flags::FAST), "@slow"),
            (self.flags.has(Flags::BLOCKING), "@blocking"),
        ];
        let own = Categories::SHOWN.iter().filter(|(bit, _)| self.acl.0 & bit != 0).map(|(_, name)| *name);
        let admin = self.flags.has(Flags::ADMIN);
        implied
            .into_iter()
            .filter(|(shown, _)| *shown)
            .map(|(_, name)| name)
            .chain(own.filter(move |name| !(admin && *name == "@dangerous")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indexes(keys: Keys, args: &[&str]) -> Vec<usize> {
        let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
        keys.indexes(&args).collect()
    }

    #[test]
    fn keys_are_found_where_the_row_says() {
        assert_eq!(indexes(Keys::one(1), &["get", "a"]), [1]);
        assert_eq!(indexes(Keys::every(1, -1, 2), &["mset", "a", "1", "b", "2"]), [1, 3]);
        assert_eq!(indexes(Keys::every(1, -2, 1), &["blpop", "a", "b", "0"]), [1, 2]);
        assert_eq!(
            indexes(Keys::destination_and_counted(1, 2), &["zunionstore", "d", "2", "a", "b", "weights"]),
            [1, 3, 4]
        );
        assert_eq!(
            indexes(Keys::counted(1), &["zunion", "99", "a"]),
            [2],
            "keys that are not there are left out"
        );
        assert_eq!(indexes(Keys::counted(1), &["zunion", "-3", "a"]), [0usize; 0]);
        assert_eq!(indexes(Keys::one(1), &["get"]), [0usize; 0]);
    }
}
