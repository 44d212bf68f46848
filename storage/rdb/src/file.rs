//! Whole `.rdb` files: a reader that goes through any [`Read`] once, and a writer onto any [`Write`].
//!
//! A file is "REDIS" and a version in four digits ("VALKEY" and three), records that each begin with one byte (an
//! opcode, or the type of a value), the end mark, and from version 5 on a CRC-64 of everything before it (0: switched off).

use std::io::{Read, Write};

use crate::error::RdbError;
use crate::primitives::{Source, write_length, write_string, write_string_plain};
use crate::value::{self, Value, kind, module_name, skip_module_values};
use crate::{FILE_VERSION_READ_MAX, VERSION_WRITTEN, crc64};

/// Opcodes, as they stand in files. Append-only: another program wrote them.
mod opcode {
    /// Of Redis Enterprise, before a key it keeps in memory: a length that says when it was used.
    pub(super) const RAM_LRU: u8 = 107;
    pub(super) const SLOT_INFO: u8 = 244;
    pub(super) const FUNCTION_2: u8 = 245;
    pub(super) const FUNCTION_PRE_GA: u8 = 246;
    pub(super) const MODULE_AUX: u8 = 247;
    pub(super) const IDLE: u8 = 248;
    pub(super) const FREQUENCY: u8 = 249;
    pub(super) const AUX: u8 = 250;
    pub(super) const RESIZE_DB: u8 = 251;
    pub(super) const EXPIRE_TIME_MS: u8 = 252;
    pub(super) const EXPIRE_TIME: u8 = 253;
    pub(super) const SELECT_DB: u8 = 254;
    pub(super) const END: u8 = 255;
}

/// The version of Valkey 9's own header, whose other types are those of version 11.
const VERSION_VALKEY: u32 = 80;

/// How a key was used, as far as the writer's eviction policy kept that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Seconds since its last use.
    IdleSeconds(u64),
    /// Its logarithmic frequency of use.
    Frequency(u8),
}

impl Usage {
    /// Appends it as it stands before a key's type.
    pub fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::IdleSeconds(seconds) => {
                out.push(opcode::IDLE);
                write_length(out, seconds);
            }
            Self::Frequency(counter) => out.extend_from_slice(&[opcode::FREQUENCY, counter]),
        }
    }

    /// Reads what follows the code that [`Usage::write`] began with; none where that is another code.
    ///
    /// # Errors
    /// Those of the source.
    pub fn read(code: u8, source: &mut impl Source) -> Result<Option<Self>, RdbError> {
        Ok(match code {
            opcode::IDLE => Some(Self::IdleSeconds(source.length()?)),
            opcode::FREQUENCY => Some(Self::Frequency(source.u8()?)),
            _ => None,
        })
    }
}

/// One key of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The database it is in.
    pub database: u64,
    /// The key.
    pub key: Vec<u8>,
    /// When it expires, in milliseconds since 1970.
    pub expire_at_ms: Option<i64>,
    /// How it was used, where the file tells.
    pub usage: Option<Usage>,
    /// The value.
    pub value: Value,
}

/// What a file is made of.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Record {
    /// A remark of the writer: "redis-ver", "ctime", ...
    Aux {
        /// Its name.
        name: Vec<u8>,
        /// What it says.
        value: Vec<u8>,
    },
    /// The database just begun: how many keys it has, and how many of them expire.
    DatabaseSize {
        /// The database.
        database: u64,
        /// Its keys.
        keys: u64,
        /// Those that expire.
        expiring: u64,
    },
    /// The source text of a function library.
    Function(Vec<u8>),
    /// Data a module kept beside the keys; it was skipped.
    ModuleAux {
        /// The module.
        module: String,
    },
    /// A key with a value of a module, where [`FileReader::skip_module_values`] asked for it to be skipped.
    ModuleValue {
        /// The module.
        module: String,
    },
    /// A key.
    Entry(Box<Entry>),
}

/// Reads a file from its start. Ends after the checksum; what follows in the stream stays unread or is ignored.
#[derive(Debug)]
pub struct FileReader<R> {
    source: StreamSource<R>,
    version: u32,
    is_valkey: bool,
    database: u64,
    skips_module_values: bool,
    is_done: bool,
}

