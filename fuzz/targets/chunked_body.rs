//! Bodies: the same whether they arrive whole or byte by byte.
#![no_main]

use bytes::BytesMut;
use http::HeaderMap;
use libfuzzer_sys::fuzz_target;
use passerelle::http1::chunked::{Broken, Decoded, Decoder};
use passerelle::http1::framing::Framing;

type Whole = Option<(Vec<u8>, Option<HeaderMap>, usize)>;

fn decode(framing: Framing, text: &[u8], step: usize) -> Result<Whole, Broken> {
    let (mut decoder, mut buffer) = (Decoder::new(framing), BytesMut::new());
    let (mut data, mut trailers, mut rest) = (Vec::new(), None, text);
    loop {
        match decoder.decode(&mut buffer)? {
            Decoded::Data(bytes) => {
                assert!(!bytes.is_empty());
                data.extend_from_slice(&bytes);
            }
            Decoded::Trailers(map) => trailers = Some(map),
            Decoded::End => return Ok(Some((data, trailers, buffer.len() + rest.len()))),
            Decoded::NeedMore if rest.is_empty() => return Ok(None),
            Decoded::NeedMore => {
                let (now, later) = rest.split_at(step.min(rest.len()));
                buffer.extend_from_slice(now);
                rest = later;
            }
        }
    }
}

fuzz_target!(|text: &[u8]| {
    for framing in [Framing::Chunked, Framing::Length(7)] {
        assert_eq!(decode(framing, text, 1), decode(framing, text, usize::MAX));
        assert_eq!(decode(framing, text, 3), decode(framing, text, usize::MAX));
    }
});
