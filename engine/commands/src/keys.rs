//! Where a command's keys are among its arguments, and what it does with them: said once in its row, and read by locking,
//! prefetching, COMMAND and the access rules alike. The terms are those of
//! <https://redis.io/docs/latest/develop/reference/key-specs/>.

/// What a command does with a key: one of RO, RW, OW and RM, and what becomes of the value.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    bits: u16,
    /// Tells from the arguments where they decide; `bits` then says the most there can be.
    told_by: Option<AccessOf>,
}

/// Tells from a command's arguments what it does with its keys.
pub type AccessOf = fn(&[&[u8]]) -> Access;

macro_rules! access {
    ($($(#[$doc:meta])* $name:ident $(, $with:ident)?, $bit:literal, $shown:literal;)*) => {
        impl Access {
            $($(#[$doc])* pub const $name: Access = Access { bits: 1 << $bit, told_by: None };)*
            $($(
                /// Adds the flag of the same name.
                #[must_use]
                pub const fn $with(self) -> Access {
                    Access { bits: self.bits | 1 << $bit, told_by: self.told_by }
                }
            )?)*
            const SHOWN: &'static [(u16, &'static str)] = &[$((1 << $bit, $shown)),*];
        }
    };
}

access! {
    /// It reads the key, and leaves it as it is.
    RO, 0, "RO";
    /// It changes a value that is there, or part of it.
    RW, 1, "RW";
    /// It writes a value without regard to the one before.
    OW, 2, "OW";
    /// It removes the key.
    RM, 3, "RM";
    /// The value, or part of it, reaches the client or another key.
    ACCESS, access, 4, "access";
    /// Data in the value may be changed.
    UPDATE, update, 5, "update";
    /// Data may be added to the value.
    INSERT, insert, 6, "insert";
    /// Data may be removed from the value.
    DELETE, delete, 7, "delete";
    /// It looks like a key, and is routed like one, but none: a channel.
    NOT_KEY, 8, "not_key";
    /// There may be more keys than the specification finds.
    INCOMPLETE, incomplete, 9, "incomplete";
    /// The arguments decide what is done.
    VARIABLE, 10, "variable_flags";
}

impl Access {
    /// Not said: it follows from the command's own flags.
    pub const FROM_FLAGS: Access = Access { bits: 0, told_by: None };

    /// The arguments decide: `told_by` says what is done, and this is the most there can be.
    #[must_use]
    pub const fn variable(self, told_by: AccessOf) -> Access {
        Access { bits: self.bits | Self::VARIABLE.bits, told_by: Some(told_by) }
    }

    /// Whether all of `other` is said.
    #[must_use]
    pub const fn has(self, other: Access) -> bool {
        self.bits & other.bits == other.bits
    }

    /// Whether the value, or part of it, may reach the client.
    #[must_use]
    pub const fn reads(self) -> bool {
        self.bits & Self::ACCESS.bits != 0
    }

    /// Whether data may be added, changed or removed.
    #[must_use]
    pub const fn writes(self) -> bool {
        self.bits & (Self::INSERT.bits | Self::DELETE.bits | Self::UPDATE.bits) != 0
    }

    /// The names COMMAND shows.
    pub fn shown(self) -> impl Iterator<Item = &'static str> {
        Self::SHOWN.iter().filter(move |(bit, _)| self.bits & bit != 0).map(|(_, name)| *name)
    }

    /// Itself, or `other` where nothing is said.
    #[must_use]
    pub const fn or(self, other: Access) -> Access {
        if self.bits == 0 { other } else { self }
    }
}

/// Where the search for keys begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begin {
    /// At this argument.
    Index(usize),
    /// Behind this word, looked for from an argument on; from a negative one, backward from the end.
    Keyword(&'static str, i32),
    /// Nowhere that could be said ahead.
    Unknown,
}

/// Which arguments from there on are keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Find {
    /// As far as the `last`, counted from the beginning (negative: from the end), every `step`; with a `limit` of 2, the
    /// first half of the arguments there.
    Range {
        /// Distance to the last key; -1 is the last argument.
        last: i32,
        /// Distance from one key to the next.
        step: usize,
        /// What part of the arguments are keys; 0 and 1 are all.
        limit: usize,
    },
    /// The first argument is their number, and they follow it.
    Counted,
    /// None that could be said ahead.
    Unknown,
}

