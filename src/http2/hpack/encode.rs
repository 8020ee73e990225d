//! Packing the fields of an answer (RFC 7541 section 6).
//!
//! What is the same in every answer of a service (its type, what it varies by, what security asks for) is put into the
//! table the first time and takes a byte from then on. Nothing else is: no cookie, no number of a request, no value that may
//! be secret, since a table is what such values could be guessed by (section 7.1). The table is filled once and forgets
//! nothing, so that a place in it is known for good.
//!
//! Strings are not packed with Huffman codes: that would take more instructions than all else that is done for an
//! answer's head, for a fifth of its bytes.

use bytes::{BufMut, BytesMut};
use http::StatusCode;

use super::decode::TABLE;
use super::integer;
use super::table::{OVERHEAD, STATIC};

/// What a field's first byte says (sections 6.1 to 6.3).
const INDEXED: u8 = 0x80;
const ADDED: u8 = 0x40;
const RESIZED: u8 = 0x20;
const NEVER: u8 = 0x10;
const PLAIN: u8 = 0x00;

/// The index of `:status`, whatever its value.
const STATUS: usize = 8;

/// Below this a length is one byte.
const SHORT: usize = 127;

/// One direction of a connection.
#[derive(Debug)]
pub struct Encoder {
    /// What is in the client's table, the oldest first.
    kept: Vec<Kept>,
    size: usize,
    most: usize,
    /// The client is to be told that its table is emptied, and what it holds from now on.
    resized: bool,
}

#[derive(Debug)]
struct Kept {
    name: Repeated,
    value: Box<[u8]>,
}

/// A name whose values are much the same from answer to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Repeated(u8);

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Nothing,
    /// Its index in the static table.
    At(usize),
    /// The same, and its values are nobody else's business.
    Secret(usize),
    /// The index is 0 where it is in no table.
    Repeats(usize, Repeated),
}

impl Default for Encoder {
    fn default() -> Encoder {
        Encoder { kept: Vec::new(), size: 0, most: TABLE, resized: false }
    }
}

impl Encoder {
    /// The client's table takes so much (`SETTINGS_HEADER_TABLE_SIZE`).
    pub fn resize(&mut self, most: u32) {
        let most = usize::try_from(most).unwrap_or(TABLE).min(TABLE);
        if most != self.most {
            *self = Encoder { most, resized: true, ..Encoder::default() };
        }
    }

    /// Begins a block.
    pub fn block<'a>(&'a mut self, out: &'a mut BytesMut) -> Block<'a> {
        if std::mem::take(&mut self.resized) {
            // Emptied first (section 4.2).
            integer::write(out, RESIZED, 5, 0);
            integer::write(out, RESIZED, 5, self.most);
        }
        Block { encoder: self, out }
    }

    /// The index of a field that is in the table.
    fn find(&self, name: Repeated, value: &[u8]) -> Option<usize> {
        let mut behind = self.kept.iter().rev();
        let newer = behind.position(|kept| kept.name == name && *kept.value == *value)?;
        Some(STATIC.len().saturating_add(1).saturating_add(newer))
    }

    /// Puts it into the table, if there is room.
    fn add(&mut self, name: Repeated, length: usize, value: &[u8]) -> bool {
        let size = self.size.saturating_add(length).saturating_add(value.len()).saturating_add(OVERHEAD);
        let fits = size <= self.most;
        if fits {
            self.size = size;
            self.kept.push(Kept { name, value: value.into() });
        }
        fits
    }
}

/// A block that is being packed.
#[derive(Debug)]
pub struct Block<'a> {
    encoder: &'a mut Encoder,
    out: &'a mut BytesMut,
}

impl Block<'_> {
    /// `:status`, which comes before all fields.
    pub fn status(&mut self, status: StatusCode) {
        let index = match status.as_u16() {
            200 => 8,
            204 => 9,
            206 => 10,
            304 => 11,
            400 => 12,
            404 => 13,
            500 => 14,
            _ => {
                integer::write(self.out, PLAIN, 4, STATUS);
                return self.string(status.as_str().as_bytes());
            }
        };
        self.out.put_u8(INDEXED | index);
    }

    /// A field, whose name must be in lower case.
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        self.out.reserve(name.len().saturating_add(value.len()).saturating_add(16));
        match Known::of(name) {
            Known::Nothing => self.literal(PLAIN, 4, 0, name, value),
            Known::At(index) => self.literal(PLAIN, 4, index, name, value),
            Known::Secret(index) => self.literal(NEVER, 4, index, name, value),
            Known::Repeats(index, repeated) => match self.encoder.find(repeated, value) {
                Some(index) => integer::write(self.out, INDEXED, 7, index),
                None if self.encoder.add(repeated, name.len(), value) => self.literal(ADDED, 6, index, name, value),
                None => self.literal(PLAIN, 4, index, name, value),
            },
        }
    }

    fn literal(&mut self, pattern: u8, prefix: u32, index: usize, name: &[u8], value: &[u8]) {
        integer::write(self.out, pattern, prefix, index);
        if index == 0 {
            self.string(name);
        }
        self.string(value);
    }

    fn string(&mut self, text: &[u8]) {
        match u8::try_from(text.len()) {
            Ok(length) if text.len() < SHORT => self.out.put_u8(length),
            Ok(_) | Err(_) => integer::write(self.out, 0, 7, text.len()),
        }
        self.out.put_slice(text);
    }
}

