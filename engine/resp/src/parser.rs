//! Requests: arrays of bulk strings, and inline commands.

use crate::inline::split_into;
use crate::number::parse_integer;

/// How large a request may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one argument (`proto-max-bulk-len`).
    pub max_bulk: usize,
    /// Arguments of one request.
    pub max_args: usize,
    /// Bytes of an inline command, and of a line that announces a length.
    pub max_line: usize,
    /// Arguments of a request before the client has authenticated.
    pub max_args_unauthenticated: usize,
    /// Bytes of one argument before the client has authenticated.
    pub max_bulk_unauthenticated: usize,
}

impl Default for Limits {
    /// The limits of Redis 7.0.
    fn default() -> Limits {
        Limits {
            max_bulk: 512 << 20,
            max_args: 0x7fff_ffff,
            max_line: 64 << 10,
            max_args_unauthenticated: 10,
            max_bulk_unauthenticated: 16 << 10,
        }
    }
}

/// Why a connection's bytes are not a request. Displays Redis's own words; after it the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The number of arguments is no number, or above the limit.
    #[error("Protocol error: invalid multibulk length")]
    InvalidMultibulkLength,
    /// The length of an argument is no number, negative, or above the limit.
    #[error("Protocol error: invalid bulk length")]
    InvalidBulkLength,
    /// An argument does not begin with `$`.
    #[error("Protocol error: expected '$', got '{}'", char::from(*.0))]
    ExpectedBulk(u8),
    /// A line without a sign of its end.
    #[error("Protocol error: too big inline request")]
    InlineTooBig,
    /// The line with the number of arguments does not end.
    #[error("Protocol error: too big mbulk count string")]
    MultibulkLineTooBig,
    /// The line with an argument's length does not end.
    #[error("Protocol error: too big bulk count string")]
    BulkLineTooBig,
    /// More arguments than a client may send before it has authenticated.
    #[error("Protocol error: unauthenticated multibulk length")]
    UnauthenticatedMultibulkLength,
    /// A longer argument than a client may send before it has authenticated.
    #[error("Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulkLength,
    /// The quotes of an inline command do not match.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
}

/// What [`Parser::parse`] found at the beginning of the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// A whole request; it is in the [`Args`]. A blank line or an empty array is a request without arguments: it
    /// gets no reply.
    Request {
        /// Bytes of the buffer it took.
        consumed: usize,
    },
    /// The request is not whole yet. Append to the same bytes, then parse again.
    Incomplete {
        /// Bytes that are missing at the least: all of them when the length of the current argument is known.
        at_least: usize,
    },
}

/// The arguments of one request, as places in the buffer they were parsed from. Made once a connection and reused.
#[derive(Debug, Default)]
pub struct Args {
    spans: Vec<(usize, usize)>,
    /// An inline command's arguments, unescaped; the spans then point here.
    unescaped: Option<Vec<u8>>,
}

/// Few enough that a command's arguments lie on the stack.
const ON_STACK: usize = 8;

/// Spans kept for reuse; a larger request gives its memory back.
const SPANS_KEPT: usize = 1024;

impl Args {
    /// No arguments, no memory.
    pub fn new() -> Args {
        Args::default()
    }

    /// How many arguments there are.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether the request was a blank line or an empty array.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The arguments, given the buffer that [`Parser::parse`] was given.
    #[inline]
    pub fn slices<'b>(&'b self, buf: &'b [u8]) -> Slices<'b> {
        let source = self.unescaped.as_deref().unwrap_or(buf);
        let at = |&(start, end): &(usize, usize)| source.get(start..end).unwrap_or_default();
        let mut slices = Slices { few: [&[]; ON_STACK], many: Vec::new(), len: self.spans.len() };
        if self.spans.len() <= ON_STACK {
            for (slot, span) in slices.few.iter_mut().zip(&self.spans) {
                *slot = at(span);
            }
        } else {
            slices.many = self.spans.iter().map(at).collect();
        }
        slices
    }

    fn clear(&mut self) {
        self.spans.clear();
        self.spans.shrink_to(SPANS_KEPT);
        self.unescaped = None;
    }
}