/// One specification of keys.
#[derive(Clone, Copy, Debug)]
pub struct KeySpec {
    /// Where the search begins.
    pub begin: Begin,
    /// What is found there.
    pub find: Find,
    /// What the command does with them.
    pub access: Access,
}

impl KeySpec {
    /// One key at `at`.
    #[must_use]
    pub const fn one(at: usize, access: Access) -> KeySpec {
        Self::range(at, 0, access)
    }

    /// Keys from `first` to `last`, which is counted from `first` (negative: from the end).
    #[must_use]
    pub const fn range(first: usize, last: i32, access: Access) -> KeySpec {
        KeySpec { begin: Begin::Index(first), find: Find::Range { last, step: 1, limit: 0 }, access }
    }

    /// A number of keys at `count_at`, then the keys.
    #[must_use]
    pub const fn counted(count_at: usize, access: Access) -> KeySpec {
        KeySpec { begin: Begin::Index(count_at), find: Find::Counted, access }
    }

    /// One key behind a word, looked for from argument `from` on.
    #[must_use]
    pub const fn behind(word: &'static str, from: i32, access: Access) -> KeySpec {
        KeySpec {
            begin: Begin::Keyword(word, from),
            find: Find::Range { last: 0, step: 1, limit: 0 },
            access,
        }
    }

    /// All that stands behind a word, looked for from argument `from` on.
    #[must_use]
    pub const fn all_behind(word: &'static str, from: i32, access: Access) -> KeySpec {
        KeySpec {
            begin: Begin::Keyword(word, from),
            find: Find::Range { last: -1, step: 1, limit: 0 },
            access,
        }
    }

    /// Keys that cannot be found by a specification.
    #[must_use]
    pub const fn unknown(access: Access) -> KeySpec {
        KeySpec { begin: Begin::Unknown, find: Find::Unknown, access }
    }

    /// The keys among `args`: the first, one past the last, and the step.
    fn places(&self, args: &[&[u8]]) -> Places {
        let begin = match self.begin {
            Begin::Index(at) => at,
            Begin::Keyword(word, from) => match keyword(args, word, from) {
                Some(at) => at + 1,
                None => return Places::Absent,
            },
            Begin::Unknown => return Places::Unknown,
        };
        let count = args.len() as i64;
        let (first, last, step) = match self.find {
            Find::Unknown => return Places::Unknown,
            Find::Range { last, step, .. } if last >= 0 => (begin, begin as i64 + i64::from(last), step),
            Find::Range { last, step, limit } if limit > 1 => {
                let behind = args.len().saturating_sub(begin) / limit;
                (begin, (begin + behind) as i64 + i64::from(last), step)
            }
            Find::Range { last, step, .. } => (begin, count + i64::from(last), step),
            Find::Counted => match args.get(begin).and_then(|arg| number(arg)) {
                Some(keys) => (begin + 1, begin as i64 + i64::from(keys), 1),
                None => return Places::Unknown,
            },
        };
        if last < first as i64 || last >= count {
            // What does not fit is a syntax error, which is the command's to tell; what is there is locked all the same.
            return Places::Beyond {
                first,
                end: args.len().min(usize::try_from(last + 1).unwrap_or(0)),
                step,
            };
        }
        Places::Found { first, end: last as usize + 1, step }
    }
}

/// What a specification finds in a request.
enum Places {
    Found {
        first: usize,
        end: usize,
        step: usize,
    },
    /// The arguments do not reach the last.
    Beyond {
        first: usize,
        end: usize,
        step: usize,
    },
    /// An option that was not given.
    Absent,
    Unknown,
}