impl<R: Read> FileReader<R> {
    /// Reads the header.
    pub fn open(input: R) -> Result<Self, RdbError> {
        let mut source = StreamSource::new(input);
        let mut header = [0; 9];
        if let Err(error) = source.fill(&mut header) {
            return match error {
                RdbError::Truncated { .. } => Err(not_rdb(&source.peeked())),
                error => Err(error),
            };
        }
        let (is_valkey, digits) = match &header {
            [b'R', b'E', b'D', b'I', b'S', digits @ ..] => (false, &digits[..]),
            [b'V', b'A', b'L', b'K', b'E', b'Y', digits @ ..] => (true, &digits[..]),
            _ => return Err(not_rdb(&header)),
        };
        let is_number = digits.iter().all(u8::is_ascii_digit);
        let version: Option<u32> =
            std::str::from_utf8(digits).ok().filter(|_| is_number).and_then(|text| text.parse().ok());
        let version = version.filter(|version| *version > 0).ok_or_else(|| not_rdb(&header))?;
        let supported = if is_valkey { VERSION_VALKEY } else { FILE_VERSION_READ_MAX };
        if version > supported {
            return Err(RdbError::FutureVersion { found: version, supported });
        }
        Ok(Self { source, version, is_valkey, database: 0, skips_module_values: false, is_done: false })
    }

    /// Passes over values of modules instead of refusing them.
    #[must_use]
    pub fn skip_module_values(self) -> Self {
        Self { skips_module_values: true, ..self }
    }

    /// The version in the header.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// How many bytes have been read.
    pub fn offset(&self) -> u64 {
        self.source.offset()
    }

    /// The next record; `None` at the end, once the checksum was found to be right.
    pub fn next_record(&mut self) -> Result<Option<Record>, RdbError> {
        if self.is_done {
            return Ok(None);
        }
        let record = self.read_record();
        // After an error nothing tells where the next record begins.
        self.is_done = !matches!(record, Ok(Some(_)));
        record
    }

    fn read_record(&mut self) -> Result<Option<Record>, RdbError> {
        let source = &mut self.source;
        let mut entry = Entry {
            database: self.database,
            key: Vec::new(),
            expire_at_ms: None,
            usage: None,
            value: Value::String(Vec::new()),
        };
        loop {
            let start = source.offset();
            match source.u8()? {
                opcode::EXPIRE_TIME_MS => entry.expire_at_ms = Some(source.u64()?.cast_signed()),
                opcode::EXPIRE_TIME => {
                    entry.expire_at_ms = Some(i64::from(source.u32()?.cast_signed()) * 1_000)
                }
                opcode::RAM_LRU => drop(source.length()?),
                code @ (opcode::IDLE | opcode::FREQUENCY) => entry.usage = Usage::read(code, source)?,
                opcode::SELECT_DB => {
                    self.database = source.length()?;
                    entry.database = self.database;
                }
                opcode::RESIZE_DB => {
                    let (keys, expiring) = (source.length()?, source.length()?);
                    return Ok(Some(Record::DatabaseSize { database: self.database, keys, expiring }));
                }
                opcode::SLOT_INFO => {
                    for _ in 0..3 {
                        source.length()?;
                    }
                }
                opcode::AUX => {
                    let (name, value) = (source.string()?, source.string()?);
                    return Ok(Some(Record::Aux { name, value }));
                }
                opcode::FUNCTION_2 => return Ok(Some(Record::Function(source.string()?))),
                opcode::FUNCTION_PRE_GA => {
                    return Err(RdbError::Unsupported {
                        what: "a function of a release candidate",
                        offset: start,
                    });
                }
                opcode::MODULE_AUX => {
                    return Ok(Some(Record::ModuleAux { module: skip_module_aux(source)? }));
                }
                opcode::END => {
                    self.check_end()?;
                    return Ok(None);
                }
                code => {
                    entry.key = source.string()?;
                    if self.skips_module_values && code == kind::MODULE_2 {
                        let module = module_name(source.length()?);
                        skip_module_values(source)?;
                        return Ok(Some(Record::ModuleValue { module }));
                    }
                    entry.value = match code {
                        kind::HASH_VALKEY if self.is_valkey => value::decode_valkey_hash(source)?,
                        code => value::decode(code, source)?,
                    };
                    return Ok(Some(Record::Entry(Box::new(entry))));
                }
            }
        }
    }

