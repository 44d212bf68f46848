//! Loading a dataset whose values are random hexadecimal: half of it compresses away, so no figure is flattered.
//! (redis-benchmark sends one value throughout, which compresses to nothing.)

use cairn_tests::random::Random;
use cairn_tests::resp::{Client, encode};
use cairn_tests::server::Server;
use std::ops::Range;

/// Bytes of a value of the standard dataset.
pub(crate) const VALUE_BYTES: usize = 100;
/// Bytes of one of its keys.
pub(crate) const KEY_BYTES: usize = 16;
/// Commands sent before their replies are read.
const BATCH: usize = 200;

/// The key of this number, as redis-benchmark writes it.
pub(crate) fn key(number: usize) -> String {
    format!("key:{number:012}")
}

/// Fills `out` with random hexadecimal digits, eight from each half of a random number.
pub(crate) fn hex(random: &mut Random, out: &mut [u8]) {
    for chunk in out.chunks_mut(16) {
        let mut bits = random.next_u64();
        for digit in chunk {
            *digit = b"0123456789abcdef"[(bits & 15) as usize];
            bits >>= 4;
        }
    }
}

/// Sends what `write` makes of each number in pipelines and reads `replies` replies for each; errors fail.
pub(crate) fn pipelined(
    client: &mut Client,
    numbers: Range<usize>,
    batch: usize,
    replies: usize,
    mut write: impl FnMut(&mut Vec<u8>, usize),
) {
    let mut request = Vec::with_capacity(batch * 256);
    let mut next = numbers.start;
    while next < numbers.end {
        request.clear();
        let end = (next + batch).min(numbers.end);
        for number in next..end {
            write(&mut request, number);
        }
        client.send(&request).expect("the load is taken");
        for _ in 0..(end - next) * replies {
            let reply = client.reply().expect("a reply");
            assert!(!reply.is_error(), "a command of the load failed: {reply:?}");
        }
        next = end;
    }
}

/// SETs the keys of these numbers to random hexadecimal values of `value_bytes`.
pub(crate) fn strings(client: &mut Client, numbers: Range<usize>, value_bytes: usize, seed: u64) {
    let mut random = Random::new(seed ^ numbers.start as u64);
    let mut value = vec![0; value_bytes];
    pipelined(client, numbers, BATCH, 1, |out, number| {
        hex(&mut random, &mut value);
        encode(out, &[b"SET", key(number).as_bytes(), &value]);
    });
}

/// The standard dataset: `count` keys of 16 bytes with 100 random hexadecimal bytes each.
pub(crate) fn standard(server: &Server, count: usize) {
    strings(&mut server.connect(), 0..count, VALUE_BYTES, 1);
}

/// Makes a server serve a first connection: buffers of that and of the journal are no key's cost.
pub(crate) fn warm(client: &mut Client) {
    pipelined(client, 0..200_000, BATCH, 1, |out, _| {
        encode(out, &[b"SET", &b"warm"[..], &[b'x'; VALUE_BYTES]])
    });
    pipelined(client, 0..1, 1, 1, |out, _| encode(out, &["DEL", "warm"]));
}
