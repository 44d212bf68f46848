//! Streams beside a model of them: a map of entries.

use proptest::prelude::*;

use super::*;

fn id(ms: u64, seq: u64) -> StreamId {
    StreamId { ms, seq }
}

fn limits(bytes: usize, entries: u64) -> Limits {
    Limits { stream_node_bytes: bytes, stream_node_entries: entries, ..Limits::default() }
}

/// A stream of the ids 1-0 to `count`-0.
fn numbered(count: u64, limits: &Limits) -> Stream {
    let mut stream = Stream::new();
    (1..=count).for_each(|ms| stream.append(id(ms, 0), &[b"number", ms.to_string().as_bytes()], limits));
    stream
}

fn all(stream: &Stream) -> Vec<StreamId> {
    stream.range(StreamId::MIN, StreamId::MAX).map(|entry| entry.id).collect()
}

#[test]
fn nodes_end_where_the_limits_say() {
    for (bytes, entries, nodes) in
        [(4_096, 100, 10), (0, 0, 1), (0, 250, 4), (1, 0, 1_000), (100, 0, 143), (4_096, 1, 1_000)]
    {
        // As many as redis-server 7.0.15 makes with these limits.
        let stream = numbered(1_000, &limits(bytes, entries));
        assert_eq!(stream.nodes().len(), nodes, "{bytes} bytes, {entries} entries");
    }
}

#[test]
fn whole_nodes_go_first_and_parts_only_when_asked() {
    let limits = limits(0, 10);
    for (to, whole_nodes, limit, gone, nodes) in [
        (TrimTo::Len(55), true, 0, 40, 6),
        (TrimTo::Len(55), false, 0, 45, 6),
        (TrimTo::Len(55), true, 35, 30, 7),
        (TrimTo::Len(0), false, 0, 100, 0),
        (TrimTo::Len(100), false, 0, 0, 10),
        (TrimTo::Id(id(26, 0)), true, 0, 20, 8),
        (TrimTo::Id(id(26, 0)), false, 0, 25, 8),
        (TrimTo::Id(StreamId::MAX), true, 0, 100, 0),
    ] {
        let mut stream = numbered(100, &limits);
        assert_eq!(stream.trim(to, whole_nodes, limit), gone, "{to:?}");
        assert_eq!((stream.nodes().len(), stream.len() as u64), (nodes, 100 - gone));
        let first = all(&stream).first().copied().unwrap_or(StreamId::MIN);
        assert_eq!(stream.counters().first_id, first);
        assert_eq!(stream.counters().last_id, id(100, 0));
    }
}

#[test]
fn a_node_dies_with_its_last_entry() {
    let mut stream = numbered(25, &limits(0, 10));
    (11..=20).for_each(|ms| assert!(stream.delete(id(ms, 0))));
    assert_eq!((stream.nodes().len(), stream.len()), (2, 15));
    assert!(!stream.delete(id(11, 0)) && !stream.delete(id(0, 5)) && !stream.delete(id(99, 0)));
    // Trimming within a node that ends in deleted entries leaves none of it.
    (8..=10).for_each(|ms| assert!(stream.delete(id(ms, 0))));
    assert_eq!(stream.trim(TrimTo::Id(id(9, 0)), false, 0), 7);
    assert_eq!((stream.nodes().len(), stream.stored_from()), (1, id(21, 0)));
}

#[test]
fn what_a_group_was_given_is_counted_until_deletions_hide_it() {
    let mut stream = numbered(10, &limits(0, 4));
    assert!(
        stream.create_group(b"g", StreamId::MIN, None) && !stream.create_group(b"g", StreamId::MIN, None)
    );
    let state = |stream: &Stream| {
        let group = stream.group(b"g").expect("there");
        (group.last_id.ms, group.entries_read, stream.lag(group))
    };
    assert_eq!(state(&stream), (0, None, Some(10)));
    assert!(stream.deliver(b"g", 1, None, |_| ()));
    assert_eq!(state(&stream), (1, Some(1), Some(9)));
    assert!(stream.delete(id(5, 0)));
    assert!(stream.deliver(b"g", 2, None, |_| ()));
    assert_eq!(state(&stream), (3, None, None));
    assert!(stream.deliver(b"g", 2, None, |_| ()));
    assert_eq!(state(&stream), (6, None, None));
    assert!(stream.deliver(b"g", usize::MAX, None, |_| ()));
    assert_eq!(state(&stream), (10, Some(10), Some(0)));
    assert!(!stream.deliver(b"other", 1, None, |_| ()));
}