    fn check_end(&mut self) -> Result<(), RdbError> {
        if self.version < 5 {
            return Ok(());
        }
        let found = self.source.checksum();
        let offset = self.source.offset();
        let expected = self.source.u64()?;
        if expected != 0 && expected != found {
            return Err(RdbError::Checksum { offset, expected, found });
        }
        Ok(())
    }
}

impl<R: Read> Iterator for FileReader<R> {
    type Item = Result<Record, RdbError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_record().transpose()
    }
}

fn not_rdb(bytes: &[u8]) -> RdbError {
    RdbError::NotRdb {
        found: bytes.iter().take(9).flat_map(|byte| byte.escape_ascii()).map(char::from).collect(),
    }
}

/// Data of a module beside the keys: when it is read (a number in the form of a module's value), and what it is.
fn skip_module_aux(source: &mut impl Source) -> Result<String, RdbError> {
    let module = module_name(source.length()?);
    skip_module_values(source)?;
    Ok(module)
}

/// A buffered stream that knows its offset and the checksum of what was taken from it.
struct StreamSource<R> {
    input: R,
    buffer: Vec<u8>,
    /// The next byte to take.
    next: usize,
    /// Bytes before this one are in `crc`.
    summed: usize,
    crc: u64,
    /// Where in the file the buffer begins.
    start: u64,
}

const BUFFER: usize = 64 * 1024;

impl<R> std::fmt::Debug for StreamSource<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamSource")
            .field("start", &self.start)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl<R: Read> StreamSource<R> {
    fn new(input: R) -> Self {
        Self { input, buffer: Vec::with_capacity(BUFFER), next: 0, summed: 0, crc: 0, start: 0 }
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.next..).unwrap_or_default()
    }

    /// What was read before the stream turned out to be too short.
    fn peeked(&self) -> Vec<u8> {
        self.rest().to_vec()
    }

    /// The checksum of all that was taken.
    fn checksum(&mut self) -> u64 {
        self.crc = crc64::update(self.crc, self.buffer.get(self.summed..self.next).unwrap_or_default());
        self.summed = self.next;
        self.crc
    }

    /// Reads on until `len` bytes lie in the buffer, which is no more than its size.
    fn want(&mut self, len: usize) -> Result<(), RdbError> {
        if self.buffer.len() - self.next >= len {
            return Ok(());
        }
        self.checksum();
        self.buffer.drain(..self.next);
        self.start += self.next as u64;
        (self.next, self.summed) = (0, 0);
        while self.buffer.len() < len {
            let room = (BUFFER - self.buffer.len()) as u64;
            let offset = self.start + self.buffer.len() as u64;
            let read = self.input.by_ref().take(room).read_to_end(&mut self.buffer);
            match read {
                Ok(0) => {
                    return Err(RdbError::Truncated { offset, needed: (len - self.buffer.len()) as u64 });
                }
                Ok(_) => {}
                Err(source) => return Err(RdbError::Io { offset, source }),
            }
        }
        Ok(())
    }
}

impl<R: Read> Source for StreamSource<R> {
    fn offset(&self) -> u64 {
        self.start + self.next as u64
    }

    fn fill(&mut self, out: &mut [u8]) -> Result<(), RdbError> {
        for piece in out.chunks_mut(BUFFER) {
            self.want(piece.len())?;
            if let Some(bytes) = self.rest().get(..piece.len()) {
                piece.copy_from_slice(bytes);
            }
            self.next += piece.len();
        }
        Ok(())
    }

    fn bytes(&mut self, len: u64) -> Result<Vec<u8>, RdbError> {
        let mut taken = Vec::new();
        let mut left = len;
        while left > 0 {
            let piece = usize::try_from(left).unwrap_or(usize::MAX).min(BUFFER);
            self.want(piece)?;
            // Exact for what is short, doubling for what is long: a length that lies allocates little.
            if taken.is_empty() {
                taken.reserve_exact(piece);
            }
            taken.extend_from_slice(self.rest().get(..piece).unwrap_or_default());
            self.next += piece;
            left -= piece as u64;
        }
        Ok(taken)
    }
}

