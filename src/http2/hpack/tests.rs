use bytes::BytesMut;
use http::StatusCode;

use super::decode::{Checked, Decoder, Take, Undecodable};
use super::encode::Encoder;

/// All fields, as text.
#[derive(Default)]
struct All(Vec<String>);

impl Take for All {
    fn take(&mut self, name: &[u8], value: &[u8], _: Checked) -> Checked {
        self.0.push(format!("{}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value)));
        Checked::Field
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    (0..digits.len() / 2).map(|at| u8::from_str_radix(&digits[at * 2..at * 2 + 2], 16).unwrap()).collect()
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, Undecodable> {
    let mut all = All::default();
    decoder.decode(block, &mut all).map(|()| all.0)
}

fn fields(hex: &str) -> Result<Vec<String>, Undecodable> {
    decode(&mut Decoder::default(), &bytes(hex))
}

/// RFC 7541 appendix C.2.
#[test]
fn the_forms_of_a_field() {
    let mut decoder = Decoder::default();
    let custom = bytes("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572");
    assert_eq!(decode(&mut decoder, &custom).unwrap(), ["custom-key: custom-header"]);
    assert_eq!(decoder.table(), (55, vec!["custom-key: custom-header".to_owned()]));
    assert_eq!(fields("040c 2f73 616d 706c 652f 7061 7468").unwrap(), [":path: /sample/path"]);
    let mut decoder = Decoder::default();
    let never = bytes("1008 7061 7373 776f 7264 0673 6563 7265 74");
    assert_eq!(decode(&mut decoder, &never).unwrap(), ["password: secret"]);
    assert_eq!(decoder.table().0, 0);
    assert_eq!(fields("82").unwrap(), [":method: GET"]);
}

/// RFC 7541 appendices C.3 and C.4: requests, plain and packed.
#[test]
fn requests_of_one_connection() {
    let plain = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    let packed = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    for blocks in [plain, packed] {
        let mut decoder = Decoder::default();
        let mut next = |at: usize| decode(&mut decoder, &bytes(blocks[at])).unwrap();
        let first = [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"];
        assert_eq!(next(0), first);
        assert_eq!(next(1), [&first[..], &["cache-control: no-cache"]].concat());
        let third = [":method: GET", ":scheme: https", ":path: /index.html", first[3], "custom-key: custom-value"];
        assert_eq!(next(2), third);
        let table = ["custom-key: custom-value", "cache-control: no-cache", ":authority: www.example.com"];
        assert_eq!(decoder.table(), (164, table.map(str::to_owned).to_vec()));
    }
}

/// RFC 7541 appendices C.5 and C.6: a table of 256 bytes, from which entries go.
#[test]
fn entries_go_when_there_is_no_room() {
    let plain = [
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d \
         546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f \
         6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b \
         2076 6572 7369 6f6e 3d31",
    ];
    let packed = [
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 \
         8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 \
         dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ];
    for blocks in [plain, packed] {
        let mut decoder = Decoder::default();
        let mut next = |at: usize, resized: &str| {
            let block = [bytes(resized), bytes(blocks[at])].concat();
            decode(&mut decoder, &block).unwrap()
        };
        let [date, later] = ["date: Mon, 21 Oct 2013 20:13:21 GMT", "date: Mon, 21 Oct 2013 20:13:22 GMT"];
        let location = "location: https://www.example.com";
        assert_eq!(next(0, "3fe1 01"), [":status: 302", "cache-control: private", date, location]);
        assert_eq!(next(1, ""), [":status: 307", "cache-control: private", date, location]);
        let cookie = "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
        let third = [":status: 200", "cache-control: private", later, location, "content-encoding: gzip", cookie];
        assert_eq!(next(2, ""), third);
        assert_eq!(decoder.table(), (215, [cookie, "content-encoding: gzip", later].map(str::to_owned).to_vec()));
    }
}

#[test]
fn what_cannot_be_unpacked_is_refused() {
    for block in [
        "80",                // The index 0.
        "be",                // The dynamic table is empty.
        "ff ff ff ff ff 0f", // An index that is none.
        "40",                // Nothing behind the first byte.
        "400a 63",           // A name that is not all there.
        "4001 61",           // No value.
        "4001 61 05 62",     // A value that is not all there.
        "4081 00 0161",      // Padding of zeroes.
        "7e 01 61",          // A name that is not in the table.
        "3fe2 1f",           // A table of more than was granted.
        "82 20",             // A table resized behind a field.
        "4001 61 ff ff ff ff ff ff 7f",
    ] {
        assert_eq!(fields(block), Err(Undecodable), "{block}");
    }
}

#[test]
fn a_table_that_is_made_small_forgets() {
    let mut decoder = Decoder::default();
    decode(&mut decoder, &bytes("4001 61 01 62")).unwrap();
    assert_eq!(decode(&mut decoder, &bytes("be")).unwrap(), ["a: b"]);
    // To nothing and back, which is how a client empties it.
    assert_eq!(decode(&mut decoder, &bytes("20 3fe1 1f be")), Err(Undecodable));
    assert_eq!(decoder.table().0, 0);
    // What is larger than the table empties it, too.
    let mut decoder = Decoder::default();
    decode(&mut decoder, &bytes("3f21 4001 61 01 62")).unwrap();
    assert_eq!(decoder.table().0, 34);
    let large = [bytes("4001 61 7f 01"), vec![b'x'; 128]].concat();
    assert_eq!(decode(&mut decoder, &large).unwrap().len(), 1);
    assert_eq!(decoder.table(), (0, Vec::new()));
}

/// What the table takes is bounded whatever comes.
#[test]
fn a_flood_of_entries_stays_within_the_table() {
    let mut decoder = Decoder::default();
    let block: Vec<u8> = (0..2000_u32)
        .flat_map(|n| {
            let name = format!("{n:05}");
            [&[0x40, 5], name.as_bytes(), &[3], b"abc"].concat()
        })
        .collect();
    assert_eq!(decode(&mut decoder, &block).unwrap().len(), 2000);
    let (size, entries) = decoder.table();
    assert!(size <= super::decode::TABLE && entries.len() == size / 40, "{size}");
    assert_eq!(entries[0], "01999: abc");
}

#[test]
fn what_is_packed_is_unpacked_again() {
    let long = "x".repeat(300);
    let fields = [
        ("content-type", "text/html"),
        ("x-request-id", "1"),
        ("set-cookie", &long),
        (&long, ""),
        ("x-frame-options", "DENY"),
        ("vary", &long),
        ("content-type", "text/plain"),
    ];
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
    let mut lengths = Vec::new();
    for _ in 0..3 {
        let mut out = BytesMut::new();
        let mut block = encoder.block(&mut out);
        block.status(StatusCode::IM_A_TEAPOT);
        for (name, value) in fields {
            block.field(name.as_bytes(), value.as_bytes());
        }
        let expected = fields.map(|(name, value)| format!("{name}: {value}"));
        assert_eq!(decode(&mut decoder, &out).unwrap(), [&[":status: 418".to_owned()], &expected[..]].concat());
        assert_eq!(decoder.table().1.len(), 4);
        lengths.push(out.len());
    }
    // Four fields of one byte each.
    assert!(lengths[1] == lengths[2] && lengths[1] < lengths[0] - 300, "{lengths:?}");
}

#[test]
fn the_client_s_table_is_never_overfilled() {
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
    let mut pack = |encoder: &mut Encoder, turn: usize| {
        let mut out = BytesMut::new();
        let mut block = encoder.block(&mut out);
        let value = format!("type/{}", turn % 200);
        block.field(b"content-type", value.as_bytes());
        block.field(b"server", b"it");
        let fields = decode(&mut decoder, &out).unwrap();
        assert_eq!(fields, [format!("content-type: {value}"), "server: it".to_owned()]);
        decoder.table().0
    };
    let full = (0..1000).map(|turn| pack(&mut encoder, turn)).max().unwrap();
    assert!((4000..=4096).contains(&full), "{full}");
    // Made smaller, emptied, and made larger than it ever was.
    for most in [200, 0, 100_000] {
        encoder.resize(most);
        let filled = (0..100).map(|turn| pack(&mut encoder, turn)).max().unwrap();
        assert!(filled <= most.min(4096) as usize && (most < 200 || filled > 100), "{most} {filled}");
    }
}
