//! Whether two servers' replies say the same.

use super::Order;
use crate::resp::Value;

/// Milliseconds since 1970 are above this for as long as anybody will run the tests, and nothing else in a reply is.
const MOMENT: i64 = 1_000_000_000_000;
/// Fields of XINFO that say when, for how long, or how Redis keeps its tree.
const PASSING: [&[u8]; 6] =
    [b"idle", b"inactive", b"seen-time", b"active-time", b"radix-tree-keys", b"radix-tree-nodes"];

/// The reply in a form that two servers must agree on.
pub fn normal(value: Value, order: Order) -> Value {
    match (order, value) {
        (Order::Items, Value::Array(items) | Value::Set(items)) => sorted(items, 1),
        (Order::Pairs, Value::Array(items)) => sorted(items, 2),
        (Order::Pairs, Value::Map(mut pairs)) => {
            pairs.sort();
            Value::Map(pairs)
        }
        (Order::Scan, Value::Array(reply)) => scanned(reply, 1),
        (Order::ScanPairs, Value::Array(reply)) => scanned(reply, 2),
        (Order::Encoding, Value::Bulk(name)) if matches!(&name[..], b"raw" | b"int") => Value::bulk("embstr"),
        (Order::Encoding, Value::Bulk(name)) if name == b"skiplist" => Value::bulk("listpack"),
        // A small number that was counted up is not shared in Redis.
        (Order::Encoding, Value::Integer(_)) => Value::Integer(1),
        (Order::Pending, Value::Array(entries)) => {
            Value::Array(entries.into_iter().map(without_idle).collect())
        }
        (Order::Nearest, Value::Array(items)) => nearest(items),
        (Order::Stream, value) => without_moments(value),
        (_, value) => value,
    }
}

/// The items sorted in groups of `size`.
fn sorted(items: Vec<Value>, size: usize) -> Value {
    let mut groups: Vec<_> = items.chunks(size).map(<[Value]>::to_vec).collect();
    groups.sort();
    Value::Array(groups.into_iter().flatten().collect())
}

/// Members with their distances, those equally far in any order, and the farthest without their names.
fn nearest(items: Vec<Value>) -> Value {
    fn distance(item: &Value) -> Option<&Value> {
        if let Value::Array(parts) = item { parts.get(1) } else { None }
    }
    let farthest = items.last().and_then(distance).cloned();
    let alike = items.chunk_by(|a, b| distance(a) == distance(b)).map(|alike| match distance(&alike[0]) {
        Some(distance) if Some(distance) == farthest.as_ref() => vec![distance.clone(); alike.len()],
        _ => {
            let mut alike = alike.to_vec();
            alike.sort();
            alike
        }
    });
    Value::Array(alike.flatten().collect())
}

/// A cursor as it is, and what was scanned in groups of `size`.
fn scanned(reply: Vec<Value>, size: usize) -> Value {
    let sort = |value| match value {
        Value::Array(items) => sorted(items, size),
        other => other,
    };
    Value::Array(reply.into_iter().map(sort).collect())
}

/// An entry of XPENDING with nothing for how long it has been idle.
fn without_idle(entry: Value) -> Value {
    match entry {
        Value::Array(mut fields) => {
            if let Some(idle) = fields.get_mut(2) {
                *idle = Value::Null;
            }
            Value::Array(fields)
        }
        other => other,
    }
}

fn without_moments(value: Value) -> Value {
    match value {
        Value::Integer(number) if number > MOMENT => Value::Null,
        Value::Array(items) => {
            let mut passing = false;
            let items = items.into_iter().map(|item| {
                let hidden = std::mem::replace(&mut passing, is_passing(&item));
                if hidden { Value::Null } else { without_moments(item) }
            });
            Value::Array(items.collect())
        }
        other => other,
    }
}

fn is_passing(name: &Value) -> bool {
    matches!(name, Value::Bulk(name) | Value::Simple(name) if PASSING.contains(&&name[..]))
}

/// Whether two replies agree.
pub fn agree(left: &Value, right: &Value, order: Order) -> bool {
    match (order, left, right) {
        // Five seconds of difference, in seconds or in milliseconds: two servers and a busy machine.
        (Order::Time, Value::Integer(left), Value::Integer(right)) if *left > 0 && *right > 0 => {
            let is_ms = (1_000_000..100_000_000).contains(left) || *left > MOMENT;
            let tolerance = if is_ms { 5_000 } else { 5 };
            left.abs_diff(*right) <= tolerance
        }
        _ => left == right || normal(left.clone(), order) == normal(right.clone(), order),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(names: &[&str]) -> Value {
        Value::Array(names.iter().map(Value::bulk).collect())
    }

    #[test]
    fn only_what_may_differ_is_passed_over() {
        assert!(agree(&array(&["a", "b"]), &array(&["b", "a"]), Order::Items));
        assert!(!agree(&array(&["a", "b"]), &array(&["b", "a"]), Order::Exact));
        assert!(agree(&array(&["a", "1", "b", "2"]), &array(&["b", "2", "a", "1"]), Order::Pairs));
        assert!(!agree(&array(&["a", "1", "b", "2"]), &array(&["a", "2", "b", "1"]), Order::Pairs));
        let info = |idle, pending| {
            let fields =
                [Value::bulk("idle"), Value::Integer(idle), Value::bulk("pending"), Value::Integer(pending)];
            Value::Array(vec![Value::Array(fields.to_vec())])
        };
        assert!(agree(&info(3, 1), &info(70, 1), Order::Stream));
        assert!(!agree(&info(3, 1), &info(3, 2), Order::Stream));
    }
}
