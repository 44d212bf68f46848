//! Reading containers through a mapping.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use cairn_disk::{Disk, MapFault, Mapping};
use cairn_format::container::{BLOCK_HEADER_BYTES, BlockHeader, FOOTER_BYTES, Footer, Index, IndexEntry};
use cairn_format::header::{Body, Identity, KeySlot, Magic, decode_header};
use cairn_format::wire::check_trailing_crc;
use cairn_format::{FormatError, HEADER_BYTES, Lsn, PAGE};
use cairn_seal::{Keyring, SealError, Sealer, TAG_BYTES, unwrap};

use crate::progress::Counters;
use crate::writer::spawn;
use crate::{LoadError, Progress, SnapshotError};

/// A container that is open: header, footer and index are verified, blocks are when they are read.
#[derive(Debug)]
pub struct Container {
    path: PathBuf,
    mapping: Mapping,
    identity: Identity,
    key_slot: Option<KeySlot>,
    sealer: Option<Sealer>,
    index: Index,
}

/// A block, read and verified.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// Its number: its place in [`Index::blocks`].
    pub number: u64,
    /// Where it stands in the file.
    pub offset: u64,
    /// The database of its entries.
    pub database: u32,
    /// How many entries it holds.
    pub entries: u32,
    /// Its entries, encoded, one after another.
    pub raw: &'a [u8],
}

/// How much of each block a verification looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Checksums: needs no key.
    Checksums,
    /// Checksums, tags and decompression.
    Contents,
}

impl Container {
    /// Opens a container; an encrypted one with its key.
    ///
    /// # Errors
    /// Damage, a wrong or missing key, or the disk's.
    pub fn open(disk: &dyn Disk, path: &Path, keyring: Option<&Keyring>) -> Result<Container, SnapshotError> {
        Container::open_as(disk, path, |identity, slot| {
            let Some(slot) = slot else { return Ok(None) };
            let Some(keyring) = keyring else {
                return Err(SealError::WrongKey { needed: slot.key_name.clone(), have: Vec::new() });
            };
            let key = unwrap(keyring, Magic::Snapshot, identity.file_id, slot)?;
            Ok(Some(Sealer::new(&key, identity.file_id)))
        })
    }

    /// Opens a container of which only the checksums can be verified when it is encrypted; what the index says is then
    /// gathered from the blocks' clear headers.
    ///
    /// # Errors
    /// Damage, or the disk's.
    pub fn open_without_key(disk: &dyn Disk, path: &Path) -> Result<Container, SnapshotError> {
        Container::open_as(disk, path, |_, _| Ok(None))
    }

    pub(crate) fn open_with_sealer(
        disk: &dyn Disk,
        path: &Path,
        sealer: Option<Sealer>,
    ) -> Result<Container, SnapshotError> {
        Container::open_as(disk, path, |_, _| Ok(sealer))
    }

