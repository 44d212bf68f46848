//! The parts of a snapshot container: block headers, the index and the footer.
//!
//! The law: `storage/docs/snapshot.md`.

use crate::wire::{Cursor, check_trailing_crc, push_crc};
use crate::{FileId, FormatError, HEADER_BYTES, Lsn};

/// The length of a block's header in bytes; what is stored follows at once.
pub const BLOCK_HEADER_BYTES: usize = 40;

/// The length of the part of a block's header that is authenticated with the block: all but its CRC.
pub const BLOCK_CLEAR_BYTES: usize = 36;

/// The length of the footer, the last bytes of the file.
pub const FOOTER_BYTES: usize = 64;

/// The length of one block's entry in the index.
pub const INDEX_ENTRY_BYTES: usize = 36;

const BLOCK_MAGIC: [u8; 4] = *b"CSB1";
const FOOTER_MAGIC: [u8; 8] = *b"CAIRNEND";

/// What stands before each block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    /// The block's number, from 0 without gaps, in no order; its chunk number when sealed.
    pub number: u64,
    /// The database of all its entries.
    pub database: u32,
    /// How many entries it holds.
    pub entries: u32,
    /// The length of the entries before compression.
    pub raw_bytes: u64,
    /// The length of what is stored after the header, the tag included.
    pub stored_bytes: u64,
}

impl BlockHeader {
    /// The header without its CRC: the clear part of the chunk.
    pub fn clear(&self) -> [u8; BLOCK_CLEAR_BYTES] {
        let mut bytes = [0; BLOCK_CLEAR_BYTES];
        let fields: [&[u8]; 6] = [
            &BLOCK_MAGIC,
            &self.number.to_le_bytes(),
            &self.database.to_le_bytes(),
            &self.entries.to_le_bytes(),
            &self.raw_bytes.to_le_bytes(),
            &self.stored_bytes.to_le_bytes(),
        ];
        let mut rest = bytes.as_mut_slice();
        for field in fields {
            let (here, after) = rest.split_at_mut(field.len());
            here.copy_from_slice(field);
            rest = after;
        }
        bytes
    }

    /// The CRC of the block: of its clear header and of what is stored.
    pub fn crc(&self, stored: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.clear());
        hasher.update(stored);
        hasher.finalize()
    }

    /// The header with the CRC of its block.
    pub fn encode(&self, crc: u32) -> [u8; BLOCK_HEADER_BYTES] {
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        let (clear, crc_place) = bytes.split_at_mut(BLOCK_CLEAR_BYTES);
        clear.copy_from_slice(&self.clear());
        crc_place.copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header at `offset` of its file, and the CRC it bears; whether that is right is the caller's to check.
    ///
    /// # Errors
    /// Another magic, or too few bytes.
    pub fn decode(bytes: &[u8], offset: u64) -> Result<(BlockHeader, u32), FormatError> {
        let mut cursor = Cursor::new(bytes, offset);
        check_magic(&BLOCK_MAGIC, &cursor.array::<4>()?, offset)?;
        let header = BlockHeader {
            number: cursor.u64()?,
            database: cursor.u32()?,
            entries: cursor.u32()?,
            raw_bytes: cursor.u64()?,
            stored_bytes: cursor.u64()?,
        };
        Ok((header, cursor.u32()?))
    }
}

/// Where a block stands and what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The offset of its header in the file.
    pub offset: u64,
    /// Its header.
    pub header: BlockHeader,
    /// Its CRC.
    pub crc: u32,
}

impl IndexEntry {
    /// The offset after the block's last byte.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(BLOCK_HEADER_BYTES as u64).saturating_add(self.header.stored_bytes)
    }
}

/// All blocks of a container, and its totals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// As in the header's identity.
    pub lsn: Lsn,
    /// As in the header's identity.
    pub created_unix_ms: u64,
    /// The blocks by number.
    pub blocks: Vec<IndexEntry>,
}

impl Index {
    /// How many entries all blocks hold.
    pub fn entries(&self) -> u64 {
        self.blocks.iter().map(|block| u64::from(block.header.entries)).sum()
    }

    /// The length of all blocks before compression.
    pub fn raw_bytes(&self) -> u64 {
        self.blocks.iter().fold(0, |sum, block| sum.saturating_add(block.header.raw_bytes))
    }

