//! Random operations on each value type and on the plainest thing that does the same, side by side.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use proptest::prelude::*;

use super::*;

/// Limits at which a few dozen operations pass every border.
fn tight() -> Limits {
    Limits {
        hash_entries: 6,
        hash_value: 12,
        zset_entries: 6,
        zset_value: 12,
        set_intset_entries: 8,
        set_listpack_entries: 6,
        set_listpack_value: 12,
        list_listpack_bytes: 48,
        list_listpack_entries: 5,
        ..Limits::default()
    }
}

fn limits() -> impl Strategy<Value = Limits> {
    prop_oneof![Just(tight()), Just(Limits::default())]
}

/// Few enough texts to meet again, some of them integers, some too long for a flat form, some of each listpack encoding.
fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => (0u8..12).prop_map(|at| format!("m{at}").into_bytes()),
        4 => (-6i64..6).prop_map(|at| at.to_string().into_bytes()),
        2 => prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(4_095), Just(-4_097), Just(40_000), Just(9_000_000)]
            .prop_map(|at| at.to_string().into_bytes()),
        1 => (0u8..3).prop_map(|at| vec![b'a' + at; 20]),
        1 => (0u8..3).prop_map(|at| vec![b'a' + at; 90]),
        1 => (0u8..2).prop_map(|at| vec![b'a' + at; 5_000]),
        1 => (0u8..2).prop_map(|at| vec![b'a' + at; 9_000]),
        1 => prop_oneof![Just(b"".to_vec()), Just(b"007".to_vec()), Just(b"-0".to_vec())],
    ]
}

fn seeded(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state ^ (state >> 29)
    }
}

#[derive(Clone, Debug)]
enum ListStep {
    Push(bool, Vec<u8>),
    Pop(bool),
    Set(i64, Vec<u8>),
    Insert(bool, Vec<u8>, Vec<u8>),
    Remove(i64, Vec<u8>),
    Trim(i64, i64),
}

fn list_step() -> impl Strategy<Value = ListStep> {
    prop_oneof![
        8 => (any::<bool>(), text()).prop_map(|(front, element)| ListStep::Push(front, element)),
        2 => any::<bool>().prop_map(ListStep::Pop),
        2 => (-12i64..12, text()).prop_map(|(at, element)| ListStep::Set(at, element)),
        4 => (any::<bool>(), text(), text()).prop_map(|(front, pivot, element)| ListStep::Insert(front, pivot, element)),
        1 => (-3i64..4, text()).prop_map(|(count, element)| ListStep::Remove(count, element)),
        1 => (-30i64..30, -30i64..30).prop_map(|(start, stop)| ListStep::Trim(start, stop)),
    ]
}

fn side(front: bool) -> Side {
    if front { Side::Front } else { Side::Back }
}

fn list_remove(model: &mut Vec<Vec<u8>>, count: i64, element: &[u8]) -> usize {
    let before = model.len();
    let mut left = if count == 0 { usize::MAX } else { count.unsigned_abs() as usize };
    let mut keep = |own: &Vec<u8>| {
        own != element || left == 0 || {
            left -= 1;
            false
        }
    };
    if count < 0 {
        model.reverse();
        model.retain(&mut keep);
        model.reverse();
    } else {
        model.retain(&mut keep);
    }
    before - model.len()
}

fn check_list(list: &List, model: &[Vec<u8>], limits: &Limits) -> Result<(), TestCaseError> {
    prop_assert_eq!(list.len(), model.len());
    prop_assert_eq!(list.is_empty(), model.is_empty());
    prop_assert!(list.iter().map(|item| item.to_vec()).eq(model.iter().cloned()));
    prop_assert!(list.iter_rev().map(|item| item.to_vec()).eq(model.iter().rev().cloned()));
    let mut unpacked = 0;
    list.for_each_node(|node| match node {
        NodeRef::Packed(listpack) => {
            assert!(listpack.len() <= 1 || listpack.byte_len() <= limits.list_listpack_bytes);
            assert!(listpack.len() <= limits.list_listpack_entries);
            Listpack::from_bytes(listpack.as_bytes().to_vec()).expect("a listpack stays well formed");
            unpacked += listpack.len();
        }
        NodeRef::Plain(_) => unpacked += 1,
    });
    prop_assert_eq!(unpacked, model.len());
    Ok(())
}

/// Members and scores in order.
fn ordered(model: &BTreeMap<Vec<u8>, f64>) -> Vec<(Vec<u8>, f64)> {
    let mut pairs: Vec<_> = model.iter().map(|(member, score)| (member.clone(), *score)).collect();
    pairs.sort_by(|one, other| one.1.partial_cmp(&other.1).expect("no NaN").then(one.0.cmp(&other.0)));
    pairs
}

