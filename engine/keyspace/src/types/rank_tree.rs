//! A sequence of (score, id) pairs in which the place of an element is found, and the element of a place, in O(log n):
//! a B+ tree whose inner nodes count the elements below each child.
//!
//! It knows no order of its own. The caller finds a place with [`RankTree::partition_point`] and inserts there; what the
//! predicate compares (scores, members) is the caller's matter.

/// Elements of a leaf: 84 · (8 + 4) bytes and the count fill one kilobyte, a size class of the allocator.
const LEAF: usize = 84;
/// Children of an inner node.
const FANOUT: usize = 64;

/// An element: its score, and the id under which the caller keeps the rest.
pub(crate) type Key = (f64, u32);

#[derive(Clone)]
struct Leaf {
    scores: [f64; LEAF],
    ids: [u32; LEAF],
    len: u32,
}

impl Leaf {
    fn new() -> Box<Self> {
        Box::new(Self { scores: [0.0; LEAF], ids: [0; LEAF], len: 0 })
    }

    #[inline]
    fn len(&self) -> usize {
        self.len as usize
    }

    #[inline]
    fn key(&self, index: usize) -> Key {
        (self.scores[index], self.ids[index])
    }

    fn insert(&mut self, at: usize, key: Key) {
        let len = self.len();
        self.scores.copy_within(at..len, at + 1);
        self.ids.copy_within(at..len, at + 1);
        (self.scores[at], self.ids[at]) = key;
        self.len += 1;
    }

    fn remove(&mut self, at: usize) -> Key {
        let key = self.key(at);
        let len = self.len();
        self.scores.copy_within(at + 1..len, at);
        self.ids.copy_within(at + 1..len, at);
        self.len -= 1;
        key
    }

    fn append(&mut self, other: &Self, from: usize) {
        let (own, more) = (self.len(), other.len() - from);
        self.scores[own..own + more].copy_from_slice(&other.scores[from..other.len()]);
        self.ids[own..own + more].copy_from_slice(&other.ids[from..other.len()]);
        self.len += more as u32;
    }

    fn split_off(&mut self, at: usize) -> Box<Self> {
        let mut other = Self::new();
        other.append(self, at);
        self.len = at as u32;
        other
    }
}

#[derive(Clone)]
enum Node {
    Leaf(Box<Leaf>),
    Inner(Vec<Child>),
}

#[derive(Clone)]
struct Child {
    node: Node,
    /// Elements below.
    count: usize,
    /// The first of them.
    first: Key,
}

impl Child {
    fn of_leaf(leaf: Box<Leaf>) -> Self {
        Self { count: leaf.len(), first: leaf.key(0), node: Node::Leaf(leaf) }
    }

    fn of_inner(children: Vec<Self>) -> Self {
        Self {
            count: children.iter().map(|child| child.count).sum(),
            first: children[0].first,
            node: Node::Inner(children),
        }
    }
}

/// The sequence.
#[derive(Clone)]
pub(crate) struct RankTree {
    root: Node,
    len: usize,
}

impl std::fmt::Debug for RankTree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RankTree").field("len", &self.len).finish()
    }
}

/// Where element `rank` is: the child that holds it and its rank in there. `rank` may be the count: then it is the end of
/// the last child.
#[inline]
fn child_of(children: &[Child], rank: usize) -> (usize, usize) {
    let mut left = rank;
    let last = children.len() - 1;
    for (at, child) in children[..last].iter().enumerate() {
        if left < child.count {
            return (at, left);
        }
        left -= child.count;
    }
    (last, left)
}

