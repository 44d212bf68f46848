//! Sets: an intset while all members are integers, a listpack while small, then a table.

use super::blob::Blob;
use super::dict::{Dict, hash_of};
use super::{Intset, Item, Limits, Listpack, Random, distinct_indexes, parse_i64};

/// A set.
#[derive(Clone, Debug)]
pub struct Set(Form);

#[derive(Clone, Debug)]
enum Form {
    Integers(Intset),
    Flat(Listpack),
    Table(Box<Dict<Blob>>),
}

/// The flat form of a set, for those who write it to a snapshot.
#[derive(Clone, Copy, Debug)]
pub enum SetForm<'a> {
    /// Integers only.
    Integers(&'a Intset),
    /// Anything else; to be written member by member.
    Other,
}

fn hash(blob: &Blob) -> u64 {
    hash_of(blob.as_bytes())
}

impl Default for Set {
    fn default() -> Self {
        Self::new()
    }
}

impl Set {
    /// An empty one.
    pub fn new() -> Self {
        Self(Form::Integers(Intset::new()))
    }

    /// An empty one prepared for `len` members, which spares a large set its flat youth.
    pub fn with_capacity(len: usize, limits: &Limits) -> Self {
        if len > limits.set_intset_entries.max(limits.set_listpack_entries) {
            return Self(Form::Table(Box::new(Dict::with_capacity(len))));
        }
        Self::new()
    }

    /// Adopts an intset; one beyond the limits becomes a table.
    pub fn from_intset(integers: Intset, limits: &Limits) -> Self {
        let len = integers.len();
        let mut set = Self(Form::Integers(integers));
        if len > limits.set_intset_entries {
            set.make_table();
        }
        set
    }

