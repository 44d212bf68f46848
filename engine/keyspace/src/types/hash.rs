//! Hashes: a listpack of fields and values in turn while small, then a table whose elements hold a field and its value
//! in one allocation. Fields that expire are noted beside either form.

use super::blob::Blob;
use super::dict::{Dict, hash_of};
use super::field_expiries::FieldExpiries;
use super::{Item, Limits, Listpack, Random, distinct_indexes};

/// A hash.
#[derive(Clone, Debug)]
pub struct Hash(Form);

#[derive(Clone, Debug)]
enum Form {
    Flat(Listpack),
    Table(Box<Dict<Pair>>),
    /// Some fields expire.
    Expiring(Box<Expiring>),
}

#[derive(Clone, Debug)]
struct Expiring {
    /// All fields; never [`Form::Expiring`].
    fields: Hash,
    /// Of some of them, at least one.
    expiries: FieldExpiries,
}

/// The field's length, the field, the value. The length takes one byte below 255, else that mark and eight bytes.
#[derive(Clone, Debug)]
struct Pair(Blob);

impl Pair {
    fn new(field: &[u8], value: &[u8]) -> Self {
        match u8::try_from(field.len()) {
            Ok(len) if len < u8::MAX => Self(Blob::concat(&[&[len], field, value])),
            _ => Self(Blob::concat(&[&[u8::MAX], &(field.len() as u64).to_le_bytes(), field, value])),
        }
    }

    #[inline]
    fn split(&self) -> (&[u8], &[u8]) {
        match self.0.as_bytes() {
            [u8::MAX, rest @ ..] => match rest.split_first_chunk::<8>() {
                Some((len, rest)) => rest.split_at(u64::from_le_bytes(*len) as usize),
                None => unreachable!("a long pair begins with nine bytes"),
            },
            [len, rest @ ..] => rest.split_at(usize::from(*len)),
            [] => unreachable!("a pair begins with a length"),
        }
    }

    #[inline]
    fn field(&self) -> &[u8] {
        self.split().0
    }

    fn items(&self) -> (Item<'_>, Item<'_>) {
        let (field, value) = self.split();
        (Item::Bytes(field), Item::Bytes(value))
    }

    /// Replaces the value, in place when the new one is as long.
    fn set_value(&mut self, value: &[u8]) {
        let (field, old) = self.split();
        if old.len() == value.len() {
            let whole = self.0.as_bytes_mut();
            let start = whole.len() - value.len();
            whole[start..].copy_from_slice(value);
        } else {
            *self = Self::new(field, value);
        }
    }
}

fn hash(pair: &Pair) -> u64 {
    hash_of(pair.field())
}

impl Default for Hash {
    fn default() -> Self {
        Self::new()
    }
}

impl Hash {
    /// An empty one.
    pub fn new() -> Self {
        Self(Form::Flat(Listpack::new()))
    }

    /// An empty one prepared for `len` fields, which spares a large hash its flat youth.
    pub fn with_capacity(len: usize, limits: &Limits) -> Self {
        if len > limits.hash_entries {
            return Self(Form::Table(Box::new(Dict::with_capacity(len))));
        }
        Self::new()
    }

    /// Adopts a listpack of fields and values in turn. `None` when a value is missing or a field stands twice. One beyond
    /// the limits becomes a table.
    pub fn from_listpack(listpack: Listpack, limits: &Limits) -> Option<Self> {
        let len = listpack.len();
        if !len.is_multiple_of(2) {
            return None;
        }
        let small =
            len / 2 <= limits.hash_entries && listpack.iter().all(|item| item.len() <= limits.hash_value);
        if small && fields_differ(&listpack) {
            return Some(Self(Form::Flat(listpack)));
        }
        let mut table = Dict::with_capacity(len / 2);
        fill(&mut table, &listpack);
        (table.len() == len / 2).then(|| Self(Form::Table(Box::new(table))))
    }

    /// The listpack of a flat hash without fields that expire, to be written as it is.
    pub fn as_listpack(&self) -> Option<&Listpack> {
        match &self.0 {
            Form::Flat(listpack) => Some(listpack),
            Form::Table(_) | Form::Expiring(_) => None,
        }
    }

    /// How many fields there are. O(1).
    #[inline]
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Flat(listpack) => listpack.len() / 2,
            Form::Table(table) => table.len(),
            Form::Expiring(expiring) => expiring.fields.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether all its fields and values are one allocation.
    pub fn is_flat(&self) -> bool {
        match &self.0 {
            Form::Flat(_) => true,
            Form::Table(_) => false,
            Form::Expiring(expiring) => expiring.fields.is_flat(),
        }
    }

