//! Lists: one listpack while small, then a deque of listpacks, each within the node size of the limits. An element
//! too large for a node stands alone.

use std::collections::VecDeque;

use cairn_rdb::listpack::{self, Needle, Position};

use super::{Item, Limits, Listpack};

/// An end of a list, or a side of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The head; before.
    Front,
    /// The tail; after.
    Back,
}

/// A list.
#[derive(Clone, Debug)]
pub struct List(Form);

#[derive(Clone, Debug)]
enum Form {
    One(Listpack),
    Many(Box<Nodes>),
}

#[derive(Clone, Debug)]
struct Nodes {
    nodes: VecDeque<Node>,
    len: usize,
}

/// The count stands here and not only in the listpack, so that walking to an index touches no node but its own.
#[derive(Clone, Debug)]
struct Node {
    count: u32,
    data: Data,
}

#[derive(Clone, Debug)]
enum Data {
    Packed(Listpack),
    Plain(Box<[u8]>),
}

/// A node, for those who write it to a snapshot.
#[derive(Clone, Copy, Debug)]
pub enum NodeRef<'a> {
    /// Several elements.
    Packed(&'a Listpack),
    /// One large element.
    Plain(&'a [u8]),
}

impl Node {
    fn packed(listpack: Listpack) -> Self {
        Self { count: listpack.len() as u32, data: Data::Packed(listpack) }
    }

    /// A node of one element, packed if it may be.
    fn of(element: &[u8], limits: &Limits) -> Self {
        if is_plain(element, limits) {
            return Self { count: 1, data: Data::Plain(element.into()) };
        }
        let mut listpack = Listpack::with_capacity(element.len() + 16);
        listpack.push_back(element);
        Self { count: 1, data: Data::Packed(listpack) }
    }

    fn room_for(&mut self, element: &[u8], limits: &Limits) -> Option<&mut Listpack> {
        match &mut self.data {
            Data::Packed(listpack) if fits(listpack, element, limits) => Some(listpack),
            _ => None,
        }
    }

    fn iter(&self) -> NodeIter<'_> {
        self.iter_from(0)
    }

    fn iter_from(&self, index: usize) -> NodeIter<'_> {
        match &self.data {
            Data::Packed(listpack) if index == 0 => NodeIter::Packed(listpack.iter()),
            Data::Packed(listpack) => NodeIter::Packed(listpack.iter_from(index)),
            Data::Plain(element) => NodeIter::Plain((index == 0).then_some(element)),
        }
    }

    fn get(&self, index: usize) -> Option<Item<'_>> {
        self.iter_from(index).next()
    }

    fn find(&self, needle: &Needle<'_>, element: &[u8]) -> Option<usize> {
        match &self.data {
            Data::Packed(listpack) => listpack.find(element, 1).map(|(_, index)| index),
            Data::Plain(own) => needle.matches(Item::Bytes(own)).then_some(0),
        }
    }

    fn heap_bytes(&self) -> usize {
        match &self.data {
            Data::Packed(listpack) => listpack.heap_bytes(),
            Data::Plain(element) => element.len(),
        }
    }
}

fn is_plain(element: &[u8], limits: &Limits) -> bool {
    element.len() > limits.list_listpack_bytes
}

fn fits(listpack: &Listpack, element: &[u8], limits: &Limits) -> bool {
    // The longest frame of an element this size is fourteen bytes, but the exact length is asked only when it matters.
    let roughly = listpack.byte_len() + element.len();
    let has_bytes = roughly + 14 <= limits.list_listpack_bytes
        || (roughly <= limits.list_listpack_bytes
            && listpack.byte_len() + Listpack::encoded_len(element) <= limits.list_listpack_bytes);
    has_bytes && listpack.len() < limits.list_listpack_entries
}

impl Default for List {
    fn default() -> Self {
        Self::new()
    }
}

impl List {
    /// An empty one.
    pub fn new() -> Self {
        Self(Form::One(Listpack::new()))
    }

    /// Adopts a listpack as the whole list.
    pub fn from_listpack(listpack: Listpack) -> Self {
        Self(Form::One(listpack))
    }

    /// Adopts a listpack as the last node. An empty one is ignored.
    pub fn push_packed_node(&mut self, listpack: Listpack) {
        if listpack.is_empty() {
            return;
        }
        if self.is_empty() {
            *self = Self::from_listpack(listpack);
            return;
        }
        let nodes = self.many();
        nodes.push(Side::Back, Node::packed(listpack));
    }

