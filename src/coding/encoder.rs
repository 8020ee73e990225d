//! The encoders, behind one face: bytes in, coded bytes out as they come.
//!
//! Levels are those for what is made while somebody waits. Windows are small, since every answer that is being coded has
//! one: 128 KiB is where text gains little more, and far below what decoders must take (8 MiB for zstd, RFC 9659).

use std::io::{self, Write};

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use bytes::buf::Writer;
use bytes::{BufMut, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use zstd::stream::raw::CParameter;

use super::Coding;

const ZSTD_LEVEL: i32 = 3;
const GZIP_LEVEL: u32 = 5;
const BROTLI_QUALITY: i32 = 4;
/// Two to this power are the bytes of a window.
const WINDOW: u8 = 17;

/// What coded bytes are gathered in.
type Out = Writer<BytesMut>;

/// One body being coded.
pub(super) enum Encoder {
    Zstd(zstd::stream::write::Encoder<'static, Out>),
    Brotli(Box<CompressorWriter<Out>>),
    Gzip(GzEncoder<Out>),
}

impl Encoder {
    /// `length`: of the body, where it is known; small ones take less memory then.
    ///
    /// # Errors
    /// The library's, which are none for these settings.
    pub(super) fn new(coding: Coding, length: Option<u64>) -> io::Result<Encoder> {
        let out = BytesMut::new().writer();
        Ok(match coding {
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(out, ZSTD_LEVEL)?;
                encoder.set_parameter(CParameter::WindowLog(u32::from(WINDOW)))?;
                encoder.set_pledged_src_size(length)?;
                Encoder::Zstd(encoder)
            }
            Coding::Brotli => {
                let hint = length.and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
                let params = BrotliEncoderParams {
                    quality: BROTLI_QUALITY,
                    lgwin: i32::from(WINDOW),
                    size_hint: hint,
                    ..BrotliEncoderParams::default()
                };
                Encoder::Brotli(Box::new(CompressorWriter::with_params(out, 8 * 1024, &params)))
            }
            Coding::Gzip => Encoder::Gzip(GzEncoder::new(out, Compression::new(GZIP_LEVEL))),
        })
    }

    /// # Errors
    /// The library's.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Encoder::Zstd(encoder) => encoder.write_all(bytes),
            Encoder::Brotli(encoder) => encoder.write_all(bytes),
            Encoder::Gzip(encoder) => encoder.write_all(bytes),
        }
    }

    /// Has all that was written come out, so that a client can decode it now.
    ///
    /// # Errors
    /// The library's.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Encoder::Zstd(encoder) => encoder.flush(),
            Encoder::Brotli(encoder) => encoder.flush(),
            Encoder::Gzip(encoder) => encoder.flush(),
        }
    }

    /// How many bytes [`take`](Self::take) would yield.
    pub(super) fn ready(&mut self) -> usize {
        self.out().len()
    }

    /// What has come out since it was last taken.
    pub(super) fn take(&mut self) -> Bytes {
        self.out().split().freeze()
    }

    fn out(&mut self) -> &mut BytesMut {
        match self {
            Encoder::Zstd(encoder) => encoder.get_mut().get_mut(),
            Encoder::Brotli(encoder) => encoder.get_mut().get_mut(),
            Encoder::Gzip(encoder) => encoder.get_mut().get_mut(),
        }
    }

    /// Ends the body; what is left of it.
    ///
    /// # Errors
    /// The library's.
    pub(super) fn finish(self) -> io::Result<Bytes> {
        let out = match self {
            Encoder::Zstd(encoder) => encoder.finish()?,
            Encoder::Brotli(encoder) => encoder.into_inner(),
            Encoder::Gzip(encoder) => encoder.finish()?,
        };
        Ok(out.into_inner().freeze())
    }
}
