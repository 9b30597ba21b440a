//! Bodies travel compressed above a threshold, with zlib unless set otherwise, as RocketMQ's clients do it; whoever reads
//! them inflates by the message's system flag.
//!
//! | algorithm | form | flag bits 8 to 10 |
//! |---|---|---|
//! | LZ4 | LZ4 frames | 1 |
//! | Zstandard | Zstandard frames | 2 |
//! | zlib | RFC 1950 | 3, or 0 from old clients |

use std::io::{self, Read, Write};

use bytes::Bytes;
use flate2::Compression as Level;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use lz4_flex::frame::{FrameDecoder, FrameEncoder};
use mezzo_protocol::message::sys_flag::{Compression, SysFlag};
use zstd::stream::read::Decoder as ZstdDecoder;

use crate::config::BodyCompression;

/// Largest window that a Zstandard body may ask for, as a power of two: 8 MiB, more than any message has.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Largest body after inflating where no setting says otherwise, in bytes: a few kilobytes on the wire must not fill the
/// memory.
pub(crate) const INFLATED_BYTES_MAX: usize = 64 << 20;

/// Why a body could not be inflated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InflateError {
    /// Compressed with an algorithm that this client does not have.
    #[error("the body is compressed with {0:?}, which this client cannot read")]
    Unsupported(Compression),
    /// The bytes are not what the flag says.
    #[error("the body is not what its flag says: {0}")]
    Broken(#[from] io::Error),
    /// The body is larger than the bound.
    #[error("the body is larger than {max} bytes")]
    TooLarge {
        /// The bound.
        max: usize,
    },
}

/// Compresses `body`; `None` if that would not make it smaller. The flag says how it was done.
pub(crate) fn compress(body: &[u8], how: BodyCompression, level: u32) -> Option<(Bytes, SysFlag)> {
    let room = Vec::with_capacity(body.len() / 2);
    let (compressed, flag) = match how {
        BodyCompression::Off => return None,
        BodyCompression::Zlib => {
            let mut encoder = ZlibEncoder::new(room, Level::new(level.clamp(1, 9)));
            encoder.write_all(body).ok()?;
            (encoder.finish().ok()?, SysFlag::COMPRESSION_ZLIB)
        }
        BodyCompression::Lz4 => {
            let mut encoder = FrameEncoder::new(room);
            encoder.write_all(body).ok()?;
            (encoder.finish().ok()?, SysFlag::COMPRESSION_LZ4)
        }
        BodyCompression::Zstd => {
            let level = i32::try_from(level.clamp(1, 9)).unwrap_or(1);
            (zstd::bulk::compress(body, level).ok()?, SysFlag::COMPRESSION_ZSTD)
        }
    };
    (compressed.len() < body.len()).then(|| (compressed.into(), SysFlag::COMPRESSED.with(flag)))
}

/// The body as the producer made it, of at most `max` bytes if it has to be inflated.
pub(crate) fn inflate(body: Bytes, flag: SysFlag, max: usize) -> Result<Bytes, InflateError> {
    match flag.compression() {
        None => Ok(body),
        Some(Compression::Zlib) => read_bounded(ZlibDecoder::new(&*body), max),
        Some(Compression::Lz4) => read_bounded(FrameDecoder::new(&*body), max),
        Some(Compression::Zstd) => {
            let mut decoder = ZstdDecoder::with_buffer(&*body)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            read_bounded(decoder, max)
        }
        Some(Compression::Unknown) => Err(InflateError::Unsupported(Compression::Unknown)),
    }
}

