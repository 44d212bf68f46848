//! Streams to RDB bytes, in the form of Redis 7.0, and their digest.

use cairn_rdb::StreamId;
use cairn_rdb::primitives::{write_length, write_string};
use cairn_rdb::stream::{write_id, write_node};

use super::Mixer;
use crate::types::Stream;
use crate::types::stream::Group;

/// What stands for the number of entries a group has read where it is not known.
const UNKNOWN: u64 = u64::MAX;

/// Appends a stream.
pub(super) fn encode(stream: &Stream, out: &mut Vec<u8>) {
    let nodes = stream.nodes();
    write_length(out, nodes.len() as u64);
    nodes.for_each(|(base, entries)| write_node(out, base, entries));
    let counters = stream.counters();
    write_length(out, counters.len);
    write_id(out, counters.last_id);
    write_id(out, counters.first_id);
    write_id(out, counters.max_deleted_id);
    write_length(out, counters.entries_added);
    let groups = stream.groups();
    write_length(out, groups.len() as u64);
    groups.for_each(|(name, group)| encode_group(name, group, out));
}

fn encode_group(name: &[u8], group: &Group, out: &mut Vec<u8>) {
    write_string(out, name);
    write_id(out, group.last_id);
    write_length(out, group.entries_read.unwrap_or(UNKNOWN));
    write_length(out, group.pending().len() as u64);
    for (id, pending) in group.pending() {
        out.extend_from_slice(&id.to_bytes());
        out.extend_from_slice(&pending.delivered_at_ms.to_le_bytes());
        write_length(out, pending.deliveries);
    }
    let consumers = group.consumers();
    write_length(out, consumers.len() as u64);
    for consumer in consumers {
        write_string(out, consumer.name());
        out.extend_from_slice(&consumer.seen_at_ms.to_le_bytes());
        write_length(out, consumer.pending().len() as u64);
        consumer.pending().iter().for_each(|id| out.extend_from_slice(&id.to_bytes()));
    }
}

impl Mixer {
    /// Entries only: what groups know is not part of Redis's digest.
    pub(super) fn stream(&mut self, stream: &Stream) {
        for entry in stream.range(StreamId::MIN, StreamId::MAX) {
            self.mix(format!("{}.{}", entry.id.ms, entry.id.seq).as_bytes());
            for (field, value) in entry.fields() {
                self.mix_item(field);
                self.mix_item(value);
            }
        }
    }
}
