//! Verifying a container while its bytes pass by, on their way to another place.
//!
//! What is copied is read once: the bytes that are written are the bytes that were verified. The blocks are verified on
//! threads of their own. Nothing here says what is wrong: whoever finds the bytes not sound reads the file with
//! [`Container::verify`], which does.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use cairn_format::HEADER_BYTES;
use cairn_format::container::{BLOCK_HEADER_BYTES, BlockHeader, IndexEntry};
use cairn_format::header::{Magic, decode_header};
use cairn_seal::{Keyring, Sealer, TAG_BYTES, unwrap};

use crate::{Container, STACK_BYTES};

/// Longer blocks than this, stored or raw, are left to the reader of whole files, so that memory stays bounded.
const BLOCK_BYTES_MAX: u64 = 32 << 20;
/// As is a longer index.
const TAIL_BYTES_MAX: usize = 64 << 20;
/// Blocks that wait for a thread, at most.
const BLOCKS_WAITING: usize = 8;

/// Takes the bytes of a container in their order and verifies its blocks.
#[derive(Debug)]
pub struct Passing {
    keyring: Option<Arc<Keyring>>,
    part: Part,
    /// The bytes of the part that came so far, of so many.
    held: Vec<u8>,
    wanted: usize,
    offset: u64,
    threads: usize,
    workers: Option<Workers>,
    passed: Passed,
}

/// What is being taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Header,
    BlockHeader,
    Block(IndexEntry),
    /// Index and footer.
    Tail,
    /// It is not sound, or not for us to say.
    Doubt,
}

/// What passed by, for [`Container::is_passed`].
#[derive(Debug, Default)]
pub struct Passed {
    sound: bool,
    header: Vec<u8>,
    blocks: Vec<IndexEntry>,
    tail: Vec<u8>,
}

impl Passing {
    /// Nothing has passed yet. Without a keyring the checksums of an encrypted container must do. `threads` verify blocks.
    #[must_use]
    pub fn new(keyring: Option<Arc<Keyring>>, threads: usize) -> Passing {
        Passing {
            keyring,
            part: Part::Header,
            held: Vec::new(),
            wanted: HEADER_BYTES,
            offset: 0,
            threads,
            workers: None,
            passed: Passed::default(),
        }
    }

    /// Takes the bytes that follow. Waits where the verification does not keep up.
    pub fn take(&mut self, mut bytes: &[u8]) {
        loop {
            if self.part == Part::Doubt {
                return;
            }
            let count = self.wanted.saturating_sub(self.held.len()).min(bytes.len());
            let (now, rest) = bytes.split_at(count);
            self.held.extend_from_slice(now);
            bytes = rest;
            if self.held.len() < self.wanted {
                return;
            }
            self.part = self.next_part().unwrap_or(Part::Doubt);
        }
    }

    /// Uses the part that is whole, and says which follows; `None` in doubt.
    fn next_part(&mut self) -> Option<Part> {
        match self.part {
            Part::Header => {
                self.workers = Some(Workers::begin(self.unlock()?, self.threads)?);
                self.passed.header = std::mem::take(&mut self.held);
                self.offset = HEADER_BYTES as u64;
                self.wanted = BLOCK_HEADER_BYTES;
                Some(Part::BlockHeader)
            }
            Part::BlockHeader => {
                // What does not look like a block is the index; if it was to be a block, the index will tell.
                let Ok((header, crc)) = BlockHeader::decode(&self.held, self.offset) else {
                    self.wanted = TAIL_BYTES_MAX;
                    return Some(Part::Tail);
                };
                if header.stored_bytes.max(header.raw_bytes) > BLOCK_BYTES_MAX {
                    return None;
                }
                self.wanted = BLOCK_HEADER_BYTES + usize::try_from(header.stored_bytes).ok()?;
                Some(Part::Block(IndexEntry { offset: self.offset, header, crc }))
            }
            Part::Block(entry) => {
                let workers = self.workers.as_ref()?;
                let empty = workers.used.try_recv().unwrap_or_default();
                let block = std::mem::replace(&mut self.held, empty);
                self.held.clear();
                workers.blocks.send((entry, block)).ok()?;
                self.passed.blocks.push(entry);
                self.offset = entry.end();
                self.wanted = BLOCK_HEADER_BYTES;
                Some(Part::BlockHeader)
            }
            Part::Tail | Part::Doubt => None,
        }
    }

