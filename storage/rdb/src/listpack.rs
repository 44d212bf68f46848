//! Listpacks: short sequences of byte strings and integers in one allocation, in exactly the bytes Redis keeps and
//! writes, so that a small collection enters and leaves a snapshot by one copy.
//!
//! Layout: total bytes (u32 LE), element count (u16 LE, 65535 when unknown), the entries, 0xFF. An entry is an encoding
//! byte, its data, and the length of both once more, readable backwards.

use crate::error::RdbError;
use crate::integer::{Digits, parse_i64};

const HEADER: usize = 6;
const END: u8 = 0xff;
/// The header's count when there are too many elements for its sixteen bits.
const COUNT_UNKNOWN: u16 = u16::MAX;

/// One element, as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A text that is the canonical form of this integer.
    Int(i64),
    /// Any other bytes.
    Bytes(&'a [u8]),
}

impl<'a> Item<'a> {
    /// Calls `use_bytes` with the element's bytes, without allocating.
    #[inline]
    pub fn with_bytes<T>(&self, use_bytes: impl FnOnce(&[u8]) -> T) -> T {
        match self {
            Self::Int(value) => use_bytes(&Digits::new(*value)),
            Self::Bytes(bytes) => use_bytes(bytes),
        }
    }

    /// The element's bytes, in a vector of its own.
    pub fn to_vec(&self) -> Vec<u8> {
        self.with_bytes(<[u8]>::to_vec)
    }

    /// Appends the element's bytes.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        self.with_bytes(|bytes| out.extend_from_slice(bytes));
    }

    /// Whether the element's bytes are these.
    #[inline]
    pub fn is(&self, bytes: &[u8]) -> bool {
        match self {
            Self::Int(value) => parse_i64(bytes) == Some(*value),
            Self::Bytes(own) => *own == bytes,
        }
    }

    /// The element's length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            Self::Int(value) => Digits::new(*value).len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    /// Whether the element is the empty string.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Bytes(b""))
    }

    /// The element's integer value, when its text is canonical.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            Self::Bytes(bytes) => parse_i64(bytes),
        }
    }

    /// The element's value as a double, as a sorted set's score is read. `None` for what is no number.
    #[inline]
    #[allow(clippy::cast_precision_loss, reason = "a score is a double, as in Redis")]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(value) => Some(*value as f64),
            Self::Bytes(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
        }
    }
}

/// A text prepared for many comparisons: parsed once.
#[derive(Clone, Copy, Debug)]
pub struct Needle<'a> {
    bytes: &'a [u8],
    integer: Option<i64>,
}

impl<'a> Needle<'a> {
    /// Prepares `bytes`.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, integer: parse_i64(bytes) }
    }

    /// Whether the element is this text.
    #[inline]
    pub fn matches(&self, item: Item<'_>) -> bool {
        match item {
            Item::Int(value) => self.integer == Some(value),
            Item::Bytes(bytes) => bytes == self.bytes,
        }
    }

    fn encoded(&self) -> Encoded<'a> {
        match self.integer {
            Some(value) => Encoded::of_integer(value),
            None => Encoded::of_bytes(self.bytes),
        }
    }
}

/// An entry ready to be written: its first bytes, the string's own bytes, and its length backwards.
struct Encoded<'a> {
    head: [u8; 9],
    head_len: u8,
    body: &'a [u8],
    back: [u8; 5],
    back_len: u8,
}

impl<'a> Encoded<'a> {
    fn new(head: &[u8], body: &'a [u8]) -> Self {
        let mut stored = [0u8; 9];
        for (slot, byte) in stored.iter_mut().zip(head) {
            *slot = *byte;
        }
        let (back, back_len) = back_length(head.len() + body.len());
        // No head is longer than nine bytes.
        Self { head: stored, head_len: u8::try_from(head.len()).unwrap_or(9), body, back, back_len }
    }