impl RankTree {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self { root: Node::Leaf(Leaf::new()), len: 0 }
    }

    /// How many elements there are.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many elements, counted from the first, satisfy `holds`, which must be true for a beginning of the sequence and
    /// false for the rest.
    #[inline]
    pub(crate) fn partition_point(&self, mut holds: impl FnMut(Key) -> bool) -> usize {
        let mut node = &self.root;
        let mut before = 0;
        loop {
            match node {
                Node::Inner(children) => {
                    // The last child whose first element satisfies it; the first child when none does.
                    let at = children[1..].partition_point(|child| holds(child.first));
                    before += children[..at].iter().map(|child| child.count).sum::<usize>();
                    node = &children[at].node;
                }
                Node::Leaf(leaf) => {
                    let (mut low, mut high) = (0, leaf.len());
                    while low < high {
                        let middle = low.midpoint(high);
                        if holds(leaf.key(middle)) {
                            low = middle + 1;
                        } else {
                            high = middle;
                        }
                    }
                    return before + low;
                }
            }
        }
    }

    /// The element at `rank`.
    #[inline]
    pub(crate) fn get(&self, rank: usize) -> Option<Key> {
        let (leaf, at) = self.leaf_of(rank)?;
        Some(leaf.key(at))
    }

    #[inline]
    fn leaf_of(&self, rank: usize) -> Option<(&Leaf, usize)> {
        if rank >= self.len {
            return None;
        }
        let mut node = &self.root;
        let mut left = rank;
        loop {
            match node {
                Node::Inner(children) => {
                    let (at, rest) = child_of(children, left);
                    node = &children[at].node;
                    left = rest;
                }
                Node::Leaf(leaf) => return Some((leaf, left)),
            }
        }
    }

    /// Inserts an element before the one at `rank` (the length appends).
    pub(crate) fn insert(&mut self, rank: usize, key: Key) {
        debug_assert!(rank <= self.len);
        let is_last = rank == self.len;
        if let Some(sibling) = insert_into(&mut self.root, rank, key, is_last) {
            let old = std::mem::replace(&mut self.root, Node::Inner(Vec::new()));
            let first = match old {
                Node::Leaf(leaf) => Child::of_leaf(leaf),
                Node::Inner(children) => Child::of_inner(children),
            };
            let mut children = Vec::with_capacity(FANOUT);
            children.extend([first, sibling]);
            self.root = Node::Inner(children);
        }
        self.len += 1;
    }

    /// Removes and returns the element at `rank`.
    pub(crate) fn remove(&mut self, rank: usize) -> Option<Key> {
        if rank >= self.len {
            return None;
        }
        let key = remove_from(&mut self.root, rank);
        self.len -= 1;
        while let Node::Inner(children) = &mut self.root
            && children.len() == 1
            && let Some(only) = children.pop()
        {
            self.root = only.node;
        }
        Some(key)
    }

    /// Writes another score at `rank`, where the order stays as it is.
    pub(crate) fn set_score(&mut self, rank: usize, score: f64) {
        let mut node = &mut self.root;
        let mut left = rank;
        loop {
            match node {
                Node::Inner(children) => {
                    let (at, rest) = child_of(children, left);
                    if rest == 0 {
                        children[at].first.0 = score;
                    }
                    node = &mut children[at].node;
                    left = rest;
                }
                Node::Leaf(leaf) => {
                    leaf.scores[left] = score;
                    return;
                }
            }
        }
    }

    /// The elements of ranks `start..end`, from either end.
    pub(crate) fn range(&self, start: usize, end: usize) -> Range<'_> {
        let end = end.min(self.len);
        Range { tree: self, next: start.min(end), end, front: None, back: None }
    }

    /// Bytes allocated.
    pub(crate) fn heap_bytes(&self) -> usize {
        fn of(node: &Node) -> usize {
            match node {
                Node::Leaf(_) => size_of::<Leaf>(),
                Node::Inner(children) => {
                    children.capacity() * size_of::<Child>()
                        + children.iter().map(|child| of(&child.node)).sum::<usize>()
                }
            }
        }
        of(&self.root)
    }
}

/// Inserts below `node`; a full one splits and the second part is returned. `is_last` when the whole sequence grows at
/// its end: then the old node stays full, or ascending insertions would leave every node half empty.
fn insert_into(node: &mut Node, rank: usize, key: Key, is_last: bool) -> Option<Child> {
    match node {
        Node::Leaf(leaf) => {
            if leaf.len() < LEAF {
                leaf.insert(rank, key);
                return None;
            }
            let cut = if is_last { LEAF } else { LEAF / 2 };
            let mut sibling = leaf.split_off(cut);
            if rank > cut || is_last {
                sibling.insert(rank - cut, key);
            } else {
                leaf.insert(rank, key);
            }
            Some(Child::of_leaf(sibling))
        }
        Node::Inner(children) => {
            let (at, rest) = child_of(children, rank);
            let child = &mut children[at];
            let split = insert_into(&mut child.node, rest, key, is_last);
            child.count += 1;
            if rest == 0 {
                child.first = key;
            }
            let split = split?;
            child.count -= split.count;
            children.insert(at + 1, split);
            if children.len() <= FANOUT {
                return None;
            }
            let cut = if is_last { FANOUT } else { FANOUT / 2 };
            let mut sibling = Vec::with_capacity(FANOUT + 1);
            sibling.extend(children.drain(cut..));
            Some(Child::of_inner(sibling))
        }
    }
}

