//! Bodies packed as the database keeps them. In: a body; out: fewer bytes and the length that they unpack to, which bounds
//! the unpacking. Packs as LZ4 frames; unpacks those and the zstd frames of older versions, which differ in their first four
//! bytes. Packing runs on the caller's thread. Knows no database.

use std::cell::RefCell;
use std::io::Read;

use lz4_flex::block::{CompressError, CompressTable, compress_into_with_table, get_maximum_output_size};
use lz4_flex::frame::FrameDecoder;

use super::StoreError;

/// Bytes that are packed at once: a larger body takes no more memory for it, and as blocks of 64 KB (LZ4's window) would
/// pack to a tenth more.
const BLOCK_BYTES: usize = 256 << 10;

/// How an LZ4 frame begins: its magic number, independent blocks without checksums (version 1), of at most [`BLOCK_BYTES`],
/// and the header's own checksum.
const HEADER: [u8; 7] = [0x04, 0x22, 0x4D, 0x18, 0x60, 0x50, 0xFB];

/// Set in the length of a block that is kept as it is, since packing would make it longer.
const AS_IT_IS: u32 = 1 << 31;

/// The first four bytes of every zstd frame.
const ZSTD: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

/// Largest body that is packed or unpacked, in bytes: what a database row can hold.
pub const MAX_BYTES: usize = 900 << 20;

/// A packed body, and the length of the original.
///
/// LZ4, since packing is a good part of what storing costs: zstd at its fast levels packs a fifth to a quarter smaller, and
/// takes more than twice the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compressed {
    bytes: Box<[u8]>,
    original_bytes: usize,
}

impl Compressed {
    /// Packs `data` on the calling thread.
    ///
    /// # Errors
    /// [`StoreError::Compress`] when `data` is longer than [`MAX_BYTES`].
    pub fn new(data: &[u8]) -> Result<Self, StoreError> {
        let fail = |detail: String| StoreError::Compress { bytes: data.len(), limit: MAX_BYTES, detail };
        if data.len() > MAX_BYTES {
            return Err(fail("too large".to_owned()));
        }
        let bytes = PACKER.with_borrow_mut(|packer| packer.pack(data)).map_err(|error| fail(error.to_string()))?;
        Ok(Self { bytes: bytes.into_boxed_slice(), original_bytes: data.len() })
    }

    /// What the database held; [`Self::unpack`] finds out whether it is whole.
    pub(super) fn from_parts(bytes: Vec<u8>, original_bytes: usize) -> Self {
        Self { bytes: bytes.into_boxed_slice(), original_bytes }
    }

    /// Whether an older version packed these bytes.
    pub(super) fn packed_by_older(bytes: &[u8]) -> bool {
        bytes.starts_with(&ZSTD)
    }

    /// The packed bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Length of the body before packing, in bytes.
    pub fn original_bytes(&self) -> usize {
        self.original_bytes
    }

    /// The body again, or `None` when the bytes are damaged. Never gives more than [`Self::original_bytes`].
    pub fn unpack(&self) -> Option<Vec<u8>> {
        if self.original_bytes > MAX_BYTES {
            return None;
        }
        let body = if Self::packed_by_older(&self.bytes) {
            zstd::bulk::decompress(&self.bytes, self.original_bytes).ok()?
        } else {
            // One byte more than it should have, to see whether it has.
            let mut frame = FrameDecoder::new(&*self.bytes).take(self.original_bytes as u64 + 1);
            let mut body = Vec::with_capacity(self.original_bytes);
            frame.read_to_end(&mut body).ok()?;
            body
        };
        (body.len() == self.original_bytes).then_some(body)
    }
}

thread_local! {
    /// Kept, since making it anew for every body took a tenth of the time of packing a short one.
    static PACKER: RefCell<Packer> = RefCell::new(Packer { table: CompressTable::large(), room: Vec::new() });
}

/// What packing needs beside the body.
struct Packer {
    table: CompressTable,
    /// Room for a packed block.
    room: Vec<u8>,
}

impl Packer {
    /// Writes the frame itself: the library's writer copies what it packs, which takes as long as packing it.
    fn pack(&mut self, data: &[u8]) -> Result<Vec<u8>, CompressError> {
        let longest = get_maximum_output_size(data.len().min(BLOCK_BYTES));
        if self.room.len() < longest {
            self.room.resize(longest, 0);
        }
        let mut frame = Vec::with_capacity(data.len() / 2 + HEADER.len() + 8);
        frame.extend_from_slice(&HEADER);
        for block in data.chunks(BLOCK_BYTES) {
            let packed = compress_into_with_table(block, &mut self.room, &mut self.table)?;
            let (bytes, as_it_is) = match self.room.get(..packed) {
                Some(packed) if packed.len() < block.len() => (packed, 0),
                _ => (block, AS_IT_IS),
            };
            #[expect(clippy::cast_possible_truncation, reason = "no block is longer than `BLOCK_BYTES`")]
            let length = bytes.len() as u32;
            frame.extend_from_slice(&(length | as_it_is).to_le_bytes());
            frame.extend_from_slice(bytes);
        }
        // A block of no bytes ends the frame.
        frame.extend_from_slice(&[0; 4]);
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_that_zstd_packed_are_read() {
        let body = b"what an older version kept, kept, kept".repeat(100);
        let packed = zstd::bulk::compress(&body, 1).unwrap();
        assert_eq!(Compressed::from_parts(packed.clone(), body.len()).unpack(), Some(body.clone()));
        assert_eq!(Compressed::from_parts(packed.clone(), body.len() - 1).unpack(), None);
        assert_eq!(Compressed::from_parts(packed, body.len() + 1).unpack(), None);
    }

    #[test]
    fn what_does_not_pack_is_kept_as_it_is() {
        let noise: Vec<u8> =
            (0..600_000_u32).map(|at| (at.wrapping_mul(0x9e37_79b9) ^ at.rotate_left(13)).to_le_bytes()[2]).collect();
        let mixed = [&noise[..], &b"x".repeat(300_000), &noise[..10]].concat();
        for body in [&noise, &mixed] {
            let packed = Compressed::new(body).unwrap();
            assert!(packed.bytes().len() <= body.len() + HEADER.len() + 4 + 4 * body.len().div_ceil(BLOCK_BYTES));
            assert_eq!(packed.unpack().as_ref(), Some(body));
        }
    }

    #[test]
    fn frames_are_those_of_lz4() {
        use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
        use std::io::Write;

        let info = FrameInfo::new().block_size(BlockSize::Max256KB).block_mode(BlockMode::Independent);
        let mut frame = FrameEncoder::with_frame_info(info, Vec::new());
        let body = b"a body, a body, a body. ".repeat(20);
        frame.write_all(&body).unwrap();
        assert_eq!(Compressed::new(&body).unwrap().bytes(), frame.finish().unwrap());
    }

    #[test]
    fn a_body_unpacks_to_its_own_length_or_not_at_all() {
        for length in [0, 1, 300_000] {
            let body = b"0123456789 and so on".iter().copied().cycle().take(length).collect::<Vec<u8>>();
            let packed = Compressed::new(&body).unwrap();
            assert_eq!(packed.unpack().as_ref(), Some(&body));
            let claims = |bytes: usize| Compressed::from_parts(packed.bytes().to_vec(), bytes).unpack();
            assert_eq!(claims(length + 1), None);
            assert_eq!(length.checked_sub(1).and_then(claims), None);
            let torn = packed.bytes()[..packed.bytes().len() / 2].to_vec();
            assert_eq!(Compressed::from_parts(torn, length).unpack().filter(|_| length > 0), None);
        }
    }
}