/// Everything that `reader` gives, if it is not more than `max` bytes: no length that the sender claims is believed.
fn read_bounded(reader: impl Read, max: usize) -> Result<Bytes, InflateError> {
    let mut inflated = Vec::new();
    reader.take(u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1)).read_to_end(&mut inflated)?;
    if inflated.len() > max {
        return Err(InflateError::TooLarge { max });
    }
    Ok(inflated.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [BodyCompression; 3] = [BodyCompression::Zlib, BodyCompression::Lz4, BodyCompression::Zstd];

    #[test]
    fn a_compressed_body_comes_back_whatever_the_algorithm() {
        let body = Bytes::from(b"again and again ".repeat(1_000));
        for how in ALL {
            let (small, flag) = compress(&body, how, 5).unwrap();
            assert!(small.len() < body.len() / 10, "{how:?}");
            assert_eq!(inflate(small, flag, INFLATED_BYTES_MAX).unwrap(), body);
        }
        assert_eq!(compress(&body, BodyCompression::Off, 5), None);
    }

    #[test]
    fn old_clients_say_zlib_by_saying_nothing() {
        let body = Bytes::from(b"again and again ".repeat(1_000));
        let (small, _) = compress(&body, BodyCompression::Zlib, 5).unwrap();
        assert_eq!(inflate(small, SysFlag::COMPRESSED, INFLATED_BYTES_MAX).unwrap(), body);
    }

    #[test]
    fn each_algorithm_is_known_by_its_own_first_bytes() {
        let body = b"again and again ".repeat(1_000);
        let first = |how| compress(&body, how, 5).map(|(small, _)| small[..5].to_vec()).unwrap();
        let lz4 = first(BodyCompression::Lz4);
        assert_eq!(lz4[..4], [0x04, 0x22, 0x4D, 0x18]);
        assert_eq!(lz4[4] & 0x20, 0x20, "Java reads only blocks that do not depend on each other");
        assert_eq!(first(BodyCompression::Zstd)[..4], [0x28, 0xB5, 0x2F, 0xFD]);
        assert_eq!(first(BodyCompression::Zlib)[0], 0x78);
    }

    #[test]
    fn the_flag_bits_are_those_of_rocketmq() {
        let body = b"again and again ".repeat(1_000);
        let bits = |how| compress(&body, how, 5).map(|(_, flag)| flag.bits()).unwrap();
        assert_eq!(ALL.map(bits), [0x301, 0x101, 0x201]);
    }

    #[test]
    fn what_does_not_shrink_is_not_compressed() {
        let mut state = 1_u64;
        let noise: Vec<u8> = (0..4_096)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) as u8
            })
            .collect();
        assert!(ALL.iter().all(|how| compress(&noise, *how, 5).is_none()));
    }

    #[test]
    fn broken_and_unknown_bodies_are_errors() {
        let body = Bytes::from_static(b"not compressed at all");
        for kind in
            [SysFlag::NONE, SysFlag::COMPRESSION_ZLIB, SysFlag::COMPRESSION_LZ4, SysFlag::COMPRESSION_ZSTD]
        {
            let read = inflate(body.clone(), SysFlag::COMPRESSED.with(kind), INFLATED_BYTES_MAX);
            assert!(matches!(read, Err(InflateError::Broken(_))), "{kind:?}");
        }
        let unknown = SysFlag::COMPRESSED.with(SysFlag(5 << 8));
        assert!(matches!(
            inflate(body.clone(), unknown, INFLATED_BYTES_MAX),
            Err(InflateError::Unsupported(Compression::Unknown))
        ));
        assert_eq!(inflate(body.clone(), SysFlag::NONE, INFLATED_BYTES_MAX).unwrap(), body);
    }

    #[test]
    fn a_bomb_is_refused_instead_of_filling_the_memory() {
        for how in ALL {
            let (bomb, flag) = compress(&vec![0_u8; 100_001], how, 9).unwrap();
            assert!(bomb.len() < 1_000);
            assert_eq!(inflate(bomb.clone(), flag, 100_001).unwrap().len(), 100_001);
            let read = inflate(bomb, flag, 100_000);
            assert!(matches!(read, Err(InflateError::TooLarge { max: 100_000 })), "{how:?}");
        }
    }
}
