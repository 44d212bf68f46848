//! Positions and names: the LSN, file ids and lineage ids.

use std::fmt;

/// A position in the stream of effects, in bytes since the lineage began. It is the replication offset too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The beginning of the stream.
    pub const ZERO: Lsn = Lsn(0);

    /// The position `bytes` further on; stops at the greatest number there is.
    #[must_use]
    pub fn advance(self, bytes: usize) -> Lsn {
        Lsn(self.0.saturating_add(bytes as u64))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The random name of one file. It is part of the associated data of all that is sealed in that file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub [u8; 16]);

/// The random name of one history of a dataset; a restore begins a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LineageId(pub [u8; 16]);

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Display for LineageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_show_as_hex_and_positions_as_decimals() {
        assert_eq!(FileId([0xab; 16]).to_string(), "ab".repeat(16));
        assert_eq!(LineageId([1; 16]).to_string(), "01".repeat(16));
        assert_eq!(format!("{:>6}", Lsn(42)), "    42");
        assert_eq!(Lsn(u64::MAX).advance(3), Lsn(u64::MAX));
    }
}
