//! The uwsgi protocol towards a server: a packet of variables, as CGI names them, before the body.
//!
//! A packet is a header of four bytes (the kind, which is 0 for a request; the size of what follows, 16 bits, the low
//! ones first; a second kind) and then each variable as a length of 16 bits, its name, a length, its value. The body
//! follows as it is: its length is the variable `CONTENT_LENGTH`. The answer is like one of HTTP/1.1.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{BufMut, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, COOKIE};
use percent_encoding::percent_decode;

use crate::config::settings::UwsgiParams;
use crate::fields::Fields;
use crate::headers::Name;

/// What uWSGI takes of variables unless its `buffer-size` says otherwise.
pub const DEFAULT_BUFFER: usize = 4096;

/// How many variables it takes unless its `max-vars` says otherwise.
const DEFAULT_VARIABLES: usize = 128;

/// The header of a packet.
const HEADER: usize = 4;

/// The variables do not fit into a packet, which holds 65535 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

/// A packet that variables are added to, at the end of a buffer. Each name is added once; header fields of one name may
/// come several times, one behind the other.
pub struct Packet<'a> {
    out: &'a mut BytesMut,
    /// Set by the operator: these take the place of what would be added under their names.
    params: &'a UwsgiParams,
    /// Where the packet begins.
    start: usize,
    /// Where the name of the last variable begins, and where the length of its value stands.
    last: Option<(usize, usize)>,
    fits: bool,
}

impl<'a> Packet<'a> {
    pub fn begin(out: &'a mut BytesMut, params: &'a UwsgiParams) -> Packet<'a> {
        let start = out.len();
        out.put_bytes(0, HEADER);
        Packet { out, params, start, last: None, fits: true }
    }

    /// `parts` make up the value.
    pub fn var(&mut self, name: &str, parts: &[&[u8]]) {
        if self.params.iter().all(|(set, _)| set != name) {
            self.put_name([name.as_bytes()].into_iter().flatten().copied());
            self.put_value(parts);
        }
    }

    /// A variable whose value is `text` with its percent codes decoded, as CGI and WSGI have paths.
    pub fn decoded(&mut self, name: &str, text: &[&str]) {
        let decoded: Vec<u8> = text.iter().flat_map(|part| percent_decode(part.as_bytes())).collect();
        self.var(name, &[&decoded]);
    }

    /// Writes what the operator set, and the header.
    ///
    /// # Errors
    /// `TooLarge`; then nothing of the packet is left in the buffer.
    pub fn finish(mut self) -> Result<(), TooLarge> {
        for (name, value) in self.params {
            self.put_name(name.bytes());
            self.put_value(&[value.as_bytes()]);
        }
        let size = self.out.len().saturating_sub(self.start).saturating_sub(HEADER);
        let header = self.out.get_mut(self.start..).and_then(|packet| packet.first_chunk_mut::<HEADER>());
        match (u16::try_from(size), header) {
            (Ok(size), Some(header)) if self.fits => {
                let [low, high] = size.to_le_bytes();
                *header = [0, low, high, 0];
                Ok(())
            }
            (Ok(_) | Err(_), Some(_) | None) => {
                self.out.truncate(self.start);
                Err(TooLarge)
            }
        }
    }

    fn put_name(&mut self, name: impl Iterator<Item = u8> + Clone) {
        let length = self.length(name.clone().count());
        self.out.put_u16_le(length);
        let begins = self.out.len();
        self.out.extend(name);
        self.last = Some((begins, self.out.len()));
    }

    fn put_value(&mut self, parts: &[&[u8]]) {
        let length = self.length(parts.iter().map(|part| part.len()).sum());
        self.out.put_u16_le(length);
        for part in parts {
            self.out.extend_from_slice(part);
        }
    }

    /// A length as it travels; one that does not fit is found when the packet is finished.
    fn length(&mut self, length: usize) -> u16 {
        u16::try_from(length).unwrap_or_else(|_| {
            self.fits = false;
            0
        })
    }

    /// Whether the last variable has the name that `field` arrives under.
    fn is_last(&self, field: Name<'_>) -> bool {
        let last = self.last.and_then(|(from, to)| self.out.get(from..to));
        last.is_some_and(|last| last.iter().copied().eq(variable(field)))
    }

    /// Adds to the value of the last variable.
    fn extend_last(&mut self, separator: &[u8], parts: &[&[u8]]) {
        let Some((_, at)) = self.last else { return };
        self.out.extend_from_slice(separator);
        for part in parts {
            self.out.extend_from_slice(part);
        }
        let length = self.length(self.out.len().saturating_sub(at).saturating_sub(2));
        if let Some(place) = self.out.get_mut(at..).and_then(|value| value.first_chunk_mut::<2>()) {
            *place = length.to_le_bytes();
        }
    }
}

