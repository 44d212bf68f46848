//! What a key costs in memory.

use crate::bench::{Bench, Persist};
use crate::load::{self, KEY_BYTES, VALUE_BYTES};
use crate::process::resident_bytes;
use crate::table::{Row, Samples, Target};
use cairn_tests::random::Random;
use cairn_tests::resp::{Client, encode};
use cairn_tests::server::{Kind, Server};

const GROUP: &str = "memory";
/// Where tables double, a key costs most and then least: one count alone would show one of both.
const COUNTS: [usize; 3] = [700_000, 1_000_000, 1_400_000];

/// Writes so many keys of a type.
type Fill = fn(&mut Client, usize);

pub(crate) fn memory(bench: &mut Bench) {
    let mut counts: [Samples; 3] = Default::default();
    let mut mean = Samples::default();
    for kind in [Kind::Redis, Kind::Cairn] {
        let figures = strings(bench, kind);
        counts.iter_mut().zip(figures).for_each(|(samples, figure)| samples.add(kind, figure));
        mean.add(kind, figures.iter().sum::<f64>() / figures.len() as f64);
    }
    let work = "memory per key beyond key and value, mean of 0.7, 1.0 and 1.4 million keys";
    bench.report.row(Row::new(GROUP, work, "B", mean).target(Target::AtMost(30.0)));
    for (count, samples) in COUNTS.iter().zip(counts) {
        let work = format!("memory per key beyond key and value, {:.1} million keys", *count as f64 / 1e6);
        bench.report.row(Row::new(GROUP, work, "B", samples));
    }
    let collections: [(&str, usize, Fill); 3] = [
        ("hash of 10 fields (8-byte names, 20-byte values)", 50_000, hashes),
        ("sorted set of 50 members (12 bytes each)", 10_000, zsets),
        ("set of 100 integers", 20_000, sets),
    ];
    for (name, count, fill) in collections {
        let mut samples = Samples::default();
        for kind in [Kind::Redis, Kind::Cairn] {
            samples.add(kind, collection(bench, kind, count, fill));
        }
        let work = format!("memory of a {name}, all included, {count} of them");
        bench.report.row(Row::new(GROUP, work, "B", samples));
    }
}

/// An empty server, and its memory once a connection has been served.
fn empty(bench: &Bench, kind: Kind) -> (Server, Client, f64) {
    bench.remove("memory");
    let server = bench.setup(kind, "memory", Persist::Nothing).start();
    let mut client = server.connect();
    load::warm(&mut client);
    let resident = resident_bytes(server.pid());
    (server, client, resident)
}

/// Bytes per key beyond key and value at each of [`COUNTS`].
fn strings(bench: &Bench, kind: Kind) -> [f64; 3] {
    let (server, mut client, empty) = empty(bench, kind);
    let mut loaded = 0;
    COUNTS.map(|count| {
        load::strings(&mut client, loaded..count, VALUE_BYTES, 1);
        loaded = count;
        (resident_bytes(server.pid()) - empty) / count as f64 - (KEY_BYTES + VALUE_BYTES) as f64
    })
}

fn collection(bench: &Bench, kind: Kind, count: usize, fill: Fill) -> f64 {
    let (server, mut client, empty) = empty(bench, kind);
    fill(&mut client, count);
    (resident_bytes(server.pid()) - empty) / count as f64
}

fn hashes(client: &mut Client, count: usize) {
    let mut random = Random::new(2);
    load::pipelined(client, 0..count, 50, 1, |out, number| {
        let mut args = vec![b"HSET".to_vec(), load::key(number).into_bytes()];
        for field in 0..10 {
            args.push(format!("field-{field:02}").into_bytes());
            args.push(random.hex(20));
        }
        encode(out, &args);
    });
}

fn zsets(client: &mut Client, count: usize) {
    let mut random = Random::new(3);
    load::pipelined(client, 0..count, 20, 1, |out, number| {
        let mut args = vec![b"ZADD".to_vec(), load::key(number).into_bytes()];
        for _ in 0..50 {
            args.push(random.below(1_000_000).to_string().into_bytes());
            args.push(random.hex(12));
        }
        encode(out, &args);
    });
}

fn sets(client: &mut Client, count: usize) {
    let mut random = Random::new(4);
    load::pipelined(client, 0..count, 20, 1, |out, number| {
        let mut args = vec![b"SADD".to_vec(), load::key(number).into_bytes()];
        args.extend((0..100).map(|_| random.below(1_000_000).to_string().into_bytes()));
        encode(out, &args);
    });
}