fn keyword(args: &[&[u8]], word: &str, from: i32) -> Option<usize> {
    let named = |at: &usize| args[*at].eq_ignore_ascii_case(word.as_bytes());
    match usize::try_from(from) {
        // The last argument cannot be followed by a key.
        Ok(from) => (from..args.len().saturating_sub(1)).find(named),
        Err(_) => {
            let from = args.len().checked_sub(from.unsigned_abs() as usize)?;
            (2..=from).rev().find(named)
        }
    }
}

/// A number of keys.
fn number(arg: &[u8]) -> Option<u32> {
    cairn_resp::parse_integer(arg).and_then(|number| u32::try_from(number).ok())
}

/// Finds keys that no specification can: each with what is done to it. The first is that of the first specification.
pub type Finder = fn(&[&[u8]]) -> Vec<(usize, Access)>;

/// Whether a command looks at keys that its arguments do not name.
#[derive(Clone, Copy, Debug)]
pub enum Reach {
    /// Never.
    Named,
    /// It may, whatever the arguments.
    Everywhere,
    /// The arguments tell.
    Told(fn(&[&[u8]]) -> bool),
}

/// Where a command's keys are among its arguments (`args[0]` is its name).
#[derive(Clone, Copy, Debug)]
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
        /// What is done to them.
        access: Access,
    },
    /// A number of keys stands at `count_at`, the keys follow it; `first` is one more key before (a destination, which is
    /// overwritten).
    Counted {
        /// Index of a destination key.
        first: Option<usize>,
        /// Index of the number of keys.
        count_at: usize,
        /// What is done to the counted keys.
        access: Access,
    },
    /// As several specifications say.
    Specs {
        /// What COMMAND shows.
        specs: &'static [KeySpec],
        /// What finds the keys where the specifications cannot.
        finder: Option<Finder>,
        /// Whether it may look at keys beside these, so that all shards are locked.
        reach: Reach,
    },
    /// It looks at the whole keyspace.
    Whole,
}

impl Keys {
    /// Something is taken out of one key and put into another.
    pub const MOVE: Keys =
        Keys::specs(&[KeySpec::one(1, Access::RW.access().delete()), KeySpec::one(2, Access::RW.insert())]);

    /// One key at `at`.
    #[must_use]
    pub const fn one(at: usize) -> Keys {
        Self::every(at, at as i32, 1)
    }

    /// Keys from `first` to `last` (negative: from the end), every `step`.
    #[must_use]
    pub const fn every(first: usize, last: i32, step: usize) -> Keys {
        Keys::Range { first, last, step, access: Access::FROM_FLAGS }
    }

    /// A number of keys at `count_at`, then the keys.
    #[must_use]
    pub const fn counted(count_at: usize) -> Keys {
        Keys::Counted { first: None, count_at, access: Access::FROM_FLAGS }
    }

    /// A destination at `first`, a number of keys at `count_at`, then the keys, which are read.
    #[must_use]
    pub const fn destination_and_counted(first: usize, count_at: usize) -> Keys {
        Keys::Counted { first: Some(first), count_at, access: Access::RO.access() }
    }

    /// As these specifications say.
    #[must_use]
    pub const fn specs(specs: &'static [KeySpec]) -> Keys {
        Keys::Specs { specs, finder: None, reach: Reach::Named }
    }

    /// As these specifications say, but for what only `finder` can find.
    #[must_use]
    pub const fn found(specs: &'static [KeySpec], finder: Finder) -> Keys {
        Keys::Specs { specs, finder: Some(finder), reach: Reach::Named }
    }

    /// Says what is done to the keys, where that does not follow from the command's flags: a command that reads does
    /// RO and access, one that writes RW, access and update.
    #[must_use]
    pub const fn access(self, access: Access) -> Keys {
        match self {
            Keys::Range { first, last, step, .. } => Keys::Range { first, last, step, access },
            Keys::Counted { first, count_at, .. } => Keys::Counted { first, count_at, access },
            other => other,
        }
    }

    /// Locks all shards beside: the command may look at keys that its arguments do not name.
    #[must_use]
    pub const fn and_whole(self) -> Keys {
        match self {
            Keys::Specs { specs, finder, .. } => Keys::Specs { specs, finder, reach: Reach::Everywhere },
            other => other,
        }
    }

