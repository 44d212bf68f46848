//! The sections of INFO that tell of the process, in Redis's field names.

use crate::config::MaxmemoryPolicy;
use crate::server::Server;
use crate::sys::{self, Whose, cpu_time};
use cairn_engine::human_bytes;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

/// The version of Redis whose commands and replies are provided; clients choose their features by it.
pub(crate) const REDIS_VERSION: &str = "7.0.15";

type Fields = Vec<(&'static str, String)>;

/// The server's lines of a section, in lower case; none for sections it knows nothing of.
pub(crate) fn section(server: &Server, name: &str) -> Fields {
    match name {
        "server" => server_section(server),
        "clients" => clients_section(server),
        "memory" => memory_section(server),
        "backup" => server.backup_lines(),
        "stats" => stats_section(server),
        "cpu" => cpu_section(),
        _ => Fields::new(),
    }
}

fn server_section(server: &Server) -> Fields {
    let config = server.config.read();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let uptime = server.uptime_seconds();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let path = |path: std::io::Result<std::path::PathBuf>| {
        path.map_or_else(|_| String::new(), |p| p.display().to_string())
    };
    vec![
        ("redis_version", REDIS_VERSION.into()),
        ("redis_git_sha1", "00000000".into()),
        ("redis_git_dirty", "0".into()),
        ("redis_build_id", env!("CARGO_PKG_VERSION").into()),
        ("cairn_version", env!("CARGO_PKG_VERSION").into()),
        ("redis_mode", "standalone".into()),
        ("os", format!("Linux {} {}", kernel.trim(), std::env::consts::ARCH)),
        ("arch_bits", usize::BITS.to_string()),
        ("monotonic_clock", "POSIX clock_gettime".into()),
        ("multiplexing_api", "epoll".into()),
        ("process_id", std::process::id().to_string()),
        ("process_supervised", "no".into()),
        ("run_id", server.run_id.clone()),
        ("tcp_port", config.port.to_string()),
        ("server_time_usec", now.as_micros().to_string()),
        ("uptime_in_seconds", uptime.to_string()),
        ("uptime_in_days", (uptime / 86_400).to_string()),
        ("hz", config.hz.to_string()),
        ("configured_hz", config.hz.to_string()),
        ("lru_clock", (now.as_secs() & 0xff_ffff).to_string()),
        ("executable", path(std::env::current_exe())),
        ("config_file", server.config_file.as_ref().map_or_else(String::new, |p| p.display().to_string())),
        ("io_threads_active", "0".into()),
        ("server_threads", config.worker_threads().to_string()),
    ]
}

fn clients_section(server: &Server) -> Fields {
    let (input, output) = server.clients.largest_buffers();
    vec![
        ("connected_clients", server.clients.count().to_string()),
        ("cluster_connections", "0".into()),
        ("client_recent_max_input_buffer", input.to_string()),
        ("client_recent_max_output_buffer", output.to_string()),
        ("maxclients", server.config.read().maxclients.to_string()),
        ("blocked_clients", server.clients.blocked().to_string()),
        ("tracking_clients", server.engine.hub().counts().trackers.to_string()),
    ]
}

/// What the engine does not know of memory; figures of use are its.
fn memory_section(server: &Server) -> Fields {
    let config = server.config.read();
    let system = sys::memory_bytes();
    vec![
        ("total_system_memory", system.to_string()),
        ("total_system_memory_human", human_bytes(system)),
        ("mem_allocator", "jemalloc-5.3".into()),
        ("maxmemory", config.maxmemory.to_string()),
        ("maxmemory_human", human_bytes(config.maxmemory)),
        ("maxmemory_policy", MaxmemoryPolicy::NAMES[config.maxmemory_policy as usize].into()),
    ]
}

fn stats_section(server: &Server) -> Fields {
    let stats = &server.stats;
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed).to_string();
    let [commands, input, output] = stats.rates();
    vec![
        ("total_connections_received", count(&stats.connections_received_total)),
        ("total_commands_processed", count(&stats.commands_total)),
        ("instantaneous_ops_per_sec", format!("{commands:.0}")),
        ("total_net_input_bytes", count(&stats.input_bytes_total)),
        ("total_net_output_bytes", count(&stats.output_bytes_total)),
        ("instantaneous_input_kbps", format!("{:.2}", input / 1024.0)),
        ("instantaneous_output_kbps", format!("{:.2}", output / 1024.0)),
        ("evicted_clients", count(&server.clients.memory.evicted_total)),
        ("rejected_connections", count(&stats.connections_rejected_total)),
        ("total_protocol_errors", count(&stats.protocol_errors_total)),
        ("migrate_cached_sockets", server.links.count().to_string()),
        ("total_reads_processed", count(&stats.reads_total)),
        ("total_writes_processed", count(&stats.writes_total)),
    ]
}

fn cpu_section() -> Fields {
    let (own, children) = (cpu_time(Whose::Process), cpu_time(Whose::Children));
    let main = sys::main_thread_cpu_time();
    vec![
        ("used_cpu_sys", format!("{:.6}", own.system)),
        ("used_cpu_user", format!("{:.6}", own.user)),
        ("used_cpu_sys_children", format!("{:.6}", children.system)),
        ("used_cpu_user_children", format!("{:.6}", children.user)),
        ("used_cpu_sys_main_thread", format!("{:.6}", main.system)),
        ("used_cpu_user_main_thread", format!("{:.6}", main.user)),
    ]
}
