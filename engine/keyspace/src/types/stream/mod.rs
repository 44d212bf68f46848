//! Streams: entries in nodes of a hundred or so, the nodes in a tree by their first id; and consumer groups.
//!
//! The ids of the entries that live ascend through all nodes, and none is above the stream's last id. A stream without
//! entries is still a value: its last id and its groups are worth keeping.

mod group;
mod node;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use cairn_rdb::StreamId;
use cairn_rdb::stream::StoredStream;
pub use group::{Consumer, ConsumerId, Group, Pending};
pub use node::{Entry, Fields};

use super::{Limits, Listpack};
use group::Groups;
use node::Node;

/// The longest node, whatever the limits say: a listpack's length has 32 bits.
const NODE_BYTES_MAX: usize = 1 << 30;

/// The most bytes that an entry's fields and values may have together.
pub const ENTRY_BYTES_MAX: usize = NODE_BYTES_MAX;

/// What a stream knows of its history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// How many entries there are.
    pub len: u64,
    /// The first entry; [`StreamId::MIN`] where there is none.
    pub first_id: StreamId,
    /// The greatest id an entry ever had, or was said to have had.
    pub last_id: StreamId,
    /// The greatest id of an entry that was deleted by name; [`StreamId::MIN`] where none was.
    pub max_deleted_id: StreamId,
    /// How many entries were ever added.
    pub entries_added: u64,
}

impl Counters {
    /// Whether an entry behind `id` (or `id` itself) may have been deleted from between others.
    fn may_have_gap_from(&self, id: StreamId) -> bool {
        self.len > 0
            && self.max_deleted_id != StreamId::MIN
            && self.first_id <= self.max_deleted_id
            && id <= self.max_deleted_id
    }

    /// How many entries were added up to `id`, where that can be told.
    fn entries_up_to(&self, id: StreamId) -> Option<u64> {
        if self.entries_added == 0 {
            return Some(0);
        }
        if id == self.last_id || (self.len == 0 && id < self.last_id) {
            return Some(self.entries_added);
        }
        let has_no_gap = self.max_deleted_id == StreamId::MIN || self.max_deleted_id < self.first_id;
        if id > self.last_id || id > self.first_id || !has_no_gap {
            return None;
        }
        let before = self.entries_added.wrapping_sub(self.len);
        Some(if id == self.first_id { before.wrapping_add(1) } else { before })
    }
}

/// What trimming leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrimTo {
    /// So many entries.
    Len(u64),
    /// The entries from this id on.
    Id(StreamId),
}

/// A stream.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    nodes: BTreeMap<StreamId, Node>,
    counters: Counters,
    groups: Groups,
}

