//! Events that took long, and how long commands take: <https://redis.io/docs/latest/commands/latency/>

use super::help;
use crate::context::Context;
use crate::error::{CommandError, CommandResult};
use crate::observed::Observed;
use crate::observed::latency::Event;
use crate::spec::{Categories, CommandSpec, Flags, Keys, at_least, exactly};
use crate::table::{self, Command};

const NONE: Categories = Categories::NONE;
const ADMIN: Flags = Flags::ADMIN.no_script().loading().stale();

#[rustfmt::skip]
pub(crate) const COMMANDS: &[CommandSpec] = &[
    help::group_row("latency"),
    CommandSpec { name: "latency|latest",    arity: exactly(2),  flags: ADMIN, keys: Keys::None, acl: NONE, handler: latest },
    CommandSpec { name: "latency|history",   arity: exactly(3),  flags: ADMIN, keys: Keys::None, acl: NONE, handler: history },
    CommandSpec { name: "latency|graph",     arity: exactly(3),  flags: ADMIN, keys: Keys::None, acl: NONE, handler: graph },
    CommandSpec { name: "latency|doctor",    arity: exactly(2),  flags: ADMIN, keys: Keys::None, acl: NONE, handler: doctor },
    CommandSpec { name: "latency|reset",     arity: at_least(2), flags: ADMIN, keys: Keys::None, acl: NONE, handler: reset },
    CommandSpec { name: "latency|histogram", arity: at_least(2), flags: ADMIN, keys: Keys::None, acl: NONE, handler: histogram },
    help::row("latency|help", NONE),
];

fn events(ctx: &Context<'_, '_>) -> Vec<(&'static str, Event)> {
    ctx.host.observed().map_or(Vec::new(), |observed| observed.latency.events())
}

fn latest(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    let events = events(ctx);
    ctx.reply.array(events.len());
    for (name, event) in events {
        let last = event.samples.back();
        ctx.reply.array(4);
        ctx.reply.bulk(name.as_bytes());
        ctx.reply.integer(last.map_or(0, |sample| sample.unixtime));
        ctx.reply.integer(last.map_or(0, |sample| sample.duration_ms as i64));
        ctx.reply.integer(event.worst_ms as i64);
    }
    Ok(())
}

fn history(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let event = ctx.host.observed().and_then(|observed| observed.latency.event(args[2]));
    let samples = event.unwrap_or_default().samples;
    ctx.reply.array(samples.len());
    for sample in samples {
        ctx.reply.array(2);
        ctx.reply.integer(sample.unixtime);
        ctx.reply.integer(sample.duration_ms as i64);
    }
    Ok(())
}

/// A row of signs, a sample each, the newest to the right; the taller the sign, the longer it took.
fn graph(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let event = ctx.host.observed().and_then(|observed| observed.latency.event(args[2]));
    let shown = String::from_utf8_lossy(args[2]);
    let event =
        event.ok_or_else(|| CommandError::other(format!("ERR No samples available for event '{shown}'")))?;
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let durations: Vec<u64> = event.samples.iter().map(|sample| sample.duration_ms).collect();
    let low = durations.iter().min().copied().unwrap_or(0);
    let high = durations.iter().max().copied().unwrap_or(0);
    let height = |duration: &u64| HEIGHTS[((duration - low) * 7 / (high - low).max(1)) as usize];
    let line: String = durations.iter().map(height).collect();
    let text =
        format!("{} - high {high} ms, low {low} ms (all time high {} ms)\n{line}\n", shown, event.worst_ms);
    ctx.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

fn doctor(ctx: &mut Context<'_, '_>, _: &[&[u8]]) -> CommandResult {
    let text = ctx.host.observed().map_or(String::new(), report);
    ctx.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

/// What the events are a sign of, and what to do about it.
fn report(observed: &Observed) -> String {
    if observed.latency.threshold_ms() == 0 {
        return "The latency monitor is off. Set latency-monitor-threshold to the milliseconds that are too many for you."
            .to_owned();
    }
    let events = observed.latency.events();
    if events.is_empty() {
        return "No event took as long as latency-monitor-threshold since the start or the last LATENCY RESET."
            .to_owned();
    }
    let mut lines = Vec::new();
    for (name, event) in &events {
        let count = event.samples.len();
        let mean = event.samples.iter().map(|sample| sample.duration_ms).sum::<u64>() / count.max(1) as u64;
        lines.push(format!(
            "{name}: {count} seconds with events, mean {mean} ms, worst {} ms.",
            event.worst_ms
        ));
        let advice = match *name {
            "command" | "fast-command" => {
                "Look at SLOWLOG GET for the requests, and at the load of the machine."
            }
            "fork" => {
                "The system copies page tables slowly: huge pages (transparent_hugepage=madvise) shorten it."
            }
            "expire-cycle" => "Many keys expire at the same moment: spread their times.",
            "eviction-cycle" => "Memory is full and keys leave under load: raise maxmemory or write less.",
            _ => "See INFO persistence for the disk's figures.",
        };
        lines.push(format!("  {advice}"));
    }
    lines.join("\n") + "\n"
}

fn reset(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let forgotten = ctx.host.observed().map_or(0, |observed| observed.latency.reset(&args[2..]));
    ctx.reply.integer(forgotten as i64);
    Ok(())
}

/// Pairs of a duration in microseconds and how many runs took no longer, for each command that ran.
fn histogram(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    let named = |name: &&[u8]| -> Vec<&'static Command> {
        let command = table::lookup_full(name);
        command
            .into_iter()
            .flat_map(|command| [command].into_iter().chain(command.subcommands().iter().copied()))
            .collect()
    };
    let commands: Vec<&Command> = match &args[2..] {
        [] => table::numbered().to_vec(),
        names => names.iter().flat_map(named).collect(),
    };
    let Some(observed) = ctx.host.observed() else {
        ctx.reply.map(0);
        return Ok(());
    };
    let ran: Vec<_> = commands
        .into_iter()
        .map(|command| (command.name, observed.usage.of(command.number())))
        .filter(|(_, usage)| usage.durations.runs() > 0)
        .collect();
    let reply = &mut ctx.reply;
    reply.map(ran.len());
    for (name, usage) in ran {
        reply.bulk(name.as_bytes());
        reply.map(2);
        reply.bulk(b"calls");
        reply.integer(usage.durations.runs() as i64);
        reply.bulk(b"histogram_usec");
        let pairs = usage.durations.cumulative();
        reply.map(pairs.len());
        for (limit_us, runs) in pairs {
            reply.integer(limit_us as i64);
            reply.integer(runs as i64);
        }
    }
    Ok(())
}