    /// As [`Keys::and_whole`], but only where `told_by` says so of the arguments.
    #[must_use]
    pub const fn and_whole_where(self, told_by: fn(&[&[u8]]) -> bool) -> Keys {
        match self {
            Keys::Specs { specs, finder, .. } => Keys::Specs { specs, finder, reach: Reach::Told(told_by) },
            other => other,
        }
    }

    /// Whether all shards are locked, whatever the arguments.
    #[inline]
    #[must_use]
    pub const fn is_whole(self) -> bool {
        matches!(self, Keys::Whole | Keys::Specs { reach: Reach::Everywhere, .. })
    }

    /// Whether all shards are locked for these arguments.
    #[inline]
    #[must_use]
    pub fn reach_everywhere(self, args: &[&[u8]]) -> bool {
        match self {
            Keys::Specs { reach: Reach::Told(told_by), .. } => told_by(args),
            keys => keys.is_whole(),
        }
    }

    /// The specifications, as COMMAND shows them.
    pub fn each_spec(self, mut visit: impl FnMut(KeySpec)) {
        match self {
            Keys::None | Keys::Whole => {}
            Keys::Range { first, last, step, access } => {
                let last = if last < 0 { last } else { last - first as i32 };
                let find = Find::Range { last, step, limit: 0 };
                visit(KeySpec { begin: Begin::Index(first), find, access });
            }
            Keys::Counted { first, count_at, access } => {
                if let Some(first) = first {
                    visit(KeySpec::one(first, Access::OW.update()));
                }
                visit(KeySpec::counted(count_at, access));
            }
            Keys::Specs { specs, .. } => specs.iter().for_each(|spec| visit(*spec)),
        }
    }

    /// Visits the keys among `args`, by index; those that the arguments do not reach are left out.
    #[inline]
    pub fn each(self, args: &[&[u8]], mut visit: impl FnMut(usize)) {
        if let Keys::Specs { finder: Some(finder), .. } = self {
            finder(args).into_iter().for_each(|(at, _)| visit(at));
            return;
        }
        self.each_spec(|spec| match spec.places(args) {
            _ if spec.access.has(Access::NOT_KEY) => {}
            Places::Found { first, end, step } | Places::Beyond { first, end, step } => {
                (first..end.max(first)).step_by(step).for_each(&mut visit);
            }
            Places::Absent | Places::Unknown => {}
        });
    }

    /// The keys among `args` with what is done to each, those that are none (channels) left out; `None` where the
    /// arguments do not fit. `otherwise` is what is done where the row does not say it.
    #[must_use]
    pub fn find(self, args: &[&[u8]], otherwise: Access) -> Option<Vec<(usize, Access)>> {
        let (found, fits) = self.find_fitting(args, otherwise);
        fits.then_some(found)
    }

    /// As [`Keys::find`], but where the arguments do not fit one specification, the keys of the others all the same, for
    /// the command may do with those; and whether all fit.
    #[must_use]
    pub fn find_fitting(self, args: &[&[u8]], otherwise: Access) -> (Vec<(usize, Access)>, bool) {
        if let Keys::Specs { finder: Some(finder), .. } = self {
            return (finder(args), true);
        }
        let (mut found, mut fits) = (Vec::new(), true);
        self.each_spec(|spec| match spec.places(args) {
            _ if spec.access.has(Access::NOT_KEY) => {}
            Places::Found { first, end, step } => {
                let access = spec.access.told_by.map_or(spec.access, |told_by| told_by(args)).or(otherwise);
                found.extend((first..end).step_by(step).map(|at| (at, access)));
            }
            Places::Absent => {}
            Places::Beyond { .. } | Places::Unknown => fits = false,
        });
        (found, fits)
    }