    /// The bytes of the index, before sealing and without its CRC.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(40 + self.blocks.len() * INDEX_ENTRY_BYTES + 64);
        for total in
            [self.lsn.0, self.created_unix_ms, self.blocks.len() as u64, self.entries(), self.raw_bytes()]
        {
            bytes.extend_from_slice(&total.to_le_bytes());
        }
        for block in &self.blocks {
            bytes.extend_from_slice(&block.offset.to_le_bytes());
            bytes.extend_from_slice(&block.header.stored_bytes.to_le_bytes());
            bytes.extend_from_slice(&block.header.raw_bytes.to_le_bytes());
            bytes.extend_from_slice(&block.header.entries.to_le_bytes());
            bytes.extend_from_slice(&block.header.database.to_le_bytes());
            bytes.extend_from_slice(&block.crc.to_le_bytes());
        }
        bytes
    }

    /// Reads an index that stands at `offset` of its file (opened already when it was sealed).
    ///
    /// # Errors
    /// Bytes that are too few or too many, or totals that do not agree with the blocks.
    pub fn decode(bytes: &[u8], offset: u64) -> Result<Index, FormatError> {
        let mut cursor = Cursor::new(bytes, offset);
        let lsn = Lsn(cursor.u64()?);
        let created_unix_ms = cursor.u64()?;
        let count = cursor.u64()?;
        let (entries, raw_bytes) = (cursor.u64()?, cursor.u64()?);
        let rest = cursor.remaining() as u64;
        if count.checked_mul(INDEX_ENTRY_BYTES as u64) != Some(rest) {
            let expected = format!("{} bytes of entries", count.saturating_mul(INDEX_ENTRY_BYTES as u64));
            return Err(FormatError::invalid(cursor.offset(), "length of the index", expected, rest));
        }
        let mut blocks = Vec::with_capacity(bytes.len() / INDEX_ENTRY_BYTES);
        for number in 0..count {
            blocks.push(IndexEntry::decode(&mut cursor, number)?);
        }
        let index = Index { lsn, created_unix_ms, blocks };
        if index.entries() != entries {
            return Err(FormatError::invalid(offset, "sum of the entries", entries, index.entries()));
        }
        if index.raw_bytes() != raw_bytes {
            return Err(FormatError::invalid(offset, "sum of the raw bytes", raw_bytes, index.raw_bytes()));
        }
        Ok(index)
    }

    /// Checks that the blocks lie side by side from the header up to `index_offset`, so that no byte of the file is
    /// covered by nothing.
    ///
    /// # Errors
    /// [`FormatError::Invalid`] at the first gap or overlap.
    pub fn check_cover(&self, index_offset: u64) -> Result<(), FormatError> {
        let mut extents: Vec<(u64, u64)> =
            self.blocks.iter().map(|block| (block.offset, block.end())).collect();
        extents.sort_unstable();
        let mut at = HEADER_BYTES as u64;
        for (start, end) in extents.into_iter().chain([(index_offset, index_offset)]) {
            if start != at {
                return Err(FormatError::invalid(at, "place of the next block or the index", at, start));
            }
            at = end;
        }
        Ok(())
    }
}

impl IndexEntry {
    fn decode(cursor: &mut Cursor<'_>, number: u64) -> Result<IndexEntry, FormatError> {
        let offset = cursor.u64()?;
        let (stored_bytes, raw_bytes) = (cursor.u64()?, cursor.u64()?);
        let (entries, database) = (cursor.u32()?, cursor.u32()?);
        let header = BlockHeader { number, database, entries, raw_bytes, stored_bytes };
        Ok(IndexEntry { offset, header, crc: cursor.u32()? })
    }
}

/// The last bytes of a container: where its index is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// As in the header.
    pub file_id: FileId,
    /// Where the index begins and the blocks end.
    pub index_offset: u64,
    /// The length of the index as stored, the tag included, its CRC not.
    pub index_bytes: u64,
    /// How many blocks there are; the chunk number of the index when sealed.
    pub blocks: u64,
}

