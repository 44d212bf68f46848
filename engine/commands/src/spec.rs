//! What a command is: one row, read by dispatch, key extraction, locking, COMMAND and ACL alike.

use crate::Context;
use crate::error::CommandResult;

pub(crate) use crate::keys::Keys;

/// One command.
#[derive(Clone, Copy)]
pub struct CommandSpec {
    /// In lower case; a subcommand's stands behind that of its group and a `|`.
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
    /// It may block its client.
    BLOCKING, blocking, 6, "blocking";
    /// It may run while the data is loading.
    LOADING, loading, 7, "loading";
    /// It may run on a stale replica.
    STALE, stale, 8, "stale";
    /// MONITOR does not show it.
    SKIP_MONITOR, skip_monitor, 9, "skip_monitor";
    /// The slow log does not show it.
    SKIP_SLOWLOG, skip_slowlog, 10, "skip_slowlog";
    /// It takes constant or logarithmic time.
    FAST, fast, 11, "fast";
    /// It may run before AUTH.
    NO_AUTH, no_auth, 12, "no_auth";
    /// It may be called without any key.
    NO_MANDATORY_KEYS, no_mandatory_keys, 13, "no_mandatory_keys";
    /// It may not run while a replica loads data beside those it serves.
    NO_ASYNC_LOADING, no_async_loading, 14, "no_async_loading";
    /// It may not be queued by MULTI.
    NO_MULTI, no_multi, 15, "no_multi";
    /// Its keys are not at fixed places; follows from [`Keys`].
    MOVABLE_KEYS, movable_keys, 16, "movablekeys";
    /// It may run while a script is taking too long.
    ALLOW_BUSY, allow_busy, 17, "allow_busy";
    /// Others may see that it ran although it changes no data, so a script that only reads may not call it.
    MAY_REPLICATE, may_replicate, 18, "";
    /// It has subcommands, and is only their common name; follows from the table.
    GROUP, group, 31, "";
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
        Self::SHOWN
            .iter()
            .filter(move |(bit, name)| self.0 & bit != 0 && !name.is_empty())
            .map(|(_, name)| *name)
    }
}

/// Categories as ACL names them; read, write, admin, pubsub, fast, slow and blocking follow from the flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Categories(u32);

macro_rules! categories {
    ($($name:ident, $bit:literal, $shown:literal;)*) => {
        impl Categories {
            $(/// The category of this name.
            pub const $name: Categories = Categories(1 << $bit);)*
            /// Every category, in the order in which they are shown.
            pub const ALL: &'static [(Categories, &'static str)] = &[$((Categories(1 << $bit), $shown)),*];
        }
    };
}

categories! {
    KEYSPACE, 0, "keyspace";
    READ, 1, "read";
    WRITE, 2, "write";
    SET, 3, "set";
    SORTED_SET, 4, "sortedset";
    LIST, 5, "list";
    HASH, 6, "hash";
    STRING, 7, "string";
    BITMAP, 8, "bitmap";
    HYPERLOGLOG, 9, "hyperloglog";
    GEO, 10, "geo";
    STREAM, 11, "stream";
    PUBSUB, 12, "pubsub";
    ADMIN, 13, "admin";
    FAST, 14, "fast";
    SLOW, 15, "slow";
    BLOCKING, 16, "blocking";
    DANGEROUS, 17, "dangerous";
    CONNECTION, 18, "connection";
    TRANSACTION, 19, "transaction";
    SCRIPTING, 20, "scripting";
}

impl Categories {
    /// No category beyond those the flags imply.
    pub const NONE: Categories = Categories(0);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Categories) -> Categories {
        Categories(self.0 | other.0)
    }

    /// Whether it is all of `other`.
    #[must_use]
    pub const fn has(self, other: Categories) -> bool {
        self.0 & other.0 == other.0
    }

    /// The category of this name, in any case.
    #[must_use]
    pub fn named(name: &[u8]) -> Option<Categories> {
        let known = |(_, known): &&(Categories, &str)| known.as_bytes().eq_ignore_ascii_case(name);
        Self::ALL.iter().find(known).map(|(category, _)| *category)
    }

    /// The names, in the order in which they are shown.
    pub fn shown(self) -> impl Iterator<Item = &'static str> {
        Self::ALL.iter().filter(move |(category, _)| self.has(*category)).map(|(_, name)| *name)
    }
}

impl CommandSpec {
    /// Its categories, with those its flags imply.
    #[must_use]
    pub fn categories(&self) -> Categories {
        let has = |flag| self.flags.has(flag);
        let implied = [
            (has(Flags::WRITE), Categories::WRITE),
            // What a script does may be anything, even where it does not write.
            (has(Flags::READ) && !self.acl.has(Categories::SCRIPTING), Categories::READ),
            (has(Flags::ADMIN), Categories::ADMIN.and(Categories::DANGEROUS)),
            (has(Flags::PUBSUB), Categories::PUBSUB),
            (has(Flags::FAST), Categories::FAST),
            (!has(Flags::FAST), Categories::SLOW),
            (has(Flags::BLOCKING), Categories::BLOCKING),
        ];
        let implied = implied.into_iter().filter(|(holds, _)| *holds).map(|(_, category)| category);
        implied.fold(self.acl, Categories::and)
    }
}
