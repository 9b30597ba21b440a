//! Bodies travel zlib-compressed above a threshold, as Java and C++ clients do it; whoever reads them inflates by the
//! message's system flag.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression as Level;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use mezzo_protocol::message::sys_flag::{Compression, SysFlag};

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
    #[error("the body is not valid zlib: {0}")]
    Broken(#[from] std::io::Error),
    /// The body is larger than the bound.
    #[error("the body is larger than {max} bytes")]
    TooLarge {
        /// The bound.
        max: usize,
    },
}

/// Compresses `body` at `level` (1 fast to 9 small); `None` if that would not make it smaller.
pub(crate) fn compress(body: &[u8], level: u32) -> Option<Bytes> {
    let mut encoder = ZlibEncoder::new(Vec::with_capacity(body.len() / 2), Level::new(level.clamp(1, 9)));
    encoder.write_all(body).ok()?;
    let compressed = encoder.finish().ok()?;
    (compressed.len() < body.len()).then(|| compressed.into())
}

/// The body as the producer made it, of at most `max` bytes if it has to be inflated.
pub(crate) fn inflate(body: Bytes, flag: SysFlag, max: usize) -> Result<Bytes, InflateError> {
    match flag.compression() {
        None => Ok(body),
        Some(Compression::Zlib) => {
            let mut inflated = Vec::new();
            ZlibDecoder::new(&*body)
                .take(u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1))
                .read_to_end(&mut inflated)?;
            if inflated.len() > max {
                return Err(InflateError::TooLarge { max });
            }
            Ok(inflated.into())
        }
        Some(other) => Err(InflateError::Unsupported(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compressed_body_comes_back() {
        let body = Bytes::from(b"again and again ".repeat(1_000));
        let small = compress(&body, 5).unwrap();
        assert!(small.len() < body.len() / 10);
        assert_eq!(inflate(small, SysFlag::COMPRESSED, INFLATED_BYTES_MAX).unwrap(), body);
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
        assert_eq!(compress(&noise, 5), None);
    }

    #[test]
    fn broken_and_foreign_bodies_are_errors() {
        let body = Bytes::from_static(b"not zlib");
        assert!(matches!(
            inflate(body.clone(), SysFlag::COMPRESSED, INFLATED_BYTES_MAX),
            Err(InflateError::Broken(_))
        ));
        let zstd = SysFlag::COMPRESSED.with(SysFlag::COMPRESSION_ZSTD);
        assert!(matches!(
            inflate(body.clone(), zstd, INFLATED_BYTES_MAX),
            Err(InflateError::Unsupported(Compression::Zstd))
        ));
        assert_eq!(inflate(body.clone(), SysFlag::NONE, INFLATED_BYTES_MAX).unwrap(), body);
    }

    #[test]
    fn a_bomb_is_refused_instead_of_filling_the_memory() {
        let bomb = compress(&vec![0_u8; 1_001], 9).unwrap();
        assert!(bomb.len() < 100);
        assert_eq!(inflate(bomb.clone(), SysFlag::COMPRESSED, 1_001).unwrap().len(), 1_001);
        assert!(matches!(
            inflate(bomb, SysFlag::COMPRESSED, 1_000),
            Err(InflateError::TooLarge { max: 1_000 })
        ));
    }
}