impl Known {
    /// Of a name in lower case: those that answers have.
    fn of(name: &[u8]) -> Known {
        let repeats = |index: u8| Known::Repeats(usize::from(index), Repeated(index));
        let named = |number: u8| Known::Repeats(0, Repeated(number));
        match name {
            b"accept-ranges" => repeats(18),
            b"access-control-allow-origin" => repeats(20),
            b"age" => Known::At(21),
            b"allow" => repeats(22),
            b"cache-control" => repeats(24),
            b"content-disposition" => Known::At(25),
            b"content-encoding" => repeats(26),
            b"content-language" => repeats(27),
            b"content-length" => Known::At(28),
            b"content-location" => Known::At(29),
            b"content-range" => Known::At(30),
            b"content-type" => repeats(31),
            b"date" => Known::At(33),
            b"etag" => Known::At(34),
            b"expires" => Known::At(36),
            b"last-modified" => Known::At(44),
            b"link" => Known::At(45),
            b"location" => Known::At(46),
            b"retry-after" => Known::At(53),
            b"server" => repeats(54),
            b"set-cookie" => Known::Secret(55),
            b"strict-transport-security" => repeats(56),
            b"vary" => repeats(59),
            b"via" => repeats(60),
            b"www-authenticate" => Known::At(61),
            b"x-content-type-options" => named(101),
            b"x-frame-options" => named(102),
            b"referrer-policy" => named(103),
            b"permissions-policy" => named(104),
            b"cross-origin-opener-policy" => named(105),
            b"cross-origin-resource-policy" => named(106),
            b"cross-origin-embedder-policy" => named(107),
            b"access-control-allow-credentials" => named(108),
            b"access-control-expose-headers" => named(109),
            b"x-powered-by" => named(110),
            b"x-xss-protection" => named(111),
            b"grpc-status" => named(112),
            _ => Known::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_those_of_the_table() {
        for (at, (name, _)) in STATIC.iter().enumerate() {
            match Known::of(name.as_bytes()) {
                Known::Nothing => {}
                Known::At(index) | Known::Secret(index) => assert_eq!(index, at + 1, "{name}"),
                Known::Repeats(index, number) => assert_eq!((index, usize::from(number.0)), (at + 1, at + 1), "{name}"),
            }
        }
        assert_eq!(Known::of(b"x-request-id"), Known::Nothing);
        for code in [200, 204, 206, 304, 400, 404, 500] {
            let mut out = BytesMut::new();
            Encoder::default().block(&mut out).status(StatusCode::from_u16(code).unwrap());
            let [byte] = out[..] else { panic!("{code}: {out:?}") };
            assert_eq!(STATIC[usize::from(byte & 0x7f) - 1], (":status", &*code.to_string()));
        }
    }

    #[test]
    fn a_table_that_was_smaller_meanwhile_is_empty() {
        let mut encoder = Encoder::default();
        let mut out = BytesMut::new();
        encoder.block(&mut out).field(b"server", b"x");
        assert_eq!(encoder.kept.len(), 1);
        encoder.resize(0);
        encoder.resize(4096);
        out.clear();
        encoder.block(&mut out).field(b"server", b"x");
        assert_eq!(&out[..2], b"\x20\x3f");
        assert_eq!(&out[4..], b"\x76\x01x");
    }

    #[test]
    fn what_may_be_secret_is_in_no_table() {
        let mut encoder = Encoder::default();
        let mut out = BytesMut::new();
        for name in
            ["set-cookie", "x-request-id", "location", "etag", "www-authenticate", "content-security-policy", "x-token"]
        {
            encoder.block(&mut out).field(name.as_bytes(), b"secret");
        }
        assert!(encoder.kept.is_empty());
    }
}
