//! Requests that have arrived whole, looked at together before the first of them runs: the memory that their keys lie in
//! is then fetched for all at once, where each alone would wait for its own.

use cairn_engine::{Engine, Route};
use cairn_resp::{Args, Parsed, Parser, ProtocolError};

/// How many requests are looked at together. One that may change what a client may send, by its settings or by whether it
/// has authenticated, is the last of them.
const REQUESTS: usize = 16;

/// What comes behind the requests in the window.
pub(crate) enum Ahead {
    /// Perhaps more of them.
    Unknown,
    /// The beginning of one; at least so many bytes are missing.
    Incomplete(usize),
    /// What is no request. The window is empty then: those before it may still change what is allowed.
    Failed(ProtocolError),
}

/// A request in the connection's input.
#[derive(Default)]
pub(crate) struct Request {
    pub(crate) args: Args,
    pub(crate) route: Route,
    /// Where it begins and ends.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// The next requests of a connection.
#[derive(Default)]
pub(crate) struct Window {
    /// Those beyond `len` are kept for their memory.
    requests: Vec<Request>,
    len: usize,
    /// What has been understood of a request that is not whole.
    begun: Args,
}

impl Window {
    /// Looks at the requests from `start` on; only at the first for a client that has yet to authenticate, since what it
    /// may send next depends on that.
    pub(crate) fn fill(&mut self, engine: &Engine, parser: &mut Parser, input: &[u8], start: usize) -> Ahead {
        let most = if parser.is_authenticated() { REQUESTS } else { 1 };
        self.len = 0;
        let mut start = start;
        while self.len < most {
            let rest = input.get(start..).unwrap_or_default();
            match parser.parse(rest, &mut self.begun) {
                Ok(Parsed::Request { consumed }) => {
                    if self.len == self.requests.len() {
                        self.requests.push(Request::default());
                    }
                    let request = &mut self.requests[self.len];
                    std::mem::swap(&mut request.args, &mut self.begun);
                    request.route = engine.route(&request.args.slices(rest));
                    (request.start, request.end) = (start, start + consumed);
                    start += consumed;
                    self.len += 1;
                    if request.route.may_change_limits() {
                        return Ahead::Unknown;
                    }
                }
                Ok(Parsed::Incomplete { at_least }) => return Ahead::Incomplete(at_least),
                Err(error) if self.len == 0 => return Ahead::Failed(error),
                Err(_) => {
                    // Judged again when it is the first.
                    parser.restart();
                    return Ahead::Unknown;
                }
            }
        }
        Ahead::Unknown
    }

    /// The requests, in order.
    pub(crate) fn requests(&self) -> &[Request] {
        &self.requests[..self.len]
    }
}