impl Stream {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adopts what was read from a file. The error says what is wrong with it.
    pub fn from_stored(stored: StoredStream) -> Result<Self, &'static str> {
        let (mut stream, mut last) = (Self::new(), None);
        for (base, listpack) in stored.nodes {
            let node =
                Node::from_listpack(listpack, base, last).ok_or("a node is damaged or out of order")?;
            let Some(newest) = node.entries(base).next_back() else { continue };
            (stream.counters.len, last) = (stream.counters.len + node.live(), Some(newest.id));
            stream.nodes.insert(base, node);
        }
        if stream.counters.len != stored.len {
            return Err("its length is not that of its nodes");
        }
        if last.is_some_and(|last| last > stored.last_id) {
            return Err("an entry comes after the last");
        }
        let counters = &mut stream.counters;
        counters.last_id = stored.last_id;
        counters.entries_added = stored.counters.map_or(stored.len, |counters| counters.entries_added);
        counters.max_deleted_id = stored.counters.map_or(StreamId::MIN, |counters| counters.max_deleted_id);
        stream.find_first();
        for group in stored.groups {
            let entries_read = match group.entries_read {
                // What is no count says that the writer did not know either.
                Some(read) => i64::try_from(read).is_ok().then_some(read),
                None => stream.counters.entries_up_to(group.last_id),
            };
            let mut own = Group::new(group.last_id, entries_read);
            let pending = group.pending.iter();
            let mut unowned: BTreeMap<_, _> =
                pending.map(|entry| (entry.id, (entry.delivered_at_ms, entry.deliveries))).collect();
            if unowned.len() != group.pending.len() {
                return Err("an entry is pending twice");
            }
            for consumer in &group.consumers {
                if !own.restore_consumer(&consumer.name, consumer.seen_at_ms, &consumer.pending, &mut unowned)
                {
                    return Err("a consumer stands twice, or has what is not pending");
                }
            }
            if !unowned.is_empty() {
                return Err("an entry is pending for nobody");
            }
            if !stream.groups.insert(&group.name, own) {
                return Err("a group stands twice");
            }
        }
        Ok(stream)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        usize::try_from(self.counters.len).unwrap_or(usize::MAX)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.counters.len == 0
    }

    /// What it knows of its history.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Appends an entry, whose id must be above the last. `fields` are fields and values in turn.
    pub fn append(&mut self, id: StreamId, fields: &[&[u8]], limits: &Limits) {
        debug_assert!(id > self.counters.last_id, "ids ascend");
        let new_bytes: usize = fields.iter().map(|text| text.len()).sum();
        let bytes_max = match limits.stream_node_bytes {
            0 => NODE_BYTES_MAX,
            bytes => bytes.min(NODE_BYTES_MAX),
        };
        let open = self.nodes.last_entry().and_then(|mut last| {
            let is_full = last.get().byte_len() + new_bytes >= bytes_max
                || limits.stream_node_entries > 0 && last.get().len() >= limits.stream_node_entries;
            if is_full {
                last.get_mut().close();
            }
            (!is_full).then_some(last)
        });
        match open {
            Some(last) => {
                let base = *last.key();
                last.into_mut().push(base, id, fields);
            }
            None => {
                let mut node = Node::new(fields);
                node.push(id, id, fields);
                self.nodes.insert(id, node);
            }
        }
        if self.counters.len == 0 {
            self.counters.first_id = id;
        }
        self.counters.len += 1;
        self.counters.entries_added = self.counters.entries_added.saturating_add(1);
        self.counters.last_id = id;
    }

    /// The entries between two ids, both included.
    pub fn range(&self, from: StreamId, to: StreamId) -> impl Iterator<Item = Entry<'_>> {
        entries(&self.nodes, from, to)
    }

    /// As [`Stream::range`], the last entry first.
    pub fn range_back(&self, from: StreamId, to: StreamId) -> impl Iterator<Item = Entry<'_>> {
        let nodes = self.nodes.range(..=to).rev();
        nodes
            .flat_map(|(base, node)| node.entries(*base).rev())
            .skip_while(move |entry| entry.id > to)
            .take_while(move |entry| entry.id >= from)
    }

    /// The entry of an id.
    pub fn get(&self, id: StreamId) -> Option<Entry<'_>> {
        self.range(id, id).next()
    }

    /// The last entry's id.
    pub fn top(&self) -> Option<StreamId> {
        self.range_back(StreamId::MIN, StreamId::MAX).next().map(|entry| entry.id)
    }

    /// Deletes an entry by name; whether it was there.
    pub fn delete(&mut self, id: StreamId) -> bool {
        let Some((&base, node)) = self.nodes.range_mut(..=id).next_back() else { return false };
        if !node.delete(base, id) {
            return false;
        }
        if node.live() == 0 {
            self.nodes.remove(&base);
        }
        self.counters.len -= 1;
        self.counters.max_deleted_id = self.counters.max_deleted_id.max(id);
        if id == self.counters.first_id {
            self.find_first();
        }
        true
    }

    /// Removes entries from the front; returns how many. With `whole_nodes`, only nodes of which nothing is to stay go, and
    /// so less may go than was asked for. At most `limit` entries go, where it is not zero.
    pub fn trim(&mut self, to: TrimTo, whole_nodes: bool, limit: u64) -> u64 {
        let before = self.counters.len;
        while let Some(mut first) = self.nodes.first_entry() {
            let (len, base, live) = (self.counters.len, *first.key(), first.get().live());
            let goes_whole = match to {
                TrimTo::Len(most) if len <= most => break,
                TrimTo::Len(most) => len - live >= most,
                TrimTo::Id(id) => first.get().edges(base).is_some_and(|(_, last)| last < id),
            };
            if limit > 0 && before - len + live > limit {
                break;
            }
            if goes_whole {
                first.remove();
                self.counters.len -= live;
                continue;
            }
            if !whole_nodes {
                self.counters.len -= first.get_mut().delete_front(base, |entry, gone| match to {
                    TrimTo::Len(most) => len - gone > most,
                    TrimTo::Id(id) => entry < id,
                });
                if first.get().live() == 0 {
                    first.remove();
                }
            }
            break;
        }
        if self.counters.len < before {
            self.find_first();
        }
        before - self.counters.len
    }

    /// The id in front of which nothing is stored, not even what was deleted: trimming to it leaves the same nodes.
    /// [`StreamId::MAX`] where nothing is stored at all.
    pub fn stored_from(&self) -> StreamId {
        let first = self.nodes.first_key_value().and_then(|(base, node)| node.edges(*base));
        first.map_or(StreamId::MAX, |(first, _)| first)
    }

    fn find_first(&mut self) {
        let first = self.range(StreamId::MIN, StreamId::MAX).next().map(|entry| entry.id);
        self.counters.first_id = first.unwrap_or(StreamId::MIN);
    }

    /// Sets what it knows of its history, as XSETID does.
    pub fn set_history(&mut self, last_id: StreamId, entries_added: Option<u64>, max_deleted_id: StreamId) {
        let counters = &mut self.counters;
        counters.last_id = last_id;
        counters.entries_added = entries_added.unwrap_or(counters.entries_added);
        if max_deleted_id != StreamId::MIN {
            counters.max_deleted_id = max_deleted_id;
        }
    }

    /// The group of a name.
    pub fn group(&self, name: &[u8]) -> Option<&Group> {
        self.groups.get(name)
    }

    /// The group of a name, to change it.
    pub fn group_mut(&mut self, name: &[u8]) -> Option<&mut Group> {
        self.groups.get_mut(name)
    }

    /// The groups by name.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = (&[u8], &Group)> {
        self.groups.iter()
    }

    /// Adds a group; false when the name is taken.
    pub fn create_group(&mut self, name: &[u8], last_id: StreamId, entries_read: Option<u64>) -> bool {
        self.groups.insert(name, Group::new(last_id, entries_read))
    }

    /// Removes a group; whether it was there.
    pub fn destroy_group(&mut self, name: &[u8]) -> bool {
        self.groups.remove(name)
    }

    /// How many entries a group of this stream was not given yet; `None` where deletions have made that unknown.
    pub fn lag(&self, group: &Group) -> Option<i64> {
        group.lag(&self.counters)
    }

    /// Gives a group up to `most` of the entries behind its last, and those to `pending` where that is not `None`; shows
    /// each. False when there is no such group.
    pub fn deliver(
        &mut self,
        group: &[u8],
        most: usize,
        pending: Option<Pending>,
        mut show: impl FnMut(Entry<'_>),
    ) -> bool {
        let Some(group) = self.groups.get_mut(group) else { return false };
        let Some(from) = group.last_id.next() else { return true };
        for entry in entries(&self.nodes, from, StreamId::MAX).take(most) {
            group.advance(&self.counters, entry.id);
            if let Some(pending) = pending {
                group.assign(entry.id, pending);
            }
            show(entry);
        }
        true
    }

    /// The nodes with the ids that theirs count from, to be written as they are.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = (StreamId, &Listpack)> {
        self.nodes.iter().map(|(base, node)| (*base, node.as_listpack()))
    }

    /// How many nodes a radix tree would have that holds the keys of this one's nodes, as Redis's does and tells. Takes
    /// time with every node of the stream.
    pub fn radix_nodes(&self) -> usize {
        let keys: Vec<[u8; 16]> = self.nodes.keys().map(|base| base.to_bytes()).collect();
        radix_nodes(&keys, 0)
    }

    /// Bytes allocated, those of the nodes reckoned from so many.
    pub fn heap_bytes(&self, samples: usize) -> usize {
        let sample = samples.min(self.nodes.len()).max(1);
        let sampled: usize = self.nodes.values().take(sample).map(Node::heap_bytes).sum();
        let tree = self.nodes.len() * size_of::<(StreamId, Node)>() * 4 / 3;
        let groups = self
            .groups
            .iter()
            .map(|(name, group)| name.len() + size_of::<(Box<[u8]>, Group)>() + group.heap_bytes());
        size_of::<Self>() + tree + sampled * self.nodes.len() / sample + groups.sum::<usize>()
    }

    /// About how many allocations freeing it gives back.
    pub fn allocations(&self) -> usize {
        let groups = self.groups.iter();
        self.nodes.len()
            + groups.map(|(_, group)| group.consumers().len() + group.pending().len() / 8).sum::<usize>()
    }
}

/// The live entries of nodes between two ids, both included.
fn entries(
    nodes: &BTreeMap<StreamId, Node>,
    from: StreamId,
    to: StreamId,
) -> impl Iterator<Item = Entry<'_>> {
    let first = nodes.range(..=from).next_back().map_or(from, |(base, _)| *base);
    nodes
        .range(first..)
        .flat_map(|(base, node)| node.entries(*base))
        .skip_while(move |entry| entry.id < from)
        .take_while(move |entry| entry.id <= to)
}

/// How many nodes a radix tree has below a node that all these keys, in ascending order, lead to by their first `depth`
/// bytes: one for each key's end, one for each place where keys part, and one for each run of bytes that leads to either.
fn radix_nodes(keys: &[[u8; 16]], depth: usize) -> usize {
    let (Some(first), Some(last)) = (keys.first(), keys.last()) else { return 1 };
    // All others lie between, so they have as much in common.
    let alike = first.iter().zip(last).take_while(|(first, last)| first == last).count();
    let run = usize::from(alike > depth);
    if alike == first.len() {
        return run + 1;
    }
    let parts = keys.chunk_by(|a, b| a[alike] == b[alike]);
    run + 1 + parts.map(|part| radix_nodes(part, alike + 1)).sum::<usize>()
}