/// Borrowed arguments; dereferences to `[&[u8]]`. On the stack but for requests of more than eight arguments.
#[derive(Debug)]
pub struct Slices<'b> {
    few: [&'b [u8]; ON_STACK],
    many: Vec<&'b [u8]>,
    len: usize,
}

impl<'b> std::ops::Deref for Slices<'b> {
    type Target = [&'b [u8]];

    #[inline]
    fn deref(&self) -> &[&'b [u8]] {
        self.few.get(..self.len).unwrap_or(&self.many)
    }
}

/// Parses one connection's requests, one after the other.
///
/// ```
/// use cairn_resp::{Args, Limits, Parsed, Parser};
/// let (mut parser, mut args) = (Parser::new(Limits::default()), Args::new());
/// let buf = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
/// assert_eq!(parser.parse(buf, &mut args).unwrap(), Parsed::Request { consumed: buf.len() });
/// assert_eq!(&*args.slices(buf), [&b"GET"[..], b"k"]);
/// ```
#[derive(Debug)]
pub struct Parser {
    limits: Limits,
    authenticated: bool,
    /// Everything before it has been understood. All places are counted from the beginning of the request.
    at: usize,
    /// How far the end of the line at `at` has been looked for.
    searched: usize,
    /// Arguments still to come; 0 between requests.
    remaining: usize,
    /// The length of the argument at `at`, once announced.
    bulk: Option<usize>,
}

/// A line's number and where the next line begins, or that the line is not whole.
type Line<T> = Option<(T, usize)>;

impl Parser {
    /// A parser for a new connection, without the limits for those who have not authenticated.
    pub fn new(limits: Limits) -> Parser {
        Parser { limits, authenticated: true, at: 0, searched: 0, remaining: 0, bulk: None }
    }

    /// Whether the client may send requests of any permitted size, or only what it takes to authenticate.
    pub fn set_authenticated(&mut self, authenticated: bool) {
        self.authenticated = authenticated;
    }

    /// Whether the client may send requests of any permitted size.
    pub fn is_authenticated(&self) -> bool {
        self.authenticated
    }

    /// Replaces the limit on the length of an argument (`proto-max-bulk-len`), from the next argument on.
    pub fn set_max_bulk(&mut self, bytes: usize) {
        self.limits.max_bulk = bytes;
    }

    /// Whether a request has begun to arrive that is not whole.
    pub fn is_mid_request(&self) -> bool {
        self.remaining > 0
    }

    /// How many bytes of a request that is not whole have been understood: arguments, and what announces their lengths.
    pub fn understood(&self) -> usize {
        self.at
    }

    /// Parses the request at the beginning of `buf`.
    ///
    /// After [`Parsed::Request`] the next call gets the bytes behind those consumed; after [`Parsed::Incomplete`] the
    /// same bytes with more behind them, and the same `args`. After an error the connection is to be closed.
    #[inline]
    pub fn parse(&mut self, buf: &[u8], args: &mut Args) -> Result<Parsed, ProtocolError> {
        if self.remaining == 0 {
            match buf.first() {
                Some(b'*') => match self.count(buf)? {
                    Some(0) => {
                        args.clear();
                        return Ok(self.finish());
                    }
                    Some(count) => {
                        args.clear();
                        self.remaining = count;
                    }
                    None => return Ok(Parsed::Incomplete { at_least: 1 }),
                },
                Some(_) => return self.inline(buf, args),
                None => return Ok(Parsed::Incomplete { at_least: 1 }),
            }
        }
        while self.remaining > 0 {
            let length = match self.bulk {
                Some(length) => length,
                None => match self.bulk_length(buf)? {
                    Some(length) => length,
                    None => return Ok(Parsed::Incomplete { at_least: 1 }),
                },
            };
            // The two bytes behind an argument are skipped unseen, as Redis does.
            let end = self.at + length;
            if buf.len() < end + 2 {
                self.bulk = Some(length);
                return Ok(Parsed::Incomplete { at_least: end + 2 - buf.len() });
            }
            args.spans.push((self.at, end));
            self.at = end + 2;
            self.bulk = None;
            self.remaining -= 1;
        }
        Ok(self.finish())
    }

    /// Forgets a request that it had begun with: the next call gets that request's bytes again from their beginning.
    pub fn restart(&mut self) {
        self.finish();
        self.bulk = None;
    }

