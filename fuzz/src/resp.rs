//! The wire codec.

use cairn_resp::{
    Args, Limits, Parsed, Parser, ProtocolError, decode, parse_integer, push_command, push_integer,
    split_args,
};

/// Reads `data` as what a client sends, whole and in pieces, and as a reply.
pub fn resp(data: &[u8]) {
    let (requests, error) = feed(data, data.len().max(1));
    for piece in [1, 1 + usize::from(data.first().copied().unwrap_or(0) % 19)] {
        assert_eq!(feed(data, piece), (requests.clone(), error), "in pieces of {piece} bytes");
    }
    let mut written = Vec::new();
    for request in &requests {
        push_command(&mut written, &request.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
    assert_eq!(feed(&written, written.len().max(1)), (requests, None), "what is written is read");
    reply(data);
    let _ = split_args(data);
    if let Some(number) = parse_integer(data) {
        let mut text = Vec::new();
        push_integer(&mut text, number);
        assert_eq!(text, data);
    }
}

type Requests = Vec<Vec<Vec<u8>>>;

/// All requests in `bytes`, which arrive in pieces, and the error that ends them.
fn feed(bytes: &[u8], piece: usize) -> (Requests, Option<ProtocolError>) {
    let (mut parser, mut args) = (Parser::new(Limits::default()), Args::new());
    let (mut requests, mut begin) = (Vec::new(), 0);
    for (index, part) in bytes.chunks(piece).enumerate() {
        let arrived = index * piece + part.len();
        loop {
            let buf = &bytes[begin..arrived];
            match parser.parse(buf, &mut args) {
                Ok(Parsed::Request { consumed }) => {
                    assert!((1..=buf.len()).contains(&consumed), "a request has bytes and is in the buffer");
                    let request = args.slices(buf);
                    assert_eq!(request.len(), args.len());
                    requests.push(request.iter().map(|arg| arg.to_vec()).collect());
                    begin += consumed;
                }
                Ok(Parsed::Incomplete { at_least }) => {
                    assert!(at_least > 0);
                    break;
                }
                Err(error) => return (requests, Some(error)),
            }
        }
    }
    (requests, None)
}

/// A reply that is read whole is read from its own bytes alone, and from no fewer.
fn reply(data: &[u8]) {
    match decode(data) {
        Ok(Some((value, length))) => {
            let (alone, again) = decode(&data[..length]).expect("it was read before").expect("it is whole");
            assert_eq!((format!("{alone:?}"), again), (format!("{value:?}"), length));
            for cut in [length / 3, length / 2, length - 1] {
                assert!(matches!(decode(&data[..cut]), Ok(None)), "cut at {cut} of {length}");
            }
        }
        Ok(None) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
