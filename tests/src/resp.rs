//! A small RESP client of its own, so that the server's codec is not tested with itself and exact bytes can be sent.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// No reply takes longer; a test that waits for ever says nothing.
const LIMIT: Duration = Duration::from_secs(60);

/// A reply, RESP2 or RESP3.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// `+…`
    Simple(Vec<u8>),
    /// `-…`, or RESP3's bulk error.
    Error(Vec<u8>),
    /// `:…`
    Integer(i64),
    /// `$…`
    Bulk(Vec<u8>),
    /// RESP2's null bulk or null array, RESP3's `_`.
    Null,
    /// `*…`
    Array(Vec<Value>),
    /// RESP3 `%…`
    Map(Vec<(Value, Value)>),
    /// RESP3 `~…`
    Set(Vec<Value>),
    /// RESP3 `>…`
    Push(Vec<Value>),
    /// RESP3 `,…` as its text, since equal text is what a client sees.
    Double(Vec<u8>),
    /// RESP3 `#…`
    Boolean(bool),
    /// RESP3 `(…`
    BigNumber(Vec<u8>),
    /// RESP3 `=…`, its three-letter format included.
    Verbatim(Vec<u8>),
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        match self {
            Self::Simple(bytes) => write!(f, "+{}", text(bytes)),
            Self::Error(bytes) => write!(f, "-{}", text(bytes)),
            Self::Integer(number) => write!(f, ":{number}"),
            Self::Bulk(bytes) => write!(f, "\"{}\"", text(bytes)),
            Self::Null => f.write_str("nil"),
            Self::Array(items) => f.debug_list().entries(items).finish(),
            Self::Map(pairs) => f.debug_map().entries(pairs.iter().map(|(k, v)| (k, v))).finish(),
            Self::Set(items) => f.debug_set().entries(items).finish(),
            Self::Push(items) => f.debug_tuple("push").field(items).finish(),
            Self::Double(bytes) => write!(f, ",{}", text(bytes)),
            Self::Boolean(value) => write!(f, "#{value}"),
            Self::BigNumber(bytes) => write!(f, "({}", text(bytes)),
            Self::Verbatim(bytes) => write!(f, "={}", text(bytes)),
        }
    }
}

impl Value {
    /// `+OK`.
    pub fn ok() -> Self {
        Self::Simple(b"OK".to_vec())
    }

    /// A bulk string.
    pub fn bulk(bytes: impl AsRef<[u8]>) -> Self {
        Self::Bulk(bytes.as_ref().to_vec())
    }

    /// Whether it is an error.
    pub fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }

    /// The text of a simple or bulk string.
    #[track_caller]
    pub fn text(&self) -> String {
        match self {
            Self::Simple(bytes) | Self::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Verbatim(bytes) => String::from_utf8_lossy(bytes.get(4..).unwrap_or_default()).into_owned(),
            other => panic!("a string was expected, not {other:?}"),
        }
    }

    /// The number of an integer reply.
    #[track_caller]
    pub fn integer(&self) -> i64 {
        match self {
            Self::Integer(number) => *number,
            other => panic!("an integer was expected, not {other:?}"),
        }
    }

    /// The items of an array, set or push.
    #[track_caller]
    pub fn items(self) -> Vec<Value> {
        match self {
            Self::Array(items) | Self::Set(items) | Self::Push(items) => items,
            other => panic!("an array was expected, not {other:?}"),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    read: usize,
}

impl Client {
    /// Connects; an error is the caller's to judge.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        Ok(Self { stream, buffer: Vec::new(), read: 0 })
    }

    /// Sends one command and reads its reply.
    pub fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<Value> {
        let mut request = Vec::new();
        encode(&mut request, args);
        self.send(&request)?;
        self.reply()
    }

    /// [`Client::call`] for a command that must be answered.
    #[track_caller]
    pub fn args<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Value {
        match self.call(args) {
            Ok(value) => value,
            Err(error) => {
                let shown: Vec<_> = args.iter().map(|arg| arg.as_ref().escape_ascii().to_string()).collect();
                panic!("{:.120}: {error}", shown.join(" "))
            }
        }
    }

    /// [`Client::args`] for a command whose words hold no space; `''` stands for an empty argument.
    #[track_caller]
    pub fn ask(&mut self, line: &str) -> Value {
        let words: Vec<&str> =
            line.split_whitespace().map(|word| if word == "''" { "" } else { word }).collect();
        self.args(&words)
    }

    /// Sends several commands at once and reads all replies.
    pub fn pipeline(&mut self, commands: &[Vec<Vec<u8>>]) -> io::Result<Vec<Value>> {
        let mut request = Vec::new();
        for command in commands {
            encode(&mut request, command);
        }
        self.send(&request)?;
        commands.iter().map(|_| self.reply()).collect()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Reads one reply. The end of the connection is an `UnexpectedEof`.
    pub fn reply(&mut self) -> io::Result<Value> {
        loop {
            let mut at = self.read;
            if let Some(value) = decode(&self.buffer, &mut at)? {
                self.read = at;
                if self.read == self.buffer.len() {
                    self.buffer.clear();
                    self.read = 0;
                }
                return Ok(value);
            }
            self.fill()?;
        }
    }

    /// Reads all there is until the server closes the connection.
    pub fn until_closed(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = self.buffer.split_off(self.read);
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => Ok(rest),
            // A server that closes while unread input is waiting resets the connection; what it said came before.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(rest),
            Err(error) => Err(error),
        }
    }

    /// Whether the server says nothing for so long.
    #[track_caller]
    pub fn is_silent(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).expect("a socket takes a timeout");
        let heard = self.buffer.len() > self.read || self.fill().is_ok();
        self.stream.set_read_timeout(Some(LIMIT)).expect("a socket takes a timeout");
        !heard
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&mut self) -> io::Result<()> {
        self.stream.shutdown(std::net::Shutdown::Write)
    }

    /// A second handle to the socket, to be written from another thread.
    pub fn writer(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }

    fn fill(&mut self) -> io::Result<()> {
        if self.read > 0 {
            self.buffer.drain(..self.read);
            self.read = 0;
        }
        let start = self.buffer.len();
        self.buffer.resize(start + 64 * 1024, 0);
        let count = self.stream.read(&mut self.buffer[start..]);
        self.buffer.truncate(start + *count.as_ref().unwrap_or(&0));
        match count? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")),
            _ => Ok(()),
        }
    }
}