/// Header fields arrive as `HTTP_NAME`, lines of one name as one (RFC 9110 section 5.3, RFC 6265 section 5.4).
impl Fields for Packet<'_> {
    const SORTED: bool = true;

    fn put<'n>(&mut self, name: impl Into<Name<'n>>, parts: &[&[u8]]) {
        let name = name.into();
        if name == CONTENT_LENGTH {
            // CGI's own variable says how long the body is that is sent.
            return;
        }
        if self.is_last(name) {
            let separator: &[u8] = if name == COOKIE { b"; " } else { b", " };
            return self.extend_last(separator, parts);
        }
        self.put_name(variable(name));
        self.put_value(parts);
    }
}

/// The variable that a field arrives as.
fn variable(name: Name<'_>) -> impl Iterator<Item = u8> + Clone {
    let prefix: &[u8] = if name == CONTENT_TYPE { b"" } else { b"HTTP_" };
    let upper = |byte: u8| if byte == b'-' { b'_' } else { byte.to_ascii_uppercase() };
    prefix.iter().chain(name.as_bytes()).copied().map(upper)
}

/// What a request takes of what a server has for its variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    bytes: usize,
    variables: usize,
}

impl Size {
    /// Of a packet as it was written.
    pub fn of(packet: &[u8]) -> Size {
        let mut rest = packet.get(HEADER..).unwrap_or_default();
        let (bytes, mut texts) = (rest.len(), 0_usize);
        while let Some((length, after)) = rest.split_first_chunk::<2>() {
            rest = after.get(usize::from(u16::from_le_bytes(*length))..).unwrap_or_default();
            texts = texts.saturating_add(1);
        }
        Size { bytes, variables: texts / 2 }
    }
}

/// The most that a server is known to have taken of a request.
#[derive(Default)]
pub struct Largest {
    bytes: AtomicUsize,
    variables: AtomicUsize,
}

impl Largest {
    /// It answered a request of this size.
    pub fn took(&self, size: Size) {
        for (known, taken) in [(&self.bytes, size.bytes), (&self.variables, size.variables)] {
            if taken > known.load(Ordering::Relaxed) {
                known.fetch_max(taken, Ordering::Relaxed);
            }
        }
    }

    /// Why the server may have closed the connection without a word after a request of this size, where its size can be
    /// why: uWSGI says so in its own log alone.
    pub fn refused(&self, size: Size) -> Option<String> {
        let Size { bytes, variables } = size;
        if bytes > DEFAULT_BUFFER.max(self.bytes.load(Ordering::Relaxed)) {
            return Some(format!(
                "uWSGI closes so when its buffer-size ({DEFAULT_BUFFER} by default) is smaller than the variables of the \
                 request, which have {bytes} bytes"
            ));
        }
        (variables > DEFAULT_VARIABLES.max(self.variables.load(Ordering::Relaxed))).then(|| {
            format!(
                "uWSGI closes so when its max-vars ({DEFAULT_VARIABLES} by default) is smaller than the number of the \
                 request's variables, {variables}"
            )
        })
    }
}

