//! Sorted sets: a listpack of members and scores in turn, ordered, while small; then members in an arena, a table to
//! find them and a tree to rank them.
//!
//! The order is by score, then by the member's bytes. -0 equals 0. A score is never NaN: the caller refuses it.
//!
//! Ranges by score and by member are ranges of ranks: [`Zset::rank_range_by_score`] and [`Zset::rank_range_by_lex`] give
//! one in O(log n), and [`Zset::range`] walks it from either end.

use std::cmp::Ordering;
use std::io::Write;
use std::ops::Range;

use cairn_rdb::listpack::Position;

use super::blob::Blob;
use super::dict::{Dict, hash_of};
use super::rank_tree::{Key, RankTree};
use super::{Digits, Item, Limits, Listpack, Random, distinct_indexes};

/// A sorted set.
#[derive(Clone, Debug)]
pub struct Zset(Form);

#[derive(Clone, Debug)]
enum Form {
    Flat(Listpack),
    Large(Box<Large>),
}

/// An end of a range of scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ScoreBound {
    /// This score belongs to the range.
    Included(f64),
    /// This score does not.
    Excluded(f64),
}

/// An end of a range of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LexBound<'a> {
    /// `-`: before every member.
    Lowest,
    /// `+`: after every member.
    Highest,
    /// `[member`.
    Included(&'a [u8]),
    /// `(member`.
    Excluded(&'a [u8]),
}

impl ScoreBound {
    /// Whether a score lies below a range that begins here.
    fn is_above(&self, score: f64) -> bool {
        match self {
            Self::Included(bound) => score < *bound,
            Self::Excluded(bound) => score <= *bound,
        }
    }

    /// Whether a score does not lie above a range that ends here.
    fn reaches(&self, score: f64) -> bool {
        match self {
            Self::Included(bound) => score <= *bound,
            Self::Excluded(bound) => score < *bound,
        }
    }
}

impl LexBound<'_> {
    fn is_above(&self, member: &[u8]) -> bool {
        match self {
            Self::Lowest => false,
            Self::Highest => true,
            Self::Included(bound) => member < *bound,
            Self::Excluded(bound) => member <= *bound,
        }
    }

    fn reaches(&self, member: &[u8]) -> bool {
        match self {
            Self::Lowest => false,
            Self::Highest => true,
            Self::Included(bound) => member <= *bound,
            Self::Excluded(bound) => member < *bound,
        }
    }
}

impl Default for Zset {
    fn default() -> Self {
        Self::new()
    }
}

impl Zset {
    /// An empty one.
    pub fn new() -> Self {
        Self(Form::Flat(Listpack::new()))
    }

    /// An empty one prepared for `len` members, which spares a large one its flat youth.
    pub fn with_capacity(len: usize, limits: &Limits) -> Self {
        if len > limits.zset_entries {
            return Self(Form::Large(Box::new(Large::new())));
        }
        Self::new()
    }

    /// Adopts a listpack of members and scores in turn. `None` when a score is missing or no number, or a member stands
    /// twice. One that is out of order or beyond the limits is built anew.
    pub fn from_listpack(listpack: Listpack, limits: &Limits) -> Option<Self> {
        let len = listpack.len();
        if !len.is_multiple_of(2) {
            return None;
        }
        let mut pairs = Vec::with_capacity(len / 2);
        let mut iter = listpack.iter();
        while let (Some(member), Some(score)) = (iter.next(), iter.next()) {
            pairs.push((member, score.as_f64().filter(|score| !score.is_nan())?));
        }
        let ascending = pairs.windows(2).all(|pair| {
            let [(one, low), (other, high)] = pair else { return true };
            low < high || (low == high && item_cmp(*one, *other) == Ordering::Less)
        });
        let small = len / 2 <= limits.zset_entries
            && pairs.iter().all(|(member, _)| member.len() <= limits.zset_value);
        if small && ascending && members_differ(&pairs) {
            return Some(Self(Form::Flat(listpack)));
        }
        let mut zset = Self::with_capacity(pairs.len(), limits);
        for (member, score) in &pairs {
            member.with_bytes(|member| zset.add(member, *score, limits));
        }
        (zset.len() == pairs.len()).then_some(zset)
    }

