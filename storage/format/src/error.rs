//! The crate's error.

use thiserror::Error;

/// Why bytes are not what they should be. Offsets count from the start of the file (or of the bytes given, where the
/// caller knows no better).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FormatError {
    /// The bytes begin with another magic: this is a different kind of file, or its first bytes are damaged.
    #[error(
        "offset {offset}: expected the magic {expected:?}, found {found:?}; this is no such file, or its start is damaged"
    )]
    BadMagic {
        /// Where the magic was looked for.
        offset: u64,
        /// The magic that stands there in a whole file, escaped.
        expected: String,
        /// What stands there, escaped.
        found: String,
    },
    /// The file is whole but of a version this program does not know.
    #[error(
        "format version {found} is not known to this program, which knows version {known}; use the version of Cairn that wrote it"
    )]
    UnknownVersion {
        /// The version the file says it has.
        found: u32,
        /// The version this program reads.
        known: u32,
    },
    /// A checksum does not match the bytes it covers.
    #[error(
        "offset {offset}: the checksum of the {what} is {found:08x}, expected {expected:08x}; the file is damaged"
    )]
    BadCrc {
        /// Where the covered bytes begin.
        offset: u64,
        /// The checksum that is stored.
        expected: u32,
        /// The checksum of the bytes as they are.
        found: u32,
        /// What the checksum covers.
        what: &'static str,
    },
    /// The bytes end before the structure does.
    #[error("offset {offset}: {needed} bytes are needed, {available} are there; the file is cut short")]
    Truncated {
        /// Where the missing bytes should begin.
        offset: u64,
        /// How many bytes should follow the offset.
        needed: u64,
        /// How many do.
        available: u64,
    },
    /// A field holds what it never holds, although no checksum said so.
    #[error("offset {offset}: {what}: expected {expected}, found {found}; the file is damaged")]
    Invalid {
        /// Where the field begins.
        offset: u64,
        /// The field.
        what: &'static str,
        /// What it may hold.
        expected: String,
        /// What it holds.
        found: String,
    },
}

impl FormatError {
    /// An [`FormatError::Invalid`] from values that can be shown.
    pub fn invalid(
        offset: u64,
        what: &'static str,
        expected: impl ToString,
        found: impl ToString,
    ) -> FormatError {
        FormatError::Invalid { offset, what, expected: expected.to_string(), found: found.to_string() }
    }

    /// The same error with its offset counted from `base` bytes earlier.
    #[must_use]
    pub fn shifted(mut self, base: u64) -> FormatError {
        match &mut self {
            FormatError::BadMagic { offset, .. }
            | FormatError::BadCrc { offset, .. }
            | FormatError::Truncated { offset, .. }
            | FormatError::Invalid { offset, .. } => *offset = offset.saturating_add(base),
            FormatError::UnknownVersion { .. } => {}
        }
        self
    }

    /// Where in the file the error is; `None` for a version that is not known.
    pub fn offset(&self) -> Option<u64> {
        match self {
            FormatError::BadMagic { offset, .. }
            | FormatError::BadCrc { offset, .. }
            | FormatError::Truncated { offset, .. }
            | FormatError::Invalid { offset, .. } => Some(*offset),
            FormatError::UnknownVersion { .. } => None,
        }
    }
}
