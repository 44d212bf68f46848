//! What a command did that others want to know: collected while it runs, told when it is committed.

use std::sync::Arc;

use super::channels::Kind;

/// What somebody listens for, as bits: classes of keyspace events, whether anybody tracks keys, whether anybody monitors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest(pub(super) u32);

macro_rules! classes {
    ($($(#[$doc:meta])* $name:ident, $bit:literal, $letter:literal;)*) => {
        impl Interest {
            $($(#[$doc])* pub const $name: Interest = Interest(1 << $bit);)*
            /// In the order in which Redis shows them.
            const LETTERS: &'static [(Interest, char)] = &[$((Interest::$name, $letter)),*];
        }
    };
}

classes! {
    /// Commands of any type: DEL, EXPIRE, RENAME.
    GENERIC, 0, 'g';
    /// Strings.
    STRING, 1, '$';
    /// Lists.
    LIST, 2, 'l';
    /// Sets.
    SET, 3, 's';
    /// Hashes.
    HASH, 4, 'h';
    /// Sorted sets.
    ZSET, 5, 'z';
    /// A key expired.
    EXPIRED, 6, 'x';
    /// A key was evicted.
    EVICTED, 7, 'e';
    /// Streams.
    STREAM, 8, 't';
    /// Modules; none is ever loaded.
    MODULE, 9, 'd';
    /// A key came into being.
    NEW, 10, 'n';
    /// Events go to `__keyspace@<db>__:<key>`.
    KEYSPACE, 11, 'K';
    /// Events go to `__keyevent@<db>__:<event>`.
    KEYEVENT, 12, 'E';
    /// A key was looked for and is not there.
    KEY_MISS, 13, 'm';
}

impl Interest {
    /// Nothing.
    pub const NONE: Interest = Interest(0);
    /// Somebody caches what they read.
    pub(crate) const TRACKING: Interest = Interest(1 << 16);
    /// Somebody watches every command.
    pub(crate) const MONITOR: Interest = Interest(1 << 17);
    /// What the letter A stands for.
    const ALL: Interest = Interest(0x3ff);

    /// Both together.
    #[must_use]
    pub const fn and(self, other: Interest) -> Interest {
        Interest(self.0 | other.0)
    }

    /// Whether they have anything in common.
    #[inline]
    #[must_use]
    pub const fn touches(self, other: Interest) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether all of `other` are in it.
    #[must_use]
    pub const fn has(self, other: Interest) -> bool {
        self.0 & other.0 == other.0
    }

    /// Reads the letters of `notify-keyspace-events`.
    #[must_use]
    pub fn parse_classes(text: &str) -> Option<Interest> {
        text.chars().try_fold(Interest::NONE, |so_far, letter| {
            let known = Self::LETTERS.iter().find(|(_, known)| *known == letter);
            let one = if letter == 'A' { Self::ALL } else { known?.0 };
            Some(so_far.and(one))
        })
    }

    /// The letters, as CONFIG GET shows them.
    #[must_use]
    pub fn show_classes(self) -> String {
        let is_all = self.has(Self::ALL);
        let letters = Self::LETTERS.iter().filter(|(class, _)| self.has(*class));
        let letters = letters.filter(|(class, _)| !(is_all && Self::ALL.has(*class)));
        // Redis leaves `n` out beside A.
        let letters = letters.filter(|(class, _)| !(is_all && *class == Self::NEW));
        is_all.then_some('A').into_iter().chain(letters.map(|(_, letter)| *letter)).collect()
    }
}

/// One thing to tell.
pub(super) enum Item {
    /// A message for a channel or a shard channel.
    Message { kind: Kind, channel: Vec<u8>, text: Vec<u8> },
    /// A keyspace event.
    Event { name: &'static str, db: u16, key: Vec<u8> },
    /// A key changed.
    Changed { key: Vec<u8> },
    /// A client that tracks has read keys; what it wrote itself before, in the same transaction, is no news to it.
    Read { keys: Vec<Vec<u8>>, id: u64 },
    /// All keys changed.
    Flushed,
    /// A line of MONITOR.
    Line(Arc<[u8]>),
}

/// The news of one command or one transaction, in the order in which they came about.
#[derive(Default)]
pub(crate) struct News {
    interest: Interest,
    pub(super) items: Vec<Item>,
}

impl News {
    /// Begins anew, for those who listen now. What was collected before has been told.
    #[inline]
    pub(crate) fn begin(&mut self, interest: Interest) {
        debug_assert!(self.items.is_empty(), "the news of the command before were not told");
        self.interest = interest;
    }

    /// Whether somebody listens for any of these.
    #[inline]
    pub(crate) fn is_wanted(&self, any: Interest) -> bool {
        self.interest.touches(any)
    }

    /// Shows nothing to those who monitor until [`News::unmute`] is given what this returns.
    pub(crate) fn mute_monitors(&mut self) -> Interest {
        let before = self.interest;
        self.interest = Interest(before.0 & !Interest::MONITOR.0);
        before
    }

    pub(crate) fn unmute(&mut self, before: Interest) {
        self.interest = before;
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// An event of a key, where somebody listens for its class.
    #[inline]
    pub(crate) fn event(&mut self, class: Interest, name: &'static str, db: u16, key: &[u8]) {
        if self.interest.touches(class) {
            self.push_event(name, db, key);
        }
    }

    #[cold]
    fn push_event(&mut self, name: &'static str, db: u16, key: &[u8]) {
        self.items.push(Item::Event { name, db, key: key.to_vec() });
    }

    /// A key whose value, or whose being there, changed.
    #[inline]
    pub(crate) fn changed(&mut self, key: &[u8]) {
        if self.interest.touches(Interest::TRACKING) {
            self.push_changed(key);
        }
    }

    #[cold]
    fn push_changed(&mut self, key: &[u8]) {
        self.items.push(Item::Changed { key: key.to_vec() });
    }

    /// Keys that a client which tracks has read, to be remembered from here on.
    pub(crate) fn read(&mut self, keys: &[&[u8]], id: u64) {
        self.items.push(Item::Read { keys: keys.iter().map(|key| key.to_vec()).collect(), id });
    }

    /// Keys without number changed. Who tracks keys is told so once for a command.
    pub(crate) fn flushed(&mut self) {
        if self.interest.touches(Interest::TRACKING) && !matches!(self.items.last(), Some(Item::Flushed)) {
            self.items.push(Item::Flushed);
        }
    }

    /// A message that the command publishes.
    pub(crate) fn message(&mut self, kind: Kind, channel: &[u8], text: &[u8]) {
        self.items.push(Item::Message { kind, channel: channel.to_vec(), text: text.to_vec() });
    }

    /// A line for those who monitor.
    pub(crate) fn line(&mut self, line: &[u8]) {
        self.items.push(Item::Line(Arc::from(line)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_read_and_show_as_in_redis() {
        for (given, shown) in [
            ("", ""),
            ("KEA", "AKE"),
            ("g$lshzxetdKEn", "AKE"),
            ("Kg$xm", "g$xKm"),
            ("nE", "nE"),
            ("AKEm", "AKEm"),
        ] {
            assert_eq!(Interest::parse_classes(given).unwrap().show_classes(), shown, "{given}");
        }
        assert_eq!(Interest::parse_classes("KEy"), None);
    }
}
