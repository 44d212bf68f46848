//! A node of a stream: a run of entries in one listpack, in the bytes that Redis keeps and writes.
//!
//! It begins with how many entries live and how many are deleted, a number of field names, the names, and 0. An entry is
//! its flags, its id as two differences to the node's base, then its values where its fields are those of the node, else
//! its own number of fields and fields and values in turn, and at last how many elements that were, so that it can be read
//! from behind. A deleted entry stays where it is, flagged.

use cairn_rdb::StreamId;
use cairn_rdb::listpack::{Iter, Position};

use crate::types::{Item, Listpack};

/// An entry's flag: it is deleted.
const DELETED: i64 = 1;
/// An entry's flag: its fields are those of the node.
const SAME_FIELDS: i64 = 2;

/// A node. It always holds an entry that lives, but for the moment in which it is made.
#[derive(Clone, Debug)]
pub(super) struct Node(Listpack);

/// What stands in front of a node's entries.
struct Header<'a> {
    live: u64,
    deleted: u64,
    names: Iter<'a>,
    name_count: usize,
    entries: Iter<'a>,
}

impl Node {
    /// A node without entries, made for those that have these fields. `fields` are fields and values in turn.
    pub(super) fn new(fields: &[&[u8]]) -> Self {
        let mut listpack = Listpack::new();
        listpack.push_back_integer(0);
        listpack.push_back_integer(0);
        listpack.push_back_integer((fields.len() / 2) as i64);
        fields.iter().step_by(2).for_each(|name| listpack.push_back(name));
        listpack.push_back_integer(0);
        Self(listpack)
    }

    /// Adopts a listpack from outside; the ids in it count from `base`. `None` when it is no node, or when its base and the
    /// ids of its live entries do not ascend from `after` on.
    pub(super) fn from_listpack(listpack: Listpack, base: StreamId, after: Option<StreamId>) -> Option<Self> {
        let node = Self(listpack);
        let header = node.header()?;
        if after.is_some_and(|after| base <= after) {
            return None;
        }
        let (mut walk, mut live, mut deleted, mut last) = (node.walk(base)?, 0, 0, after);
        while walk.rest.clone().next().is_some() {
            let found = walk.step()?;
            if found.is_deleted {
                deleted += 1;
                continue;
            }
            let id = found.entry.id;
            if id < base || last.is_some_and(|last| id <= last) {
                return None;
            }
            (live, last) = (live + 1, Some(id));
        }
        ((header.live, header.deleted) == (live, deleted)).then_some(node)
    }

    /// The listpack, to be written as it is.
    pub(super) fn as_listpack(&self) -> &Listpack {
        &self.0
    }

    /// Bytes of the listpack.
    pub(super) fn byte_len(&self) -> usize {
        self.0.byte_len()
    }

