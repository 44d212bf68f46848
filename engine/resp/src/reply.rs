//! Replies, written for the protocol version a client speaks.

use crate::number::{digit, format_double, push_integer, push_unsigned};

/// The version of the protocol a connection speaks; HELLO changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// Version 2: no maps, sets, doubles, booleans of their own.
    #[default]
    Resp2,
    /// Version 3.
    Resp3,
}

/// Writes replies to the end of a buffer. What version 2 has no type for takes the form Redis gives it there.
#[derive(Debug)]
pub struct Reply<'a> {
    out: &'a mut Vec<u8>,
    protocol: Protocol,
}

/// The place of an aggregate's header whose length is not known yet.
#[derive(Debug)]
#[must_use = "the header is written by finish_*"]
pub struct Deferred(usize);

/// The header a [`Deferred`] keeps room for: that of a length of one digit.
const ROOM: [u8; 4] = *b"*0\r\n";

impl<'a> Reply<'a> {
    /// Replies go to the end of `out`.
    #[inline]
    pub fn new(out: &'a mut Vec<u8>, protocol: Protocol) -> Reply<'a> {
        Reply { out, protocol }
    }

    /// The same, for a shorter time.
    #[inline]
    pub fn reborrow(&mut self) -> Reply<'_> {
        Reply { out: self.out, protocol: self.protocol }
    }