    /// Adopts one large element as the last node.
    pub fn push_plain_node(&mut self, element: Vec<u8>) {
        let node = Node { count: 1, data: Data::Plain(element.into_boxed_slice()) };
        self.many().push(Side::Back, node);
    }

    /// How many elements there are. O(1).
    #[inline]
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::One(listpack) => listpack.len(),
            Form::Many(nodes) => nodes.len,
        }
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        match &self.0 {
            Form::One(listpack) => listpack.is_empty(),
            Form::Many(nodes) => nodes.len == 0,
        }
    }

    /// What OBJECT ENCODING answers: Redis 7.0 knows one encoding of lists.
    pub fn encoding(&self) -> &'static str {
        "quicklist"
    }

    /// How many nodes hold the elements.
    pub fn nodes(&self) -> usize {
        match &self.0 {
            Form::One(_) => 1,
            Form::Many(nodes) => nodes.nodes.len(),
        }
    }

    /// Bytes allocated; those of the nodes are reckoned from so many of them.
    pub fn heap_bytes(&self, samples: usize) -> usize {
        match &self.0 {
            Form::One(listpack) => listpack.heap_bytes(),
            Form::Many(many) => {
                let own = size_of::<Nodes>() + many.nodes.capacity() * size_of::<Node>();
                let sample = samples.min(many.nodes.len()).max(1);
                let sampled: usize = many.nodes.iter().take(sample).map(Node::heap_bytes).sum();
                own + sampled * many.nodes.len() / sample
            }
        }
    }

    /// Calls `visit` with the nodes in order; an empty list has one empty node or none.
    pub fn for_each_node(&self, mut visit: impl FnMut(NodeRef<'_>)) {
        match &self.0 {
            Form::One(listpack) => visit(NodeRef::Packed(listpack)),
            Form::Many(many) => {
                for node in &many.nodes {
                    visit(match &node.data {
                        Data::Packed(listpack) => NodeRef::Packed(listpack),
                        Data::Plain(element) => NodeRef::Plain(element),
                    });
                }
            }
        }
    }

    /// Appends an element at the tail.
    #[inline]
    pub fn push_back(&mut self, element: &[u8], limits: &Limits) {
        self.push(Side::Back, element, limits);
    }

    /// Puts an element at the head.
    #[inline]
    pub fn push_front(&mut self, element: &[u8], limits: &Limits) {
        self.push(Side::Front, element, limits);
    }

    /// Puts an element at an end.
    pub fn push(&mut self, side: Side, element: &[u8], limits: &Limits) {
        if let Form::One(listpack) = &mut self.0
            && (fits(listpack, element, limits) || (listpack.is_empty() && !is_plain(element, limits)))
        {
            return push_packed(listpack, side, element);
        }
        let many = self.many();
        let end = match side {
            Side::Front => many.nodes.front_mut(),
            Side::Back => many.nodes.back_mut(),
        };
        if let Some(node) = end
            && let Some(listpack) = node.room_for(element, limits)
        {
            push_packed(listpack, side, element);
            node.count += 1;
            many.len += 1;
            return;
        }
        many.push(side, Node::of(element, limits));
    }

    /// Removes and returns the head.
    #[inline]
    pub fn pop_front(&mut self) -> Option<Vec<u8>> {
        self.pop(Side::Front)
    }

    /// Removes and returns the tail.
    #[inline]
    pub fn pop_back(&mut self) -> Option<Vec<u8>> {
        self.pop(Side::Back)
    }

    /// Removes and returns the element at an end.
    pub fn pop(&mut self, side: Side) -> Option<Vec<u8>> {
        let many = match &mut self.0 {
            Form::One(listpack) => return pop_packed(listpack, side),
            Form::Many(many) => many,
        };
        let node = match side {
            Side::Front => many.nodes.front_mut(),
            Side::Back => many.nodes.back_mut(),
        }?;
        let element = match &mut node.data {
            Data::Packed(listpack) => pop_packed(listpack, side)?,
            Data::Plain(element) => std::mem::take(element).into_vec(),
        };
        node.count -= 1;
        many.len -= 1;
        if node.count == 0 {
            match side {
                Side::Front => many.nodes.pop_front(),
                Side::Back => many.nodes.pop_back(),
            };
        }
        Some(element)
    }

    /// The element at an index; negative indexes count from the tail, -1 is the last.
    pub fn get(&self, index: i64) -> Option<Item<'_>> {
        let many = match &self.0 {
            Form::One(listpack) => return listpack.get(index),
            Form::Many(many) => many,
        };
        let (node, offset) = many.locate(absolute(index, many.len)?)?;
        many.nodes[node].get(offset)
    }

    /// Replaces the element at an index; false when there is none.
    pub fn set(&mut self, index: i64, element: &[u8], limits: &Limits) -> bool {
        let Some(index) = absolute(index, self.len()) else { return false };
        if let Form::One(listpack) = &mut self.0
            && let Some(at) = listpack.position(index)
            && may_replace(listpack, at, element, limits)
        {
            listpack.replace(at, element);
            return true;
        }
        let many = self.many();
        let Some((node, offset)) = many.locate(index) else { return false };
        if let Data::Packed(listpack) = &mut many.nodes[node].data
            && let Some(at) = listpack.position(offset)
            && may_replace(listpack, at, element, limits)
        {
            listpack.replace(at, element);
            return true;
        }
        let between = many.split(node, offset);
        // What `split` left at `between` begins with the old element.
        many.remove_first(between);
        many.nodes.insert(between, Node::of(element, limits));
        many.len += 1;
        true
    }

    /// Inserts an element before or after the first one equal to `pivot`. Returns the new length, `None` when the pivot is
    /// not there.
    pub fn insert(&mut self, side: Side, pivot: &[u8], element: &[u8], limits: &Limits) -> Option<usize> {
        let after = usize::from(side == Side::Back);
        if let Form::One(listpack) = &mut self.0 {
            let (at, _) = listpack.find(pivot, 1)?;
            if fits(listpack, element, limits) {
                let at = if after == 1 { listpack.next(at)? } else { at };
                listpack.insert(at, element);
                return Some(listpack.len());
            }
        }
        let many = self.many();
        let needle = Needle::new(pivot);
        let (node, offset) =
            many.nodes.iter().enumerate().find_map(|(at, node)| Some((at, node.find(&needle, pivot)?)))?;
        many.insert_at(node, offset + after, element, limits);
        Some(many.len)
    }

    /// Removes elements equal to `element`: the first `count`, the last `-count`, or all when `count` is 0. Returns how
    /// many were removed.
    pub fn remove(&mut self, count: i64, element: &[u8]) -> usize {
        let mut left =
            if count == 0 { usize::MAX } else { usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX) };
        let from_tail = count < 0;
        let many = match &mut self.0 {
            Form::One(listpack) => return remove_packed(listpack, left, from_tail, element),
            Form::Many(many) => many,
        };
        let mut removed = 0;
        let total = many.nodes.len();
        for step in 0..total {
            if left == 0 {
                break;
            }
            let node = &mut many.nodes[if from_tail { total - 1 - step } else { step }];
            let here = match &mut node.data {
                Data::Packed(listpack) => remove_packed(listpack, left, from_tail, element),
                Data::Plain(own) => usize::from(**own == *element),
            };
            node.count -= here as u32;
            removed += here;
            left -= here;
        }
        many.len -= removed;
        if removed > 0 {
            many.nodes.retain(|node| node.count > 0);
        }
        removed
    }

    /// Keeps `count` elements from index `start` on and drops all others.
    pub fn trim(&mut self, start: usize, count: usize) {
        let many = match &mut self.0 {
            Form::One(listpack) => return listpack.keep(start, count),
            Form::Many(many) => many,
        };
        let mut from_front = start.min(many.len);
        let mut from_back = many.len - from_front - count.min(many.len - from_front);
        many.len -= from_front + from_back;
        while let Some(node) = many.nodes.front_mut().filter(|_| from_front > 0) {
            if node.count as usize > from_front {
                node.keep(from_front, usize::MAX);
                break;
            }
            from_front -= node.count as usize;
            many.nodes.pop_front();
        }
        while let Some(node) = many.nodes.back_mut().filter(|_| from_back > 0) {
            if node.count as usize > from_back {
                node.keep(0, node.count as usize - from_back);
                break;
            }
            from_back -= node.count as usize;
            many.nodes.pop_back();
        }
    }

    /// The elements from head to tail.
    pub fn iter(&self) -> Range<'_> {
        self.range(0, usize::MAX)
    }

    /// The elements from tail to head.
    pub fn iter_rev(&self) -> impl Iterator<Item = Item<'_>> {
        let (one, many) = match &self.0 {
            Form::One(listpack) => (Some(listpack.iter().rev()), None),
            Form::Many(many) => (None, Some(many.nodes.iter().rev().flat_map(|node| node.iter().rev()))),
        };
        one.into_iter().flatten().chain(many.into_iter().flatten())
    }

    /// Up to `count` elements from index `start` on.
    pub fn range(&self, start: usize, count: usize) -> Range<'_> {
        match &self.0 {
            Form::One(listpack) => {
                let here = if start == 0 { listpack.iter() } else { listpack.iter_from(start) };
                Range { here: NodeIter::Packed(here), nodes: None, next: 0, left: count }
            }
            Form::Many(many) => {
                let Some((node, offset)) = many.locate(start) else {
                    return Range { here: NodeIter::Plain(None), nodes: None, next: 0, left: 0 };
                };
                let here = many.nodes[node].iter_from(offset);
                Range { here, nodes: Some(&many.nodes), next: node + 1, left: count }
            }
        }
    }

    /// The indexes of elements equal to `element`, as LPOS finds them: beginning with match number `rank` (1 is the first,
    /// -1 the last, searching backwards), up to `count` of them (0: all), after at most `compared_max` comparisons (0:
    /// no bound).
    pub fn positions(&self, element: &[u8], rank: i64, count: usize, compared_max: usize) -> Vec<usize> {
        let needle = Needle::new(element);
        let skip = usize::try_from(rank.unsigned_abs().saturating_sub(1)).unwrap_or(usize::MAX);
        let bound = |bound: usize| if bound == 0 { usize::MAX } else { bound };
        let (compared_max, count) = (bound(compared_max), bound(count));
        if rank < 0 {
            let last = self.len().wrapping_sub(1);
            let items = self.iter_rev().take(compared_max).enumerate();
            let matches = items.filter(|(_, item)| needle.matches(*item)).map(|(steps, _)| last - steps);
            matches.skip(skip).take(count).collect()
        } else {
            let items = self.iter().take(compared_max).enumerate();
            let matches = items.filter(|(_, item)| needle.matches(*item)).map(|(index, _)| index);
            matches.skip(skip).take(count).collect()
        }
    }

    /// The nodes of a list that has outgrown one, or must now.
    fn many(&mut self) -> &mut Nodes {
        if let Form::One(listpack) = &mut self.0 {
            let listpack = std::mem::take(listpack);
            let len = listpack.len();
            let nodes = if len == 0 { VecDeque::new() } else { VecDeque::from([Node::packed(listpack)]) };
            self.0 = Form::Many(Box::new(Nodes { nodes, len }));
        }
        match &mut self.0 {
            Form::Many(many) => many,
            Form::One(_) => unreachable!("made of many nodes just above"),
        }
    }
}