    fn finish(&mut self) -> Parsed {
        let consumed = self.at;
        self.at = 0;
        self.searched = 0;
        self.remaining = 0;
        Parsed::Request { consumed }
    }

    /// Reads `*<count>`; a negative count is an empty request, as in Redis.
    #[inline]
    fn count(&mut self, buf: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let (count, after) = match short_number(buf, self.at + 1) {
            Some(fast) => fast,
            None => match self.length_line(buf, ProtocolError::MultibulkLineTooBig)? {
                Some((number, after)) => {
                    let number = number.ok_or(ProtocolError::InvalidMultibulkLength)?;
                    let number = number.max(0);
                    (usize::try_from(number).map_err(|_| ProtocolError::InvalidMultibulkLength)?, after)
                }
                None => return Ok(None),
            },
        };
        if count > self.limits.max_args {
            return Err(ProtocolError::InvalidMultibulkLength);
        }
        if !self.authenticated && count > self.limits.max_args_unauthenticated {
            return Err(ProtocolError::UnauthenticatedMultibulkLength);
        }
        self.at = after;
        self.searched = after;
        Ok(Some(count))
    }

    /// Reads `$<length>`.
    #[inline]
    fn bulk_length(&mut self, buf: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let fast = match buf.get(self.at) {
            Some(b'$') => short_number(buf, self.at + 1),
            _ => None,
        };
        let (length, after) = match fast {
            Some(fast) => fast,
            None => match self.length_line(buf, ProtocolError::BulkLineTooBig)? {
                Some((number, after)) => {
                    match buf.get(self.at) {
                        Some(b'$') => {}
                        other => return Err(ProtocolError::ExpectedBulk(other.copied().unwrap_or(b'?'))),
                    }
                    let number = number.ok_or(ProtocolError::InvalidBulkLength)?;
                    (usize::try_from(number).map_err(|_| ProtocolError::InvalidBulkLength)?, after)
                }
                None => return Ok(None),
            },
        };
        if length > self.limits.max_bulk {
            return Err(ProtocolError::InvalidBulkLength);
        }
        if !self.authenticated && length > self.limits.max_bulk_unauthenticated {
            return Err(ProtocolError::UnauthenticatedBulkLength);
        }
        self.at = after;
        self.searched = after;
        Ok(Some(length))
    }

    /// The number behind the first byte of the line at `at`, None in it where that is no number. The line ends at a
    /// carriage return; the byte behind it is skipped unseen, as Redis does.
    #[cold]
    fn length_line(
        &mut self,
        buf: &[u8],
        too_big: ProtocolError,
    ) -> Result<Line<Option<i64>>, ProtocolError> {
        let Some(end) = self.line_end(buf, b'\r', too_big)? else { return Ok(None) };
        if buf.len() < end + 2 {
            return Ok(None);
        }
        Ok(Some((buf.get(self.at + 1..end).and_then(parse_integer), end + 2)))
    }

    /// Where the line at `at` ends, looking only at what was not looked at before. Too long is an error whether or
    /// not the end is in sight, so that it does not depend on how the bytes arrived.
    fn line_end(
        &mut self,
        buf: &[u8],
        end: u8,
        too_big: ProtocolError,
    ) -> Result<Option<usize>, ProtocolError> {
        let from = self.searched.max(self.at);
        let found = buf.get(from..).and_then(|fresh| fresh.iter().position(|&b| b == end)).map(|i| from + i);
        if found.unwrap_or(buf.len()) - self.at > self.limits.max_line {
            return Err(too_big);
        }
        self.searched = found.unwrap_or(buf.len());
        Ok(found)
    }

