//! Lengths, strings and doubles: what every RDB value is made of.

use std::borrow::Cow;

use crate::error::RdbError;
use crate::integer::{Digits, parse_i64};
use crate::lzf;

/// Redis's own bound of a string: 512 MiB is `proto-max-bulk-len`; an aggregate in one string may be larger, and nothing
/// sound is larger than this.
const STRING_BYTES_MAX: u64 = 4 << 30;

/// Where RDB bytes come from.
pub trait Source {
    /// How many bytes have been read.
    fn offset(&self) -> u64;

    /// Fills `out`, or fails with [`RdbError::Truncated`].
    fn fill(&mut self, out: &mut [u8]) -> Result<(), RdbError>;

    /// The next `len` bytes. Allocates no more than is really there, so `len` may lie.
    fn bytes(&mut self, len: u64) -> Result<Vec<u8>, RdbError>;

    /// The next byte.
    fn u8(&mut self) -> Result<u8, RdbError> {
        let mut byte = [0];
        self.fill(&mut byte)?;
        Ok(byte[0])
    }

    /// The next four bytes, little-endian.
    fn u32(&mut self) -> Result<u32, RdbError> {
        let mut bytes = [0; 4];
        self.fill(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// The next eight bytes, little-endian.
    fn u64(&mut self) -> Result<u64, RdbError> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// A length, or the mark of a specially encoded string.
    fn length_or_encoding(&mut self) -> Result<Length, RdbError> {
        let first = self.u8()?;
        match first >> 6 {
            0 => Ok(Length::Of(u64::from(first))),
            1 => Ok(Length::Of(u64::from(first & 0x3f) << 8 | u64::from(self.u8()?))),
            3 => Ok(Length::Encoded(first & 0x3f)),
            _ => match first {
                0x80 => Ok(Length::Of(u64::from(self.u32()?.swap_bytes()))),
                0x81 => Ok(Length::Of(self.u64()?.swap_bytes())),
                _ => Err(RdbError::malformed(self.offset(), "length", "an unknown form")),
            },
        }
    }

    /// A length.
    fn length(&mut self) -> Result<u64, RdbError> {
        match self.length_or_encoding()? {
            Length::Of(length) => Ok(length),
            Length::Encoded(_) => {
                Err(RdbError::malformed(self.offset(), "length", "an encoded string in its place"))
            }
        }
    }

    /// A string in any of its forms.
    fn string(&mut self) -> Result<Vec<u8>, RdbError> {
        match self.length_or_encoding()? {
            Length::Of(length) => self.bytes(length),
            Length::Encoded(LZF) => {
                let packed = self.length()?;
                let length = self.length()?;
                let packed = self.bytes(packed)?;
                decompress(&packed, length, self.offset())
            }
            Length::Encoded(encoding) => Ok(self.integer(encoding)?.to_vec()),
        }
    }

    /// The integer of an integer-encoded string.
    fn integer(&mut self, encoding: u8) -> Result<Digits, RdbError> {
        let value = match encoding {
            0 => i64::from(self.u8()?.cast_signed()),
            1 => {
                let mut bytes = [0; 2];
                self.fill(&mut bytes)?;
                i64::from(i16::from_le_bytes(bytes))
            }
            2 => i64::from(self.u32()?.cast_signed()),
            _ => return Err(RdbError::malformed(self.offset(), "string", "an unknown encoding")),
        };
        Ok(Digits::new(value))
    }

    /// A double in its eight bytes.
    fn double(&mut self) -> Result<f64, RdbError> {
        Ok(f64::from_bits(self.u64()?))
    }

    /// A double as text, as sorted sets had it before RDB version 8.
    fn double_text(&mut self) -> Result<f64, RdbError> {
        match self.u8()? {
            255 => Ok(f64::NEG_INFINITY),
            254 => Ok(f64::INFINITY),
            253 => Ok(f64::NAN),
            length => {
                let text = self.bytes(u64::from(length))?;
                let number = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
                number.ok_or_else(|| RdbError::malformed(self.offset(), "score", "not a number"))
            }
        }
    }
}

/// The mark of an LZF-compressed string.
const LZF: u8 = 3;

/// What stands where a length may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// A length.
    Of(u64),
    /// A string in a special encoding follows: 0, 1, 2 an integer of 1, 2, 4 bytes; 3 LZF.
    Encoded(u8),
}

fn decompress(packed: &[u8], length: u64, offset: u64) -> Result<Vec<u8>, RdbError> {
    let length = usize::try_from(length).ok().filter(|_| length <= STRING_BYTES_MAX);
    length.and_then(|length| lzf::decompress(packed, length)).ok_or_else(|| {
        RdbError::malformed(offset, "compressed string", "it does not give the length it states")
    })
}

/// Reads from a slice; strings are borrowed from it where they stand in it as they are.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    all: usize,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from the start.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { all: bytes.len(), rest: bytes }
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything has been read.
    pub fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `len` bytes, borrowed.
    #[inline]
    pub fn slice(&mut self, len: u64) -> Result<&'a [u8], RdbError> {
        let split = usize::try_from(len).ok().and_then(|len| self.rest.split_at_checked(len));
        let Some((taken, rest)) = split else {
            return Err(RdbError::Truncated {
                offset: self.offset(),
                needed: len.saturating_sub(self.rest.len() as u64),
            });
        };
        self.rest = rest;
        Ok(taken)
    }

    /// A string, borrowed unless it was stored as an integer or compressed.
    #[inline]
    pub fn string_borrowed(&mut self) -> Result<Cow<'a, [u8]>, RdbError> {
        match self.length_or_encoding()? {
            Length::Of(length) => Ok(Cow::Borrowed(self.slice(length)?)),
            Length::Encoded(LZF) => {
                let packed = self.length()?;
                let length = self.length()?;
                Ok(Cow::Owned(decompress(self.slice(packed)?, length, self.offset())?))
            }
            Length::Encoded(encoding) => Ok(Cow::Owned(self.integer(encoding)?.to_vec())),
        }
    }
}