    #[allow(clippy::cast_possible_truncation, reason = "each arm has checked that the integer fits")]
    fn of_integer(value: i64) -> Encoded<'static> {
        let [a, b, c, d, ..] = value.to_le_bytes();
        match value {
            0..=127 => Encoded::new(&[value as u8], &[]),
            -4096..=4095 => {
                let bits = (value as u16) & 0x1fff;
                Encoded::new(&[0xc0 | (bits >> 8) as u8, bits as u8], &[])
            }
            -32_768..=32_767 => Encoded::new(&[0xf1, a, b], &[]),
            -8_388_608..=8_388_607 => Encoded::new(&[0xf2, a, b, c], &[]),
            -2_147_483_648..=2_147_483_647 => Encoded::new(&[0xf3, a, b, c, d], &[]),
            _ => {
                let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
                Encoded::new(&[0xf4, a, b, c, d, e, f, g, h], &[])
            }
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "each arm has checked that the length fits")]
    fn of_bytes(bytes: &'a [u8]) -> Self {
        match bytes.len() {
            len @ 0..=63 => Self::new(&[0x80 | len as u8], bytes),
            len @ 64..=4095 => Self::new(&[0xe0 | (len >> 8) as u8, len as u8], bytes),
            // A listpack's size is a u32, and nobody packs an element near that.
            len => {
                let [a, b, c, d] = (len as u32).to_le_bytes();
                Self::new(&[0xf0, a, b, c, d], bytes)
            }
        }
    }

    fn len(&self) -> usize {
        usize::from(self.head_len) + self.body.len() + usize::from(self.back_len)
    }

    fn head(&self) -> &[u8] {
        self.head.get(..usize::from(self.head_len)).unwrap_or_default()
    }

    fn back(&self) -> &[u8] {
        self.back.get(..usize::from(self.back_len)).unwrap_or_default()
    }
}

/// The backward length of an entry of `len` bytes, and how many bytes that takes. The odd limits (16,383 in three
/// bytes) are what Redis writes and checks.
#[allow(clippy::cast_possible_truncation, reason = "the low seven bits are meant")]
fn back_length(len: usize) -> ([u8; 5], u8) {
    let group = |shift: u32| (len >> shift) as u8 & 0x7f;
    match len {
        0..=127 => ([len as u8, 0, 0, 0, 0], 1),
        128..=16_382 => ([group(7), group(0) | 0x80, 0, 0, 0], 2),
        16_383..=2_097_150 => ([group(14), group(7) | 0x80, group(0) | 0x80, 0, 0], 3),
        2_097_151..=268_435_454 => ([group(21), group(14) | 0x80, group(7) | 0x80, group(0) | 0x80, 0], 4),
        _ => ([group(28), group(21) | 0x80, group(14) | 0x80, group(7) | 0x80, group(0) | 0x80], 5),
    }
}

fn back_length_size(len: usize) -> usize {
    match len {
        0..=127 => 1,
        128..=16_382 => 2,
        16_383..=2_097_150 => 3,
        2_097_151..=268_435_454 => 4,
        _ => 5,
    }
}

/// The element at the start of `entry`, and the bytes of the whole entry. `None` at the end mark and on bytes that
/// are no entry (which only unchecked bytes hold).
#[inline]
fn decode_entry(entry: &[u8]) -> Option<(Item<'_>, usize)> {
    let (&first, data) = entry.split_first()?;
    if first < 0x80 {
        return Some((Item::Int(i64::from(first)), 2));
    }
    if first < 0xc0 {
        let len = usize::from(first & 0x3f);
        return Some((Item::Bytes(data.get(..len)?), 1 + len + back_length_size(1 + len)));
    }
    if first < 0xe0 {
        let (&low, _) = data.split_first()?;
        let bits = u16::from(first & 0x1f) << 8 | u16::from(low);
        // Thirteen bits, sign-extended.
        return Some((Item::Int(i64::from((bits << 3).cast_signed() >> 3)), 3));
    }
    if first < 0xf0 {
        let (&low, data) = data.split_first()?;
        let len = usize::from(first & 0x0f) << 8 | usize::from(low);
        return Some((Item::Bytes(data.get(..len)?), 2 + len + back_length_size(2 + len)));
    }
    match first {
        0xf0 => {
            let (len, data) = data.split_first_chunk::<4>()?;
            let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
            Some((Item::Bytes(data.get(..len)?), 5 + len + back_length_size(5 + len)))
        }
        0xf1 => Some((Item::Int(i64::from(i16::from_le_bytes(*data.first_chunk()?))), 4)),
        0xf2 => {
            let [a, b, c] = *data.first_chunk::<3>()?;
            Some((Item::Int(i64::from(i32::from_le_bytes([0, a, b, c]) >> 8)), 5))
        }
        0xf3 => Some((Item::Int(i64::from(i32::from_le_bytes(*data.first_chunk()?))), 6)),
        0xf4 => Some((Item::Int(i64::from_le_bytes(*data.first_chunk()?)), 10)),
        _ => None,
    }
}

