//! What holds of every request and of every byte.

use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::frame::{Frame, HEAD, Head};
use super::hpack::decode::{Checked, Decoder, Take};
use super::hpack::encode::Encoder;
use super::request::Reading;
use super::trailers;
use crate::http1::head::{HeadScan, Kind, Limits, take_request};

const LIMITS: Limits = Limits { bytes: 1024, target: 256, fields: 16 };

/// A field as it might come: mostly well.
fn field() -> impl Strategy<Value = (String, String)> {
    let names = select(vec![
        ":method",
        ":scheme",
        ":path",
        ":authority",
        "accept",
        "cookie",
        "x-one",
        "content-length",
        "te",
        "host",
        "X",
        "",
    ]);
    let values = prop_oneof![
        select(vec!["GET", "https", "/", "/a?b", "a.test", "1", "", "trailers", " x", "a\r\nb: c"])
            .prop_map(str::to_owned),
        "[ -~]{0,40}",
    ];
    (names.prop_map(str::to_owned), values)
}

/// Literals, of which some are added to the table, or any bytes at all.
fn block() -> impl Strategy<Value = Vec<u8>> {
    let literal = (select(vec![0x00, 0x10, 0x40]), field()).prop_map(|(first, (name, value))| {
        let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        [vec![first], text(&name), text(&value)].concat()
    });
    let indexed = (0x80..0xff_u8).prop_map(|byte| vec![byte]);
    let begin = b"\x82\x87\x84\x01\x06a.test".to_vec();
    let fields = vec(prop_oneof![4 => literal, 1 => indexed], 0..12);
    prop_oneof![
        3 => fields.prop_map(move |fields| [begin.clone(), fields.concat()].concat()),
        1 => vec(any::<u8>(), 0..200),
    ]
}

struct All(Vec<(Vec<u8>, Vec<u8>)>);

impl Take for All {
    fn take(&mut self, name: &[u8], value: &[u8], checked: Checked) -> Checked {
        self.0.push((name.to_vec(), value.to_vec()));
        checked
    }
}

proptest! {
    /// What is accepted is what a parser of HTTP/1.1 would have found in the same lines.
    #[test]
    fn heads_are_those_of_http1(blocks in vec(block(), 1..4)) {
        let mut decoder = Decoder::default();
        for block in blocks {
            let mut reading = Reading::new(LIMITS);
            if decoder.decode(&block, &mut reading).is_err() {
                break;
            }
            let Ok(request) = reading.finish() else { continue };
            prop_assert!(request.headers.len() <= LIMITS.fields);
            let mut text = BytesMut::from("GET / HTTP/1.1\r\n");
            request.headers.write_lines(&mut text, |_| true);
            text.extend_from_slice(b"\r\n");
            let limits = Limits { bytes: 4096, ..LIMITS };
            let length = HeadScan::default().advance(&text, &limits, Kind::Request);
            prop_assert_eq!(length, Ok(Some(text.len())));
            let again = take_request(&mut text, length.unwrap().unwrap(), &limits).unwrap();
            prop_assert_eq!(again.seen, request.seen);
            prop_assert!(again.headers == request.headers);
        }
    }

    #[test]
    fn any_bytes_are_frames_or_a_fault(frames in vec((0..12_u8, any::<u8>(), any::<u32>(), vec(any::<u8>(), 0..60)), 0..20)) {
        let mut decoder = Decoder::default();
        for (kind, flags, stream, payload) in frames {
            let begin = [&[0, 0, u8::try_from(payload.len()).unwrap(), kind, flags][..], &stream.to_be_bytes()].concat();
            prop_assert_eq!(Head::parse(&begin[..HEAD - 1]), None);
            let head = Head::parse(&begin).unwrap();
            prop_assert_eq!((head.length, head.stream), (payload.len(), stream & 0x7fff_ffff));
            if let Ok(Frame::Headers { block, .. } | Frame::Continuation { block, .. }) = Frame::parse(head, &payload) {
                prop_assert!(block.len() <= payload.len());
                let mut reading = trailers::Reading::new(LIMITS);
                let _ = decoder.decode(block, &mut reading);
            }
        }
    }

    #[test]
    fn what_is_packed_is_unpacked_again(
        answers in vec(vec((select(vec!["content-type", "vary", "set-cookie", "x-any", "date"]), "[ -~]{0,300}"), 0..8), 1..8),
        most in select(vec![0_u32, 40, 300, 4096, 1 << 20]),
    ) {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        for (turn, answer) in answers.iter().enumerate() {
            if turn == 3 {
                encoder.resize(most);
            }
            let mut out = BytesMut::new();
            let mut packing = encoder.block(&mut out);
            for (name, value) in answer {
                packing.field(name.as_bytes(), value.as_bytes());
            }
            let mut all = All(Vec::new());
            prop_assert!(decoder.decode(&out, &mut all).is_ok());
            let expected: Vec<_> = answer.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect();
            prop_assert_eq!(all.0, expected);
        }
    }
}
