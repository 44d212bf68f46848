//! What memory is used for.

use std::fmt::Arguments;

use cairn_commands::memory::{Memory, TableBytes};
use cairn_keyspace::Locked;

use crate::engine::Inner;
use crate::process::Process;

/// The figures of now.
pub(crate) fn figures(inner: &Inner, process: &dyn Process, keyspace: &Locked<'_>) -> Memory {
    let mut memory = process.memory();
    for db in 0..inner.keyspace.databases() {
        let keys = keyspace.len(db) as u64;
        if keys == 0 {
            continue;
        }
        let mut table = TableBytes { database: db, ..TableBytes::default() };
        for shard in keyspace.all_shards() {
            let (of_keys, of_expiries) = shard.database(db).table_bytes();
            table.keys += of_keys as u64;
            table.expiries += of_expiries as u64;
        }
        memory.keys += keys;
        memory.tables.push(table);
    }
    memory.journal = inner.log.journal().map_or(0, |journal| journal.status().pending_bytes);
    memory.scripts = inner.scripts.source_bytes() as u64;
    memory.functions = inner.keyspace.libraries.get().values().map(|library| library.code.len() as u64).sum();
    memory
}

pub(super) fn section(inner: &Inner, memory: &Memory, line: &mut dyn FnMut(Arguments<'_>)) {
    for (name, bytes) in
        [("used_memory", memory.used), ("used_memory_rss", memory.process), ("used_memory_peak", memory.peak)]
    {
        line(format_args!("{name}:{bytes}"));
        line(format_args!("{name}_human:{}", human_bytes(bytes)));
    }
    line(format_args!("used_memory_peak_perc:{:.2}%", memory.peak_percent()));
    line(format_args!("used_memory_overhead:{}", memory.overhead()));
    line(format_args!("used_memory_startup:{}", memory.startup));
    line(format_args!("used_memory_dataset:{}", memory.dataset()));
    line(format_args!("used_memory_dataset_perc:{:.2}%", memory.dataset_percent()));
    line(format_args!("allocator_allocated:{}", memory.allocated));
    line(format_args!("allocator_active:{}", memory.active));
    line(format_args!("allocator_resident:{}", memory.resident));
    let names = ["allocator_frag", "allocator_rss", "rss_overhead", "mem_fragmentation"];
    for (name, (ratio, bytes)) in names.into_iter().zip(memory.surplus()) {
        line(format_args!("{name}_ratio:{ratio:.2}"));
        line(format_args!("{name}_bytes:{bytes}"));
    }
    scripts(inner, line);
    line(format_args!("mem_not_counted_for_evict:{}", memory.journal));
    line(format_args!("mem_clients_normal:{}", memory.clients));
    line(format_args!("mem_aof_buffer:{}", memory.journal));
    line(format_args!("lazyfree_pending_objects:{}", inner.keyspace.discards.pending()));
    line(format_args!("lazyfreed_objects:{}", inner.keyspace.discards.freed()));
    // There are no replicas and no cluster, and nothing is moved about in memory.
    for name in [
        "mem_replication_backlog",
        "mem_total_replication_buffers",
        "mem_clients_slaves",
        "mem_cluster_links",
        "active_defrag_running",
    ] {
        line(format_args!("{name}:0"));
    }
}

/// What scripts and function libraries take.
fn scripts(inner: &Inner, line: &mut dyn FnMut(Arguments<'_>)) {
    let libraries = inner.keyspace.libraries.get();
    let functions: usize = libraries.values().map(|library| library.functions.len()).sum();
    let library_bytes: usize = libraries.values().map(|library| library.code.len()).sum();
    let ((eval, call), sources) = (inner.scripts.interpreter_bytes(), inner.scripts.source_bytes());
    for (name, value) in [
        ("used_memory_lua", eval),
        ("used_memory_vm_eval", eval),
        ("used_memory_vm_functions", call),
        ("used_memory_vm_total", eval + call),
        ("used_memory_scripts_eval", sources),
        ("number_of_cached_scripts", inner.scripts.len()),
        ("number_of_functions", functions),
        ("number_of_libraries", libraries.len()),
        ("used_memory_functions", library_bytes),
        ("used_memory_scripts", sources + library_bytes),
    ] {
        line(format_args!("{name}:{value}"));
    }
    line(format_args!("used_memory_lua_human:{}", human_bytes(eval as u64)));
    line(format_args!("used_memory_vm_total_human:{}", human_bytes((eval + call) as u64)));
    line(format_args!("used_memory_scripts_human:{}", human_bytes((sources + library_bytes) as u64)));
}

/// A number of bytes for people, as Redis writes it: `1.50M`.
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "K", "M", "G", "T"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes}B") } else { format!("{value:.2}{unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.2}P")
}

#[cfg(test)]
mod tests {
    use super::human_bytes;

    #[test]
    fn sizes_read_as_redis_writes_them() {
        assert_eq!(human_bytes(0), "0B");
        assert_eq!(human_bytes(1023), "1023B");
        assert_eq!(human_bytes(1536), "1.50K");
        assert_eq!(human_bytes(3 << 30), "3.00G");
    }
}