/// A place in a listpack: the byte offset of an entry, or of the end mark. Valid until the listpack is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(usize);

/// A listpack.
#[derive(Clone, PartialEq, Eq)]
pub struct Listpack {
    bytes: Vec<u8>,
}

impl Default for Listpack {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Listpack {
    /// Shows sizes only: elements are a user's data and belong in no log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listpack").field("len", &self.len()).field("bytes", &self.bytes.len()).finish()
    }
}

impl Listpack {
    /// An empty one.
    pub fn new() -> Self {
        Self { bytes: vec![7, 0, 0, 0, 0, 0, END] }
    }

    /// An empty one with room for a listpack of `bytes` bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        let mut own = Vec::with_capacity(bytes.max(HEADER + 1));
        own.extend_from_slice(&[7, 0, 0, 0, 0, 0, END]);
        Self { bytes: own }
    }

    /// Adopts bytes from outside after walking all of them.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, RdbError> {
        check(&bytes).map_err(|(offset, reason)| RdbError::malformed(offset as u64, "listpack", reason))?;
        Ok(Self { bytes })
    }

    /// The bytes, as they stand in a snapshot.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, as they stand in a snapshot.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// How many bytes the listpack takes, header and end mark included.
    #[inline]
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// How many bytes are allocated.
    pub fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// How many bytes an element would add.
    #[inline]
    pub fn encoded_len(element: &[u8]) -> usize {
        Needle::new(element).encoded().len()
    }

    /// How many elements there are. Constant time below 65,535.
    #[inline]
    pub fn len(&self) -> usize {
        match self.header_count() {
            COUNT_UNKNOWN => self.iter().count(),
            count => usize::from(count),
        }
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.len() <= HEADER + 1
    }

    /// The elements in order.
    #[inline]
    pub fn iter(&self) -> Iter<'_> {
        Iter { rest: self.entries() }
    }

    /// The elements from `index` on (0 is the first). Starts from whichever end is nearer.
    pub fn iter_from(&self, index: usize) -> Iter<'_> {
        let start = self.position(index).unwrap_or(Position(self.end()));
        Iter { rest: self.bytes.get(start.0..self.end()).unwrap_or_default() }
    }

    /// The element at `index`; negative indexes count from the end, -1 is the last.
    pub fn get(&self, index: i64) -> Option<Item<'_>> {
        if index < 0 {
            let from_back = usize::try_from(index.unsigned_abs() - 1).ok()?;
            return self.iter().rev().nth(from_back);
        }
        self.item(self.position(usize::try_from(index).ok()?)?)
    }

    /// Where element `index` (0 is the first) begins.
    #[inline]
    pub fn position(&self, index: usize) -> Option<Position> {
        let count = self.header_count();
        if count != COUNT_UNKNOWN && index > usize::from(count) / 2 {
            let count = usize::from(count);
            if index >= count {
                return None;
            }
            let mut end = self.end();
            for _ in index..count {
                end -= previous_entry_len(self.bytes.get(HEADER..end)?)?;
            }
            return Some(Position(end));
        }
        let mut at = HEADER;
        for _ in 0..index {
            at += decode_entry(self.bytes.get(at..)?)?.1;
        }
        (at < self.end()).then_some(Position(at))
    }

    /// Where the first element begins, or the end mark of an empty listpack.
    #[inline]
    pub fn first(&self) -> Position {
        Position(HEADER)
    }

    /// Where what `rest`, an iterator over this listpack, has still to give begins.
    #[inline]
    pub fn position_of(&self, rest: &Iter<'_>) -> Position {
        Position(self.end().saturating_sub(rest.rest.len()))
    }

    /// The end mark: inserting there appends.
    #[inline]
    pub fn last_position(&self) -> Position {
        Position(self.end())
    }

    /// The element at a position.
    #[inline]
    pub fn item(&self, at: Position) -> Option<Item<'_>> {
        Some(decode_entry(self.bytes.get(at.0..self.end())?)?.0)
    }

    /// How many bytes the element at a position takes.
    pub fn entry_len(&self, at: Position) -> usize {
        self.bytes.get(at.0..self.end()).and_then(decode_entry).map_or(0, |(_, len)| len)
    }

    /// Where the element after the one at `at` begins (the end mark after the last).
    #[inline]
    pub fn next(&self, at: Position) -> Option<Position> {
        Some(Position(at.0 + decode_entry(self.bytes.get(at.0..self.end())?)?.1))
    }

    /// The first element equal to `element` among those at indexes 0, `step`, 2 · `step`, …, with its position and index.
    #[inline]
    pub fn find(&self, element: &[u8], step: usize) -> Option<(Position, usize)> {
        let needle = Needle::new(element);
        let mut rest = self.entries();
        let mut index = 0;
        let mut until_compared = 0;
        while let Some((item, len)) = decode_entry(rest) {
            if until_compared == 0 {
                if needle.matches(item) {
                    return Some((Position(self.end() - rest.len()), index));
                }
                until_compared = step;
            }
            until_compared -= 1;
            index += 1;
            rest = rest.get(len..)?;
        }
        None
    }

    /// Appends an element.
    #[inline]
    pub fn push_back(&mut self, element: &[u8]) {
        self.write_at(self.end(), 0, &Needle::new(element).encoded());
        self.count_changed(1);
    }

    /// Puts an element in front.
    pub fn push_front(&mut self, element: &[u8]) {
        self.write_at(HEADER, 0, &Needle::new(element).encoded());
        self.count_changed(1);
    }

    /// Appends an integer.
    pub fn push_back_integer(&mut self, value: i64) {
        self.write_at(self.end(), 0, &Encoded::of_integer(value));
        self.count_changed(1);
    }

    /// Appends an element of another listpack.
    pub fn push_back_item(&mut self, item: Item<'_>) {
        match item {
            Item::Int(value) => self.push_back_integer(value),
            Item::Bytes(bytes) => {
                self.write_at(self.end(), 0, &Encoded::of_bytes(bytes));
                self.count_changed(1);
            }
        }
    }

    /// Inserts an element before the one at `at` (or at the end mark). Returns the position after it.
    pub fn insert(&mut self, at: Position, element: &[u8]) -> Position {
        let encoded = Needle::new(element).encoded();
        self.write_at(at.0, 0, &encoded);
        self.count_changed(1);
        Position(at.0 + encoded.len())
    }

    /// Puts `element` in the place of the one at `at`.
    pub fn replace(&mut self, at: Position, element: &[u8]) {
        let old = self.entry_len(at);
        self.write_at(at.0, old, &Needle::new(element).encoded());
    }

    /// As [`Listpack::replace`], by an integer.
    pub fn replace_integer(&mut self, at: Position, value: i64) {
        let old = self.entry_len(at);
        self.write_at(at.0, old, &Encoded::of_integer(value));
    }

    /// Removes up to `count` elements from `at` on; `at` is then the position of the one that followed. Returns how
    /// many were removed.
    pub fn remove(&mut self, at: Position, count: usize) -> usize {
        let mut end = at.0;
        let mut removed = 0;
        while removed < count {
            let Some((_, len)) = self.bytes.get(end..self.end()).and_then(decode_entry) else { break };
            end += len;
            removed += 1;
        }
        self.bytes.drain(at.0..end);
        self.shrink_when_sparse();
        self.write_total();
        self.count_changed(-(removed as i64));
        removed
    }

    /// Removes and returns the first element.
    pub fn pop_front(&mut self) -> Option<Vec<u8>> {
        let item = self.item(self.first())?.to_vec();
        self.remove(self.first(), 1);
        Some(item)
    }

    /// Removes and returns the last element.
    pub fn pop_back(&mut self) -> Option<Vec<u8>> {
        let len = previous_entry_len(self.entries())?;
        let at = Position(self.end() - len);
        let item = self.item(at)?.to_vec();
        self.remove(at, 1);
        Some(item)
    }

    /// Keeps `count` elements from index `start` on.
    pub fn keep(&mut self, start: usize, count: usize) {
        if let Some(tail) = self.position(start.saturating_add(count)) {
            self.remove(tail, usize::MAX);
        }
        if start > 0 {
            self.remove(self.first(), start);
        }
    }

    /// Appends all elements of `other`.
    pub fn append(&mut self, other: &Self) {
        let at = self.end();
        self.reserve(other.bytes.len() - HEADER - 1);
        self.bytes.truncate(at);
        self.bytes.extend_from_slice(other.entries());
        self.bytes.push(END);
        self.write_total();
        let added = other.len();
        self.count_changed(i64::try_from(added).unwrap_or(i64::MAX));
    }

    /// Cuts the listpack in two before the element at `at` and returns the second part.
    pub fn split_off(&mut self, at: Position) -> Self {
        let tail = self.bytes.get(at.0..self.end()).unwrap_or_default();
        let mut other = Self::with_capacity(HEADER + tail.len() + 1);
        other.bytes.truncate(HEADER);
        other.bytes.extend_from_slice(tail);
        other.bytes.push(END);
        other.write_total();
        other.recount();
        self.bytes.truncate(at.0);
        self.bytes.push(END);
        self.shrink_when_sparse();
        self.write_total();
        self.recount();
        other
    }

    /// Gives back what is allocated beyond the bytes in use.
    pub fn shrink_to_fit(&mut self) {
        self.bytes.shrink_to_fit();
    }

    #[inline]
    fn header_count(&self) -> u16 {
        match self.bytes.first_chunk::<HEADER>() {
            Some([_, _, _, _, low, high]) => u16::from_le_bytes([*low, *high]),
            None => 0,
        }
    }

    #[inline]
    fn end(&self) -> usize {
        self.bytes.len() - 1
    }

    #[inline]
    fn entries(&self) -> &[u8] {
        self.bytes.get(HEADER..self.end()).unwrap_or_default()
    }

    /// Replaces `old` bytes at `at` by an entry.
    fn write_at(&mut self, at: usize, old: usize, entry: &Encoded<'_>) {
        let new = entry.len();
        let total = self.bytes.len();
        if new > old {
            self.reserve(new - old);
            self.bytes.resize(total + new - old, 0);
            self.bytes.copy_within(at + old..total, at + new);
        } else if new < old {
            self.bytes.copy_within(at + old..total, at + new);
            self.bytes.truncate(total + new - old);
        }
        if let Some(room) = self.bytes.get_mut(at..at + new) {
            let (head, rest) = room.split_at_mut(usize::from(entry.head_len));
            head.copy_from_slice(entry.head());
            let (body, back) = rest.split_at_mut(entry.body.len());
            body.copy_from_slice(entry.body);
            back.copy_from_slice(entry.back());
        }
        self.write_total();
    }

    /// Grows to the allocator's next size class and not to the double: thousands of small collections would otherwise
    /// hold a quarter of their memory empty.
    #[inline]
    fn reserve(&mut self, additional: usize) {
        let needed = self.bytes.len() + additional;
        if needed > self.bytes.capacity() {
            self.bytes.reserve_exact(size_class(needed) - self.bytes.len());
        }
    }

    fn shrink_when_sparse(&mut self) {
        let len = self.bytes.len();
        if self.bytes.capacity() > 64 && len < self.bytes.capacity() / 2 {
            self.bytes.shrink_to(size_class(len + len / 4));
        }
    }

    #[inline]
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the keyspace packs far less than 4 GiB, and bytes from outside are checked"
    )]
    fn write_total(&mut self) {
        let total = self.bytes.len() as u32;
        if let Some(header) = self.bytes.first_chunk_mut::<4>() {
            *header = total.to_le_bytes();
        }
    }

    #[inline]
    fn count_changed(&mut self, by: i64) {
        let old = self.header_count();
        if old == COUNT_UNKNOWN {
            if by < 0 {
                self.recount();
            }
            return;
        }
        let count = i64::from(old).saturating_add(by).max(0);
        self.write_count(u16::try_from(count).unwrap_or(COUNT_UNKNOWN));
    }

    fn recount(&mut self) {
        let count = self.iter().count();
        self.write_count(u16::try_from(count).unwrap_or(COUNT_UNKNOWN));
    }

    #[inline]
    fn write_count(&mut self, count: u16) {
        if let Some([_, _, _, _, low, high]) = self.bytes.first_chunk_mut::<HEADER>() {
            [*low, *high] = count.to_le_bytes();
        }
    }
}

