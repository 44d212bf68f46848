//! Consumer groups: how far a group has come, and which entries wait for whose acknowledgement.

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet};

use cairn_rdb::StreamId;

use super::Counters;

/// A consumer's place in its group, until it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerId(u32);

/// An entry that was given to a consumer and not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Who has it.
    pub consumer: ConsumerId,
    /// When it was last given to one, in milliseconds since 1970.
    pub delivered_at_ms: i64,
    /// How often it was given to one.
    pub deliveries: u64,
}

/// A consumer.
#[derive(Clone, Debug)]
pub struct Consumer {
    name: Box<[u8]>,
    /// When it last asked for something, in milliseconds since 1970.
    pub seen_at_ms: i64,
    pending: BTreeSet<StreamId>,
}

impl Consumer {
    /// Its name.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// The pending entries that are its own, in order.
    pub fn pending(&self) -> &BTreeSet<StreamId> {
        &self.pending
    }
}

/// A consumer group. Every pending entry belongs to one of its consumers.
#[derive(Clone, Debug)]
pub struct Group {
    /// The last entry it was given.
    pub last_id: StreamId,
    /// How many entries it was given, where that is known.
    pub entries_read: Option<u64>,
    pending: BTreeMap<StreamId, Pending>,
    consumers: Vec<Option<Consumer>>,
    /// Places of `consumers`, sorted by name.
    by_name: Vec<ConsumerId>,
}

impl Group {
    /// A group without consumers.
    pub fn new(last_id: StreamId, entries_read: Option<u64>) -> Self {
        Self { last_id, entries_read, pending: BTreeMap::new(), consumers: Vec::new(), by_name: Vec::new() }
    }

    /// The pending entries in order.
    pub fn pending(&self) -> &BTreeMap<StreamId, Pending> {
        &self.pending
    }

    /// The consumers in the order of their names.
    pub fn consumers(&self) -> impl ExactSizeIterator<Item = &Consumer> {
        self.by_name.iter().map(|id| self.consumer(*id))
    }

    /// The consumer of a name.
    pub fn find(&self, name: &[u8]) -> Option<ConsumerId> {
        self.place(name).ok().map(|at| self.by_name[at])
    }

    fn place(&self, name: &[u8]) -> Result<usize, usize> {
        self.by_name.binary_search_by(|id| self.consumer(*id).name().cmp(name))
    }

    /// A consumer.
    pub fn consumer(&self, id: ConsumerId) -> &Consumer {
        self.consumers[id.0 as usize].as_ref().expect("an id lives as long as its consumer")
    }

    fn consumer_mut(&mut self, id: ConsumerId) -> &mut Consumer {
        self.consumers[id.0 as usize].as_mut().expect("an id lives as long as its consumer")
    }

    /// The consumer of a name, made if it is not there; it has asked for something at `now_ms`. Whether it was made comes
    /// second.
    pub fn see(&mut self, name: &[u8], now_ms: i64) -> (ConsumerId, bool) {
        let (id, is_new) = match self.place(name) {
            Ok(at) => (self.by_name[at], false),
            Err(at) => {
                let is_full = self.by_name.len() == self.consumers.len();
                if is_full {
                    self.consumers.push(None);
                }
                let free = self.consumers.iter().rposition(Option::is_none);
                let index = free.expect("there are fewer consumers than places");
                let pending = BTreeSet::new();
                self.consumers[index] = Some(Consumer { name: name.into(), seen_at_ms: now_ms, pending });
                let id = ConsumerId(u32::try_from(index).expect("fewer consumers than 2^32"));
                self.by_name.insert(at, id);
                (id, true)
            }
        };
        self.consumer_mut(id).seen_at_ms = now_ms;
        (id, is_new)
    }

    /// Deletes a consumer with what is pending for it; how many entries that were. `None` when there is none of the name.
    pub fn delete_consumer(&mut self, name: &[u8]) -> Option<usize> {
        let at = self.place(name).ok()?;
        let id = self.by_name.remove(at);
        let consumer = self.consumers[id.0 as usize].take()?;
        for entry in &consumer.pending {
            self.pending.remove(entry);
        }
        Some(consumer.pending.len())
    }

    /// Gives an entry to a consumer, whoever had it before.
    pub fn assign(&mut self, entry: StreamId, to: Pending) {
        let before = self.pending.insert(entry, to);
        match before {
            Some(before) if before.consumer == to.consumer => return,
            Some(before) => drop(self.consumer_mut(before.consumer).pending.remove(&entry)),
            None => {}
        }
        self.consumer_mut(to.consumer).pending.insert(entry);
    }

    /// Takes an entry from what is pending; whether it was there.
    pub fn acknowledge(&mut self, entry: StreamId) -> bool {
        let Some(pending) = self.pending.remove(&entry) else { return false };
        self.consumer_mut(pending.consumer).pending.remove(&entry);
        true
    }