impl Node {
    /// Keeps `count` elements from `start` on; both leave at least one.
    fn keep(&mut self, start: usize, count: usize) {
        if let Data::Packed(listpack) = &mut self.data {
            listpack.keep(start, count);
            self.count = listpack.len() as u32;
        }
    }
}

impl Nodes {
    fn push(&mut self, side: Side, node: Node) {
        self.len += node.count as usize;
        match side {
            Side::Front => self.nodes.push_front(node),
            Side::Back => self.nodes.push_back(node),
        }
    }

    /// The node of an index and the index within it, from the nearer end.
    fn locate(&self, index: usize) -> Option<(usize, usize)> {
        if index >= self.len {
            return None;
        }
        if index <= self.len / 2 {
            let mut left = index;
            for (at, node) in self.nodes.iter().enumerate() {
                if left < node.count as usize {
                    return Some((at, left));
                }
                left -= node.count as usize;
            }
            return None;
        }
        let mut from_back = self.len - index;
        for (at, node) in self.nodes.iter().enumerate().rev() {
            if from_back <= node.count as usize {
                return Some((at, node.count as usize - from_back));
            }
            from_back -= node.count as usize;
        }
        None
    }

    /// Cuts a node before its element `offset` and returns the index of the node that begins with that element, or where
    /// it would stand.
    fn split(&mut self, node: usize, offset: usize) -> usize {
        if offset == 0 {
            return node;
        }
        if let Data::Packed(listpack) = &mut self.nodes[node].data
            && let Some(at) = listpack.position(offset)
        {
            let tail = listpack.split_off(at);
            self.nodes[node].count = offset as u32;
            self.nodes.insert(node + 1, Node::packed(tail));
        }
        node + 1
    }