/// A request of the gateway's own: `GET`, without a body, for nobody.
pub(super) fn get(
    target: &str,
    host: &[u8],
    params: &UwsgiParams,
    write_fields: impl FnOnce(&mut Packet<'_>),
) -> Result<BytesMut, TooLarge> {
    let mut out = BytesMut::with_capacity(512);
    let mut packet = Packet::begin(&mut out, params);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (name, port) = split_host(host);
    packet.var("REQUEST_METHOD", &[b"GET"]);
    packet.var("REQUEST_URI", &[target.as_bytes()]);
    packet.var("SCRIPT_NAME", &[]);
    packet.decoded("PATH_INFO", &[path]);
    packet.var("QUERY_STRING", &[query.as_bytes()]);
    packet.var("SERVER_PROTOCOL", &[b"HTTP/1.1"]);
    packet.var("SERVER_NAME", &[name]);
    packet.var("SERVER_PORT", &[port.unwrap_or(b"80")]);
    packet.var("REMOTE_ADDR", &[b"127.0.0.1"]);
    packet.var("REQUEST_SCHEME", &[b"http"]);
    write_fields(&mut packet);
    packet.finish()?;
    Ok(out)
}

/// The name and the port of a `Host`.
pub fn split_host(host: &[u8]) -> (&[u8], Option<&[u8]>) {
    let behind_name = host.iter().rposition(|&byte| matches!(byte, b':' | b']'));
    match behind_name.and_then(|at| Some((host.split_at_checked(at)?, host.get(at.checked_add(1)?..)?))) {
        Some(((name, [b':', ..]), port)) => (name, Some(port).filter(|port| !port.is_empty())),
        Some(_) | None => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    /// The variables of a packet, as a server reads them.
    fn read(packet: &[u8]) -> Vec<(String, Vec<u8>)> {
        let (header, mut rest) = packet.split_at(HEADER);
        assert_eq!((header[0], header[3]), (0, 0));
        assert_eq!(usize::from(u16::from_le_bytes([header[1], header[2]])), rest.len());
        let mut take = || {
            let (length, behind) = rest.split_first_chunk::<2>()?;
            let (text, behind) = behind.split_at(u16::from_le_bytes(*length).into());
            rest = behind;
            Some(text.to_vec())
        };
        std::iter::from_fn(|| Some((String::from_utf8(take()?).unwrap(), take().unwrap()))).collect()
    }

    fn written(params: &UwsgiParams, write: impl FnOnce(&mut Packet<'_>)) -> Result<Vec<(String, String)>, TooLarge> {
        let mut out = BytesMut::from(&b"before"[..]);
        let mut packet = Packet::begin(&mut out, params);
        write(&mut packet);
        let result = packet.finish();
        if result.is_err() {
            assert_eq!(&out[..], b"before");
        }
        result.map(|()| read(&out[6..]).into_iter().map(|(n, v)| (n, String::from_utf8(v).unwrap())).collect())
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    fn name(text: &str) -> HeaderName {
        text.parse().unwrap()
    }

    #[test]
    fn fields_arrive_as_cgi_has_them() {
        let vars = written(&UwsgiParams::new(), |packet| {
            packet.var("REQUEST_METHOD", &[b"GET"]);
            packet.decoded("PATH_INFO", &["/a%20b/%C3%BC"]);
            packet.put(&name("x-one"), &[b"1", b"2"]);
            packet.put(&name("x-one"), &[b"3"]);
            packet.put(&name("cookie"), &[b"a=1"]);
            packet.put(&name("cookie"), &[b"b=2"]);
            packet.put(&name("content-type"), &[b"text/plain"]);
            packet.put(&name("content-length"), &[b"17"]);
        });
        assert_eq!(
            vars.unwrap(),
            [
                pair("REQUEST_METHOD", "GET"),
                pair("PATH_INFO", "/a b/ü"),
                pair("HTTP_X_ONE", "12, 3"),
                pair("HTTP_COOKIE", "a=1; b=2"),
                pair("CONTENT_TYPE", "text/plain"),
            ]
        );
    }

    #[test]
    fn what_the_operator_sets_takes_the_place_of_ours() {
        let params = vec![("SERVER_NAME".to_owned(), HeaderValue::from_static("shop"))];
        let vars = written(&params, |packet| {
            packet.var("SERVER_NAME", &[b"a"]);
            packet.var("SERVER_PORT", &[b"80"]);
        });
        assert_eq!(vars.unwrap(), [pair("SERVER_PORT", "80"), pair("SERVER_NAME", "shop")]);
    }

    #[test]
    fn a_packet_holds_65535_bytes() {
        let with = |length: usize| {
            let value = vec![b'x'; length];
            written(&UwsgiParams::new(), |packet| packet.var("A", &[&value]))
        };
        assert_eq!(with(65535 - 5).unwrap().len(), 1);
        assert_eq!(with(65535 - 4), Err(TooLarge));
        assert_eq!(with(70_000), Err(TooLarge));
        let two = written(&UwsgiParams::new(), |packet| {
            packet.put(&name("x"), &[&[b'x'; 40_000]]);
            packet.put(&name("x"), &[&[b'x'; 40_000]]);
        });
        assert_eq!(two, Err(TooLarge));
    }

    #[test]
    fn a_closed_connection_is_explained_only_where_size_can_be_why() {
        let largest = Largest::default();
        let refused = |bytes: usize, variables: usize| largest.refused(Size { bytes, variables });
        assert_eq!(refused(DEFAULT_BUFFER, DEFAULT_VARIABLES), None);
        assert!(refused(DEFAULT_BUFFER + 1, 1).unwrap().contains("which have 4097 bytes"));
        assert!(refused(100, DEFAULT_VARIABLES + 1).unwrap().contains("the request's variables, 129"));
        largest.took(Size { bytes: 9000, variables: 140 });
        assert_eq!(refused(9000, 140), None, "it has taken as much before");
        assert!(refused(9001, 1).is_some() && refused(1, 141).is_some());
    }

    #[test]
    fn a_packet_is_measured() {
        let mut out = BytesMut::new();
        let params = UwsgiParams::new();
        let mut packet = Packet::begin(&mut out, &params);
        packet.var("A", &[b"bc"]);
        packet.var("D", &[]);
        packet.finish().unwrap();
        assert_eq!(Size::of(&out), Size { bytes: 12, variables: 2 });
    }

    #[test]
    fn hosts_are_split() {
        let split = |host: &'static str| split_host(host.as_bytes());
        assert_eq!(split("a"), (&b"a"[..], None));
        assert_eq!(split("a:80"), (&b"a"[..], Some(&b"80"[..])));
        assert_eq!(split("a:"), (&b"a"[..], None));
        assert_eq!(split("[::1]"), (&b"[::1]"[..], None));
        assert_eq!(split("[::1]:8"), (&b"[::1]"[..], Some(&b"8"[..])));
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read_again(
            vars in prop::collection::vec(("[A-Z_]{1,20}", prop::collection::vec(any::<u8>(), 0..9000)), 0..16)
        ) {
            let mut out = BytesMut::new();
            let params = UwsgiParams::new();
            let mut packet = Packet::begin(&mut out, &params);
            let mut size = 0;
            for (name, value) in &vars {
                packet.var(name, &[value]);
                size += 4 + name.len() + value.len();
            }
            match packet.finish() {
                Ok(()) => {
                    prop_assert!(size <= 65535);
                    prop_assert_eq!(read(&out), vars);
                }
                Err(TooLarge) => {
                    prop_assert!(size > 65535);
                    prop_assert!(out.is_empty());
                }
            }
        }
    }
}
