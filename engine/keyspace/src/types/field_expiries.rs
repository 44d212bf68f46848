//! When the fields of one hash expire, the next one first. Only a hash that has such fields has one of these.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Moments, in ms since the Unix epoch, by field and in order.
#[derive(Clone, Debug, Default)]
pub(super) struct FieldExpiries {
    by_field: HashMap<Arc<[u8]>, i64>,
    in_order: BTreeSet<(i64, Arc<[u8]>)>,
}

impl FieldExpiries {
    pub(super) fn is_empty(&self) -> bool {
        self.by_field.is_empty()
    }

    /// When a field expires, if it does.
    pub(super) fn get(&self, field: &[u8]) -> Option<i64> {
        self.by_field.get(field).copied()
    }

    /// Lets a field expire at another moment than before, or not at all.
    pub(super) fn set(&mut self, field: &[u8], at_ms: Option<i64>) {
        if let Some((field, before)) = self.by_field.remove_entry(field) {
            self.in_order.remove(&(before, field));
        }
        if let Some(at) = at_ms {
            let field: Arc<[u8]> = field.into();
            self.by_field.insert(Arc::clone(&field), at);
            self.in_order.insert((at, field));
        }
    }

    /// The earliest moment.
    pub(super) fn first(&self) -> Option<i64> {
        self.in_order.first().map(|(at, _)| *at)
    }

    /// Takes the field out that expires first, if its moment has come.
    pub(super) fn take_due(&mut self, now_ms: i64) -> Option<Vec<u8>> {
        if self.first()? > now_ms {
            return None;
        }
        let (_, field) = self.in_order.pop_first()?;
        self.by_field.remove(&field);
        Some(field.to_vec())
    }

    /// Bytes allocated, nearly: the field itself with its two counts, and the places that name it.
    pub(super) fn heap_bytes(&self) -> usize {
        const PLACES: usize = size_of::<(Arc<[u8]>, i64)>() * 3;
        self.by_field.keys().map(|field| field.len() + 16 + PLACES).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_taken_in_order_of_their_last_moment() {
        let mut expiries = FieldExpiries::default();
        for (field, at) in [("a", 5), ("b", 3), ("c", 5), ("a", 9), ("d", 1), ("b", 4)] {
            expiries.set(field.as_bytes(), Some(at));
        }
        expiries.set(b"d", None);
        expiries.set(b"no", None);
        assert_eq!((expiries.get(b"a"), expiries.get(b"d"), expiries.first()), (Some(9), None, Some(4)));
        assert_eq!(expiries.take_due(3), None);
        let taken: Vec<_> = std::iter::from_fn(|| expiries.take_due(9)).collect();
        assert_eq!(taken, [b"b", b"c", b"a"]);
        assert!(expiries.is_empty() && expiries.first().is_none());
    }
}
