//! Replies read back, for programs that are clients.

use crate::number::parse_integer;

/// A reply.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `+`
    Simple(String),
    /// `-` or `!`; begins with the error's code.
    Error(String),
    /// `:`
    Integer(i64),
    /// `$` or `=`, the latter without its format.
    Bulk(Vec<u8>),
    /// `_`, `$-1` or `*-1`
    Null,
    /// `*`
    Array(Vec<Value>),
    /// `%`
    Map(Vec<(Value, Value)>),
    /// `~`
    Set(Vec<Value>),
    /// `>`
    Push(Vec<Value>),
    /// `,`
    Double(f64),
    /// `#`
    Boolean(bool),
    /// `(`, its digits.
    BigNumber(String),
}

/// Bytes that are no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A reply begins with an unknown byte.
    #[error("byte {offset} of the reply: {found:#04x} begins no reply")]
    UnknownType {
        /// Where in the bytes given.
        offset: usize,
        /// The byte there.
        found: u8,
    },
    /// A number, length or text is not what its type demands.
    #[error("byte {offset} of the reply: malformed {what}")]
    Malformed {
        /// Where in the bytes given.
        offset: usize,
        /// What should stand there.
        what: &'static str,
    },
    /// Replies within replies beyond any that a server sends.
    #[error("byte {offset} of the reply: nested deeper than {MAX_DEPTH}")]
    TooDeep {
        /// Where in the bytes given.
        offset: usize,
    },
}

/// How deep replies may be nested.
const MAX_DEPTH: usize = 32;