    /// The pending entries from an id on, all or those of one consumer.
    pub fn pending_from(
        &self,
        from: StreamId,
        of: Option<ConsumerId>,
    ) -> impl Iterator<Item = (StreamId, Pending)> {
        let all = of.is_none().then(|| self.pending.range(from..).map(|(id, pending)| (*id, *pending)));
        let own = of.map(|consumer| {
            let ids = self.consumer(consumer).pending.range(from..);
            ids.filter_map(|id| Some((*id, *self.pending.get(id)?)))
        });
        all.into_iter().flatten().chain(own.into_iter().flatten())
    }

    /// Notes that an entry was given to the group.
    pub(super) fn advance(&mut self, counters: &Counters, entry: StreamId) {
        if entry <= self.last_id {
            return;
        }
        self.entries_read = match self.entries_read {
            Some(read) if !counters.may_have_gap_from(entry) => Some(read.saturating_add(1)),
            _ => counters.entries_up_to(entry),
        };
        self.last_id = entry;
    }

    /// How many entries of the stream the group was not given yet; `None` where deletions have made that unknown.
    pub(super) fn lag(&self, counters: &Counters) -> Option<i64> {
        if counters.entries_added == 0 {
            return Some(0);
        }
        let read = match self.entries_read {
            Some(read) if !counters.may_have_gap_from(self.last_id) => read,
            _ => counters.entries_up_to(self.last_id)?,
        };
        Some(counters.entries_added.wrapping_sub(read).cast_signed())
    }

    /// Puts a consumer in as it was stored. False when it is there already, or when an entry is not among the pending ones
    /// or has an owner.
    pub(super) fn restore_consumer(
        &mut self,
        name: &[u8],
        seen_at_ms: i64,
        pending: &[StreamId],
        unowned: &mut BTreeMap<StreamId, (i64, u64)>,
    ) -> bool {
        let (consumer, is_new) = self.see(name, seen_at_ms);
        is_new
            && pending.iter().all(|entry| {
                let Some((delivered_at_ms, deliveries)) = unowned.remove(entry) else { return false };
                self.assign(*entry, Pending { consumer, delivered_at_ms, deliveries });
                true
            })
    }

    /// Bytes allocated, reckoned from the numbers of things.
    pub(super) fn heap_bytes(&self) -> usize {
        let names: usize = self.consumers().map(|consumer| consumer.name.len()).sum();
        // The nodes of a B-tree are three quarters full, as a rule.
        let pending = size_of::<(StreamId, Pending)>() + size_of::<StreamId>();
        names
            + self.consumers.capacity() * size_of::<Option<Consumer>>()
            + self.by_name.capacity() * size_of::<ConsumerId>()
            + self.pending.len() * pending * 4 / 3
    }
}

/// The groups of a stream by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups(BTreeMap<Box<[u8]>, Group>);

impl Groups {
    pub(super) fn get(&self, name: &[u8]) -> Option<&Group> {
        self.0.get(name)
    }

    pub(super) fn get_mut(&mut self, name: &[u8]) -> Option<&mut Group> {
        self.0.get_mut(name)
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &Group)> {
        self.0.iter().map(|(name, group)| (&**name, group))
    }

    /// Whether the name was free.
    pub(super) fn insert(&mut self, name: &[u8], group: Group) -> bool {
        match self.0.entry(name.into()) {
            Slot::Vacant(free) => {
                free.insert(group);
                true
            }
            Slot::Occupied(_) => false,
        }
    }

    pub(super) fn remove(&mut self, name: &[u8]) -> bool {
        self.0.remove(name).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> StreamId {
        StreamId { ms, seq: 0 }
    }

    #[test]
    fn an_entry_has_one_owner_and_goes_with_it() {
        let mut group = Group::new(StreamId::MIN, None);
        let (b, _) = group.see(b"b", 1);
        let (a, is_new) = group.see(b"a", 2);
        assert!(is_new && group.see(b"a", 3) == (a, false));
        let names: Vec<&[u8]> = group.consumers().map(Consumer::name).collect();
        assert_eq!(names, [b"a", b"b"]);
        let pending = |consumer| Pending { consumer, delivered_at_ms: 5, deliveries: 1 };
        (1..=4).for_each(|ms| group.assign(at(ms), pending(b)));
        group.assign(at(2), pending(a));
        group.assign(at(2), pending(a));
        let of = |group: &Group, consumer| {
            group.pending_from(at(2), consumer).map(|(id, _)| id.ms).collect::<Vec<_>>()
        };
        assert_eq!(of(&group, None), [2, 3, 4]);
        assert_eq!((of(&group, Some(a)), of(&group, Some(b))), (vec![2], vec![3, 4]));
        assert!(group.acknowledge(at(3)) && !group.acknowledge(at(3)));
        assert_eq!(group.delete_consumer(b"b"), Some(2));
        assert_eq!((group.delete_consumer(b"b"), of(&group, None)), (None, vec![2]));
        // The place that became free is taken again.
        assert_eq!(group.see(b"c", 9), (b, true));
        assert_eq!(group.consumer(a).seen_at_ms, 3);
    }
}