    /// Removes the first element of a node, and the node with its last one.
    fn remove_first(&mut self, node: usize) {
        self.len -= 1;
        let own = &mut self.nodes[node];
        own.count -= 1;
        if own.count == 0 {
            self.nodes.remove(node);
        } else if let Data::Packed(listpack) = &mut own.data {
            listpack.remove(listpack.first(), 1);
        }
    }

    /// Inserts an element before element `offset` of a node (its count: after the last).
    fn insert_at(&mut self, node: usize, offset: usize, element: &[u8], limits: &Limits) {
        self.len += 1;
        let own = &mut self.nodes[node];
        if let Some(listpack) = own.room_for(element, limits) {
            let at = listpack.position(offset).unwrap_or(listpack.last_position());
            listpack.insert(at, element);
            own.count += 1;
            return;
        }
        // At the edge the neighbour may have room: inserting again and again at one place fills nodes.
        let neighbour = if offset == 0 {
            node.checked_sub(1).map(|before| (before, Side::Back))
        } else if offset == own.count as usize {
            (node + 1 < self.nodes.len()).then_some((node + 1, Side::Front))
        } else {
            None
        };
        if let Some((other, side)) = neighbour
            && let Some(listpack) = self.nodes[other].room_for(element, limits)
        {
            push_packed(listpack, side, element);
            self.nodes[other].count += 1;
            return;
        }
        let between = self.split(node, offset);
        if between > 0
            && offset > 0
            && let Some(listpack) = self.nodes[between - 1].room_for(element, limits)
        {
            listpack.push_back(element);
            self.nodes[between - 1].count += 1;
            return;
        }
        self.nodes.insert(between, Node::of(element, limits));
    }
}