    /// What OBJECT ENCODING answers.
    pub fn encoding(&self) -> &'static str {
        match &self.0 {
            Form::Flat(_) => "listpack",
            Form::Table(_) => "hashtable",
            Form::Expiring(expiring) if expiring.fields.is_flat() => "listpackex",
            Form::Expiring(_) => "hashtable",
        }
    }

    /// Bytes allocated; that of a table is reckoned from so many fields.
    pub fn heap_bytes(&self, samples: usize) -> usize {
        match &self.0 {
            Form::Flat(listpack) => listpack.heap_bytes(),
            Form::Table(table) => {
                let sample = samples.min(table.len()).max(1);
                let sampled: usize = table.iter().take(sample).map(|pair| pair.0.heap_bytes()).sum();
                size_of::<Dict<Pair>>() + table.heap_bytes() + sampled * table.len() / sample
            }
            Form::Expiring(expiring) => {
                size_of::<Expiring>() + expiring.fields.heap_bytes(samples) + expiring.expiries.heap_bytes()
            }
        }
    }

    /// The value of a field.
    #[inline]
    pub fn get(&self, field: &[u8]) -> Option<Item<'_>> {
        match &self.0 {
            Form::Flat(listpack) => listpack.item(listpack.next(listpack.find(field, 2)?.0)?),
            Form::Table(table) => table
                .find(hash_of(field), |pair| pair.field() == field)
                .map(|pair| Item::Bytes(pair.split().1)),
            Form::Expiring(expiring) => expiring.fields.get(field),
        }
    }

    /// Whether a field is there.
    pub fn contains(&self, field: &[u8]) -> bool {
        self.get(field).is_some()
    }

    /// Sets a field, which no longer expires; true when it is new.
    pub fn set(&mut self, field: &[u8], value: &[u8], limits: &Limits) -> bool {
        self.set_expire_at_ms(field, None);
        self.set_keeping_expiry(field, value, limits)
    }

    /// Sets a field, which expires when it did before; true when it is new.
    pub fn set_keeping_expiry(&mut self, field: &[u8], value: &[u8], limits: &Limits) -> bool {
        if let Form::Flat(listpack) = &mut self.0 {
            let small = field.len() <= limits.hash_value && value.len() <= limits.hash_value;
            if small {
                if let Some(at) = listpack.find(field, 2).and_then(|(at, _)| listpack.next(at)) {
                    listpack.replace(at, value);
                    return false;
                }
                if listpack.len() / 2 < limits.hash_entries {
                    listpack.push_back(field);
                    listpack.push_back(value);
                    return true;
                }
            }
            let mut table = Dict::with_capacity(listpack.len() / 2 + 1);
            fill(&mut table, listpack);
            self.0 = Form::Table(Box::new(table));
        }
        match &mut self.0 {
            Form::Table(table) => set_in(table, field, value),
            Form::Expiring(expiring) => expiring.fields.set_keeping_expiry(field, value, limits),
            Form::Flat(_) => unreachable!("made a table just above"),
        }
    }

    /// When a field expires, in ms since the Unix epoch; `None` also where there is no such field.
    pub fn expire_at_ms(&self, field: &[u8]) -> Option<i64> {
        match &self.0 {
            Form::Expiring(expiring) => expiring.expiries.get(field),
            Form::Flat(_) | Form::Table(_) => None,
        }
    }

    /// When the first of the fields that expire does so.
    #[inline]
    pub fn next_expiry_ms(&self) -> Option<i64> {
        match &self.0 {
            Form::Expiring(expiring) => expiring.expiries.first(),
            Form::Flat(_) | Form::Table(_) => None,
        }
    }

    /// Lets a field expire at a moment, or not at all; does nothing where there is no such field.
    #[inline]
    pub fn set_expire_at_ms(&mut self, field: &[u8], at_ms: Option<i64>) {
        if at_ms.is_some() || matches!(self.0, Form::Expiring(_)) {
            self.change_expiry(field, at_ms);
        }
    }

    #[cold]
    fn change_expiry(&mut self, field: &[u8], at_ms: Option<i64>) {
        if !self.contains(field) {
            return;
        }
        if !matches!(self.0, Form::Expiring(_)) {
            let expiring = Expiring { fields: std::mem::take(self), expiries: FieldExpiries::default() };
            self.0 = Form::Expiring(Box::new(expiring));
        }
        if let Form::Expiring(expiring) = &mut self.0 {
            expiring.expiries.set(field, at_ms);
        }
        self.forget_no_expiries();
    }

    /// Removes up to `most` fields whose moment has come; returns them.
    pub fn remove_due(&mut self, now_ms: i64, most: usize) -> Vec<Vec<u8>> {
        let Form::Expiring(expiring) = &mut self.0 else { return Vec::new() };
        let due: Vec<_> = std::iter::from_fn(|| expiring.expiries.take_due(now_ms)).take(most).collect();
        due.iter().for_each(|field| {
            expiring.fields.remove(field);
        });
        self.forget_no_expiries();
        due
    }

    /// A hash none of whose fields expires is a plain one.
    fn forget_no_expiries(&mut self) {
        if let Form::Expiring(expiring) = &mut self.0
            && expiring.expiries.is_empty()
        {
            *self = std::mem::take(&mut expiring.fields);
        }
    }

    /// Removes a field; false when it was not there.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        match &mut self.0 {
            Form::Flat(listpack) => match listpack.find(field, 2) {
                Some((at, _)) => listpack.remove(at, 2) == 2,
                None => false,
            },
            Form::Table(table) => table.remove(hash_of(field), |pair| pair.field() == field, hash).is_some(),
            Form::Expiring(expiring) => {
                let removed = expiring.fields.remove(field);
                expiring.expiries.set(field, None);
                self.forget_no_expiries();
                removed
            }
        }
    }

    /// The form that holds the fields.
    fn plain(&self) -> &Form {
        match &self.0 {
            Form::Expiring(expiring) => &expiring.fields.0,
            plain => plain,
        }
    }

    /// The fields and values; in the order they came while flat, else in no order worth naming.
    pub fn iter(&self) -> impl Iterator<Item = (Item<'_>, Item<'_>)> {
        let (flat, table) = match self.plain() {
            Form::Flat(listpack) => (Some(Pairs(listpack.iter())), None),
            Form::Table(table) => (None, Some(table.iter().map(Pair::items))),
            Form::Expiring(_) => unreachable!("a plain form is flat or a table"),
        };
        flat.into_iter().flatten().chain(table.into_iter().flatten())
    }

    /// A field with its value, each equally likely.
    pub fn random(&self, random: &mut impl Random) -> Option<(Item<'_>, Item<'_>)> {
        match &self.0 {
            Form::Flat(listpack) => Pairs(listpack.iter_from(random.below(listpack.len() / 2) * 2)).next(),
            Form::Table(table) => table.random(random).map(Pair::items),
            Form::Expiring(expiring) => expiring.fields.random(random),
        }
    }

    /// `count` different fields with their values, each choice of them equally likely; all when there are no more.
    pub fn random_distinct(&self, count: usize, random: &mut impl Random) -> Vec<(Item<'_>, Item<'_>)> {
        if count >= self.len() {
            return self.iter().collect();
        }
        if let Form::Table(table) = self.plain()
            && count < table.len() / 4
        {
            // Drawing again what was drawn already is rare, and spares walking the whole table.
            let mut chosen = hashbrown::HashSet::with_capacity(count);
            let mut pairs = Vec::with_capacity(count);
            while pairs.len() < count {
                let Some(pair) = table.random(random) else { break };
                if chosen.insert(pair.field()) {
                    pairs.push(pair.items());
                }
            }
            return pairs;
        }
        let mut indexes = distinct_indexes(self.len(), count, random).into_iter().peekable();
        let at_indexes = self.iter().enumerate().filter(|(index, _)| indexes.next_if_eq(index).is_some());
        at_indexes.map(|(_, pair)| pair).collect()
    }

    /// Calls `visit` with about `count` fields and their values from `cursor` on (0 begins) and returns the cursor to go on
    /// with, 0 at the end. A flat hash gives all at once. Fields that stay during the whole scan are met.
    pub fn scan<'a>(&'a self, cursor: u64, count: usize, mut visit: impl FnMut(Item<'a>, Item<'a>)) -> u64 {
        match &self.0 {
            Form::Table(table) => table.scan(cursor, count, hash, |pair| {
                let (field, value) = pair.items();
                visit(field, value);
            }),
            Form::Expiring(expiring) => expiring.fields.scan(cursor, count, visit),
            Form::Flat(_) => {
                self.iter().for_each(|(field, value)| visit(field, value));
                0
            }
        }
    }
}

fn set_in(table: &mut Dict<Pair>, field: &[u8], value: &[u8]) -> bool {
    let hash_value = hash_of(field);
    if let Some(pair) = table.find_mut(hash_value, |pair| pair.field() == field) {
        pair.set_value(value);
        return false;
    }
    table.insert_unique(hash_value, Pair::new(field, value), hash);
    true
}

fn fill(table: &mut Dict<Pair>, listpack: &Listpack) {
    for (field, value) in Pairs(listpack.iter()) {
        field.with_bytes(|field| value.with_bytes(|value| set_in(table, field, value)));
    }
}

fn fields_differ(listpack: &Listpack) -> bool {
    let mut seen = hashbrown::HashSet::with_capacity(listpack.len() / 2);
    Pairs(listpack.iter()).all(|(field, _)| seen.insert(field.with_bytes(hash_of)))
}

/// Fields and values of a listpack.
#[derive(Clone, Debug)]
struct Pairs<'a>(cairn_rdb::listpack::Iter<'a>);

impl<'a> Iterator for Pairs<'a> {
    type Item = (Item<'a>, Item<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        Some((self.0.next()?, self.0.next()?))
    }
}