    fn open_as(
        disk: &dyn Disk,
        path: &Path,
        unlock: impl FnOnce(&Identity, Option<&KeySlot>) -> Result<Option<Sealer>, SealError>,
    ) -> Result<Container, SnapshotError> {
        let mapping = disk.map(path).map_err(SnapshotError::io(path))?;
        let opened = open_mapped(path, mapping.bytes(), unlock);
        // What could not be read gave zeros, so this is the reason behind whatever else was found.
        mapping.check()?;
        let (identity, key_slot, sealer, index) = opened?;
        Ok(Container { path: path.to_owned(), mapping, identity, key_slot, sealer, index })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The length of the file in bytes.
    pub fn bytes(&self) -> u64 {
        self.mapping.bytes().len() as u64
    }

    pub(crate) fn mapped(&self) -> &[u8] {
        self.mapping.bytes()
    }

    /// An error when a page of the file could not be read.
    pub(crate) fn check_map(&self) -> Result<(), MapFault> {
        self.mapping.check()
    }

    /// Page 0 of the header.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The wrapped key, when encrypted.
    pub fn key_slot(&self) -> Option<&KeySlot> {
        self.key_slot.as_ref()
    }

    /// The container holds exactly the effects below this LSN.
    pub fn lsn(&self) -> Lsn {
        self.index.lsn
    }

    /// All blocks.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The entries of one block, encoded.
    ///
    /// # Errors
    /// Damage, a missing key, or a number that no block has.
    pub fn read_block(&self, number: usize) -> Result<Vec<u8>, SnapshotError> {
        let Some(entry) = self.index.blocks.get(number) else {
            return Err(self.damaged(0, "number of a block", self.index.blocks.len(), number));
        };
        let mut reader = BlockReader::new(self);
        reader.read(entry)?;
        Ok(reader.raw)
    }

    /// Reads all blocks on several threads and gives each to `sink`, in no order. Ends at the first error.
    ///
    /// # Errors
    /// Damage, a missing key, or the sink's.
    pub fn load_parallel<E: Send>(
        &self,
        threads: usize,
        sink: &(dyn Fn(Block<'_>) -> Result<(), E> + Sync),
    ) -> Result<(), LoadError<E>> {
        self.each_block(threads, &|reader: &mut BlockReader<'_>, entry| {
            let header = &entry.header;
            let raw = reader.read(entry)?;
            sink(Block {
                number: header.number,
                offset: entry.offset,
                database: header.database,
                entries: header.entries,
                raw,
            })
            .map_err(LoadError::Sink)
        })
    }

    /// Verifies all blocks on several threads, each of which calls `progress` now and then. An encrypted container that
    /// was opened without its key is verified by its checksums whatever `depth` says.
    ///
    /// # Errors
    /// The damage found first.
    pub fn verify(
        &self,
        threads: usize,
        depth: Depth,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<(), SnapshotError> {
        let locked = self.identity.encrypted && self.sealer.is_none();
        let counters = Counters::default();
        let verified = self.each_block(threads, &|reader: &mut BlockReader<'_>, entry| {
            if locked || depth == Depth::Checksums {
                self.checked_block(entry)?;
            } else {
                reader.read(entry)?;
            }
            let bytes = entry.end().saturating_sub(entry.offset);
            counters.add(u64::from(entry.header.entries), entry.header.raw_bytes, bytes);
            progress(counters.read());
            Ok::<(), LoadError<std::convert::Infallible>>(())
        });
        match verified {
            Ok(()) => Ok(()),
            Err(LoadError::Snapshot(error)) => Err(error),
            Err(LoadError::Sink(never)) => match never {},
        }
    }

    /// Lets several threads work on all blocks, each with a reader of its own.
    fn each_block<E, W>(&self, threads: usize, work: &W) -> Result<(), LoadError<E>>
    where
        E: Send,
        W: Fn(&mut BlockReader<'_>, &IndexEntry) -> Result<(), LoadError<E>> + Sync,
    {
        let next = AtomicUsize::new(0);
        let failed = AtomicBool::new(false);
        let run = || {
            let mut reader = BlockReader::new(self);
            while !failed.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(entry) = self.index.blocks.get(number) else { break };
                if let Err(error) = work(&mut reader, entry) {
                    failed.store(true, Ordering::Relaxed);
                    return Err(error);
                }
                if let (Ok(start), Ok(end)) = (usize::try_from(entry.offset), usize::try_from(entry.end())) {
                    self.mapping.release(start..end);
                }
            }
            Ok(())
        };
        thread::scope(|scope| {
            let mut workers = Vec::new();
            for _ in 0..threads.min(self.index.blocks.len()).max(1) {
                workers.push(spawn(scope, run)?);
            }
            let mut result = Ok(());
            for worker in workers {
                let ended = worker
                    .join()
                    .unwrap_or_else(|payload| Err(SnapshotError::panicked(&self.path, &*payload).into()));
                result = result.and(ended);
            }
            result
        })
    }

    /// The stored bytes of a block whose header and checksum are right, still mapped.
    fn checked_block(&self, entry: &IndexEntry) -> Result<&[u8], SnapshotError> {
        let checked = self.check_block(entry);
        self.mapping.check()?;
        checked
    }

    fn check_block(&self, entry: &IndexEntry) -> Result<&[u8], SnapshotError> {
        let block = slice(self.mapping.bytes(), entry.offset, entry.end())
            .map_err(SnapshotError::format(&self.path))?;
        let (header, crc) =
            BlockHeader::decode(block, entry.offset).map_err(SnapshotError::format(&self.path))?;
        if header != entry.header {
            let (expected, found) = (format!("{:?}", entry.header), format!("{header:?}"));
            return Err(self.damaged(entry.offset, "header of a block", expected, found));
        }
        let stored = block.get(BLOCK_HEADER_BYTES..).unwrap_or_default();
        let actual = header.crc(stored);
        if crc != entry.crc || actual != crc {
            let what = "checksum of a block";
            return Err(self.damaged(
                entry.offset,
                what,
                format!("{:08x}", entry.crc),
                format!("{actual:08x}"),
            ));
        }
        Ok(stored)
    }

    fn damaged(
        &self,
        offset: u64,
        what: &'static str,
        expected: impl ToString,
        found: impl ToString,
    ) -> SnapshotError {
        SnapshotError::Damaged {
            file: self.path.clone(),
            offset,
            what,
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }
}

/// Reads blocks into buffers that it keeps.
struct BlockReader<'a> {
    container: &'a Container,
    decompressor: zstd::bulk::Decompressor<'static>,
    /// The stored bytes, decrypted.
    compressed: Vec<u8>,
    raw: Vec<u8>,
}

impl<'a> BlockReader<'a> {
    fn new(container: &'a Container) -> BlockReader<'a> {
        let decompressor = zstd::bulk::Decompressor::default();
        BlockReader { container, decompressor, compressed: Vec::new(), raw: Vec::new() }
    }

    fn read(&mut self, entry: &IndexEntry) -> Result<&[u8], SnapshotError> {
        let container = self.container;
        let stored = container.checked_block(entry)?;
        if container.identity.encrypted {
            self.decrypt(stored, entry)?;
            self.decompress(entry, None)?;
        } else {
            self.decompress(entry, Some(stored))?;
        }
        // The file may have been cut since its checksum was right.
        container.mapping.check()?;
        Ok(&self.raw)
    }

    /// Opens a copy, so that what was authenticated is what is used, whatever happens to the file meanwhile.
    fn decrypt(&mut self, stored: &[u8], entry: &IndexEntry) -> Result<(), SnapshotError> {
        let container = self.container;
        let header = &entry.header;
        let Some(sealer) = &container.sealer else {
            let needed = container.key_slot.as_ref().map(|slot| slot.key_name.clone()).unwrap_or_default();
            return Err(SnapshotError::seal(&container.path)(SealError::WrongKey {
                needed,
                have: Vec::new(),
            }));
        };
        let forged =
            || container.damaged(entry.offset, "authenticity of a block", "a right tag", "a wrong one");
        let (sealed, tag) = stored.split_last_chunk::<TAG_BYTES>().ok_or_else(forged)?;
        self.compressed.clear();
        self.compressed.extend_from_slice(sealed);
        sealer
            .open_in_place(header.number, false, &header.clear(), &mut self.compressed, tag)
            .map_err(|_| forged())
    }

    /// Decompresses what `decrypt` left, or a block that is not encrypted, to exactly the length its header states.
    fn decompress(&mut self, entry: &IndexEntry, plain: Option<&[u8]>) -> Result<(), SnapshotError> {
        let container = self.container;
        let compressed = plain.unwrap_or(&self.compressed);
        let raw_bytes = entry.header.raw_bytes;
        // zstd states the length too: one that is out of all proportion allocates nothing.
        let stated = zstd::zstd_safe::get_frame_content_size(compressed).ok().flatten();
        if stated != Some(raw_bytes) {
            let found = stated.map_or_else(|| "none".to_owned(), |bytes| bytes.to_string());
            return Err(container.damaged(entry.offset, "length of a block", raw_bytes, found));
        }
        let no_memory = || SnapshotError::NoMemory {
            file: container.path.clone(),
            offset: entry.offset,
            bytes: raw_bytes,
        };
        self.raw.clear();
        let room = usize::try_from(raw_bytes).map_err(|_| no_memory())?;
        self.raw.try_reserve_exact(room).map_err(|_| no_memory())?;
        let result = self.decompressor.decompress_to_buffer(compressed, &mut self.raw);
        match result {
            Ok(length) if length == room => Ok(()),
            Ok(length) => Err(container.damaged(entry.offset, "length of a block", room, length)),
            Err(error) => {
                Err(container.damaged(entry.offset, "compression of a block", "a zstd frame", error))
            }
        }
    }
}

type Opened = (Identity, Option<KeySlot>, Option<Sealer>, Index);

fn open_mapped(
    path: &Path,
    bytes: &[u8],
    unlock: impl FnOnce(&Identity, Option<&KeySlot>) -> Result<Option<Sealer>, SealError>,
) -> Result<Opened, SnapshotError> {
    let (identity, key_slot) = decode_header(bytes, Magic::Snapshot).map_err(SnapshotError::format(path))?;
    let sealer = unlock(&identity, key_slot.as_ref()).map_err(SnapshotError::seal(path))?;
    let (footer, stored_index) = find_index(bytes, &identity).map_err(SnapshotError::format(path))?;
    let index = match (&sealer, identity.encrypted) {
        (None, true) => walk_blocks(bytes, &identity, &footer).map_err(SnapshotError::format(path))?,
        (None, false) => {
            Index::decode(stored_index, footer.index_offset).map_err(SnapshotError::format(path))?
        }
        (Some(sealer), _) => {
            let opened = open_index(path, sealer, bytes, &footer, stored_index)?;
            Index::decode(&opened, footer.index_offset).map_err(SnapshotError::format(path))?
        }
    };
    check_index(&index, &identity, &footer).map_err(SnapshotError::format(path))?;
    Ok((identity, key_slot, sealer, index))
}

/// The footer, and the index as stored, with a right checksum.
fn find_index<'a>(bytes: &'a [u8], identity: &Identity) -> Result<(Footer, &'a [u8]), FormatError> {
    let length = bytes.len() as u64;
    let footer = Footer::decode(bytes, length)?;
    let end = length.saturating_sub(FOOTER_BYTES as u64);
    if footer.file_id != identity.file_id {
        return Err(FormatError::invalid(end, "file id of the footer", identity.file_id, footer.file_id));
    }
    let with_crc = slice(bytes, footer.index_offset, end)?;
    Ok((footer, check_trailing_crc(with_crc, footer.index_offset, "index")?))
}

fn open_index(
    path: &Path,
    sealer: &Sealer,
    bytes: &[u8],
    footer: &Footer,
    stored: &[u8],
) -> Result<Vec<u8>, SnapshotError> {
    let forged = || SnapshotError::Damaged {
        file: path.to_owned(),
        offset: footer.index_offset,
        what: "authenticity of the header and the index",
        expected: "a right tag".to_owned(),
        found: "a wrong one".to_owned(),
    };
    let (sealed, tag) = stored.split_last_chunk::<TAG_BYTES>().ok_or_else(forged)?;
    let page0 = bytes.get(..PAGE).ok_or_else(forged)?;
    let mut index = sealed.to_vec();
    sealer.open_in_place(footer.blocks, true, page0, &mut index, tag).map_err(|_| forged())?;
    Ok(index)
}

/// The index of a container whose own cannot be opened, from the blocks' clear headers.
fn walk_blocks(bytes: &[u8], identity: &Identity, footer: &Footer) -> Result<Index, FormatError> {
    let mut blocks = Vec::new();
    let mut offset = HEADER_BYTES as u64;
    while offset < footer.index_offset {
        let (header, crc) = BlockHeader::decode(slice(bytes, offset, footer.index_offset)?, offset)?;
        let entry = IndexEntry { offset, header, crc };
        offset = entry.end();
        blocks.push(entry);
    }
    blocks.sort_unstable_by_key(|block| block.header.number);
    for (number, block) in blocks.iter().enumerate() {
        if block.header.number != number as u64 {
            return Err(FormatError::invalid(block.offset, "number of a block", number, block.header.number));
        }
    }
    Ok(Index { lsn: lsn(identity), created_unix_ms: identity.created_unix_ms, blocks })
}

/// Header, index and footer say the same, and the blocks fill the room between header and index.
fn check_index(index: &Index, identity: &Identity, footer: &Footer) -> Result<(), FormatError> {
    let at = footer.index_offset;
    if index.blocks.len() as u64 != footer.blocks {
        return Err(FormatError::invalid(at, "number of blocks", footer.blocks, index.blocks.len()));
    }
    if index.lsn != lsn(identity) {
        return Err(FormatError::invalid(at, "LSN in the index", lsn(identity), index.lsn));
    }
    if index.created_unix_ms != identity.created_unix_ms {
        let (expected, found) = (identity.created_unix_ms, index.created_unix_ms);
        return Err(FormatError::invalid(at, "time in the index", expected, found));
    }
    index.check_cover(footer.index_offset)
}

fn lsn(identity: &Identity) -> Lsn {
    match &identity.body {
        Body::Snapshot(body) => body.lsn,
        // Decoding a header of the magic Snapshot gives no other body.
        Body::Journal(body) => body.first_lsn,
    }
}

fn slice(bytes: &[u8], start: u64, end: u64) -> Result<&[u8], FormatError> {
    let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
    range.and_then(|(start, end)| bytes.get(start..end)).ok_or(FormatError::Truncated {
        offset: start,
        needed: end.saturating_sub(start),
        available: (bytes.len() as u64).saturating_sub(start),
    })
}
