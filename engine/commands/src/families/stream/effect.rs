//! What happened to a group, as commands that do the same again.
//!
//! They are those that Redis sends its replicas, but for the moment at which a consumer was seen, which no command of
//! Redis sets: while the journal is replayed, XCLAIM has its consumer seen at its TIME, even where it names no entry.

use cairn_keyspace::types::StreamId;
use cairn_keyspace::types::stream::Group;

use crate::context::Data;

/// A group whose effects are written.
#[derive(Clone, Copy)]
pub(super) struct GroupEffects<'a> {
    pub(super) key: &'a [u8],
    pub(super) group: &'a [u8],
}

/// How entries were given to a consumer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Delivery {
    pub(super) at_ms: i64,
    pub(super) deliveries: u64,
}

impl GroupEffects<'_> {
    /// These entries are a consumer's from now on, whoever had them; each with how it was given. The consumer was seen at
    /// `seen_at_ms`, even where there is no entry.
    pub(super) fn claimed(
        self,
        data: &mut Data<'_, '_>,
        consumer: &[u8],
        seen_at_ms: i64,
        entries: &[(StreamId, Delivery)],
    ) {
        for alike in entries.chunk_by(|(_, a), (_, b)| a == b) {
            let Some((_, delivery)) = alike.first() else { continue };
            let ids: Vec<String> = alike.iter().map(|(id, _)| id.to_string()).collect();
            let (at, count) = (delivery.at_ms.to_string(), delivery.deliveries.to_string());
            let mut words = vec![&b"XCLAIM"[..], self.key, self.group, consumer, b"0"];
            words.extend(ids.iter().map(String::as_bytes));
            words.extend([&b"TIME"[..], at.as_bytes(), b"RETRYCOUNT", count.as_bytes(), b"FORCE", b"JUSTID"]);
            data.effect(&words);
        }
        if entries.last().is_none_or(|(_, last)| last.at_ms != seen_at_ms) {
            self.seen(data, consumer, seen_at_ms);
        }
    }

    /// A consumer is there, and was seen.
    pub(super) fn seen(self, data: &mut Data<'_, '_>, consumer: &[u8], at_ms: i64) {
        let at = at_ms.to_string();
        data.effect(&[b"XCLAIM", self.key, self.group, consumer, b"0", b"TIME", at.as_bytes()]);
    }

    /// These entries are nobody's any more.
    pub(super) fn released(self, data: &mut Data<'_, '_>, entries: &[StreamId]) {
        let ids: Vec<String> = entries.iter().map(StreamId::to_string).collect();
        let mut words = vec![&b"XACK"[..], self.key, self.group];
        words.extend(ids.iter().map(String::as_bytes));
        data.effect(&words);
    }

    /// The group has come so far.
    pub(super) fn moved(self, data: &mut Data<'_, '_>, to: Progress) {
        let last_id = to.last_id.to_string();
        let read = to.entries_read.map_or_else(|| "-1".to_owned(), |read| read.to_string());
        let words = [&b"XGROUP"[..], b"SETID", self.key, self.group, last_id.as_bytes(), b"ENTRIESREAD"];
        data.effect(&[&words[..], &[read.as_bytes()]].concat());
    }
}

/// How far a group has come.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    last_id: StreamId,
    entries_read: Option<u64>,
}

impl Progress {
    pub(super) fn of(group: &Group) -> Self {
        Self { last_id: group.last_id, entries_read: group.entries_read }
    }
}
