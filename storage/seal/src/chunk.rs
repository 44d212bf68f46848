//! Sealing chunks: AES-256-GCM, the nonce made of the chunk's number, the associated data of its place.

use aes_gcm::aead::{AeadInOut, Key, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use cairn_format::FileId;

use crate::{DataKey, SealError, TAG_BYTES};

/// Associated data up to this length is put together on the stack.
const STACK_BYTES: usize = 512;

/// Seals and opens the chunks of one file; keeps the expanded key, which is zeroized on drop.
pub struct Sealer {
    cipher: Box<Aes256Gcm>,
    file_id: FileId,
}

impl Sealer {
    /// A sealer for one file.
    pub fn new(key: &DataKey, file_id: FileId) -> Sealer {
        Sealer { cipher: cipher(key.bytes()), file_id }
    }

    /// Encrypts `buf` in place as the chunk of this number and gives its tag. `clear` is what stands unencrypted beside
    /// it and must not change either. A number must be used once for each data key.
    pub fn seal_in_place(&self, chunk: u64, is_final: bool, clear: &[u8], buf: &mut [u8]) -> [u8; TAG_BYTES] {
        let nonce = Nonce::from(chunk_nonce(chunk));
        let sealed = self.with_associated(chunk, is_final, clear, |associated| {
            self.cipher.encrypt_inout_detached(&nonce, associated, buf.into())
        });
        match sealed {
            Ok(tag) => tag.into(),
            // The one error there is: a chunk of more than 64 GiB.
            Err(_) => panic!("chunk {chunk} is longer than AES-GCM allows"),
        }
    }

    /// Decrypts `buf` in place. After an error it is as it was.
    ///
    /// # Errors
    /// [`SealError::Forged`] unless file, number, finality, `clear`, `buf` and `tag` are those of the sealing.
    pub fn open_in_place(
        &self,
        chunk: u64,
        is_final: bool,
        clear: &[u8],
        buf: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), SealError> {
        let nonce = Nonce::from(chunk_nonce(chunk));
        self.with_associated(chunk, is_final, clear, |associated| {
            self.cipher.decrypt_inout_detached(&nonce, associated, buf.into(), &(*tag).into())
        })
        .map_err(|_| SealError::Forged { chunk })
    }

    /// Puts the associated data together: file id, chunk number, finality, clear header.
    fn with_associated<T>(
        &self,
        chunk: u64,
        is_final: bool,
        clear: &[u8],
        use_it: impl FnOnce(&[u8]) -> T,
    ) -> T {
        let parts: [&[u8]; 4] = [&self.file_id.0, &chunk.to_le_bytes(), &[u8::from(is_final)], clear];
        concatenated(&parts, use_it)
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("file_id", &self.file_id).finish_non_exhaustive()
    }
}

/// AES-256-GCM under a key, expanded on the heap so that it is not left behind on stacks.
pub(crate) fn cipher(key: &[u8; 32]) -> Box<Aes256Gcm> {
    let key: &Key<Aes256Gcm> = key.into();
    Box::new(Aes256Gcm::new(key))
}

/// Chunk number, little-endian, and 4 zero bytes.
fn chunk_nonce(chunk: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    if let Some(number) = nonce.first_chunk_mut::<8>() {
        *number = chunk.to_le_bytes();
    }
    nonce
}

fn concatenated<T>(parts: &[&[u8]; 4], use_it: impl FnOnce(&[u8]) -> T) -> T {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut stack = [0; STACK_BYTES];
    match stack.get_mut(..length) {
        Some(joined) => {
            let mut rest = &mut *joined;
            for part in parts {
                let (here, after) = rest.split_at_mut(part.len());
                here.copy_from_slice(part);
                rest = after;
            }
            use_it(joined)
        }
        None => use_it(&parts.concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::new_data_key;

    const ID: FileId = FileId([7; 16]);

    #[test]
    fn chunks_open_in_their_place_only() {
        let key = new_data_key().unwrap();
        let sealer = Sealer::new(&key, ID);
        for clear in [&b""[..], b"header", &[3; 5000]] {
            let mut sealed = b"some plain text".to_vec();
            let tag = sealer.seal_in_place(5, false, clear, &mut sealed);
            assert_ne!(sealed, b"some plain text");
            let opens = |sealer: &Sealer, chunk, last, clear: &[u8], bytes: &[u8], tag: &[u8; 16]| {
                let mut bytes = bytes.to_vec();
                sealer.open_in_place(chunk, last, clear, &mut bytes, tag).is_ok()
                    && bytes == b"some plain text"
            };
            assert!(opens(&Sealer::new(&key, ID), 5, false, clear, &sealed, &tag));
            assert!(!opens(&sealer, 6, false, clear, &sealed, &tag), "another number");
            assert!(!opens(&sealer, 5, true, clear, &sealed, &tag), "another finality");
            assert!(!opens(&sealer, 5, false, b"other", &sealed, &tag), "another header");
            assert!(!opens(&sealer, 5, false, clear, &sealed[1..], &tag), "cut");
            assert!(
                !opens(&Sealer::new(&key, FileId([8; 16])), 5, false, clear, &sealed, &tag),
                "another file"
            );
            let other = new_data_key().unwrap();
            assert!(!opens(&Sealer::new(&other, ID), 5, false, clear, &sealed, &tag), "another key");
            for bit in 0..sealed.len() * 8 {
                let mut bad = sealed.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(!opens(&sealer, 5, false, clear, &bad, &tag), "bit {bit}");
            }
            let mut bad_tag = tag;
            bad_tag[15] ^= 0x80;
            assert!(!opens(&sealer, 5, false, clear, &sealed, &bad_tag));
        }
    }

    #[test]
    fn a_refused_chunk_is_left_as_it_was() {
        let sealer = Sealer::new(&new_data_key().unwrap(), ID);
        let mut buf = *b"not sealed";
        let refused = sealer.open_in_place(1, false, b"", &mut buf, &[0; 16]);
        assert!(matches!(refused, Err(SealError::Forged { chunk: 1 })));
        assert_eq!(&buf, b"not sealed");
    }

    /// The bytes on disk: computed by an independent AES-GCM (Python's cryptography) from the layout in seal.md.
    #[test]
    fn persisted_sealing_stays() {
        let key = DataKey::from_bytes([0x11; 32]);
        let mut buf = *b"cairn";
        let tag = Sealer::new(&key, ID).seal_in_place(0x0102, true, b"clear", &mut buf);
        assert_eq!(hex(&buf), "9202405bd1");
        assert_eq!(hex(&tag), "bb432c9af6565b8be26f6a826a2c5cfc");
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