    /// The version written.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Changes the version, from the next reply on.
    pub fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// Bytes in the buffer, a mark for [`Reply::truncate`].
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Takes back what was written since a mark.
    #[cold]
    pub fn split_off(&mut self, mark: usize) -> Vec<u8> {
        self.out.split_off(mark.min(self.out.len()))
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Takes back everything written since [`Reply::len`] gave `mark`.
    pub fn truncate(&mut self, mark: usize) {
        self.out.truncate(mark);
    }

    /// What has been written since [`Reply::len`] gave `mark`.
    #[must_use]
    pub fn since(&self, mark: usize) -> &[u8] {
        self.out.get(mark..).unwrap_or_default()
    }

    /// Appends bytes that are a reply, or several, already.
    pub fn raw(&mut self, reply: &[u8]) {
        self.out.extend_from_slice(reply);
    }

    /// `+OK` and the like; `text` must not hold line ends.
    #[inline]
    pub fn simple(&mut self, text: &str) {
        debug_assert!(!text.contains(['\r', '\n']), "a simple string is one line");
        self.out.reserve(text.len() + 3);
        self.out.push(b'+');
        self.out.extend_from_slice(text.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    /// As [`Reply::simple`], for any text: line ends in it become spaces.
    pub fn simple_bytes(&mut self, text: &[u8]) {
        self.out.push(b'+');
        self.out.extend(text.iter().map(|&b| if b == b'\r' || b == b'\n' { b' ' } else { b }));
        self.out.extend_from_slice(b"\r\n");
    }

    /// `+OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// An error; `text` begins with its code (`ERR`, `WRONGTYPE`…). Line ends in it become spaces.
    pub fn error(&mut self, text: &str) {
        self.error_bytes(text.as_bytes());
    }

    /// As [`Reply::error`], for texts that quote what a client sent.
    pub fn error_bytes(&mut self, text: &[u8]) {
        self.out.push(b'-');
        self.out.extend(text.iter().map(|&b| if b == b'\r' || b == b'\n' { b' ' } else { b }));
        self.out.extend_from_slice(b"\r\n");
    }

    /// An integer.
    #[inline]
    pub fn integer(&mut self, value: i64) {
        self.out.push(b':');
        push_integer(self.out, value);
        self.out.extend_from_slice(b"\r\n");
    }

    /// A bulk string.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.out.reserve(bytes.len() + 25);
        self.header(b'$', bytes.len());
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    /// An integer as a bulk string, as GET replies a counter.
    #[inline]
    pub fn bulk_int(&mut self, value: i64) {
        let mut digits = Vec::with_capacity(20);
        push_integer(&mut digits, value);
        self.bulk(&digits);
    }

    /// No value, where a string would stand.
    #[inline]
    pub fn null(&mut self) {
        self.out.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"$-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// No value, where an array would stand.
    pub fn null_array(&mut self) {
        self.out.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"*-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// An array; its `len` elements follow.
    #[inline]
    pub fn array(&mut self, len: usize) {
        self.header(b'*', len);
    }

    /// A map of `pairs` pairs, key and value of each to follow; an array of twice as many in version 2.
    pub fn map(&mut self, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', pairs * 2),
            Protocol::Resp3 => self.header(b'%', pairs),
        }
    }

    /// A set; its `len` elements follow. An array in version 2.
    pub fn set(&mut self, len: usize) {
        self.header(self.set_type(), len);
    }

    /// An out-of-band message; its `len` elements follow. An array in version 2.
    pub fn push(&mut self, len: usize) {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', len),
            Protocol::Resp3 => self.header(b'>', len),
        }
    }

    /// A double as Redis 7.0 writes it; a bulk string in version 2.
    pub fn double(&mut self, value: f64) {
        match self.protocol {
            Protocol::Resp2 => {
                let mut text = Vec::with_capacity(32);
                format_double(value, &mut text);
                self.bulk(&text);
            }
            Protocol::Resp3 => {
                self.out.push(b',');
                format_double(value, self.out);
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// A boolean; 1 or 0 in version 2.
    pub fn boolean(&mut self, value: bool) {
        self.out.extend_from_slice(match (self.protocol, value) {
            (Protocol::Resp2, true) => b":1\r\n",
            (Protocol::Resp2, false) => b":0\r\n",
            (Protocol::Resp3, true) => b"#t\r\n",
            (Protocol::Resp3, false) => b"#f\r\n",
        });
    }

    /// A text with its format, `txt` or `mkd` (three bytes); a bulk string in version 2.
    pub fn verbatim(&mut self, format: &str, text: &[u8]) {
        debug_assert_eq!(format.len(), 3, "the protocol gives a format three bytes");
        match self.protocol {
            Protocol::Resp2 => self.bulk(text),
            Protocol::Resp3 => {
                self.header(b'=', text.len() + 4);
                self.out.extend_from_slice(format.as_bytes());
                self.out.push(b':');
                self.out.extend_from_slice(text);
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// An integer of any size, its digits given; a bulk string in version 2.
    pub fn big_number(&mut self, digits: &str) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(digits.as_bytes()),
            Protocol::Resp3 => {
                self.out.push(b'(');
                self.out.extend_from_slice(digits.as_bytes());
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// Begins an aggregate whose length is known only after its elements; one of the `finish_` methods ends it.
    /// Those within it must end first.
    pub fn deferred(&mut self) -> Deferred {
        let at = self.out.len();
        self.out.extend_from_slice(&ROOM);
        Deferred(at)
    }

    /// As [`Reply::deferred`].
    pub fn deferred_array(&mut self) -> Deferred {
        self.deferred()
    }

    /// Ends the aggregate begun at `at` as an array of `len` elements.
    pub fn finish_array(&mut self, at: Deferred, len: usize) {
        self.finish(at, b'*', len);
    }

    /// Ends the aggregate begun at `at` as a map of `pairs` pairs.
    pub fn finish_map(&mut self, at: Deferred, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => self.finish(at, b'*', pairs * 2),
            Protocol::Resp3 => self.finish(at, b'%', pairs),
        }
    }

    /// Ends the aggregate begun at `at` as a set of `len` elements.
    pub fn finish_set(&mut self, at: Deferred, len: usize) {
        self.finish(at, self.set_type(), len);
    }

    fn finish(&mut self, Deferred(at): Deferred, kind: u8, len: usize) {
        let mut header = Vec::with_capacity(24);
        header.push(kind);
        push_unsigned(&mut header, len as u64);
        header.extend_from_slice(b"\r\n");
        let end = at + ROOM.len();
        debug_assert!(end <= self.out.len(), "the reply was truncated before its header");
        if end <= self.out.len() {
            self.out.splice(at..end, header);
        }
    }

    fn set_type(&self) -> u8 {
        match self.protocol {
            Protocol::Resp2 => b'*',
            Protocol::Resp3 => b'~',
        }
    }

    #[inline(always)]
    fn header(&mut self, kind: u8, len: usize) {
        let len = len as u64;
        // Nearly all are as short as this: written at once, instead of piece by piece.
        match len {
            0..10 => self.out.extend_from_slice(&[kind, digit(len), b'\r', b'\n']),
            10..100 => self.out.extend_from_slice(&[kind, digit(len / 10), digit(len), b'\r', b'\n']),
            100..1000 => {
                let (hundreds, tens) = (digit(len / 100), digit(len / 10));
                self.out.extend_from_slice(&[kind, hundreds, tens, digit(len), b'\r', b'\n']);
            }
            _ => {
                self.out.push(kind);
                push_unsigned(self.out, len);
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }
}

/// Appends a request: an array of bulk strings. This is how effects stand in the journal, and what a client sends.
pub fn push_command(out: &mut Vec<u8>, args: &[&[u8]]) {
    let mut reply = Reply::new(out, Protocol::Resp2);
    reply.array(args.len());
    for arg in args {
        reply.bulk(arg);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(protocol: Protocol, write: impl FnOnce(&mut Reply<'_>)) -> String {
        let mut out = Vec::new();
        write(&mut Reply::new(&mut out, protocol));
        String::from_utf8(out).unwrap()
    }

    fn both(write: impl Fn(&mut Reply<'_>), two: &str, three: &str) {
        assert_eq!(written(Protocol::Resp2, &write), two);
        assert_eq!(written(Protocol::Resp3, &write), three);
    }

    #[test]
    fn each_type_in_both_versions() {
        both(|r| r.simple("OK"), "+OK\r\n", "+OK\r\n");
        both(|r| r.error("ERR a\r\nb"), "-ERR a  b\r\n", "-ERR a  b\r\n");
        both(|r| r.integer(i64::MIN), ":-9223372036854775808\r\n", ":-9223372036854775808\r\n");
        both(|r| r.bulk(b"ab"), "$2\r\nab\r\n", "$2\r\nab\r\n");
        both(|r| r.bulk_int(-12), "$3\r\n-12\r\n", "$3\r\n-12\r\n");
        both(|r| r.null(), "$-1\r\n", "_\r\n");
        both(|r| r.null_array(), "*-1\r\n", "_\r\n");
        both(|r| r.map(2), "*4\r\n", "%2\r\n");
        both(|r| r.set(2), "*2\r\n", "~2\r\n");
        both(|r| r.push(2), "*2\r\n", ">2\r\n");
        both(|r| r.double(3.5), "$3\r\n3.5\r\n", ",3.5\r\n");
        both(|r| r.boolean(true), ":1\r\n", "#t\r\n");
        both(|r| r.verbatim("txt", b"hi"), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n");
        both(|r| r.big_number("123"), "$3\r\n123\r\n", "(123\r\n");
    }

    #[test]
    fn lengths_may_come_last() {
        let write = |count: usize| {
            move |r: &mut Reply<'_>| {
                let outer = r.deferred_array();
                let inner = r.deferred();
                for _ in 0..count {
                    r.integer(1);
                }
                r.finish_set(inner, count);
                r.finish_map(outer, 1);
            }
        };
        both(write(0), "*2\r\n*0\r\n", "%1\r\n~0\r\n");
        let ones = ":1\r\n".repeat(12);
        both(write(12), &format!("*2\r\n*12\r\n{ones}"), &format!("%1\r\n~12\r\n{ones}"));
    }

    #[test]
    fn a_reply_can_be_taken_back() {
        let text = written(Protocol::Resp2, |r| {
            r.ok();
            let mark = r.len();
            r.array(3);
            r.truncate(mark);
            r.raw(b":1\r\n");
        });
        assert_eq!(text, "+OK\r\n:1\r\n");
    }
}