fn owned<'a>(pairs: impl Iterator<Item = (Item<'a>, f64)>) -> Vec<(Vec<u8>, f64)> {
    pairs.map(|(member, score)| (member.to_vec(), score)).collect()
}

fn score() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (-3i32..4).prop_map(f64::from),
        2 => (-3i32..4).prop_map(|at| f64::from(at) / 4.0),
        1 => prop_oneof![Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(-0.0), Just(0.1), Just(1e300), Just(5e-324), Just(1e17), Just(9_007_199_254_740_993.0)],
    ]
}

/// As many as PROPTEST_CASES says, else few enough for every run of the tests.
fn cases() -> ProptestConfig {
    if std::env::var_os("PROPTEST_CASES").is_some() {
        ProptestConfig::default()
    } else {
        ProptestConfig::with_cases(96)
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_list_behaves_as_a_vector(steps in prop::collection::vec(list_step(), 0..120), limits in limits()) {
        let mut list = List::new();
        let mut model: Vec<Vec<u8>> = Vec::new();
        for step in steps {
            match step {
                ListStep::Push(front, element) => {
                    list.push(side(front), &element, &limits);
                    model.insert(if front { 0 } else { model.len() }, element);
                }
                ListStep::Pop(front) => {
                    let expected = match model.len() {
                        0 => None,
                        len => Some(model.remove(if front { 0 } else { len - 1 })),
                    };
                    prop_assert_eq!(list.pop(side(front)), expected);
                }
                ListStep::Set(at, element) => {
                    let index = if at < 0 { at + model.len() as i64 } else { at };
                    let there = index >= 0 && (index as usize) < model.len();
                    prop_assert_eq!(list.set(at, &element, &limits), there);
                    if there {
                        model[index as usize] = element;
                    }
                }
                ListStep::Insert(front, pivot, element) => {
                    let place = model.iter().position(|own| *own == pivot);
                    if let Some(place) = place {
                        model.insert(place + usize::from(!front), element.clone());
                    }
                    prop_assert_eq!(list.insert(side(front), &pivot, &element, &limits), place.map(|_| model.len()));
                }
                ListStep::Remove(count, element) => {
                    prop_assert_eq!(list.remove(count, &element), list_remove(&mut model, count, &element));
                }
                ListStep::Trim(start, stop) => {
                    let (start, count) = normalize_range(start, stop, model.len()).unwrap_or((0, 0));
                    list.trim(start, count);
                    model = model[start..start + count].to_vec();
                }
            }
            check_list(&list, &model, &limits)?;
        }
        for at in -20i64..20 {
            let index = if at < 0 { at + model.len() as i64 } else { at };
            let expected = usize::try_from(index).ok().and_then(|index| model.get(index)).cloned();
            prop_assert_eq!(list.get(at).map(|item| item.to_vec()), expected);
        }
        for start in 0..model.len() + 2 {
            let expected: Vec<_> = model.iter().skip(start).take(3).cloned().collect();
            prop_assert_eq!(list.range(start, 3).map(|item| item.to_vec()).collect::<Vec<_>>(), expected);
        }
        for element in model.iter().take(4) {
            let all: Vec<usize> = model.iter().enumerate().filter(|(_, own)| *own == element).map(|(at, _)| at).collect();
            prop_assert_eq!(&list.positions(element, 1, 0, 0), &all);
            prop_assert_eq!(list.positions(element, 2, 1, 0), all.iter().copied().skip(1).take(1).collect::<Vec<_>>());
            prop_assert_eq!(list.positions(element, -1, 0, 0), all.iter().copied().rev().collect::<Vec<_>>());
            prop_assert_eq!(list.positions(element, 1, 0, 3), all.iter().copied().filter(|at| *at < 3).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_set_behaves_as_a_set(steps in prop::collection::vec((0u8..4, text()), 0..120), limits in limits(), seed: u64) {
        let mut set = Set::new();
        let mut model = BTreeSet::new();
        let mut random = seeded(seed);
        for (kind, member) in steps {
            if kind == 0 {
                prop_assert_eq!(set.remove(&member), model.remove(&member));
            } else {
                prop_assert_eq!(set.add(&member, &limits), model.insert(member.clone()));
            }
            prop_assert_eq!(set.contains(&member), model.contains(&member));
            prop_assert_eq!(set.len(), model.len());
        }
        prop_assert_eq!(set.iter().map(|member| member.to_vec()).collect::<BTreeSet<_>>(), model.clone());
        for count in 0..model.len() + 2 {
            let some: HashSet<_> = set.random_distinct(count, &mut random).iter().map(Item::to_vec).collect();
            prop_assert_eq!(some.len(), count.min(model.len()));
            prop_assert!(some.iter().all(|member| model.contains(member)));
        }
        let mut met = BTreeSet::new();
        let mut cursor = 0;
        loop {
            cursor = set.scan(cursor, 3, |member| { met.insert(member.to_vec()); });
            if cursor == 0 { break; }
        }
        prop_assert_eq!(&met, &model);
        while let Some(member) = set.pop(&mut random) {
            prop_assert!(model.remove(&member));
        }
        prop_assert!(model.is_empty() && set.is_empty());
    }

    #[test]
    fn a_hash_behaves_as_a_map(steps in prop::collection::vec((0u8..4, text(), text()), 0..120), limits in limits(), seed: u64) {
        let mut hash = Hash::new();
        let mut model = BTreeMap::new();
        let mut random = seeded(seed);
        for (kind, field, value) in steps {
            if kind == 0 {
                prop_assert_eq!(hash.remove(&field), model.remove(&field).is_some());
            } else {
                prop_assert_eq!(hash.set(&field, &value, &limits), model.insert(field.clone(), value).is_none());
            }
            prop_assert_eq!(hash.get(&field).map(|value| value.to_vec()), model.get(&field).cloned());
            prop_assert_eq!(hash.len(), model.len());
        }
        let all = |pairs: Vec<(Item<'_>, Item<'_>)>| -> BTreeMap<_, _> {
            pairs.iter().map(|(field, value)| (field.to_vec(), value.to_vec())).collect()
        };
        prop_assert_eq!(&all(hash.iter().collect()), &model);
        for count in 0..model.len() + 2 {
            let some = all(hash.random_distinct(count, &mut random));
            prop_assert_eq!(some.len(), count.min(model.len()));
            prop_assert!(some.iter().all(|(field, value)| model.get(field) == Some(value)));
        }
        prop_assert_eq!(hash.random(&mut random).is_some(), !model.is_empty());
        let mut met = BTreeMap::new();
        let mut cursor = 0;
        loop {
            cursor = hash.scan(cursor, 3, |field, value| { met.insert(field.to_vec(), value.to_vec()); });
            if cursor == 0 { break; }
        }
        prop_assert_eq!(&met, &model);
        if let Some(listpack) = hash.as_listpack() {
            let copy = Hash::from_listpack(listpack.clone(), &limits).expect("own listpack");
            prop_assert_eq!(&all(copy.iter().collect()), &model);
            let tiny = Limits { hash_entries: 0, ..limits };
            let copy = Hash::from_listpack(listpack.clone(), &tiny).expect("own listpack");
            prop_assert_eq!(&all(copy.iter().collect()), &model);
        }
    }

    #[test]
    fn a_sorted_set_behaves_as_a_sorted_vector(
        steps in prop::collection::vec((0u8..8, text(), score()), 0..200),
        bounds in prop::collection::vec((score(), score(), any::<bool>(), any::<bool>()), 6),
        limits in limits(), seed: u64, ranks in (0usize..30, 0usize..30),
    ) {
        let mut zset = Zset::new();
        let mut model = BTreeMap::new();
        let mut random = seeded(seed);
        for (kind, member, score) in steps {
            match kind {
                0 => prop_assert_eq!(zset.remove(&member), model.remove(&member)),
                1 => prop_assert_eq!(zset.add_ascending(&member, score, &limits), model.insert(member.clone(), score)),
                _ => prop_assert_eq!(zset.add(&member, score, &limits), model.insert(member.clone(), score)),
            }
            prop_assert_eq!(zset.score(&member), model.get(&member).copied());
            prop_assert_eq!(zset.len(), model.len());
            prop_assert_eq!(owned(zset.iter()), ordered(&model));
        }
        let pairs = ordered(&model);
        for (rank, (member, score)) in pairs.iter().enumerate() {
            prop_assert_eq!(zset.rank(member), Some(rank));
            prop_assert_eq!(zset.get(rank).map(|(member, score)| (member.to_vec(), score)), Some((member.clone(), *score)));
        }
        for (low, high, low_out, high_out) in bounds {
            let min = if low_out { ScoreBound::Excluded(low) } else { ScoreBound::Included(low) };
            let max = if high_out { ScoreBound::Excluded(high) } else { ScoreBound::Included(high) };
            let within = |score: f64| (if low_out { score > low } else { score >= low }) && (if high_out { score < high } else { score <= high });
            let expected: Vec<_> = pairs.iter().filter(|(_, score)| within(*score)).cloned().collect();
            let range = zset.rank_range_by_score(min, max);
            prop_assert_eq!(range.len(), expected.len());
            prop_assert_eq!(owned(zset.range(range.clone())), expected.clone());
            prop_assert_eq!(owned(zset.range(range).rev()), expected.into_iter().rev().collect::<Vec<_>>());
        }
        let mut equal = Zset::new();
        model.keys().for_each(|member| { equal.add(member, 1.0, &limits); });
        for (min, low) in model.keys().take(5).enumerate() {
            let high = model.keys().rev().nth(min).expect("as many from the end");
            let expected = model.keys().filter(|member| *member > low && *member <= high).count();
            prop_assert_eq!(equal.rank_range_by_lex(LexBound::Excluded(low), LexBound::Included(high)).len(), expected);
            let expected = model.keys().filter(|member| *member >= low && *member < high).count();
            prop_assert_eq!(equal.rank_range_by_lex(LexBound::Included(low), LexBound::Excluded(high)).len(), expected);
        }
        prop_assert_eq!(equal.rank_range_by_lex(LexBound::Lowest, LexBound::Highest).len(), model.len());
        prop_assert_eq!(equal.rank_range_by_lex(LexBound::Highest, LexBound::Lowest).len(), 0);
        for count in 0..model.len() + 2 {
            let some = owned(zset.random_distinct(count, &mut random).into_iter());
            prop_assert_eq!(some.len(), count.min(model.len()));
            prop_assert!(some.iter().all(|(member, score)| model.get(member) == Some(score)));
        }
        let mut met = BTreeMap::new();
        let mut cursor = 0;
        loop {
            cursor = zset.scan(cursor, 3, |member, score| { met.insert(member.to_vec(), score); });
            if cursor == 0 { break; }
        }
        prop_assert_eq!(met, model.clone());
        if let Some(listpack) = zset.as_listpack() {
            let copy = Zset::from_listpack(listpack.clone(), &limits).expect("own listpack");
            prop_assert_eq!(owned(copy.iter()), pairs.clone());
        }
        let mut pairs = pairs;
        let start = ranks.0.min(pairs.len());
        let end = ranks.1.clamp(start, pairs.len());
        let mut removed = Vec::new();
        prop_assert_eq!(zset.remove_ranks(start..end, |member, score| removed.push((member.to_vec(), score))), end - start);
        prop_assert_eq!(removed, pairs.drain(start..end).collect::<Vec<_>>());
        prop_assert_eq!(owned(zset.iter()), pairs.clone());
        if !pairs.is_empty() {
            prop_assert_eq!(zset.pop_min(), Some(pairs.remove(0)));
            prop_assert_eq!(zset.pop_max(), pairs.pop());
        }
    }
}

/// Large enough for many segments, leaves and inner nodes.
#[test]
fn large_collections_behave_as_small_ones() {
    let limits = Limits::default();
    let mut random = seeded(5);
    let mut zset = Zset::new();
    let mut model = BTreeMap::new();
    for _ in 0..60_000 {
        let member = format!("member:{}", random.below(20_000)).into_bytes();
        if random.below(3) == 0 {
            assert_eq!(zset.remove(&member), model.remove(&member));
        } else {
            let score = random.below(5_000) as f64 / 8.0;
            assert_eq!(zset.add(&member, score, &limits), model.insert(member, score));
        }
    }
    let pairs = ordered(&model);
    assert_eq!(owned(zset.iter()), pairs);
    assert_eq!(owned(zset.range(0..pairs.len()).rev()), pairs.iter().rev().cloned().collect::<Vec<_>>());
    for (rank, (member, _)) in pairs.iter().enumerate().step_by(97) {
        assert_eq!(zset.rank(member), Some(rank));
    }
    let mut list = List::new();
    for at in 0..100_000 {
        list.push_back(format!("element:{at}").as_bytes(), &limits);
    }
    assert_eq!(list.len(), 100_000);
    assert!(list.get(77_777).is_some_and(|item| item.is(b"element:77777")));
    assert!(list.get(-1).is_some_and(|item| item.is(b"element:99999")));
    assert_eq!(list.range(50_000, 10).count(), 10);
    list.trim(40_000, 20_000);
    assert!(list.get(0).is_some_and(|item| item.is(b"element:40000")));
    assert_eq!(list.iter().count(), 20_000);
}
