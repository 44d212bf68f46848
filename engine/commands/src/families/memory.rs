//! What memory is used for: <https://redis.io/docs/latest/commands/memory-usage/>

use super::help;
use crate::args::{integer, is};
use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::keys::Access;
use crate::memory::Memory;
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least, exactly};

const NONE: Categories = Categories::NONE;

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    help::group_row("memory"),
    CommandSpec { name: "memory|usage", arity: at_least(3), flags: Flags::READ, keys: Keys::one(2).access(Access::RO), acl: NONE, handler: usage },
    CommandSpec { name: "memory|stats",        arity: exactly(2), flags: Flags::NONE, keys: Keys::Whole, acl: NONE, handler: stats },
    CommandSpec { name: "memory|doctor",       arity: exactly(2), flags: Flags::NONE, keys: Keys::Whole, acl: NONE, handler: doctor },
    CommandSpec { name: "memory|malloc-stats", arity: exactly(2), flags: Flags::NONE, keys: Keys::None,  acl: NONE, handler: malloc_stats },
    CommandSpec { name: "memory|purge",        arity: exactly(2), flags: Flags::NONE, keys: Keys::None,  acl: NONE, handler: purge },
    help::row("memory|help", NONE),
];

/// How many elements are looked at where SAMPLES does not say.
const SAMPLES: usize = 5;

fn usage(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let mut samples = SAMPLES;
    for option in args[3..].chunks(2) {
        let [word, count] = option else { return Err(CommandError::Syntax) };
        if !is(word, "samples") {
            return Err(CommandError::Syntax);
        }
        samples = match usize::try_from(integer(count)?) {
            Ok(0) => usize::MAX,
            Ok(count) => count,
            Err(_) => return Err(CommandError::Syntax),
        };
    }
    match ctx.data.peek(args[2]) {
        Some(entry) => ctx.reply.integer(entry.memory_bytes(samples) as i64),
        None => ctx.reply.null(),
    }
    Ok(())
}

fn stats(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    let memory = ctx.host.memory(ctx.data.locked());
    let [fragmentation, resident, process, whole] = memory.surplus();
    let reply = &mut ctx.reply;
    reply.map(27 + memory.tables.len());
    for (name, bytes) in [
        ("peak.allocated", memory.peak),
        ("total.allocated", memory.used),
        ("startup.allocated", memory.startup),
        ("replication.backlog", 0),
        ("clients.slaves", 0),
        ("clients.normal", memory.clients),
        ("cluster.links", 0),
        ("aof.buffer", memory.journal),
        ("lua.caches", memory.scripts),
        ("functions.caches", memory.functions),
    ] {
        reply.bulk(name.as_bytes());
        reply.integer(bytes as i64);
    }
    for table in &memory.tables {
        reply.bulk(format!("db.{}", table.database).as_bytes());
        reply.map(3);
        for (name, bytes) in [("main", table.keys), ("expires", table.expiries), ("slot-to-keys", 0)] {
            reply.bulk(format!("overhead.hashtable.{name}").as_bytes());
            reply.integer(bytes as i64);
        }
    }
    for (name, figure) in [
        ("overhead.total", Figure::Integer(memory.overhead() as i64)),
        ("keys.count", Figure::Integer(memory.keys as i64)),
        ("keys.bytes-per-key", Figure::Integer(memory.bytes_per_key() as i64)),
        ("dataset.bytes", Figure::Integer(memory.dataset() as i64)),
        ("dataset.percentage", Figure::Double(memory.dataset_percent())),
        ("peak.percentage", Figure::Double(memory.peak_percent())),
        ("allocator.allocated", Figure::Integer(memory.allocated as i64)),
        ("allocator.active", Figure::Integer(memory.active as i64)),
        ("allocator.resident", Figure::Integer(memory.resident as i64)),
        ("allocator-fragmentation.ratio", Figure::Double(fragmentation.0)),
        ("allocator-fragmentation.bytes", Figure::Integer(fragmentation.1)),
        ("allocator-rss.ratio", Figure::Double(resident.0)),
        ("allocator-rss.bytes", Figure::Integer(resident.1)),
        ("rss-overhead.ratio", Figure::Double(process.0)),
        ("rss-overhead.bytes", Figure::Integer(process.1)),
        ("fragmentation", Figure::Double(whole.0)),
        ("fragmentation.bytes", Figure::Integer(whole.1)),
    ] {
        reply.bulk(name.as_bytes());
        match figure {
            Figure::Integer(value) => reply.integer(value),
            Figure::Double(value) => reply.double(value),
        }
    }
    Ok(())
}

enum Figure {
    Integer(i64),
    Double(f64),
}