    /// Whether some argument is a key, and not merely routed like one.
    #[must_use]
    pub fn has_keys(self) -> bool {
        let mut any = false;
        self.each_spec(|spec| any |= !spec.access.has(Access::NOT_KEY));
        any
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
            Keys::Counted { .. } | Keys::Specs { .. } => {
                let mut found = None;
                self.each(args, |at| found = found.or(Some(at)));
                found
            }
        }
    }

    /// First key, last key and step as COMMAND shows them, and whether the specifications say more than these can: keys
    /// at places that move.
    #[must_use]
    pub fn shown(self) -> ((i64, i64, i64), bool) {
        let mut ranges = Vec::new();
        let (mut specs, mut moves) = (0, false);
        self.each_spec(|spec| {
            specs += 1;
            moves |= spec.access.has(Access::INCOMPLETE);
            match (spec.begin, spec.find) {
                (Begin::Index(first), Find::Range { last, step, .. }) => {
                    ranges.push((first as i64, last, step))
                }
                _ => moves = true,
            }
        });
        let absolute = |first: i64, last: i32| i64::from(last) + if last < 0 { 0 } else { first };
        if let ([(first, last, step)], 1) = (&ranges[..], specs) {
            return ((*first, absolute(*first, *last), *step as i64), moves);
        }
        // Ranges that follow each other are shown as one.
        let mut merged: Option<(i64, i64)> = None;
        for (first, last, step) in ranges {
            match merged {
                _ if step != 1 => moves = true,
                None => merged = Some((first, absolute(first, last))),
                Some((from, before)) if before == first - 1 => merged = Some((from, absolute(first, last))),
                Some(_) => moves = true,
            }
        }
        (merged.map_or((0, 0, 0), |(first, last)| (first, last, 1)), moves)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indexes(keys: Keys, args: &[&str]) -> Vec<usize> {
        let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
        let mut found = Vec::new();
        keys.each(&args, |at| found.push(at));
        found
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

    #[test]
    fn keys_behind_a_word_are_found_where_the_word_is() {
        const STREAMS: Keys = Keys::specs(&[KeySpec {
            begin: Begin::Keyword("STREAMS", 1),
            find: Find::Range { last: -1, step: 1, limit: 2 },
            access: Access::RO.access(),
        }]);
        assert_eq!(indexes(STREAMS, &["xread", "count", "1", "streams", "a", "b", "0", "0"]), [4, 5]);
        assert_eq!(indexes(STREAMS, &["xread", "count", "1", "2"]), [0usize; 0]);
        const STORE: Keys = Keys::specs(&[
            KeySpec::one(1, Access::RO.access()),
            KeySpec::behind("STORE", 6, Access::OW.update()),
        ]);
        assert_eq!(indexes(STORE, &["georadius", "k", "0", "0", "1", "m", "STORE", "d"]), [1, 7]);
        assert_eq!(indexes(STORE, &["georadius", "k", "0", "0", "1", "m", "STORE"]), [1]);
    }

    #[test]
    fn a_number_that_does_not_fit_finds_no_keys_for_those_who_ask() {
        let find = |args: &[&str]| {
            let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
            Keys::counted(1).find(&args, Access::RO.access()).map(|found| found.len())
        };
        assert_eq!(find(&["zunion", "2", "a", "b"]), Some(2));
        for args in [["zunion", "3", "a", "b"], ["zunion", "0", "a", "b"], ["zunion", "x", "a", "b"]] {
            assert_eq!(find(&args), None, "{args:?}");
        }
    }

    #[test]
    fn ranges_side_by_side_are_shown_as_one() {
        let [ro, ow] = [Access::RO.access(), Access::OW.update()];
        let shown = |specs: &'static [KeySpec]| Keys::specs(specs).shown();
        assert_eq!(Keys::every(1, -1, 2).shown(), ((1, -1, 2), false));
        assert_eq!(Keys::counted(1).shown(), ((0, 0, 0), true));
        assert_eq!(Keys::destination_and_counted(1, 2).shown(), ((1, 1, 1), true));
        assert_eq!(shown(Vec::leak(vec![KeySpec::one(1, ro), KeySpec::one(2, ow)])), ((1, 2, 1), false));
        assert_eq!(
            shown(Vec::leak(vec![KeySpec::one(2, ow), KeySpec::range(3, -1, ro)])),
            ((2, -1, 1), false)
        );
    }
}