/// Appends a command as RESP to `out`.
pub fn encode<A: AsRef<[u8]>>(out: &mut Vec<u8>, args: &[A]) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        let arg = arg.as_ref();
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

fn malformed(line: &[u8]) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a RESP reply: {}", line.escape_ascii()))
}

fn line<'b>(buffer: &'b [u8], at: &mut usize) -> Option<&'b [u8]> {
    let rest = &buffer[*at..];
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    *at += end + 2;
    Some(&rest[..end])
}

/// Decodes the reply at `at` and moves behind it; `None` when more bytes are needed.
fn decode(buffer: &[u8], at: &mut usize) -> io::Result<Option<Value>> {
    let Some(line) = line(buffer, at) else { return Ok(None) };
    let Some((kind, rest)) = line.split_first() else { return Err(malformed(line)) };
    let number = || -> io::Result<i64> {
        std::str::from_utf8(rest).ok().and_then(|text| text.parse().ok()).ok_or_else(|| malformed(line))
    };
    Ok(Some(match kind {
        b'+' => Value::Simple(rest.to_vec()),
        b'-' => Value::Error(rest.to_vec()),
        b':' => Value::Integer(number()?),
        b'_' => Value::Null,
        b',' => Value::Double(rest.to_vec()),
        b'#' => Value::Boolean(rest == b"t"),
        b'(' => Value::BigNumber(rest.to_vec()),
        b'$' | b'!' | b'=' => {
            let Ok(length) = usize::try_from(number()?) else { return Ok(Some(Value::Null)) };
            if buffer.len() < *at + length + 2 {
                return Ok(None);
            }
            let bytes = buffer[*at..*at + length].to_vec();
            *at += length + 2;
            match kind {
                b'$' => Value::Bulk(bytes),
                b'!' => Value::Error(bytes),
                _ => Value::Verbatim(bytes),
            }
        }
        b'*' | b'~' | b'>' => {
            let Ok(count) = usize::try_from(number()?) else { return Ok(Some(Value::Null)) };
            let Some(items) = decode_many(buffer, at, count)? else { return Ok(None) };
            match kind {
                b'*' => Value::Array(items),
                b'~' => Value::Set(items),
                _ => Value::Push(items),
            }
        }
        b'%' => {
            let count = usize::try_from(number()?).map_err(|_| malformed(line))?;
            let Some(items) = decode_many(buffer, at, count * 2)? else { return Ok(None) };
            let mut items = items.into_iter();
            let mut pairs = Vec::with_capacity(count);
            while let (Some(key), Some(value)) = (items.next(), items.next()) {
                pairs.push((key, value));
            }
            Value::Map(pairs)
        }
        _ => return Err(malformed(line)),
    }))
}

fn decode_many(buffer: &[u8], at: &mut usize, count: usize) -> io::Result<Option<Vec<Value>>> {
    let mut items = Vec::new();
    for _ in 0..count {
        let Some(item) = decode(buffer, at)? else { return Ok(None) };
        items.push(item);
    }
    Ok(Some(items))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_nested_replies_and_waits_for_the_rest() {
        let bytes = b"*3\r\n:1\r\n$3\r\na\r\n\r\n%1\r\n+k\r\n_\r\n";
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut], &mut 0).expect("a valid prefix"), None, "cut at {cut}");
        }
        let mut at = 0;
        let value = decode(bytes, &mut at).expect("valid").expect("complete");
        assert_eq!(at, bytes.len());
        let map = Value::Map(vec![(Value::Simple(b"k".to_vec()), Value::Null)]);
        assert_eq!(value, Value::Array(vec![Value::Integer(1), Value::bulk("a\r\n"), map]));
    }
}