/// jemalloc's size class for `bytes`: steps of 16 up to 128, then four steps to each doubling.
fn size_class(bytes: usize) -> usize {
    if bytes <= 128 {
        return bytes.next_multiple_of(16);
    }
    let step = (bytes - 1).next_power_of_two().max(256) / 8;
    bytes.next_multiple_of(step)
}

/// Bytes of the entry that ends where `entries` ends.
#[inline]
fn previous_entry_len(entries: &[u8]) -> Option<usize> {
    let mut len = 0usize;
    for (byte, shift) in entries.iter().rev().zip([0u32, 7, 14, 21, 28]) {
        len |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(len + back_length_size(len));
        }
    }
    None
}

/// Walks bytes from outside. The error is the offset and what is wrong there.
fn check(bytes: &[u8]) -> Result<(), (usize, &'static str)> {
    let Some(([a, b, c, d, low, high], rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Err((0, "shorter than its header"));
    };
    if u32::from_le_bytes([*a, *b, *c, *d]) as usize != bytes.len() {
        return Err((0, "its total length is not that of the bytes"));
    }
    let Some((&END, mut entries)) = rest.split_last() else { return Err((bytes.len(), "no end mark")) };
    let mut count = 0usize;
    while !entries.is_empty() {
        let at = bytes.len() - 1 - entries.len();
        let Some((_, len)) = decode_entry(entries) else {
            return Err((at, "an entry that runs past the end"));
        };
        let Some((entry, after)) = entries.split_at_checked(len) else {
            return Err((at, "an entry that runs past the end"));
        };
        if previous_entry_len(entry) != Some(len) {
            return Err((at, "an entry whose two lengths differ"));
        }
        entries = after;
        count += 1;
    }
    let stated = u16::from_le_bytes([*low, *high]);
    if stated != COUNT_UNKNOWN && usize::from(stated) != count {
        return Err((4, "its element count is not that of the entries"));
    }
    Ok(())
}

/// The elements of a listpack, from either end.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    rest: &'a [u8],
}