/// What XINFO STREAM of redis-server 7.0.15 told for streams of these nodes.
#[test]
fn a_radix_tree_would_have_as_many_nodes_as_in_redis() {
    let nodes = |ids: &[(u64, u64)]| {
        let mut stream = Stream::new();
        ids.iter().for_each(|(ms, seq)| stream.append(id(*ms, *seq), &[b"f", b"v"], &limits(0, 1)));
        stream.radix_nodes()
    };
    assert_eq!(nodes(&[]), 1);
    assert_eq!(nodes(&[(1, 1)]), 2);
    assert_eq!(nodes(&[(1, 1), (1, 2)]), 4);
    assert_eq!(nodes(&[(1, 1), (1, 2), (1, 600), (1 << 63, 0), (1 << 63, 1 << 32)]), 14);
}

proptest! {
    #[test]
    fn behaves_as_a_map(
        bytes in prop_oneof![Just(0usize), Just(60), Just(4_096)],
        entries in 0u64..5,
        steps in prop::collection::vec((0u8..8, 0u64..40, 0u64..40), 1..80),
    ) {
        let limits = limits(bytes, entries);
        let (mut stream, mut model) = (Stream::new(), BTreeMap::new());
        let mut added = 0u64;
        for (kind, a, b) in steps {
            match kind {
                0 => prop_assert_eq!(stream.delete(id(a, b)), model.remove(&id(a, b)).is_some()),
                1 => {
                    let at = model.keys().nth(a as usize).copied().unwrap_or(StreamId::MAX);
                    prop_assert_eq!(stream.delete(at), model.remove(&at).is_some());
                }
                2 => {
                    stream.trim(TrimTo::Len(a), false, 0);
                    while model.len() as u64 > a {
                        model.pop_first();
                    }
                }
                3 => {
                    stream.trim(TrimTo::Id(id(a, b)), false, 0);
                    model = model.split_off(&id(a, b));
                }
                _ => {
                    let last = stream.counters().last_id;
                    let next = id(last.ms + a / 20, if a < 20 { last.seq + 1 + b } else { b });
                    let value = format!("{a}").into_bytes();
                    let fields: &[&[u8]] = if b < 30 { &[b"f", &value] } else { &[b"g", b"1", b"h", &value] };
                    stream.append(next, fields, &limits);
                    model.insert(next, value);
                    added += 1;
                }
            }
            let counters = *stream.counters();
            prop_assert_eq!((counters.len, counters.entries_added), (model.len() as u64, added));
            prop_assert_eq!(counters.first_id, model.keys().next().copied().unwrap_or(StreamId::MIN));
            prop_assert_eq!(stream.top(), model.keys().next_back().copied());
            let (from, to) = (id(a / 3, 0), id(b, 7));
            let last_value = |entry: Entry<'_>| (entry.id, entry.fields().last().expect("a field").1.to_vec());
            let expected = || model.iter().filter(|(id, _)| (from..=to).contains(*id)).map(|(id, value)| (*id, value.clone()));
            prop_assert!(stream.range(from, to).map(last_value).eq(expected()));
            let mut back: Vec<_> = stream.range_back(from, to).map(last_value).collect();
            back.reverse();
            prop_assert!(back.into_iter().eq(expected()));
            prop_assert!(stream.nodes().all(|(base, listpack)| Node::from_listpack(listpack.clone(), base, None).is_some()));
        }
    }
}