    /// The listpack of a flat one, to be written as it is.
    pub fn as_listpack(&self) -> Option<&Listpack> {
        match &self.0 {
            Form::Flat(listpack) => Some(listpack),
            Form::Large(_) => None,
        }
    }

    /// How many members there are. O(1).
    #[inline]
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Flat(listpack) => listpack.len() / 2,
            Form::Large(large) => large.tree.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is one allocation.
    pub fn is_flat(&self) -> bool {
        matches!(self.0, Form::Flat(_))
    }

    /// What OBJECT ENCODING answers.
    pub fn encoding(&self) -> &'static str {
        match &self.0 {
            Form::Flat(_) => "listpack",
            Form::Large(_) => "skiplist",
        }
    }

    /// Bytes allocated; that of the members of a large one is reckoned from so many.
    pub fn heap_bytes(&self, samples: usize) -> usize {
        match &self.0 {
            Form::Flat(listpack) => listpack.heap_bytes(),
            Form::Large(large) => large.heap_bytes(samples),
        }
    }

    /// Adds a member or gives it another score. Returns the score it had. `score` must not be NaN.
    pub fn add(&mut self, member: &[u8], score: f64, limits: &Limits) -> Option<f64> {
        debug_assert!(!score.is_nan());
        if let Form::Flat(listpack) = &mut self.0 {
            let place = place(listpack, member, score);
            if let Some((at, old)) = place.found {
                if !same(old, score) {
                    move_flat(listpack, at, &place, member, score);
                }
                return Some(old);
            }
            if listpack.len() / 2 < limits.zset_entries && member.len() <= limits.zset_value {
                insert_flat(listpack, place.insert_at, member, score);
                return None;
            }
            let mut large = Large::new();
            for (member, score) in flat_pairs(listpack) {
                member.with_bytes(|member| large.append(member, score));
            }
            self.0 = Form::Large(Box::new(large));
        }
        match &mut self.0 {
            Form::Large(large) => large.add(member, score),
            Form::Flat(_) => unreachable!("made large just above"),
        }
    }

    /// As [`Zset::add`], and fast where members come in ascending order, as they do from a snapshot.
    pub fn add_ascending(&mut self, member: &[u8], score: f64, limits: &Limits) -> Option<f64> {
        if let Form::Large(large) = &mut self.0
            && large.comes_last(score, member)
            && large.find(member).is_none()
        {
            large.append(member, score);
            return None;
        }
        self.add(member, score, limits)
    }

    /// Removes a member. Returns the score it had.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        match &mut self.0 {
            Form::Flat(listpack) => {
                let (at, _) = listpack.find(member, 2)?;
                let score = listpack.item(listpack.next(at)?)?.as_f64();
                listpack.remove(at, 2);
                score
            }
            Form::Large(large) => large.remove(member),
        }
    }

    /// Removes the members of these ranks and calls `visit` with each. Returns how many there were.
    pub fn remove_ranks(&mut self, ranks: Range<usize>, mut visit: impl FnMut(Item<'_>, f64)) -> usize {
        let end = ranks.end.min(self.len());
        let count = end.saturating_sub(ranks.start);
        if count == 0 {
            return 0;
        }
        match &mut self.0 {
            Form::Flat(listpack) => {
                for (member, score) in flat_pairs(listpack).skip(ranks.start).take(count) {
                    visit(member, score);
                }
                if let Some(at) = listpack.position(ranks.start * 2) {
                    listpack.remove(at, count * 2);
                }
            }
            Form::Large(large) => {
                for _ in 0..count {
                    if let Some((member, score)) = large.remove_rank(ranks.start) {
                        visit(Item::Bytes(member.as_bytes()), score);
                    }
                }
            }
        }
        count
    }

    /// Removes and returns the member of the lowest score.
    pub fn pop_min(&mut self) -> Option<(Vec<u8>, f64)> {
        self.pop_rank(0)
    }

    /// Removes and returns the member of the highest score.
    pub fn pop_max(&mut self) -> Option<(Vec<u8>, f64)> {
        self.pop_rank(self.len().checked_sub(1)?)
    }

    fn pop_rank(&mut self, rank: usize) -> Option<(Vec<u8>, f64)> {
        let mut popped = None;
        self.remove_ranks(rank..rank + 1, |member, score| popped = Some((member.to_vec(), score)));
        popped
    }

    /// The score of a member.
    #[inline]
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        match &self.0 {
            Form::Flat(listpack) => listpack.item(listpack.next(listpack.find(member, 2)?.0)?)?.as_f64(),
            Form::Large(large) => Some(large.slot(large.find(member)?).score),
        }
    }

    /// How many members stand before this one. (From the other end: `len() - 1 - rank`.)
    pub fn rank(&self, member: &[u8]) -> Option<usize> {
        match &self.0 {
            Form::Flat(listpack) => listpack.find(member, 2).map(|(_, index)| index / 2),
            Form::Large(large) => {
                let score = large.slot(large.find(member)?).score;
                Some(large.rank_of(score, member))
            }
        }
    }

    /// The member at a rank, and its score.
    pub fn get(&self, rank: usize) -> Option<(Item<'_>, f64)> {
        match &self.0 {
            Form::Flat(listpack) => flat_pairs_from(listpack, rank).next(),
            Form::Large(large) => large.tree.get(rank).map(|key| large.item(key)),
        }
    }

    /// The ranks of the members whose scores lie between the bounds; empty (start = end) when there are none.
    pub fn rank_range_by_score(&self, min: ScoreBound, max: ScoreBound) -> Range<usize> {
        self.rank_range(|score, _| min.is_above(score), |score, _| max.reaches(score), false)
    }

    /// The ranks of the members between the bounds, in a sorted set whose scores are all the same.
    pub fn rank_range_by_lex(&self, min: LexBound<'_>, max: LexBound<'_>) -> Range<usize> {
        self.rank_range(|_, member| min.is_above(member), |_, member| max.reaches(member), true)
    }

    fn rank_range(
        &self,
        below: impl Fn(f64, &[u8]) -> bool,
        reached: impl Fn(f64, &[u8]) -> bool,
        by_member: bool,
    ) -> Range<usize> {
        let (start, end) = match &self.0 {
            Form::Flat(listpack) => {
                let count = |holds: &dyn Fn(f64, &[u8]) -> bool| {
                    let pairs = flat_pairs(listpack);
                    pairs
                        .take_while(|(member, score)| member.with_bytes(|member| holds(*score, member)))
                        .count()
                };
                (count(&below), count(&reached))
            }
            Form::Large(large) => {
                let count = |holds: &dyn Fn(f64, &[u8]) -> bool| {
                    large.tree.partition_point(|(score, id)| {
                        holds(score, if by_member { large.slot(id).member() } else { &[] })
                    })
                };
                (count(&below), count(&reached))
            }
        };
        start..end.max(start)
    }

    /// The members of these ranks with their scores, from either end.
    pub fn range(&self, ranks: Range<usize>) -> impl DoubleEndedIterator<Item = (Item<'_>, f64)> {
        let (flat, large) = match &self.0 {
            Form::Flat(listpack) => {
                let count = ranks.end.min(listpack.len() / 2).saturating_sub(ranks.start);
                let pairs: Vec<_> = flat_pairs_from(listpack, ranks.start).take(count).collect();
                (Some(pairs), None)
            }
            Form::Large(large) => {
                (None, Some(large.tree.range(ranks.start, ranks.end).map(|key| large.item(key))))
            }
        };
        flat.into_iter().flatten().chain(large.into_iter().flatten())
    }

    /// All members with their scores, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Item<'_>, f64)> {
        let (flat, large) = match &self.0 {
            Form::Flat(listpack) => (Some(flat_pairs(listpack)), None),
            Form::Large(large) => (None, Some(large.tree.range(0, usize::MAX).map(|key| large.item(key)))),
        };
        flat.into_iter().flatten().chain(large.into_iter().flatten())
    }

    /// A member and its score, each equally likely.
    pub fn random(&self, random: &mut impl Random) -> Option<(Item<'_>, f64)> {
        self.get(random.below(self.len()))
    }

    /// `count` different members with their scores, each choice of them equally likely; all when there are no more.
    pub fn random_distinct(&self, count: usize, random: &mut impl Random) -> Vec<(Item<'_>, f64)> {
        let ranks = distinct_indexes(self.len(), count, random);
        match &self.0 {
            Form::Flat(listpack) => {
                let mut ranks = ranks.into_iter().peekable();
                let at_ranks =
                    flat_pairs(listpack).enumerate().filter(|(at, _)| ranks.next_if_eq(at).is_some());
                at_ranks.map(|(_, pair)| pair).collect()
            }
            Form::Large(large) => {
                ranks.into_iter().filter_map(|rank| Some(large.item(large.tree.get(rank)?))).collect()
            }
        }
    }

    /// Calls `visit` with about `count` members and scores from `cursor` on (0 begins) and returns the cursor to go on with,
    /// 0 at the end. A flat one gives all at once. Members that stay during the whole scan are met.
    pub fn scan<'a>(&'a self, cursor: u64, count: usize, mut visit: impl FnMut(Item<'a>, f64)) -> u64 {
        match &self.0 {
            Form::Large(large) => {
                let hash = |id: &u32| hash_of(large.slot(*id).member());
                large.table.scan(cursor, count, hash, |id| {
                    let slot = large.slot(*id);
                    visit(Item::Bytes(slot.member()), slot.score);
                })
            }
            Form::Flat(_) => {
                self.iter().for_each(|(member, score)| visit(member, score));
                0
            }
        }
    }
}