impl Source for Reader<'_> {
    fn offset(&self) -> u64 {
        (self.all - self.rest.len()) as u64
    }

    #[inline]
    fn fill(&mut self, out: &mut [u8]) -> Result<(), RdbError> {
        out.copy_from_slice(self.slice(out.len() as u64)?);
        Ok(())
    }

    fn bytes(&mut self, len: u64) -> Result<Vec<u8>, RdbError> {
        Ok(self.slice(len)?.to_vec())
    }

    #[inline]
    fn u8(&mut self) -> Result<u8, RdbError> {
        let Some((&byte, rest)) = self.rest.split_first() else {
            return Err(RdbError::Truncated { offset: self.offset(), needed: 1 });
        };
        self.rest = rest;
        Ok(byte)
    }
}

/// Appends a length.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "each arm has checked that the length fits")]
pub fn write_length(out: &mut Vec<u8>, length: u64) {
    match length {
        0..=0x3f => out.push(length as u8),
        0x40..=0x3fff => out.extend_from_slice(&[0x40 | (length >> 8) as u8, length as u8]),
        0x4000..=0xffff_ffff => {
            out.push(0x80);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
        _ => {
            out.push(0x81);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
}

/// Appends a string: as an integer when it is a small one, else as it is.
#[inline]
pub fn write_string(out: &mut Vec<u8>, bytes: &[u8]) {
    // No 32-bit integer has more than eleven characters.
    if bytes.len() <= 11
        && let Some(value) = parse_i64(bytes)
        && write_integer(out, value)
    {
        return;
    }
    write_string_plain(out, bytes);
}

/// Appends a string as it is.
#[inline]
pub fn write_string_plain(out: &mut Vec<u8>, bytes: &[u8]) {
    write_length(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a string, compressed where that helps, as Redis does from 21 bytes on.
pub fn write_string_compressed(out: &mut Vec<u8>, bytes: &[u8]) {
    match Some(bytes).filter(|bytes| bytes.len() > 20).and_then(lzf::compress) {
        Some(packed) => {
            out.push(0xc0 | LZF);
            write_length(out, packed.len() as u64);
            write_length(out, bytes.len() as u64);
            out.extend_from_slice(&packed);
        }
        None => write_string(out, bytes),
    }
}

/// Appends the text of an integer, as an integer when 32 bits hold it.
#[inline]
pub fn write_string_of_integer(out: &mut Vec<u8>, value: i64) {
    if !write_integer(out, value) {
        write_string_plain(out, &Digits::new(value));
    }
}

/// False, with nothing written, when the value needs more than 32 bits.
#[inline]
fn write_integer(out: &mut Vec<u8>, value: i64) -> bool {
    if let Ok(small) = i8::try_from(value) {
        out.extend_from_slice(&[0xc0, small.cast_unsigned()]);
    } else if let Ok(middle) = i16::try_from(value) {
        let [a, b] = middle.to_le_bytes();
        out.extend_from_slice(&[0xc1, a, b]);
    } else if let Ok(large) = i32::try_from(value) {
        let [a, b, c, d] = large.to_le_bytes();
        out.extend_from_slice(&[0xc2, a, b, c, d]);
    } else {
        return false;
    }
    true
}

/// Appends a double in its eight bytes.
pub fn write_double(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_come_back() {
        for length in [0, 1, 63, 64, 16_383, 16_384, 0xffff_ffff, 0x1_0000_0000, u64::MAX] {
            let mut out = Vec::new();
            write_length(&mut out, length);
            let mut reader = Reader::new(&out);
            assert_eq!(reader.length().expect("own bytes"), length);
            assert!(reader.is_at_end());
        }
    }

    #[test]
    fn strings_come_back() {
        let long = b"abcdefgh".repeat(5_000);
        for text in [
            &b""[..],
            b"a",
            b"0",
            b"-1",
            b"127",
            b"128",
            b"-32768",
            b"32768",
            b"2147483647",
            b"2147483648",
            b"007",
            &long,
        ] {
            for write in [write_string, write_string_plain, write_string_compressed] {
                let mut out = Vec::new();
                write(&mut out, text);
                let mut reader = Reader::new(&out);
                assert_eq!(reader.clone().string().expect("own bytes"), text);
                assert_eq!(reader.string_borrowed().expect("own bytes"), text);
                assert!(reader.is_at_end());
            }
        }
        let mut out = Vec::new();
        write_string_compressed(&mut out, &long);
        assert!(out.len() < long.len() / 10);
    }

    #[test]
    fn a_length_that_lies_is_an_error_and_no_allocation() {
        let mut out = Vec::new();
        write_length(&mut out, u64::MAX);
        assert!(matches!(Reader::new(&out).string(), Err(RdbError::Truncated { .. })));
        assert!(Reader::new(&[0xc3, 1, 0x81, 255, 255, 255, 255, 255, 255, 255, 255, 0]).string().is_err());
        assert!(Reader::new(&[0xc4]).string().is_err());
        assert!(Reader::new(&[0x82]).length().is_err());
    }
}
