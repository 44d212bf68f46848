//! Frames of the journal, alone and as a segment.

use cairn_format::frame::{
    BLOCK_BYTES, BLOCK_LOGICAL_BYTES, FRAME_HEADER_BYTES, FrameHeader, block_state, gather, seal_crc,
    stored_crc,
};
use cairn_format::header::{Body, Magic};
use cairn_format::manifest::SegmentEntry;
use cairn_format::{FileId, HEADER_BYTES, Lsn};
use cairn_journal::{ScanError, SegmentReader, durable_prefix, scan};

use crate::fixture::{Header, KEYRING, SEGMENTS};
use crate::{disk_with, header, mend};

/// Reads `data` as what follows the header of a plain and of an encrypted journal segment, and as a header.
pub fn journal_frame(data: &[u8]) {
    header(data, Magic::Journal);
    for segment in SEGMENTS.iter() {
        let file = segment.file_id();
        frame(data, &file);
        read_segment(segment, data);
        let mended = mend::frames(data, &file, HEADER_BYTES);
        if mended != data {
            frame(&mended, &file);
            read_segment(segment, &mended);
        }
    }
}

/// One frame, by the format alone.
fn frame(data: &[u8], file: &FileId) {
    for (index, block) in data.chunks(BLOCK_BYTES).enumerate() {
        block_state(block, file, (HEADER_BYTES + index * BLOCK_BYTES) as u64);
    }
    let first = data.get(..BLOCK_LOGICAL_BYTES).unwrap_or(data);
    let found = match FrameHeader::decode(first, file) {
        Ok(found) => found,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let Some(physical) = data.get(..found.physical_bytes()) else { return };
    let mut logical = Vec::new();
    gather(physical, found.logical_bytes(), &mut logical);
    let stamps: Vec<_> = found.stamps(&logical).collect();
    assert_eq!(stamps.len(), usize::from(found.time_stamps));
    let mut written = Vec::new();
    found.encode(file, &stamps, &mut written);
    assert_eq!(written.len(), found.payload_from());
    written.extend_from_slice(&logical[found.payload_from()..]);
    seal_crc(&mut written);
    let is_whole = stored_crc(&logical) == found.crc;
    assert_eq!(written == logical, is_whole, "a whole frame is written as it was read");
    assert_eq!(written[8..FRAME_HEADER_BYTES], logical[8..FRAME_HEADER_BYTES]);
}

/// A segment by each of its readers, which must agree; how many bytes of effects a scan delivers.
fn read_segment(segment: &Header, frames: &[u8]) -> usize {
    let Body::Journal(body) = &segment.identity.body else { unreachable!("the fixture is a segment") };
    let (disk, path) = disk_with("journal", &[&segment.bytes, frames]);
    let file_bytes = (HEADER_BYTES + frames.len()) as u64;

    let mut reader = SegmentReader::open(&disk, &path, Some(&KEYRING)).expect("the header is a fixture's");
    let (mut effects, mut offset) = (Vec::new(), HEADER_BYTES as u64);
    loop {
        match reader.read_frame() {
            Ok(Some(frame)) => {
                assert_eq!(frame.first_lsn, body.first_lsn.advance(effects.len()));
                assert_eq!(frame.offset, offset);
                effects.extend_from_slice(&frame.payload);
                offset += frame.file_bytes;
                assert!(offset <= file_bytes, "a frame ends in its file");
            }
            Ok(None) => break,
            Err(error) => {
                assert!(error.is_damage(), "{error}");
                break;
            }
        }
    }
    match durable_prefix(&disk, &path, Lsn::ZERO) {
        Ok(prefix) => assert!(prefix.file_bytes <= file_bytes && prefix.end >= prefix.first_lsn),
        Err(error) => assert!(error.is_damage(), "{error}"),
    }

    let entry =
        SegmentEntry { name: "journal".into(), file_id: segment.file_id(), first_lsn: body.first_lsn };
    let (from, mut delivered) = (body.first_lsn, Vec::new());
    let mut sink = |bytes: &[u8], first: Lsn, _: u32| {
        assert_eq!(first, from.advance(delivered.len()), "each byte once and in order");
        delivered.extend_from_slice(bytes);
        Ok::<(), ()>(())
    };
    let report =
        scan(&disk, path.parent().expect("a directory"), &[entry], from, from, Some(&KEYRING), &mut sink);
    match report {
        Ok(report) => {
            assert_eq!(report.end, from.advance(delivered.len()));
            assert!(effects.starts_with(&delivered), "a scan delivers what the reader reads");
            delivered.len()
        }
        Err(ScanError::Journal(error)) => {
            assert!(error.is_damage(), "{error}");
            0
        }
        Err(ScanError::Sink(())) => unreachable!("the sink takes all"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without this a seed that no longer fits its header would be refused at the door, and nothing would tell.
    #[test]
    fn seeds_and_mended_changes_get_through() {
        for (index, name) in [(0, "plain"), (0, "plain-long"), (1, "encrypted")] {
            let segment = &SEGMENTS[index];
            let path = format!("{}/seeds/journal_frame/{name}", env!("CARGO_MANIFEST_DIR"));
            let mut seed = std::fs::read(path).expect("a seed");
            assert!(read_segment(segment, &seed) > 30, "{name}");
            assert_eq!(mend::frames(&seed, &segment.file_id(), HEADER_BYTES), seed);
            seed[100] ^= 1;
            assert_eq!(read_segment(segment, &seed), 0, "{name}");
            let mended = mend::frames(&seed, &segment.file_id(), HEADER_BYTES);
            assert_eq!(read_segment(segment, &mended) > 30, segment.slot.is_none(), "{name}");
        }
    }
}
