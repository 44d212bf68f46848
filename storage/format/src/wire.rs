//! A cursor over bytes from outside, and checksums: what all the formats are read with.

use crate::FormatError;

/// Reads fields one after another; every read past the end is a [`FormatError::Truncated`] at the right offset.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    base: u64,
}

impl<'a> Cursor<'a> {
    /// Reads `bytes`, which stand `base` bytes into the file.
    pub fn new(bytes: &'a [u8], base: u64) -> Self {
        Cursor { bytes, at: 0, base }
    }

    /// The offset of the next field within the file.
    pub fn offset(&self) -> u64 {
        self.base.saturating_add(self.at as u64)
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    /// The next `length` bytes.
    ///
    /// # Errors
    /// [`FormatError::Truncated`] when fewer are left; so for all readers here.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], FormatError> {
        let end = self.at.checked_add(length);
        let Some(taken) = end.and_then(|end| self.bytes.get(self.at..end)) else {
            return Err(FormatError::Truncated {
                offset: self.offset(),
                needed: length as u64,
                available: self.remaining() as u64,
            });
        };
        self.at = self.at.saturating_add(length);
        Ok(taken)
    }

    /// The next `N` bytes, as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// The next byte.
    pub fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// The next 2 bytes, a number.
    pub fn u16(&mut self) -> Result<u16, FormatError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// The next 4 bytes, a number.
    pub fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// The next 8 bytes, a number.
    pub fn u64(&mut self) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// The next byte, which must be 0 or 1.
    pub fn flag(&mut self, what: &'static str) -> Result<bool, FormatError> {
        let offset = self.offset();
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(FormatError::invalid(offset, what, "0 or 1", other)),
        }
    }

    /// A text preceded by its length in one byte.
    pub fn text(&mut self, what: &'static str) -> Result<String, FormatError> {
        let length = self.u8()?;
        let offset = self.offset();
        let bytes = self.take(usize::from(length))?;
        let text = std::str::from_utf8(bytes)
            .map_err(|_| FormatError::invalid(offset, what, "UTF-8", bytes.escape_ascii()))?;
        Ok(text.to_owned())
    }

    /// `length` bytes that must be zero.
    pub fn zeros(&mut self, length: usize, what: &'static str) -> Result<(), FormatError> {
        let offset = self.offset();
        match self.take(length)?.iter().position(|byte| *byte != 0) {
            None => Ok(()),
            Some(at) => {
                Err(FormatError::invalid(offset.saturating_add(at as u64), what, "zeros", "a non-zero byte"))
            }
        }
    }
}

/// Checks the CRC-32 that stands in the last 4 of `bytes` and covers all before; gives what it covers.
///
/// # Errors
/// [`FormatError::BadCrc`], or [`FormatError::Truncated`] for fewer than 4 bytes.
pub fn check_trailing_crc<'a>(
    bytes: &'a [u8],
    base: u64,
    what: &'static str,
) -> Result<&'a [u8], FormatError> {
    let Some((covered, stored)) = bytes.split_last_chunk::<4>() else {
        return Err(FormatError::Truncated { offset: base, needed: 4, available: bytes.len() as u64 });
    };
    let expected = u32::from_le_bytes(*stored);
    let found = crc32fast::hash(covered);
    if expected == found {
        Ok(covered)
    } else {
        Err(FormatError::BadCrc { offset: base, expected, found, what })
    }
}

/// Appends the CRC-32 of all `bytes` to them.
pub fn push_crc(bytes: &mut Vec<u8>) {
    let crc = crc32fast::hash(bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
}

/// Appends a text preceded by its length in one byte.
///
/// # Panics
/// When the text is longer than 255 bytes: names are checked where they are made.
pub fn push_text(bytes: &mut Vec<u8>, text: &str) {
    let length = u8::try_from(text.len());
    assert!(length.is_ok(), "a name of {} bytes cannot be written", text.len());
    bytes.push(length.unwrap_or(0));
    bytes.extend_from_slice(text.as_bytes());
}