/// Writes a file that Redis 7.0 and everything newer loads; [`FileWriter::with_version`] one for newer servers only.
#[derive(Debug)]
pub struct FileWriter<W> {
    output: W,
    record: Vec<u8>,
    written: u64,
    crc: u64,
}

impl<W: Write> FileWriter<W> {
    /// Writes the header.
    pub fn new(output: W) -> Result<Self, RdbError> {
        Self::with_version(output, VERSION_WRITTEN)
    }

    /// Writes the header of a version, which says what values may come.
    pub fn with_version(output: W, version: u32) -> Result<Self, RdbError> {
        let mut writer = Self { output, record: Vec::new(), written: 0, crc: 0 };
        writer.record.extend_from_slice(format!("REDIS{version:04}").as_bytes());
        writer.flush_record()?;
        Ok(writer)
    }

    /// Writes a remark; readers know "redis-ver", "redis-bits", "ctime", "used-mem" and skip what they do not know.
    pub fn aux(&mut self, name: &str, value: &str) -> Result<(), RdbError> {
        self.record.push(opcode::AUX);
        write_string(&mut self.record, name.as_bytes());
        write_string(&mut self.record, value.as_bytes());
        self.flush_record()
    }

    /// Begins a database that has so many keys, so many of which expire.
    pub fn database(&mut self, database: u64, keys: u64, expiring: u64) -> Result<(), RdbError> {
        self.record.push(opcode::SELECT_DB);
        write_length(&mut self.record, database);
        self.record.push(opcode::RESIZE_DB);
        write_length(&mut self.record, keys);
        write_length(&mut self.record, expiring);
        self.flush_record()
    }

    /// Goes on in a database.
    pub fn select(&mut self, database: u64) -> Result<(), RdbError> {
        self.record.push(opcode::SELECT_DB);
        write_length(&mut self.record, database);
        self.flush_record()
    }

    /// Writes the source text of a function library.
    pub fn function(&mut self, source: &[u8]) -> Result<(), RdbError> {
        self.record.push(opcode::FUNCTION_2);
        write_string_plain(&mut self.record, source);
        self.flush_record()
    }

    /// Writes how the key that follows was used.
    pub fn usage(&mut self, usage: Usage) -> Result<(), RdbError> {
        usage.write(&mut self.record);
        self.flush_record()
    }

    /// Writes a key. `value` is a value as it is encoded after its type `code`.
    pub fn entry(
        &mut self,
        key: &[u8],
        expire_at_ms: Option<i64>,
        code: u8,
        value: &[u8],
    ) -> Result<(), RdbError> {
        if let Some(expire_at_ms) = expire_at_ms {
            self.record.push(opcode::EXPIRE_TIME_MS);
            self.record.extend_from_slice(&expire_at_ms.to_le_bytes());
        }
        self.record.push(code);
        write_string_plain(&mut self.record, key);
        self.flush_record()?;
        self.put(value)
    }

    /// Writes the end mark and the checksum, flushes, and gives the output back.
    pub fn finish(mut self) -> Result<W, RdbError> {
        self.record.push(opcode::END);
        self.flush_record()?;
        let checksum = self.crc.to_le_bytes();
        self.put(&checksum)?;
        let offset = self.written;
        self.output.flush().map_err(|source| RdbError::Io { offset, source })?;
        Ok(self.output)
    }