/// Reads the reply at the beginning of `bytes` and how many bytes it took; None when it is not whole yet.
///
/// ```
/// use cairn_resp::{Value, decode};
/// assert_eq!(decode(b":42\r\n+OK").unwrap(), Some((Value::Integer(42), 5)));
/// assert_eq!(decode(b"$3\r\nab").unwrap(), None);
/// ```
pub fn decode(bytes: &[u8]) -> Result<Option<(Value, usize)>, DecodeError> {
    let mut reader = Reader { bytes, at: 0 };
    Ok(reader.value(0)?.map(|value| (value, reader.at)))
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

/// None: the bytes end before it does.
type Found<T> = Result<Option<T>, DecodeError>;

impl<'b> Reader<'b> {
    fn value(&mut self, depth: usize) -> Found<Value> {
        let offset = self.at;
        if depth > MAX_DEPTH {
            return Err(DecodeError::TooDeep { offset });
        }
        let Some(line) = self.line()? else { return Ok(None) };
        let Some((&kind, rest)) = line.split_first() else {
            return Err(DecodeError::Malformed { offset, what: "type" });
        };
        let text = || String::from_utf8_lossy(rest).into_owned();
        let malformed = |what| DecodeError::Malformed { offset, what };
        Ok(Some(match kind {
            b'+' => Value::Simple(text()),
            b'-' => Value::Error(text()),
            b':' => Value::Integer(parse_integer(rest).ok_or(malformed("integer"))?),
            b'_' => Value::Null,
            b'(' => Value::BigNumber(text()),
            b',' => Value::Double(text().parse().map_err(|_| malformed("double"))?),
            b'#' => Value::Boolean(match rest {
                b"t" => true,
                b"f" => false,
                _ => return Err(malformed("boolean")),
            }),
            b'$' | b'=' | b'!' => return self.text(kind, rest, offset),
            b'*' | b'~' | b'>' | b'%' | b'|' => return self.aggregate(kind, rest, offset, depth),
            found => return Err(DecodeError::UnknownType { offset, found }),
        }))
    }

    fn text(&mut self, kind: u8, length: &[u8], offset: usize) -> Found<Value> {
        let malformed = |what| DecodeError::Malformed { offset, what };
        if length == b"-1" {
            return Ok(Some(Value::Null));
        }
        let length =
            parse_integer(length).and_then(|n| usize::try_from(n).ok()).ok_or(malformed("length"))?;
        let end = self.at.checked_add(length).ok_or(malformed("length"))?;
        let Some(text) = self.bytes.get(self.at..end) else { return Ok(None) };
        match self.bytes.get(end..).and_then(|rest| rest.get(..2)) {
            None => return Ok(None),
            Some(b"\r\n") => {}
            Some(_) => return Err(DecodeError::Malformed { offset: end, what: "end of a text" }),
        }
        self.at = end + 2;
        Ok(Some(match kind {
            b'!' => Value::Error(String::from_utf8_lossy(text).into_owned()),
            b'=' => Value::Bulk(text.get(4..).ok_or(malformed("verbatim text"))?.to_vec()),
            _ => Value::Bulk(text.to_vec()),
        }))
    }

    fn aggregate(&mut self, kind: u8, length: &[u8], offset: usize, depth: usize) -> Found<Value> {
        let malformed = |what| DecodeError::Malformed { offset, what };
        if length == b"-1" {
            return Ok(Some(Value::Null));
        }
        let length =
            parse_integer(length).and_then(|n| usize::try_from(n).ok()).ok_or(malformed("length"))?;
        if matches!(kind, b'%' | b'|') {
            let mut pairs = Vec::new();
            for _ in 0..length {
                let Some(key) = self.value(depth + 1)? else { return Ok(None) };
                let Some(value) = self.value(depth + 1)? else { return Ok(None) };
                pairs.push((key, value));
            }
            // An attribute only describes the reply behind it.
            return if kind == b'|' { self.value(depth + 1) } else { Ok(Some(Value::Map(pairs))) };
        }
        let mut items = Vec::new();
        for _ in 0..length {
            let Some(item) = self.value(depth + 1)? else { return Ok(None) };
            items.push(item);
        }
        Ok(Some(match kind {
            b'~' => Value::Set(items),
            b'>' => Value::Push(items),
            _ => Value::Array(items),
        }))
    }

    fn line(&mut self) -> Found<&'b [u8]> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(end) = rest.iter().position(|&b| b == b'\r') else { return Ok(None) };
        match rest.get(end + 1) {
            None => return Ok(None),
            Some(b'\n') => {}
            Some(_) => return Err(DecodeError::Malformed { offset: self.at + end, what: "end of a line" }),
        }
        self.at += end + 2;
        Ok(rest.get(..end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Protocol, Reply};
    use proptest::prelude::*;

    fn leaf() -> impl Strategy<Value = Value> {
        prop_oneof![
            "[ -~]{0,10}".prop_map(Value::Simple),
            "[A-Z]{3,5} [ -~]{0,10}".prop_map(Value::Error),
            any::<i64>().prop_map(Value::Integer),
            proptest::collection::vec(any::<u8>(), 0..20).prop_map(Value::Bulk),
            Just(Value::Null),
            (-1e300..1e300).prop_map(Value::Double),
            any::<bool>().prop_map(Value::Boolean),
        ]
    }

    fn tree() -> impl Strategy<Value = Value> {
        leaf().prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Set),
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Push),
                proptest::collection::vec((inner.clone(), inner), 0..5).prop_map(Value::Map),
            ]
        })
    }

    fn write(value: &Value, reply: &mut Reply<'_>) {
        match value {
            Value::Simple(text) => reply.simple(text),
            Value::Error(text) => reply.error(text),
            Value::Integer(value) => reply.integer(*value),
            Value::Bulk(bytes) => reply.bulk(bytes),
            Value::Null => reply.null(),
            Value::Double(value) => reply.double(*value),
            Value::Boolean(value) => reply.boolean(*value),
            Value::BigNumber(digits) => reply.big_number(digits),
            Value::Array(items) => {
                reply.array(items.len());
                items.iter().for_each(|item| write(item, reply));
            }
            Value::Set(items) => {
                reply.set(items.len());
                items.iter().for_each(|item| write(item, reply));
            }
            Value::Push(items) => {
                reply.push(items.len());
                items.iter().for_each(|item| write(item, reply));
            }
            Value::Map(pairs) => {
                reply.map(pairs.len());
                pairs.iter().for_each(|(key, value)| {
                    write(key, reply);
                    write(value, reply);
                });
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_once_it_is_whole(value in tree()) {
            let mut out = Vec::new();
            write(&value, &mut Reply::new(&mut out, Protocol::Resp3));
            for end in 0..out.len() {
                prop_assert_eq!(decode(&out[..end]), Ok(None));
            }
            prop_assert_eq!(decode(&out), Ok(Some((value, out.len()))));
        }

        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn other_forms() {
        assert_eq!(decode(b"=6\r\ntxt:hi\r\n"), Ok(Some((Value::Bulk(b"hi".to_vec()), 12))));
        assert_eq!(decode(b"!5\r\nERR x\r\n"), Ok(Some((Value::Error("ERR x".into()), 11))));
        assert_eq!(decode(b"|1\r\n+a\r\n:1\r\n:2\r\n"), Ok(Some((Value::Integer(2), 16))));
        assert_eq!(decode(b"*-1\r\n"), Ok(Some((Value::Null, 5))));
        assert_eq!(decode(b"?\r\n"), Err(DecodeError::UnknownType { offset: 0, found: b'?' }));
        assert_eq!(decode(b"$2\r\nabcd"), Err(DecodeError::Malformed { offset: 6, what: "end of a text" }));
        let deep = b"*1\r\n".repeat(40);
        assert_eq!(decode(&deep), Err(DecodeError::TooDeep { offset: 132 }));
    }
}