impl Footer {
    /// The footer's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FOOTER_BYTES);
        bytes.extend_from_slice(&FOOTER_MAGIC);
        bytes.extend_from_slice(&self.file_id.0);
        bytes.extend_from_slice(&self.index_offset.to_le_bytes());
        bytes.extend_from_slice(&self.index_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.blocks.to_le_bytes());
        bytes.resize(FOOTER_BYTES - 4, 0);
        push_crc(&mut bytes);
        bytes
    }

    /// Reads the footer of a file of `file_bytes` from the file's last bytes.
    ///
    /// # Errors
    /// Another magic (the file was cut), a wrong CRC, or an index that does not end where the footer begins.
    pub fn decode(bytes: &[u8], file_bytes: u64) -> Result<Footer, FormatError> {
        let Some(footer) = bytes.last_chunk::<FOOTER_BYTES>() else {
            return Err(FormatError::Truncated {
                offset: 0,
                needed: FOOTER_BYTES as u64,
                available: bytes.len() as u64,
            });
        };
        let offset = file_bytes.saturating_sub(FOOTER_BYTES as u64);
        let mut cursor = Cursor::new(footer, offset);
        check_magic(&FOOTER_MAGIC, &cursor.array::<8>()?, offset)?;
        check_trailing_crc(footer, offset, "footer")?;
        let footer = Footer {
            file_id: FileId(cursor.array()?),
            index_offset: cursor.u64()?,
            index_bytes: cursor.u64()?,
            blocks: cursor.u64()?,
        };
        cursor.zeros(cursor.remaining().saturating_sub(4), "padding")?;
        let index_end =
            footer.index_offset.checked_add(footer.index_bytes).and_then(|end| end.checked_add(4));
        if footer.index_offset < HEADER_BYTES as u64 || index_end != Some(offset) {
            let found = format!("{} bytes from offset {}", footer.index_bytes, footer.index_offset);
            return Err(FormatError::invalid(
                offset,
                "place of the index",
                format!("an end at {offset}"),
                found,
            ));
        }
        Ok(footer)
    }
}

fn check_magic(expected: &[u8], found: &[u8], offset: u64) -> Result<(), FormatError> {
    if expected == found {
        return Ok(());
    }
    Err(FormatError::BadMagic {
        offset,
        expected: expected.escape_ascii().to_string(),
        found: found.escape_ascii().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(number: u64, offset: u64, stored_bytes: u64) -> IndexEntry {
        let header = BlockHeader { number, database: 3, entries: 5, raw_bytes: 100, stored_bytes };
        IndexEntry { offset, header, crc: 9 }
    }

    fn index() -> Index {
        let first = HEADER_BYTES as u64;
        // Block 1 stands before block 0: threads finish in any order.
        let blocks = vec![block(0, first + 50, 20), block(1, first, 10)];
        Index { lsn: Lsn(77), created_unix_ms: 5, blocks }
    }

    #[test]
    fn block_headers_come_back_and_their_crc_covers_all() {
        let header = block(7, 0, 4).header;
        let bytes = header.encode(header.crc(b"data"));
        let (back, crc) = BlockHeader::decode(&bytes, 0).unwrap();
        assert_eq!((back, crc), (header, header.crc(b"data")));
        for at in 0..BLOCK_HEADER_BYTES {
            let mut bad = bytes;
            bad[at] ^= 4;
            let accepted = BlockHeader::decode(&bad, 0).is_ok_and(|(header, crc)| header.crc(b"data") == crc);
            assert!(!accepted, "byte {at}");
        }
        assert!(matches!(BlockHeader::decode(&bytes[..39], 8), Err(FormatError::Truncated { .. })));
    }

    #[test]
    fn the_index_comes_back_and_knows_gaps() {
        let index = index();
        let bytes = index.encode();
        assert_eq!(Index::decode(&bytes, 0).unwrap(), index);
        assert_eq!((index.entries(), index.raw_bytes()), (10, 200));
        let end = HEADER_BYTES as u64 + 110;
        assert_eq!(index.check_cover(end), Ok(()));
        assert!(index.check_cover(end + 1).is_err(), "a gap before the index");
        for length in 0..bytes.len() {
            assert!(Index::decode(&bytes[..length], 0).is_err(), "cut at {length}");
        }
        let mut overlapping = index.clone();
        overlapping.blocks[0].offset -= 1;
        assert!(overlapping.check_cover(end).is_err());
        assert!(Index::decode(&[255; 80], 0).is_err());
    }

    #[test]
    fn every_flipped_byte_of_a_footer_is_refused() {
        let footer = Footer { file_id: FileId([1; 16]), index_offset: 12_288, index_bytes: 40, blocks: 0 };
        let file_bytes = 12_288 + 40 + 4 + 64;
        let bytes = footer.encode();
        assert_eq!(bytes.len(), FOOTER_BYTES);
        assert_eq!(Footer::decode(&bytes, file_bytes), Ok(footer));
        assert!(Footer::decode(&bytes, file_bytes + 1).is_err());
        for at in 0..FOOTER_BYTES {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(Footer::decode(&bad, file_bytes).is_err(), "byte {at}");
            assert!(Footer::decode(&bytes[..at], file_bytes).is_err());
        }
    }

    #[test]
    fn persisted_numbers_stay() {
        let bytes = block(7, 0, 4).header.encode(0x0a0b_0c0d);
        let expected =
            b"CSB1\x07\0\0\0\0\0\0\0\x03\0\0\0\x05\0\0\0\x64\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\x0d\x0c\x0b\x0a";
        assert_eq!(&bytes, expected);
        assert_eq!(&index().encode()[..16], b"\x4d\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0");
    }
}