fn remove_from(node: &mut Node, rank: usize) -> Key {
    match node {
        Node::Leaf(leaf) => leaf.remove(rank),
        Node::Inner(children) => {
            let (at, rest) = child_of(children, rank);
            let child = &mut children[at];
            let key = remove_from(&mut child.node, rest);
            child.count -= 1;
            if child.count == 0 {
                children.remove(at);
                return key;
            }
            let (first, is_sparse) = match &child.node {
                Node::Leaf(leaf) => (leaf.key(0), leaf.len() < LEAF / 4),
                Node::Inner(inner) => (inner[0].first, inner.len() < FANOUT / 4),
            };
            child.first = first;
            if is_sparse && children.len() > 1 {
                merge(children, at.min(children.len() - 2));
            }
            key
        }
    }
}

/// Makes one child of two neighbours when one has room for both, with a little to spare.
fn merge(children: &mut Vec<Child>, at: usize) {
    let (left, right) = children.split_at_mut(at + 1);
    let (left, right) = (&mut left[at], &mut right[0]);
    let fits = match (&mut left.node, &mut right.node) {
        (Node::Leaf(one), Node::Leaf(other)) if one.len() + other.len() <= LEAF * 3 / 4 => {
            one.append(other, 0);
            true
        }
        (Node::Inner(one), Node::Inner(other)) if one.len() + other.len() <= FANOUT * 3 / 4 => {
            one.append(other);
            true
        }
        _ => false,
    };
    if fits {
        left.count += right.count;
        children.remove(at + 1);
    }
}

/// Elements of neighbouring ranks. A leaf is looked up once and then walked.
#[derive(Clone)]
pub(crate) struct Range<'a> {
    tree: &'a RankTree,
    next: usize,
    end: usize,
    /// A leaf and the index in it of the element `next`.
    front: Option<(&'a Leaf, usize)>,
    /// A leaf and the index in it of the element before `end`.
    back: Option<(&'a Leaf, usize)>,
}

impl Iterator for Range<'_> {
    type Item = Key;

    #[inline]
    fn next(&mut self) -> Option<Key> {
        if self.next >= self.end {
            return None;
        }
        let (leaf, at) = match self.front {
            Some(place) => place,
            None => self.tree.leaf_of(self.next)?,
        };
        self.next += 1;
        self.front = (at + 1 < leaf.len()).then_some((leaf, at + 1));
        Some(leaf.key(at))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.end - self.next, Some(self.end - self.next))
    }
}

impl DoubleEndedIterator for Range<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Key> {
        if self.next >= self.end {
            return None;
        }
        let (leaf, at) = match self.back {
            Some(place) => place,
            None => self.tree.leaf_of(self.end - 1)?,
        };
        self.end -= 1;
        self.back = at.checked_sub(1).map(|before| (leaf, before));
        Some(leaf.key(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(node: &Node) -> (usize, Key) {
        match node {
            Node::Leaf(leaf) => (leaf.len(), leaf.key(0)),
            Node::Inner(children) => {
                assert!(!children.is_empty() && children.len() <= FANOUT);
                for child in children {
                    assert_eq!(check(&child.node), (child.count, child.first));
                }
                (children.iter().map(|child| child.count).sum(), children[0].first)
            }
        }
    }

    #[test]
    fn ascending_insertions_fill_the_leaves() {
        let mut tree = RankTree::new();
        for id in 0..100_000 {
            tree.insert(tree.len(), (f64::from(id), id));
        }
        assert_eq!(check(&tree.root).0, 100_000);
        assert!(tree.heap_bytes() < 100_000 * 13);
        assert_eq!(tree.get(77_777), Some((77_777.0, 77_777)));
        assert_eq!(tree.partition_point(|(score, _)| score < 500.0), 500);
        for rank in (0..100_000).rev() {
            assert!(tree.remove(rank / 2).is_some());
        }
        assert_eq!(tree.len(), 0);
        assert_eq!(tree.get(0), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn behaves_as_a_vector(steps in prop::collection::vec((0u8..8, any::<u16>()), 0..6_000), shrink_from in 1_000usize..5_000) {
            let mut tree = RankTree::new();
            let mut model: Vec<Key> = Vec::new();
            for (id, (kind, place)) in steps.into_iter().enumerate() {
                let rank = usize::from(place) % (model.len() + 1);
                // Growth first, then mostly removals.
                if (kind < 2) == (id < shrink_from) && !model.is_empty() {
                    let rank = rank.min(model.len() - 1);
                    prop_assert_eq!(tree.remove(rank), Some(model.remove(rank)));
                } else {
                    let key = (f64::from(place), id as u32);
                    tree.insert(rank, key);
                    model.insert(rank, key);
                }
            }
            prop_assert_eq!(tree.len(), model.len());
            if !model.is_empty() {
                prop_assert_eq!(check(&tree.root), (model.len(), model[0]));
            }
            prop_assert!(tree.range(0, usize::MAX).eq(model.iter().copied()));
            prop_assert!(tree.range(0, usize::MAX).rev().eq(model.iter().rev().copied()));
        }
    }
}
