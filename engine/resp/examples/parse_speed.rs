//! Prints the time to parse a GET and a SET: `cargo run --release -p cairn-resp --example parse_speed`.

use cairn_resp::{Args, Limits, Parsed, Parser, push_command};
use std::hint::black_box;
use std::time::Instant;

const ROUNDS: u32 = 20_000;

fn main() {
    let value = [b'v'; 100];
    for (name, command) in [
        ("GET", &[&b"GET"[..], b"key:000000000001"][..]),
        ("SET", &[&b"SET"[..], b"key:000000000001", &value]),
    ] {
        let mut buf = Vec::new();
        for _ in 0..100 {
            push_command(&mut buf, command);
        }
        let (mut parser, mut args) = (Parser::new(Limits::default()), Args::new());
        let start = Instant::now();
        for _ in 0..ROUNDS {
            let mut rest = &buf[..];
            while let Ok(Parsed::Request { consumed }) = parser.parse(black_box(rest), &mut args) {
                black_box(&*args.slices(rest));
                rest = &rest[consumed..];
            }
        }
        println!("{name}: {:?} a request", start.elapsed() / (ROUNDS * 100));
    }
}