impl<'a> Iter<'a> {
    /// Takes the last `count` elements off, as an iterator of their own. `None` when there are not so many.
    pub fn take_back(&mut self, count: usize) -> Option<Self> {
        let mut before = self.rest;
        for _ in 0..count {
            let len = previous_entry_len(before)?;
            before = before.get(..before.len().checked_sub(len)?)?;
        }
        let (before, taken) = self.rest.split_at_checked(before.len())?;
        self.rest = before;
        Some(Self { rest: taken })
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Item<'a>;

    #[inline]
    fn next(&mut self) -> Option<Item<'a>> {
        let (item, len) = decode_entry(self.rest)?;
        self.rest = self.rest.get(len..)?;
        Some(item)
    }
}

impl DoubleEndedIterator for Iter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        let len = previous_entry_len(self.rest)?;
        let (before, entry) = self.rest.split_at_checked(self.rest.len().checked_sub(len)?)?;
        self.rest = before;
        Some(decode_entry(entry)?.0)
    }
}

impl<'a> IntoIterator for &'a Listpack {
    type Item = Item<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl<T: AsRef<[u8]>> FromIterator<T> for Listpack {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        let mut listpack = Self::new();
        for element in elements {
            listpack.push_back(element.as_ref());
        }
        listpack
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keeps_redis_bytes() {
        let listpack: Listpack = ["a", "1", "-1", "4095"].iter().collect();
        let expected = [20, 0, 0, 0, 4, 0, 0x81, b'a', 2, 1, 1, 0xdf, 0xff, 2, 0xcf, 0xff, 2, 255];
        assert_eq!(listpack.as_bytes()[6..], expected[6..]);
        assert_eq!(listpack.as_bytes()[..6], [18, 0, 0, 0, 4, 0]);
    }

    #[test]
    fn integers_and_lengths_of_every_encoding_come_back() {
        let integers =
            [0, 127, 128, -1, 4095, -4096, 4096, -4097, 32_767, -32_768, 32_768, 8_388_607, -8_388_608];
        let more = [8_388_608, i64::from(i32::MAX), i64::from(i32::MIN), 1 << 31, i64::MAX, i64::MIN];
        let mut listpack = Listpack::new();
        let mut model: Vec<Vec<u8>> = Vec::new();
        for value in integers.into_iter().chain(more) {
            listpack.push_back_integer(value);
            model.push(value.to_string().into_bytes());
        }
        for len in [0, 1, 63, 64, 126, 127, 128, 4_095, 4_096, 16_377, 16_378, 16_379, 70_000] {
            let text = vec![b'x'; len];
            assert_eq!(Listpack::encoded_len(&text), {
                let mut one = Listpack::new();
                one.push_back(&text);
                one.byte_len() - HEADER - 1
            });
            listpack.push_back(&text);
            model.push(text);
        }
        let back = Listpack::from_bytes(listpack.as_bytes().to_vec()).expect("own bytes");
        assert!(back.iter().map(|item| item.to_vec()).eq(model.iter().cloned()));
        assert!(back.iter().rev().map(|item| item.to_vec()).eq(model.iter().rev().cloned()));
        for (at, text) in model.iter().enumerate() {
            assert!(back.get(at as i64).is_some_and(|item| item.is(text)));
            assert!(back.get(at as i64 - model.len() as i64).is_some_and(|item| item.is(text)));
            assert_eq!(back.find(text, 1).map(|(_, index)| index), Some(at));
        }
    }

    #[test]
    fn counts_beyond_sixteen_bits() {
        let mut listpack = Listpack::new();
        for _ in 0..65_540 {
            listpack.push_back(b"1");
        }
        assert_eq!(listpack.len(), 65_540);
        assert!(Listpack::from_bytes(listpack.as_bytes().to_vec()).is_ok());
        assert!(listpack.get(65_539).is_some() && listpack.get(65_540).is_none());
        listpack.remove(listpack.first(), 10);
        assert_eq!(listpack.len(), 65_530);
    }

    #[test]
    fn refuses_damage() {
        let good: Listpack = ["abc", "12", "70000"].iter().collect();
        let bytes = good.as_bytes();
        for cut in 0..bytes.len() {
            assert!(Listpack::from_bytes(bytes[..cut].to_vec()).is_err());
        }
        for (at, value) in [(0, 1), (4, 9), (6, 0x8f), (9, 0x01), (10, 5), (bytes.len() - 1, 0)] {
            let mut damaged = bytes.to_vec();
            damaged[at] = value;
            if damaged != bytes {
                let _ = Listpack::from_bytes(damaged).map(|listpack| listpack.iter().count());
            }
        }
        // A length of 4 GiB in a listpack of a few bytes.
        assert!(Listpack::from_bytes(vec![14, 0, 0, 0, 1, 0, 0xf0, 255, 255, 255, 255, 1, 1, 255]).is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 7..80)) {
            let total = bytes.len() as u32;
            bytes[..4].copy_from_slice(&total.to_le_bytes());
            bytes[4..6].copy_from_slice(&[255, 255]);
            *bytes.last_mut().expect("seven at least") = END;
            if let Ok(listpack) = Listpack::from_bytes(bytes) {
                prop_assert_eq!(listpack.iter().count(), listpack.iter().rev().count());
            }
        }

        #[test]
        fn behaves_as_a_vector(steps in prop::collection::vec((0u8..7, any::<u8>(), prop_oneof![
            (0u8..140).prop_map(|len| vec![b'y'; usize::from(len)]),
            any::<i64>().prop_map(|value| value.to_string().into_bytes()),
            (-200i64..200).prop_map(|value| value.to_string().into_bytes()),
        ]), 0..60)) {
            let mut listpack = Listpack::new();
            let mut model: Vec<Vec<u8>> = Vec::new();
            for (kind, place, text) in steps {
                let index = usize::from(place) % (model.len() + 1);
                let at = listpack.position(index).unwrap_or(listpack.last_position());
                match kind {
                    0 => { listpack.push_front(&text); model.insert(0, text); }
                    1 => {
                        let count = usize::from(place % 4);
                        let gone = count.min(model.len() - index);
                        prop_assert_eq!(listpack.remove(at, count), gone);
                        model.drain(index..index + gone);
                    }
                    2 if index < model.len() => { listpack.replace(at, &text); model[index] = text; }
                    3 => {
                        let tail = listpack.split_off(at);
                        prop_assert!(tail.iter().map(|item| item.to_vec()).eq(model[index..].iter().cloned()));
                        listpack.append(&tail);
                    }
                    4 => {
                        let after = listpack.insert(at, &text);
                        model.insert(index, text);
                        prop_assert_eq!(listpack.position(index + 1).unwrap_or(listpack.last_position()), after);
                    }
                    5 if place % 16 == 0 => {
                        listpack.keep(index, 5);
                        model = model.into_iter().skip(index).take(5).collect();
                    }
                    _ => { listpack.push_back(&text); model.push(text); }
                }
                prop_assert_eq!(listpack.len(), model.len());
                prop_assert!(Listpack::from_bytes(listpack.as_bytes().to_vec()).is_ok());
            }
            prop_assert!(listpack.iter().map(|item| item.to_vec()).eq(model.iter().cloned()));
            prop_assert_eq!(listpack.pop_back(), model.pop());
            prop_assert_eq!(listpack.pop_front(), if model.is_empty() { None } else { Some(model.remove(0)) });
        }
    }
}