    /// What opens the blocks; none where checksums must do.
    fn unlock(&self) -> Option<Opens> {
        let (identity, slot) = decode_header(&self.held, Magic::Snapshot).ok()?;
        match (identity.encrypted, slot, &self.keyring) {
            (false, None, _) => Some(Opens::Plain),
            (true, Some(_), None) => Some(Opens::Locked),
            (true, Some(slot), Some(keyring)) => {
                let key = unwrap(keyring, Magic::Snapshot, identity.file_id, &slot).ok()?;
                Some(Opens::Sealed(Box::new(Sealer::new(&key, identity.file_id))))
            }
            _ => None,
        }
    }

    /// All has passed. Waits for the verification of the blocks.
    #[must_use]
    pub fn finish(mut self) -> Passed {
        let sound = self.workers.take().is_some_and(Workers::end);
        self.passed.tail = std::mem::take(&mut self.held);
        self.passed.sound = sound && self.part == Part::Tail;
        self.passed
    }
}

impl Passed {
    /// Whether every block was sound and an index came behind them. What the index says is for [`Container::is_passed`].
    #[must_use]
    pub fn blocks_are_sound(&self) -> bool {
        self.sound
    }
}

impl Container {
    /// Whether what passed by was this container, and its blocks were found to be what the index says, as
    /// [`Container::verify`] finds it.
    #[must_use]
    pub fn is_passed(&self, passed: &Passed) -> bool {
        let mut blocks = passed.blocks.clone();
        blocks.sort_unstable_by_key(|block| block.header.number);
        let (bytes, tail) = (self.mapped(), passed.tail.len());
        let same = bytes.get(..HEADER_BYTES) == Some(&passed.header[..])
            && bytes.len().checked_sub(tail).and_then(|at| bytes.get(at..)) == Some(&passed.tail[..])
            && blocks == self.index().blocks;
        passed.sound && same && self.check_map().is_ok()
    }
}

/// With what a block is opened.
enum Opens {
    Plain,
    /// It cannot be.
    Locked,
    Sealed(Box<Sealer>),
}

/// The threads that verify blocks.
#[derive(Debug)]
struct Workers {
    blocks: SyncSender<(IndexEntry, Vec<u8>)>,
    /// Buffers to be used again.
    used: Receiver<Vec<u8>>,
    threads: Vec<JoinHandle<bool>>,
}

impl Workers {
    fn begin(opens: Opens, threads: usize) -> Option<Workers> {
        let (blocks, waiting) = sync_channel::<(IndexEntry, Vec<u8>)>(BLOCKS_WAITING);
        let (give_back, used) = sync_channel(BLOCKS_WAITING);
        let (opens, waiting) = (Arc::new(opens), Arc::new(Mutex::new(waiting)));
        let mut started = Vec::new();
        for _ in 0..threads.max(1) {
            let (opens, waiting, give_back) = (Arc::clone(&opens), Arc::clone(&waiting), give_back.clone());
            let work = move || {
                let mut decompressor = zstd::bulk::Decompressor::default();
                let mut raw = Vec::new();
                let mut sound = true;
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((entry, mut block)) = next else { return sound };
                    sound &= is_sound(&entry, &mut block, &opens, &mut decompressor, &mut raw).is_some();
                    // Where enough wait already this one is let go.
                    let _ = give_back.try_send(block);
                }
            };
            started.push(thread::Builder::new().stack_size(STACK_BYTES).spawn(work).ok()?);
        }
        Some(Workers { blocks, used, threads: started })
    }

    fn end(self) -> bool {
        drop(self.blocks);
        let mut sound = true;
        for thread in self.threads {
            sound &= thread.join().unwrap_or(false);
        }
        sound
    }
}

/// Checksum, tag and decompression of one block.
fn is_sound(
    entry: &IndexEntry,
    block: &mut [u8],
    opens: &Opens,
    decompressor: &mut zstd::bulk::Decompressor<'_>,
    raw: &mut Vec<u8>,
) -> Option<()> {
    let header = &entry.header;
    let stored = block.get_mut(BLOCK_HEADER_BYTES..)?;
    (header.crc(stored) == entry.crc).then_some(())?;
    let compressed = match opens {
        Opens::Locked => return Some(()),
        Opens::Plain => stored,
        Opens::Sealed(sealer) => {
            let (sealed, tag) = stored.split_last_chunk_mut::<TAG_BYTES>()?;
            sealer.open_in_place(header.number, false, &header.clear(), sealed, tag).ok()?;
            sealed
        }
    };
    let stated = zstd::zstd_safe::get_frame_content_size(compressed).ok().flatten();
    (stated == Some(header.raw_bytes)).then_some(())?;
    let room = usize::try_from(header.raw_bytes).ok()?;
    raw.clear();
    raw.try_reserve_exact(room).ok()?;
    (decompressor.decompress_to_buffer(compressed, raw).ok()? == room).then_some(())
}