    /// Bytes allocated.
    pub(super) fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }

    /// Gives back what is allocated for entries to come.
    pub(super) fn close(&mut self) {
        self.0.shrink_to_fit();
    }

    /// How many entries live.
    pub(super) fn live(&self) -> u64 {
        self.header().map_or(0, |header| header.live)
    }

    /// How many entries there are, deleted ones included.
    pub(super) fn len(&self) -> u64 {
        self.header().map_or(0, |header| header.live + header.deleted)
    }

    fn header(&self) -> Option<Header<'_>> {
        let mut rest = self.0.iter();
        let (live, deleted) = (natural(&mut rest)?, natural(&mut rest)?);
        let name_count = usize::try_from(natural(&mut rest)?).ok()?;
        let names = rest.clone();
        let end = if name_count == 0 { rest.next() } else { rest.nth(name_count) };
        (end?.as_i64() == Some(0)).then_some(Header { live, deleted, names, name_count, entries: rest })
    }

    /// All entries, deleted ones included.
    pub(super) fn walk(&self, base: StreamId) -> Option<Walk<'_>> {
        let Header { names, name_count, entries, .. } = self.header()?;
        Some(Walk { base, names, name_count, rest: entries })
    }

    /// The entries that live.
    pub(super) fn entries(&self, base: StreamId) -> impl DoubleEndedIterator<Item = Entry<'_>> {
        let all = self.walk(base).into_iter().flatten();
        all.filter(|found| !found.is_deleted).map(|found| found.entry)
    }

    /// The ids of the first and the last entry, of which either may be deleted.
    pub(super) fn edges(&self, base: StreamId) -> Option<(StreamId, StreamId)> {
        let mut walk = self.walk(base)?;
        let first = walk.next()?.entry.id;
        Some((first, walk.next_back().map_or(first, |last| last.entry.id)))
    }

    /// Appends an entry. `fields` are fields and values in turn.
    pub(super) fn push(&mut self, base: StreamId, id: StreamId, fields: &[&[u8]]) {
        let Some(header) = self.header() else { return };
        let (live, count) = (header.live, fields.len() / 2);
        let same = header.name_count == count
            && header.names.zip(fields.iter().step_by(2)).all(|(own, name)| own.is(name));
        let listpack = &mut self.0;
        listpack.replace_integer(listpack.first(), live as i64 + 1);
        listpack.push_back_integer(if same { SAME_FIELDS } else { 0 });
        listpack.push_back_integer(id.ms.wrapping_sub(base.ms).cast_signed());
        listpack.push_back_integer(id.seq.wrapping_sub(base.seq).cast_signed());
        if same {
            fields.iter().skip(1).step_by(2).for_each(|value| listpack.push_back(value));
            listpack.push_back_integer(count as i64 + 3);
        } else {
            listpack.push_back_integer(count as i64);
            fields.iter().for_each(|text| listpack.push_back(text));
            listpack.push_back_integer(2 * count as i64 + 4);
        }
    }

    /// Deletes an entry; whether it lived.
    pub(super) fn delete(&mut self, base: StreamId, id: StreamId) -> bool {
        let mut found = None;
        self.visit(base, |at, entry| {
            if !entry.is_deleted && entry.entry.id == id {
                found = Some((at, entry.flags));
            }
            found.is_none()
        });
        self.flag(found.as_slice());
        found.is_some()
    }

    /// Deletes entries from the front for as long as `goes` says so, told an entry's id and how many went before; returns
    /// how many of them had lived. Entries deleted before are asked about too.
    pub(super) fn delete_front(
        &mut self,
        base: StreamId,
        mut goes: impl FnMut(StreamId, u64) -> bool,
    ) -> u64 {
        let mut found = Vec::new();
        self.visit(base, |at, entry| {
            let goes = goes(entry.entry.id, found.len() as u64);
            if goes && !entry.is_deleted {
                found.push((at, entry.flags));
            }
            goes
        });
        self.flag(&found);
        found.len() as u64
    }

    /// Shows the entries in order, with the positions of their flags, until `visit` answers false.
    fn visit(&self, base: StreamId, mut visit: impl FnMut(Position, Found<'_>) -> bool) {
        let Some(mut walk) = self.walk(base) else { return };
        loop {
            let at = self.0.position_of(&walk.rest);
            if !walk.next().is_some_and(|found| visit(at, found)) {
                return;
            }
        }
    }

    /// Flags live entries as deleted, given the places of their flags in ascending order.
    fn flag(&mut self, found: &[(Position, i64)]) {
        let Some(Header { live, deleted, .. }) = self.header() else { return };
        // From the last on, and what is counted after them: nothing before a place moves.
        for (at, flags) in found.iter().rev() {
            self.0.replace_integer(*at, flags | DELETED);
        }
        let first = self.0.first();
        if let Some(second) = self.0.next(first) {
            self.0.replace_integer(second, (deleted + found.len() as u64).cast_signed());
            self.0.replace_integer(first, (live - found.len() as u64).cast_signed());
        }
    }
}

fn natural(items: &mut Iter<'_>) -> Option<u64> {
    u64::try_from(items.next()?.as_i64()?).ok()
}

/// An entry that was met, alive or not.
pub(super) struct Found<'a> {
    flags: i64,
    pub(super) is_deleted: bool,
    pub(super) entry: Entry<'a>,
}

/// All entries of a node, from either end.
pub(super) struct Walk<'a> {
    base: StreamId,
    names: Iter<'a>,
    name_count: usize,
    rest: Iter<'a>,
}

impl<'a> Walk<'a> {
    /// Takes the entry in front; `None` also where there is none although something follows.
    fn step(&mut self) -> Option<Found<'a>> {
        let mut rest = self.rest.clone();
        let (found, elements) = self.read(&mut rest)?;
        let stated = rest.next()?.as_i64()?;
        self.rest = rest;
        (usize::try_from(stated) == Ok(elements)).then_some(found)
    }

    /// Reads the entry that `items` begins with, up to its number of elements, which should be what comes second.
    fn read(&self, items: &mut Iter<'a>) -> Option<(Found<'a>, usize)> {
        let flags = items.next()?.as_i64()?;
        let (ms, seq) = (items.next()?.as_i64()?, items.next()?.as_i64()?);
        let id = StreamId {
            ms: self.base.ms.wrapping_add(ms.cast_unsigned()),
            seq: self.base.seq.wrapping_add(seq.cast_unsigned()),
        };
        let is_same = flags & SAME_FIELDS != 0;
        let left = if is_same { self.name_count } else { usize::try_from(natural(items)?).ok()? };
        let names = is_same.then(|| self.names.clone());
        let fields = Fields { names, items: items.clone(), left };
        let texts = if is_same { left } else { left.checked_mul(2)? };
        if texts > 0 {
            items.nth(texts - 1)?;
        }
        let elements = texts.checked_add(if is_same { 3 } else { 4 })?;
        let entry = Entry { id, fields };
        Some((Found { flags, is_deleted: flags & DELETED != 0, entry }, elements))
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Found<'a>;

    fn next(&mut self) -> Option<Found<'a>> {
        self.step()
    }
}