    #[cold]
    fn inline(&mut self, buf: &[u8], args: &mut Args) -> Result<Parsed, ProtocolError> {
        let Some(end) = self.line_end(buf, b'\n', ProtocolError::InlineTooBig)? else {
            return Ok(Parsed::Incomplete { at_least: 1 });
        };
        let line = buf.get(..end).unwrap_or_default();
        args.clear();
        let mut text = Vec::with_capacity(line.len());
        split_into(line, &mut text, &mut args.spans).map_err(|_| ProtocolError::UnbalancedQuotes)?;
        args.unescaped = Some(text);
        self.at = end + 1;
        Ok(self.finish())
    }
}

/// The usual case: up to nine digits without a leading zero, then `\r` and one more byte. None for all else, which
/// the careful way then reads.
#[inline]
fn short_number(buf: &[u8], at: usize) -> Option<(usize, usize)> {
    let rest = buf.get(at..)?;
    let mut value = 0_usize;
    for (digits, &byte) in rest.iter().take(10).enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit <= 9 {
            if value == 0 && digits > 0 {
                return None;
            }
            value = value * 10 + usize::from(digit);
        } else if byte == b'\r' && digits > 0 && rest.len() > digits + 1 {
            return Some((value, at + digits + 2));
        } else {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Outcome = (Vec<Vec<Vec<u8>>>, Option<ProtocolError>);

    /// Feeds `bytes` in pieces ending at `cuts`, as a connection does.
    fn feed(bytes: &[u8], cuts: &[usize], limits: Limits) -> Outcome {
        let (mut parser, mut args, mut buf, mut requests) =
            (Parser::new(limits), Args::new(), Vec::new(), Vec::new());
        let mut from = 0;
        for &cut in cuts.iter().chain([&bytes.len()]) {
            let cut = cut.clamp(from, bytes.len());
            buf.extend_from_slice(&bytes[from..cut]);
            from = cut;
            loop {
                match parser.parse(&buf, &mut args) {
                    Ok(Parsed::Request { consumed }) => {
                        let whole: Vec<Vec<u8>> = args.slices(&buf).iter().map(|a| a.to_vec()).collect();
                        requests.push(whole);
                        buf.drain(..consumed);
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

    fn one(bytes: &[u8]) -> Outcome {
        let whole = feed(bytes, &[], Limits::default());
        let single: Vec<usize> = (0..bytes.len().min(200)).collect();
        assert_eq!(whole, feed(bytes, &single, Limits::default()), "byte by byte");
        whole
    }

    fn words(request: &[&str]) -> Vec<Vec<u8>> {
        request.iter().map(|w| w.as_bytes().to_vec()).collect()
    }

    /// What redis-server 7.0.15 answers to the same bytes.
    #[test]
    fn errors_are_those_of_redis() {
        use ProtocolError::*;
        let text = |error: ProtocolError| error.to_string();
        for (bytes, expected) in [
            (&b"*3\r\n$3\r\nSET\r\n$-1\r\n"[..], InvalidBulkLength),
            (b"*abc\r\n", InvalidMultibulkLength),
            (b"*+1\r\n", InvalidMultibulkLength),
            (b"*01\r\n", InvalidMultibulkLength),
            (b"* 1\r\n", InvalidMultibulkLength),
            (b"*\r\n", InvalidMultibulkLength),
            (b"*2147483648\r\n", InvalidMultibulkLength),
            (b"*99999999999999999999999\r\n", InvalidMultibulkLength),
            (b"*1\n$4\r\nPING\r\n", InvalidMultibulkLength),
            (b"*1\r\n$abc\r\n", InvalidBulkLength),
            (b"*1\r\n$04\r\n", InvalidBulkLength),
            (b"*1\r\n$536870913\r\n", InvalidBulkLength),
            (b"*1\r\nXabc\r\n", ExpectedBulk(b'X')),
            (b"*1\r\n\r\n", ExpectedBulk(b'\r')),
            (b"PING \"abc\r\n", UnbalancedQuotes),
        ] {
            assert_eq!(one(bytes), (vec![], Some(expected)), "{}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(text(ExpectedBulk(b'X')), "Protocol error: expected '$', got 'X'");
        assert_eq!(text(InvalidBulkLength), "Protocol error: invalid bulk length");
    }

    #[test]
    fn requests_are_read() {
        assert_eq!(one(b"*1\r\n$4\r\nPING\r\n"), (vec![words(&["PING"])], None));
        assert_eq!(
            one(b"*0\r\n*-5\r\n\r\n  \r\nPING\n"),
            (vec![vec![], vec![], vec![], vec![], words(&["PING"])], None)
        );
        assert_eq!(one(b"*1\r\n$0\r\n\r\n"), (vec![words(&[""])], None));
        assert_eq!(one(b"SET a 'b c'\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n").0.len(), 2);
        assert_eq!(one(b"*2\r\n$3\r\nGET\r\n$1"), (vec![], None));
        let nine = b"*9\r\n".iter().copied().chain(b"$1\r\nx\r\n".repeat(9)).collect::<Vec<u8>>();
        assert_eq!(one(&nine), (vec![words(&["x"; 9])], None));
    }

    #[test]
    fn long_lines_are_refused_however_they_arrive() {
        for (first, expected) in [
            ("", ProtocolError::InlineTooBig),
            ("*", ProtocolError::MultibulkLineTooBig),
            ("*1\r\n$", ProtocolError::BulkLineTooBig),
        ] {
            let mut line = first.as_bytes().to_vec();
            line.extend_from_slice(&vec![b'1'; 70_000]);
            assert_eq!(feed(&line, &[60_000], Limits::default()).1, Some(expected));
            line.extend_from_slice(b"\r\n");
            assert_eq!(feed(&line, &[], Limits::default()).1, Some(expected));
        }
        let mut fits = vec![b'1'; 65_535];
        fits.extend_from_slice(b"\r\n");
        assert_eq!(feed(&fits, &[65_535], Limits::default()).0.len(), 1);
    }

    #[test]
    fn strangers_may_send_little() {
        let mut parser = Parser::new(Limits::default());
        parser.set_authenticated(false);
        let mut args = Args::new();
        assert_eq!(parser.parse(b"*11\r\n", &mut args), Err(ProtocolError::UnauthenticatedMultibulkLength));
        assert_eq!(
            parser.parse(b"*10\r\n$16385\r\n", &mut args),
            Err(ProtocolError::UnauthenticatedBulkLength)
        );
        let mut parser = Parser::new(Limits::default());
        parser.set_authenticated(false);
        let wait = Ok(Parsed::Incomplete { at_least: 16_386 });
        assert_eq!(parser.parse(b"*10\r\n$16384\r\n", &mut args), wait);
    }

    /// A value of half a gigabyte must not be looked at again with each read: only its missing length is named.
    #[test]
    fn a_large_argument_is_awaited_by_its_length() {
        let (mut parser, mut args) = (Parser::new(Limits::default()), Args::new());
        let mut buf = b"*2\r\n$4\r\nECHO\r\n$1000000\r\n".to_vec();
        let head = buf.len();
        for _ in 0..10 {
            let missing = 1_000_002 - (buf.len() - head);
            assert_eq!(parser.parse(&buf, &mut args), Ok(Parsed::Incomplete { at_least: missing }));
            buf.extend_from_slice(&[b'x'; 100_000]);
        }
        buf.extend_from_slice(b"\r\n");
        assert_eq!(parser.parse(&buf, &mut args), Ok(Parsed::Request { consumed: buf.len() }));
        assert_eq!(args.slices(&buf)[1].len(), 1_000_000);
    }

    fn tokens() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            Just(b"\r\n".to_vec()),
            Just(b"*2\r\n".to_vec()),
            Just(b"$3\r\n".to_vec()),
            Just(b"$0\r\n\r\n".to_vec()),
            Just(b"$3\r\nGET\r\n".to_vec()),
            Just(b"PING 'a'\r\n".to_vec()),
            Just(b"*-1\r\n".to_vec()),
            Just(b"\"".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..6),
        ]
    }

    fn small() -> Limits {
        Limits { max_line: 20, max_bulk: 40, max_args: 6, ..Limits::default() }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(
            parts in proptest::collection::vec(tokens(), 0..20),
            mut cuts in proptest::collection::vec(0_usize..100, 0..12),
        ) {
            let bytes = parts.concat();
            cuts.sort_unstable();
            prop_assert_eq!(feed(&bytes, &[], small()), feed(&bytes, &cuts, small()));
        }

        #[test]
        fn what_is_written_is_read(
            request in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 1..20),
            mut cuts in proptest::collection::vec(0_usize..400, 0..12),
        ) {
            let mut bytes = Vec::new();
            let slices: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
            crate::push_command(&mut bytes, &slices);
            cuts.sort_unstable();
            prop_assert_eq!(feed(&bytes, &cuts, Limits::default()), (vec![request], None));
        }
    }
}