fn same(one: f64, other: f64) -> bool {
    // Equal numbers, but 0 replaces -0: what was written last is what is read back.
    one.to_bits() == other.to_bits()
}

fn item_cmp(one: Item<'_>, other: Item<'_>) -> Ordering {
    match (one, other) {
        (Item::Bytes(one), Item::Bytes(other)) => one.cmp(other),
        _ => one.with_bytes(|one| other.with_bytes(|other| one.cmp(other))),
    }
}

fn members_differ(pairs: &[(Item<'_>, f64)]) -> bool {
    let mut seen = hashbrown::HashSet::with_capacity(pairs.len());
    pairs.iter().all(|(member, _)| seen.insert(member.with_bytes(hash_of)))
}

// The flat form.

fn flat_pairs(listpack: &Listpack) -> impl Iterator<Item = (Item<'_>, f64)> {
    pairs_of(listpack.iter())
}

fn flat_pairs_from(listpack: &Listpack, rank: usize) -> impl Iterator<Item = (Item<'_>, f64)> {
    pairs_of(listpack.iter_from(rank.saturating_mul(2)))
}

fn pairs_of<'a>(mut items: cairn_rdb::listpack::Iter<'a>) -> impl Iterator<Item = (Item<'a>, f64)> {
    // A flat form only ever holds numbers in the places of scores: they were written or checked here.
    std::iter::from_fn(move || Some((items.next()?, items.next()?.as_f64().unwrap_or_default())))
}

/// Where a member stands in a listpack, and where it belongs with a score.
struct Place {
    found: Option<(Position, f64)>,
    insert_at: Position,
}

fn place(listpack: &Listpack, member: &[u8], score: f64) -> Place {
    let needle = cairn_rdb::listpack::Needle::new(member);
    let mut found = None;
    let mut insert_at = None;
    let mut at = listpack.first();
    while let Some(own) = listpack.item(at)
        && let Some(score_at) = listpack.next(at)
        && let Some(own_score) = listpack.item(score_at)
    {
        if found.is_none() && needle.matches(own) {
            found = Some((at, own_score.as_f64().unwrap_or_default()));
        } else if insert_at.is_none() {
            // The one member that may move is left out, so that the place is right once it is gone.
            let own_score = own_score.as_f64().unwrap_or_default();
            let comes_after = own_score > score
                || (own_score == score && own.with_bytes(|own| own.cmp(member)) == Ordering::Greater);
            insert_at = comes_after.then_some(at);
        }
        if found.is_some() && insert_at.is_some() {
            break;
        }
        let Some(next) = listpack.next(score_at) else { break };
        at = next;
    }
    Place { found, insert_at: insert_at.unwrap_or(listpack.last_position()) }
}

fn insert_flat(listpack: &mut Listpack, at: Position, member: &[u8], score: f64) {
    let at = listpack.insert(at, member);
    with_score_text(score, |text| listpack.insert(at, text));
}

/// Gives the member at `at` another score, at the place where it then belongs.
fn move_flat(listpack: &mut Listpack, at: Position, place: &Place, member: &[u8], score: f64) {
    let after_own = listpack.next(at).and_then(|score_at| listpack.next(score_at));
    if Some(place.insert_at) == after_own || place.insert_at == at {
        if let Some(score_at) = listpack.next(at) {
            with_score_text(score, |text| listpack.replace(score_at, text));
        }
    } else if place.insert_at > at {
        // Later things first: the removal moves what stands behind it.
        insert_flat(listpack, place.insert_at, member, score);
        listpack.remove(at, 2);
    } else {
        listpack.remove(at, 2);
        insert_flat(listpack, place.insert_at, member, score);
    }
}

/// Calls `use_text` with the shortest text that reads back as `score`; of whole numbers, one a listpack keeps as integer.
pub(crate) fn with_score_text<T>(score: f64, use_text: impl FnOnce(&[u8]) -> T) -> T {
    // Whole numbers to 2^53 are exact as integers; -0 becomes 0, as in Redis.
    if score.abs() < 9_007_199_254_740_992.0 && score.fract() == 0.0 {
        return use_text(&Digits::new(score as i64));
    }
    let mut text = [0u8; 32];
    let mut rest = &mut text[..];
    // The longest text has 24 bytes.
    let written = write!(rest, "{score:?}").map(|()| rest.len());
    let used = text.len() - written.unwrap_or(0);
    use_text(&text[..used])
}

// The large form.

/// Slots of one chunk of the arena.
const CHUNK: usize = 256;

#[derive(Clone, Debug)]
struct Large {
    /// Members and scores by id, chunked so that growth moves nothing.
    slots: Vec<Vec<Slot>>,
    free: Vec<u32>,
    table: Dict<u32>,
    tree: RankTree,
}

#[derive(Clone, Debug)]
struct Slot {
    score: f64,
    /// `None` in a free slot.
    member: Option<Blob>,
}

impl Slot {
    #[inline]
    fn member(&self) -> &[u8] {
        self.member.as_ref().map_or(&[], Blob::as_bytes)
    }
}

impl Large {
    fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), table: Dict::with_capacity(0), tree: RankTree::new() }
    }

    #[inline]
    fn slot(&self, id: u32) -> &Slot {
        &self.slots[id as usize / CHUNK][id as usize % CHUNK]
    }

    fn item(&self, (score, id): Key) -> (Item<'_>, f64) {
        (Item::Bytes(self.slot(id).member()), score)
    }

    #[inline]
    fn find(&self, member: &[u8]) -> Option<u32> {
        self.table.find(hash_of(member), |id| self.slot(*id).member() == member).copied()
    }

    /// How many elements come before this score and member.
    fn rank_of(&self, score: f64, member: &[u8]) -> usize {
        self.tree
            .partition_point(|(own, id)| own < score || (own == score && self.slot(id).member() < member))
    }

    fn comes_last(&self, score: f64, member: &[u8]) -> bool {
        let last = self.tree.len().checked_sub(1).and_then(|rank| self.tree.get(rank));
        last.is_none_or(|(own, id)| own < score || (own == score && self.slot(id).member() < member))
    }

    fn add(&mut self, member: &[u8], score: f64) -> Option<f64> {
        let Some(id) = self.find(member) else {
            let rank = self.rank_of(score, member);
            self.insert_new(rank, member, score);
            return None;
        };
        let old = self.slot(id).score;
        if same(old, score) {
            return Some(old);
        }
        let from = self.rank_of(old, member);
        let to = self.rank_of(score, member);
        self.slots[id as usize / CHUNK][id as usize % CHUNK].score = score;
        // Before the move the member itself is counted among those before a higher score.
        let to = if to > from { to - 1 } else { to };
        if to == from {
            self.tree.set_score(from, score);
        } else {
            self.tree.remove(from);
            self.tree.insert(to, (score, id));
        }
        Some(old)
    }

    /// Appends what comes after all others, as it does when a flat one is unpacked.
    fn append(&mut self, member: &[u8], score: f64) {
        self.insert_new(self.tree.len(), member, score);
    }

    fn insert_new(&mut self, rank: usize, member: &[u8], score: f64) {
        let slot = Slot { score, member: Some(Blob::new(member)) };
        let id = match self.free.pop() {
            Some(id) => {
                self.slots[id as usize / CHUNK][id as usize % CHUNK] = slot;
                id
            }
            None => {
                if self.slots.last().is_none_or(|chunk| chunk.len() == CHUNK) {
                    self.slots.push(Vec::new());
                }
                let chunks = self.slots.len();
                let chunk = &mut self.slots[chunks - 1];
                chunk.push(slot);
                ((chunks - 1) * CHUNK + chunk.len() - 1) as u32
            }
        };
        let slots = &self.slots;
        let hash = |id: &u32| hash_of(slots[*id as usize / CHUNK][*id as usize % CHUNK].member());
        self.table.insert_unique(hash_of(member), id, hash);
        self.tree.insert(rank, (score, id));
    }

    fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let score = self.slot(self.find(member)?).score;
        let rank = self.rank_of(score, member);
        self.remove_rank(rank).map(|(_, score)| score)
    }

    fn remove_rank(&mut self, rank: usize) -> Option<(Blob, f64)> {
        let (score, id) = self.tree.remove(rank)?;
        let slots = &self.slots;
        let slot = |id: &u32| &slots[*id as usize / CHUNK][*id as usize % CHUNK];
        let hash = hash_of(slot(&id).member());
        self.table.remove(hash, |other| *other == id, |other| hash_of(slot(other).member()));
        self.free.push(id);
        let member = self.slots[id as usize / CHUNK][id as usize % CHUNK].member.take()?;
        Some((member, score))
    }

    fn heap_bytes(&self, samples: usize) -> usize {
        let chunks: usize = self.slots.iter().map(|chunk| chunk.capacity() * size_of::<Slot>()).sum();
        let sample = samples.min(self.tree.len()).max(1);
        let members = self.tree.range(0, sample).filter_map(|(_, id)| self.slot(id).member.as_ref());
        let sampled: usize = members.map(Blob::heap_bytes).sum();
        let own = size_of::<Self>() + self.free.capacity() * 4 + chunks;
        own + self.table.heap_bytes() + self.tree.heap_bytes() + sampled * self.tree.len() / sample
    }
}