impl DoubleEndedIterator for Walk<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let elements = usize::try_from(self.rest.next_back()?.as_i64()?).ok()?;
        let mut entry = self.rest.take_back(elements)?;
        Some(self.read(&mut entry)?.0)
    }
}

/// An entry of a stream.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// Its id.
    pub id: StreamId,
    fields: Fields<'a>,
}

impl<'a> Entry<'a> {
    /// Its fields with their values.
    pub fn fields(&self) -> Fields<'a> {
        self.fields.clone()
    }
}

/// The fields of an entry with their values.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    /// The names, where the entry does not hold them itself.
    names: Option<Iter<'a>>,
    items: Iter<'a>,
    left: usize,
}

impl<'a> Iterator for Fields<'a> {
    type Item = (Item<'a>, Item<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let name = match &mut self.names {
            Some(names) => names.next()?,
            None => self.items.next()?,
        };
        Some((name, self.items.next()?))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Fields<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64, seq: u64) -> StreamId {
        StreamId { ms, seq }
    }

    fn texts(node: &Node, base: StreamId) -> Vec<String> {
        let text = |entry: Entry<'_>| {
            let fields = entry.fields().map(|(name, value)| {
                let [name, value] =
                    [name, value].map(|item| String::from_utf8(item.to_vec()).expect("ASCII"));
                format!(" {name}={value}")
            });
            entry.id.to_string() + &fields.collect::<String>()
        };
        let forward: Vec<String> = node.entries(base).map(text).collect();
        let mut backward: Vec<String> = node.entries(base).rev().map(text).collect();
        backward.reverse();
        assert_eq!(forward, backward);
        forward
    }

    #[test]
    fn entries_come_back_from_either_end_and_go_where_they_are() {
        let base = id(1_000, 5);
        let mut node = Node::new(&[b"a", b"", b"b", b""]);
        node.push(base, base, &[b"a", b"1", b"b", b"text"]);
        node.push(base, id(1_000, 6), &[b"b", b"1", b"a", b"2"]);
        node.push(base, id(1_001, 0), &[b"other", b""]);
        node.push(base, id(u64::MAX, u64::MAX), &[b"a", b"-7", b"b", b"8"]);
        let all = [
            "1000-5 a=1 b=text",
            "1000-6 b=1 a=2",
            "1001-0 other=",
            "18446744073709551615-18446744073709551615 a=-7 b=8",
        ];
        assert_eq!(texts(&node, base), all);
        assert!(node.delete(base, id(1_000, 6)));
        assert!(!node.delete(base, id(1_000, 6)) && !node.delete(base, id(1_000, 7)));
        assert_eq!(texts(&node, base), [all[0], all[2], all[3]]);
        assert_eq!((node.live(), node.len()), (3, 4));
        assert_eq!(node.delete_front(base, |_, gone| gone < 2), 2);
        assert_eq!(texts(&node, base), [all[3]]);
        assert_eq!(node.edges(base), Some((base, StreamId::MAX)));
        let bytes = node.as_listpack().clone();
        assert!(Node::from_listpack(bytes.clone(), base, None).is_some());
        assert!(Node::from_listpack(bytes.clone(), base, Some(id(999, 0))).is_some());
        assert!(Node::from_listpack(bytes.clone(), base, Some(base)).is_none());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged.remove(damaged.position(at).expect("an element"), 1);
            assert!(Node::from_listpack(damaged, base, None).is_none(), "without element {at}");
        }
    }

    #[test]
    fn a_node_has_the_bytes_of_redis() {
        // As redis-server 7.0.15 wrote it for XADD s 5-1 f v, XADD s 5-2 f 12, XADD s 6-0 g w, XDEL s 5-2.
        let mut node = Node::new(&[b"f", b"v"]);
        let base = id(5, 1);
        node.push(base, base, &[b"f", b"v"]);
        node.push(base, id(5, 2), &[b"f", b"12"]);
        node.push(base, id(6, 0), &[b"g", b"w"]);
        assert!(node.delete(base, id(5, 2)));
        let items: Vec<Vec<u8>> = node.as_listpack().iter().map(|item| item.to_vec()).collect();
        let expected = "2 1 1 f 0 2 0 0 v 4 3 0 1 12 4 0 1 -1 1 g w 6";
        assert_eq!(items.join(&b' '), expected.as_bytes());
    }
}