    fn flush_record(&mut self) -> Result<(), RdbError> {
        let record = std::mem::take(&mut self.record);
        let result = self.put(&record);
        self.record = record;
        self.record.clear();
        result
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), RdbError> {
        let offset = self.written;
        self.output.write_all(bytes).map_err(|source| RdbError::Io { offset, source })?;
        self.crc = crc64::update(self.crc, bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listpack::Listpack;

    fn sample() -> Vec<u8> {
        let mut writer = FileWriter::new(Vec::new()).expect("memory");
        writer.aux("redis-ver", "7.0.15").expect("memory");
        writer.function(b"#!lua name=a").expect("memory");
        writer.database(0, 2, 1).expect("memory");
        writer.usage(Usage::IdleSeconds(70_000)).expect("memory");
        writer.entry(b"text", None, kind::STRING, b"\x05hello").expect("memory");
        let listpack: Listpack = ["a", "1", "b", "2"].iter().collect();
        let mut body = Vec::new();
        write_string_plain(&mut body, listpack.as_bytes());
        writer.entry(b"12", Some(1_900_000_000_123), kind::HASH_LISTPACK, &body).expect("memory");
        writer.select(3).expect("memory");
        writer.usage(Usage::Frequency(200)).expect("memory");
        let long = vec![b'x'; 200_000];
        body.clear();
        write_string_plain(&mut body, &long);
        writer.entry(b"long", None, kind::STRING, &body).expect("memory");
        writer.finish().expect("memory")
    }

    /// Gives a few bytes at a time, as a slow pipe does.
    struct Dribble<'a>(&'a [u8]);

    impl Read for Dribble<'_> {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            let len = out.len().min(7).min(self.0.len());
            out[..len].copy_from_slice(&self.0[..len]);
            self.0 = &self.0[len..];
            Ok(len)
        }
    }

    #[test]
    fn a_file_comes_back() {
        let bytes = sample();
        let records: Vec<Record> =
            FileReader::open(&bytes[..]).expect("header").map(|record| record.expect("own bytes")).collect();
        let slowly: Vec<Record> = FileReader::open(Dribble(&bytes))
            .expect("header")
            .map(|record| record.expect("own bytes"))
            .collect();
        assert_eq!(records, slowly);
        let entries: Vec<&Entry> = records
            .iter()
            .filter_map(|record| match record {
                Record::Entry(entry) => Some(&**entry),
                _ => None,
            })
            .collect();
        let [text, hash, long] = entries[..] else { panic!("three keys") };
        assert_eq!(text.value, Value::String(b"hello".to_vec()));
        assert_eq!(text.usage, Some(Usage::IdleSeconds(70_000)));
        assert_eq!((hash.usage, long.usage), (None, Some(Usage::Frequency(200))));
        assert!(records.contains(&Record::Function(b"#!lua name=a".to_vec())));
        assert_eq!((hash.key.as_slice(), hash.expire_at_ms), (&b"12"[..], Some(1_900_000_000_123)));
        assert!(matches!(&hash.value, Value::HashListpack(listpack) if listpack.len() == 4));
        assert_eq!((long.database, long.value.clone()), (3, Value::String(vec![b'x'; 200_000])));
        assert!(records.contains(&Record::DatabaseSize { database: 0, keys: 2, expiring: 1 }));
    }

    #[test]
    fn every_cut_and_every_flip_is_an_error() {
        let bytes = sample();
        let read = |bytes: &[u8]| FileReader::open(bytes)?.collect::<Result<Vec<_>, _>>();
        for cut in (0..150).chain(bytes.len() - 20..bytes.len()) {
            assert!(read(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for at in (0..150).chain(bytes.len() - 20..bytes.len()) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            let result = read(&damaged);
            // A version may become another one that is known.
            assert!(result.is_err(), "flip at {at}");
        }
    }

    #[test]
    fn headers_are_checked() {
        let open = |bytes: &[u8]| FileReader::open(bytes).map(|reader| reader.version());
        assert!(matches!(open(b"REDIS0019"), Err(RdbError::FutureVersion { found: 19, supported: 14 })));
        assert!(matches!(open(b"VALKEY081"), Err(RdbError::FutureVersion { found: 81, supported: 80 })));
        assert!(matches!(open(b"REDIS"), Err(RdbError::NotRdb { .. })));
        assert!(matches!(open(b"REDIS00x1"), Err(RdbError::NotRdb { .. })));
        assert!(matches!(open(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00"), Err(RdbError::NotRdb { .. })));
        assert_eq!(open(b"REDIS0001").expect("known"), 1);
        assert_eq!(open(b"VALKEY080").expect("known"), 80);
    }
}
