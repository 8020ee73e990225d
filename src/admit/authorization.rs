//! What an `Authorization` field shows: read strictly to be judged, leniently so that nothing is overlooked.
//!
//! Frameworks split the field at any white space, at a comma or at a colon, some take a list, and one looks for the
//! scheme wherever it stands. So a field that names a scheme of this route's anywhere, and is not of the one form that is
//! judged, is a credential that is not valid: else another one would let the caller in, and this one went on to a service
//! that believes it.

use super::credential::Credential;
use super::digest::Digested;

/// A scheme that a route may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// RFC 6750
    Bearer,
    /// RFC 7617
    Basic,
}

impl Scheme {
    fn as_str(self) -> &'static str {
        match self {
            Scheme::Bearer => "bearer",
            Scheme::Basic => "basic",
        }
    }

    fn is(self, word: &[u8]) -> bool {
        word.eq_ignore_ascii_case(self.as_str().as_bytes())
    }

    /// Whether it is named anywhere.
    fn is_within(self, value: &[u8]) -> bool {
        value.windows(self.as_str().len()).any(|word| self.is(word))
    }

    /// What follows the scheme and blanks (RFC 9110 section 11.4), or nothing at all.
    fn strictly(self, value: &[u8]) -> Option<&[u8]> {
        let (scheme, rest) = value.split_at_checked(self.as_str().len())?;
        let rest = rest.strip_prefix(b" ").or_else(|| rest.is_empty().then_some(rest))?;
        self.is(scheme).then(|| rest.trim_ascii())
    }

    fn credential<'p>(self, text: &[u8]) -> Credential<'p, '_> {
        match self {
            Scheme::Bearer => Credential::Bearer(Digested::new(text)),
            Scheme::Basic => Credential::Basic(text),
        }
    }
}

/// What the field shows to a route that takes these schemes. Of others it says nothing.
pub fn read<'p, 'r>(value: &'r [u8], schemes: &[Scheme]) -> Option<Credential<'p, 'r>> {
    let mut schemes = schemes.iter().copied();
    let strict = schemes.clone().find_map(|scheme| scheme.strictly(value).map(|text| scheme.credential(text)));
    strict.or_else(|| schemes.find(|scheme| scheme.is_within(value)).map(Credential::Malformed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &[u8], schemes: &[Scheme]) -> String {
        match read(value, schemes) {
            None => "none".to_owned(),
            Some(Credential::Bearer(token)) => format!("bearer {}", String::from_utf8_lossy(token.text())),
            Some(Credential::Basic(text)) => format!("basic {}", String::from_utf8_lossy(text)),
            Some(Credential::Malformed(scheme)) => format!("malformed {}", scheme.as_str()),
            Some(Credential::Cookie { .. } | Credential::ApiKey { .. } | Credential::Certificate(_)) => {
                panic!("of no Authorization")
            }
        }
    }

    const BOTH: &[Scheme] = &[Scheme::Bearer, Scheme::Basic];

    #[test]
    fn one_form_is_judged() {
        for (value, expected) in [
            ("bEARER  abc ", "bearer abc"),
            ("Bearer", "bearer "),
            ("Bearer a, Basic b", "bearer a, Basic b"),
            ("Basic YQ==", "basic YQ=="),
            ("Basic \tYQ==", "basic YQ=="),
        ] {
            assert_eq!(shown(value.as_bytes(), BOTH), expected, "{value}");
        }
    }

    #[test]
    fn what_others_might_read_is_malformed() {
        for value in [
            &b"Basic\tYQ=="[..],
            b"Basic\xa0YQ==",
            b"\xa0Basic YQ==",
            b"\xe2\x80\x83Basic\xe2\x80\x83YQ==",
            b"\x85basic YQ==",
            b"Basic:YQ==",
            b"Basic,YQ==",
            b"BASIC,",
            b", basic YQ==",
            b": basic",
            b"Digest x, Basic YQ==",
            b"Digest x,basic\tYQ==",
            b"BasicYQ==",
            b"X/Basic YQ==",
            b"Digest a=\"x Basic YQ==\"",
            b"(basic YQ==)",
        ] {
            assert_eq!(shown(value, BOTH), "malformed basic", "{value:?}");
            assert_eq!(shown(value, &[Scheme::Basic]), "malformed basic", "{value:?}");
            assert_eq!(shown(value, &[Scheme::Bearer]), "none", "{value:?}");
        }
        assert_eq!(shown(b"Bearer\tt", BOTH), "malformed bearer");
        assert_eq!(shown(b"Basic YQ==, Bearer t", &[Scheme::Bearer]), "malformed bearer");
    }

    #[test]
    fn other_schemes_say_nothing() {
        for value in ["", "Digest x", "Token abc", "Negotiate YmFzaWM=", "Bear er", "Bas"] {
            assert_eq!(shown(value.as_bytes(), BOTH), "none", "{value}");
        }
        assert_eq!(shown(b"Bearer t", &[]), "none");
    }
}