fn absolute(index: i64, len: usize) -> Option<usize> {
    let index = if index < 0 { i64::try_from(len).ok()?.checked_add(index)? } else { index };
    usize::try_from(index).ok().filter(|index| *index < len)
}

fn may_replace(listpack: &Listpack, at: Position, element: &[u8], limits: &Limits) -> bool {
    let old = listpack.entry_len(at);
    let new = Listpack::encoded_len(element);
    new <= old || listpack.byte_len() - old + new <= limits.list_listpack_bytes
}

fn push_packed(listpack: &mut Listpack, side: Side, element: &[u8]) {
    match side {
        Side::Front => listpack.push_front(element),
        Side::Back => listpack.push_back(element),
    }
}

fn pop_packed(listpack: &mut Listpack, side: Side) -> Option<Vec<u8>> {
    match side {
        Side::Front => listpack.pop_front(),
        Side::Back => listpack.pop_back(),
    }
}

fn remove_packed(listpack: &mut Listpack, count: usize, from_tail: bool, element: &[u8]) -> usize {
    let needle = Needle::new(element);
    let mut found = Vec::new();
    let mut at = listpack.first();
    while let Some(item) = listpack.item(at) {
        if needle.matches(item) {
            found.push(at);
            if !from_tail && found.len() == count {
                break;
            }
        }
        let Some(next) = listpack.next(at) else { break };
        at = next;
    }
    let chosen = if from_tail { &found[found.len().saturating_sub(count)..] } else { &found[..] };
    // From the last to the first, so that the positions before stay true.
    for at in chosen.iter().rev() {
        listpack.remove(*at, 1);
    }
    chosen.len()
}

/// Elements of a list in order.
#[derive(Clone, Debug)]
pub struct Range<'a> {
    here: NodeIter<'a>,
    nodes: Option<&'a VecDeque<Node>>,
    next: usize,
    left: usize,
}

impl<'a> Iterator for Range<'a> {
    type Item = Item<'a>;

    #[inline]
    fn next(&mut self) -> Option<Item<'a>> {
        if self.left == 0 {
            return None;
        }
        loop {
            if let Some(item) = self.here.next() {
                self.left -= 1;
                return Some(item);
            }
            self.here = self.nodes?.get(self.next)?.iter();
            self.next += 1;
        }
    }
}

#[derive(Clone, Debug)]
enum NodeIter<'a> {
    Packed(listpack::Iter<'a>),
    Plain(Option<&'a [u8]>),
}

impl<'a> Iterator for NodeIter<'a> {
    type Item = Item<'a>;

    #[inline]
    fn next(&mut self) -> Option<Item<'a>> {
        match self {
            Self::Packed(iter) => iter.next(),
            Self::Plain(element) => element.take().map(Item::Bytes),
        }
    }
}

impl DoubleEndedIterator for NodeIter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        match self {
            Self::Packed(iter) => iter.next_back(),
            Self::Plain(element) => element.take().map(Item::Bytes),
        }
    }
}
