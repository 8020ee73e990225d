//! `Accept-Encoding` (RFC 9110 section 12.5.3).

use http::header::{ACCEPT_ENCODING, VARY};
use http::{HeaderValue, header};

use super::Coding;
use crate::headers::{Headers, Value};
use crate::http1::connection::tokens;

/// How much a client likes each coding, in thousandths; zero: not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    zstd: u16,
    brotli: u16,
    gzip: u16,
    /// How much it likes no coding, where it says so.
    identity: u16,
}

impl Accepted {
    /// No coding is taken.
    pub const NOTHING: Accepted = Accepted { zstd: 0, brotli: 0, gzip: 0, identity: 0 };

    /// A request without the field takes any coding by the letter; what sends such requests can decode none.
    pub fn of(headers: &Headers) -> Accepted {
        let (mut zstd, mut brotli, mut gzip, mut identity, mut any) = (None, None, None, None, None);
        for member in headers.get_all(ACCEPT_ENCODING).flat_map(|value| tokens(value.as_bytes())) {
            let mut parts = member.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
            let name = parts.next().unwrap_or_default();
            let quality = match parts.next() {
                None => 1000,
                Some(parameter) => quality(parameter).unwrap_or(0),
            };
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            let place = if is("gzip") || is("x-gzip") {
                &mut gzip
            } else if is("br") {
                &mut brotli
            } else if is("zstd") {
                &mut zstd
            } else if is("identity") {
                &mut identity
            } else if is("*") {
                &mut any
            } else {
                continue;
            };
            *place = Some(quality);
        }
        let or_any = |quality: Option<u16>| quality.or(any).unwrap_or(0);
        Accepted { zstd: or_any(zstd), brotli: or_any(brotli), gzip: or_any(gzip), identity: identity.unwrap_or(0) }
    }

    fn quality(&self, coding: Coding) -> u16 {
        match coding {
            Coding::Zstd => self.zstd,
            Coding::Brotli => self.brotli,
            Coding::Gzip => self.gzip,
        }
    }

    /// The codings that it takes, what it likes best first; those that it likes alike in `order`. None that it likes less
    /// than no coding at all.
    pub fn choices(&self, order: [Coding; 3]) -> impl Iterator<Item = Coding> + use<> {
        let accepted = *self;
        let mut sorted = order;
        // Stable: equals keep their order.
        sorted.sort_by_key(|coding| std::cmp::Reverse(accepted.quality(*coding)));
        sorted.into_iter().filter(move |coding| {
            let quality = accepted.quality(*coding);
            quality > 0 && quality >= accepted.identity
        })
    }
}

/// `q=0.8` as 800; at most three digits (RFC 9110 section 12.4.2).
fn quality(parameter: &[u8]) -> Option<u16> {
    let (name, value) = parameter.split_at_checked(2)?;
    if !name.eq_ignore_ascii_case(b"q=") {
        return None;
    }
    let (whole, fraction) = match value {
        [whole] | [whole, b'.'] => (*whole, &[][..]),
        [whole, b'.', fraction @ ..] => (*whole, fraction),
        _ => return None,
    };
    if fraction.len() > 3 || !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(3);
    let thousandths = digits.fold(0u16, |sum, digit| sum * 10 + u16::from(digit.saturating_sub(b'0')));
    match whole {
        b'0' => Some(thousandths),
        b'1' if thousandths == 0 => Some(1000),
        _ => None,
    }
}

/// Says that the answer depends on `Accept-Encoding`, once.
pub fn vary(headers: &mut Headers) {
    let is_said = |value: Value<'_>| {
        tokens(value.as_bytes())
            .any(|name| name == b"*" || name.eq_ignore_ascii_case(header::ACCEPT_ENCODING.as_str().as_bytes()))
    };
    if !headers.get_all(VARY).any(is_said) {
        headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

    fn choices(fields: &[&'static str]) -> Vec<&'static str> {
        let mut headers = Headers::new();
        for field in fields {
            headers.append(ACCEPT_ENCODING, HeaderValue::from_static(field));
        }
        Accepted::of(&headers).choices(ORDER).map(Coding::name).collect()
    }

    #[test]
    fn what_is_liked_best_comes_first() {
        assert_eq!(choices(&["gzip, deflate, br, zstd"]), ["zstd", "br", "gzip"]);
        assert_eq!(choices(&["gzip;q=1.0, br;q=0.9", "zstd;q=0.95"]), ["gzip", "zstd", "br"]);
        assert_eq!(choices(&["GZIP"]), ["gzip"]);
        assert_eq!(choices(&["x-gzip"]), ["gzip"]);
        assert_eq!(choices(&["*"]), ["zstd", "br", "gzip"]);
        assert_eq!(choices(&["*;q=0.5, gzip"]), ["gzip", "zstd", "br"]);
        assert_eq!(choices(&["br ; q=0.5 , gzip;Q=0.6"]), ["gzip", "br"]);
    }

    #[test]
    fn what_is_not_taken_is_not_chosen() {
        for none in [&[][..], &[""], &["identity"], &["deflate, compress"], &["gzip;q=0"], &["*;q=0"]] {
            assert!(choices(none).is_empty(), "{none:?}");
        }
        assert_eq!(choices(&["gzip;q=0, *"]), ["zstd", "br"]);
        assert_eq!(choices(&["*;q=0, gzip"]), ["gzip"]);
        assert_eq!(choices(&["gzip;q=0.5, identity"]), [""; 0], "no coding is liked better");
        assert_eq!(choices(&["gzip;q=0.5, identity;q=0.5, br;q=0.4"]), ["gzip"]);
        assert_eq!(choices(&["identity;q=0, gzip;q=0.1"]), ["gzip"]);
        for malformed in
            ["gzip;q=2", "gzip;q=0.1234", "gzip;q=", "gzip;q=-1", "gzip;q=1.1", "gzip;level=3", "gzip;q=.5"]
        {
            assert!(choices(&[malformed]).is_empty(), "{malformed}");
        }
    }

    #[test]
    fn vary_is_said_once() {
        let varied = |fields: &[&'static str]| {
            let mut headers = Headers::new();
            for field in fields {
                headers.append(VARY, HeaderValue::from_static(field));
            }
            vary(&mut headers);
            headers.get_all(VARY).map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(varied(&[]), ["Accept-Encoding"]);
        assert_eq!(varied(&["Cookie"]), ["Cookie", "Accept-Encoding"]);
        assert_eq!(varied(&["Cookie, accept-encoding"]), ["Cookie, accept-encoding"]);
        assert_eq!(varied(&["*"]), ["*"]);
    }
}