fn doctor(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    let memory = ctx.host.memory(ctx.data.locked());
    ctx.reply.verbatim("txt", report(&memory).as_bytes());
    Ok(())
}

/// What is remarkable about the use of memory, and what to do about it.
fn report(memory: &Memory) -> String {
    /// With less in use, ratios say nothing.
    const WORTH_A_LOOK: u64 = 5 << 20;
    /// So much too much that it matters, whatever the ratio.
    const MUCH: i64 = 10 << 20;
    if memory.used < WORTH_A_LOOK {
        return "There is too little in memory to tell anything about it.".to_owned();
    }
    let [fragmentation, resident, process, _] = memory.surplus();
    let remarks = [
        (
            memory.peak as f64 > memory.used as f64 * 1.5,
            "Peak: half as much again or more was in use once. What was freed since may still belong to the process.",
        ),
        (
            fragmentation.0 > 1.1 && fragmentation.1 > MUCH,
            "Fragmentation: the allocator's pages are filled badly. That passes as keys are written anew; a restart ends it.",
        ),
        (
            resident.0 > 1.1 && resident.1 > MUCH,
            "Free pages: the allocator holds memory that nothing lies in. It gives it back after some seconds, and at MEMORY PURGE.",
        ),
        (
            process.0 > 1.1 && process.1 > MUCH,
            "Process: much memory does not come from the allocator, such as the stacks of threads and mapped files.",
        ),
        (
            memory.clients > memory.used / 4,
            "Clients: a good part of memory is in their buffers. CLIENT LIST shows whose; client-output-buffer-limit bounds them.",
        ),
        (
            memory.scripts > 10 << 20,
            "Scripts: very many are known. Let their arguments vary, not their text; SCRIPT FLUSH forgets them.",
        ),
    ];
    let found: Vec<&str> = remarks.iter().filter(|(holds, _)| *holds).map(|(_, text)| *text).collect();
    if found.is_empty() { "Memory is used as it should be.".to_owned() } else { found.join("\n") }
}

fn malloc_stats(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    ctx.reply.verbatim("txt", ctx.host.allocator_report().as_bytes());
    Ok(())
}

fn purge(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    ctx.host.release_memory().map_err(CommandError::other)?;
    ctx.reply.ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::report;
    use crate::memory::Memory;
    use crate::testing::Engine;

    #[test]
    fn the_doctor_names_what_is_too_much() {
        const MIB: u64 = 1 << 20;
        let well = Memory {
            used: 100 * MIB,
            peak: 100 * MIB,
            allocated: 100 * MIB,
            active: 101 * MIB,
            resident: 102 * MIB,
            process: 103 * MIB,
            ..Memory::default()
        };
        assert_eq!(report(&well), "Memory is used as it should be.");
        assert!(report(&Memory { used: MIB, ..well.clone() }).starts_with("There is too little"));
        let ill = Memory { peak: 151 * MIB, active: 120 * MIB, clients: 30 * MIB, ..well };
        let names =
            report(&ill).lines().map(|line| line.split(':').next().unwrap().to_owned()).collect::<Vec<_>>();
        assert_eq!(names, ["Peak", "Fragmentation", "Clients"]);
    }

    fn usage(engine: &mut Engine, key: &str) -> usize {
        engine.say(&format!("MEMORY USAGE {key}")).trim_start_matches(':').parse().expect("a number")
    }

    #[test]
    fn what_is_larger_uses_more() {
        let mut engine = Engine::new();
        engine.check("SET s x -> +OK\nMEMORY USAGE absent -> $-1");
        let short = usage(&mut engine, "s");
        assert!((20..100).contains(&short), "{short}");
        engine.say(&format!("SET s {}", "x".repeat(10_000)));
        assert!((10_000..10_200).contains(&usage(&mut engine, "s")));
        for n in 0..1_000 {
            engine.say(&format!("SADD set member:{n}"));
        }
        let set = usage(&mut engine, "set");
        assert!((15_000..100_000).contains(&set), "{set}");
        let all = engine.say("MEMORY USAGE set SAMPLES 0");
        assert!(all.starts_with(':') && all.len() >= 6, "{all}");
    }

    #[test]
    fn options_are_those_of_redis() {
        let mut engine = Engine::new();
        engine.check(
            "MEMORY USAGE k SAMPLES -> -ERR syntax error
             MEMORY USAGE k SAMPLES -1 -> -ERR syntax error
             MEMORY USAGE k SAMPLES x -> -ERR value is not an integer or out of range
             MEMORY USAGE k COUNT 5 -> -ERR syntax error
             MEMORY USAGE -> -ERR wrong number of arguments for 'memory|usage' command
             MEMORY WHAT -> -ERR unknown subcommand 'WHAT'. Try MEMORY HELP.",
        );
    }
}