    /// The form in which a snapshot keeps it.
    pub fn form(&self) -> SetForm<'_> {
        match &self.0 {
            Form::Integers(integers) => SetForm::Integers(integers),
            _ => SetForm::Other,
        }
    }

    /// How many members there are. O(1).
    #[inline]
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Integers(integers) => integers.len(),
            Form::Flat(listpack) => listpack.len(),
            Form::Table(table) => table.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is one allocation.
    pub fn is_flat(&self) -> bool {
        !matches!(self.0, Form::Table(_))
    }

    /// What OBJECT ENCODING answers: Redis 7.0 has no name for a flat set of strings.
    pub fn encoding(&self) -> &'static str {
        match &self.0 {
            Form::Integers(_) => "intset",
            _ => "hashtable",
        }
    }

    /// Bytes allocated; that of a table is reckoned from so many members.
    pub fn heap_bytes(&self, samples: usize) -> usize {
        match &self.0 {
            Form::Integers(integers) => integers.heap_bytes(),
            Form::Flat(listpack) => listpack.heap_bytes(),
            Form::Table(table) => {
                let sample = samples.min(table.len()).max(1);
                let sampled: usize = table.iter().take(sample).map(Blob::heap_bytes).sum();
                size_of::<Dict<Blob>>() + table.heap_bytes() + sampled * table.len() / sample
            }
        }
    }

    /// Whether `member` is there.
    #[inline]
    pub fn contains(&self, member: &[u8]) -> bool {
        match &self.0 {
            Form::Integers(integers) => parse_i64(member).is_some_and(|value| integers.contains(value)),
            Form::Flat(listpack) => listpack.find(member, 1).is_some(),
            Form::Table(table) => table.find(hash_of(member), |blob| blob.as_bytes() == member).is_some(),
        }
    }

    /// Adds a member; false when it was there.
    pub fn add(&mut self, member: &[u8], limits: &Limits) -> bool {
        loop {
            match &mut self.0 {
                Form::Table(table) => {
                    let is = |blob: &Blob| blob.as_bytes() == member;
                    return table.insert_with(hash_of(member), is, || Blob::new(member), hash);
                }
                Form::Flat(listpack) => {
                    if listpack.find(member, 1).is_some() {
                        return false;
                    }
                    if listpack.len() < limits.set_listpack_entries
                        && member.len() <= limits.set_listpack_value
                    {
                        listpack.push_back(member);
                        return true;
                    }
                    self.make_table();
                }
                Form::Integers(integers) => {
                    if let Some(value) = parse_i64(member) {
                        let added = integers.insert(value);
                        if added && integers.len() > limits.set_intset_entries {
                            self.make_table();
                        }
                        return added;
                    }
                    let len = integers.len();
                    if len < limits.set_listpack_entries && member.len() <= limits.set_listpack_value {
                        let mut listpack = Listpack::with_capacity((len * 4 + member.len() + 16).min(256));
                        integers.iter().for_each(|value| listpack.push_back_integer(value));
                        self.0 = Form::Flat(listpack);
                    } else {
                        self.make_table();
                    }
                }
            }
        }
    }

    /// Removes a member; false when it was not there.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        match &mut self.0 {
            Form::Integers(integers) => parse_i64(member).is_some_and(|value| integers.remove(value)),
            Form::Flat(listpack) => match listpack.find(member, 1) {
                Some((at, _)) => listpack.remove(at, 1) == 1,
                None => false,
            },
            Form::Table(table) => {
                table.remove(hash_of(member), |blob| blob.as_bytes() == member, hash).is_some()
            }
        }
    }

    /// The members; ascending while they are integers, else in no order worth naming.
    pub fn iter(&self) -> impl Iterator<Item = Item<'_>> {
        let (integers, flat, table) = match &self.0 {
            Form::Integers(integers) => (Some(integers.iter()), None, None),
            Form::Flat(listpack) => (None, Some(listpack.iter()), None),
            Form::Table(table) => (None, None, Some(table.iter())),
        };
        let integers = integers.into_iter().flatten().map(Item::Int);
        let table = table.into_iter().flatten().map(|blob| Item::Bytes(blob.as_bytes()));
        integers.chain(flat.into_iter().flatten()).chain(table)
    }

    /// A member, each equally likely.
    pub fn random(&self, random: &mut impl Random) -> Option<Item<'_>> {
        match &self.0 {
            Form::Integers(integers) => integers.get(random.below(integers.len())).map(Item::Int),
            Form::Flat(listpack) => listpack.iter_from(random.below(listpack.len())).next(),
            Form::Table(table) => table.random(random).map(|blob| Item::Bytes(blob.as_bytes())),
        }
    }

    /// `count` different members, each choice of them equally likely; all members when there are no more.
    pub fn random_distinct(&self, count: usize, random: &mut impl Random) -> Vec<Item<'_>> {
        if count >= self.len() {
            return self.iter().collect();
        }
        if let Form::Table(table) = &self.0
            && count < table.len() / 4
        {
            // Drawing again what was drawn already is rare, and spares walking the whole table.
            let mut chosen = hashbrown::HashSet::with_capacity(count);
            let mut members = Vec::with_capacity(count);
            while members.len() < count {
                let Some(blob) = table.random(random) else { break };
                if chosen.insert(blob.as_bytes()) {
                    members.push(Item::Bytes(blob.as_bytes()));
                }
            }
            return members;
        }
        let mut indexes = distinct_indexes(self.len(), count, random).into_iter().peekable();
        let at_indexes = self.iter().enumerate().filter(|(index, _)| indexes.next_if_eq(index).is_some());
        at_indexes.map(|(_, member)| member).collect()
    }

    /// Removes and returns a member, each equally likely.
    pub fn pop(&mut self, random: &mut impl Random) -> Option<Vec<u8>> {
        let member = self.random(random)?.to_vec();
        self.remove(&member);
        Some(member)
    }

    /// Calls `visit` with about `count` members from `cursor` on (0 begins) and returns the cursor to go on with, 0 at the
    /// end. A flat set gives all at once. Members that stay during the whole scan are met.
    pub fn scan<'a>(&'a self, cursor: u64, count: usize, mut visit: impl FnMut(Item<'a>)) -> u64 {
        match &self.0 {
            Form::Table(table) => table.scan(cursor, count, hash, |blob| visit(Item::Bytes(blob.as_bytes()))),
            _ => {
                self.iter().for_each(visit);
                0
            }
        }
    }

    #[cold]
    fn make_table(&mut self) {
        let mut table = Dict::with_capacity(self.len() + 1);
        for member in self.iter() {
            let blob = member.with_bytes(Blob::new);
            table.insert_unique(hash(&blob), blob, hash);
        }
        self.0 = Form::Table(Box::new(table));
    }
}
