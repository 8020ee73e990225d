//! What a request shows to prove who sends it: found, not yet judged.
//!
//! Only what a route takes counts. Two of these in one request are refused: which of them was meant is nothing to
//! guess. A client certificate belongs to the connection, so it decides only when nothing else is shown.

use std::borrow::{Borrow, Cow};

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE};

use super::auth::Auth;
use super::authorization::{self, Scheme};
use super::digest::Digested;
use crate::config::settings::ApiKeyPlace;
use crate::headers::Headers;
use crate::request::peer::ClientCertificate;

/// A credential of a request (`'r`), found where a route (`'p`) looks.
pub enum Credential<'p, 'r> {
    /// `Authorization: Bearer`, RFC 6750 section 2.1
    Bearer(Digested<'r>),
    /// A token in the cookie of this name.
    Cookie {
        name: &'p str,
        token: Digested<'r>,
    },
    /// An API key where one is looked for.
    ApiKey {
        place: &'p ApiKeyPlace,
        key: &'r [u8],
    },
    /// `Authorization: Basic`, RFC 7617; still in base64
    Basic(&'r [u8]),
    /// `Authorization` as somebody else might read it, of a scheme that is taken here: never valid.
    Malformed(Scheme),
    Certificate(&'r ClientCertificate),
}

/// Where an auth looks.
pub enum Place<'a> {
    Authorization(Scheme),
    /// The cookie of this name.
    Cookie(&'a str),
    Key(&'a ApiKeyPlace),
    /// The certificate that the connection began with.
    Connection,
}

/// Where the auths of one route look.
#[derive(Default)]
pub struct Places {
    /// Of `Authorization`, each once.
    schemes: Vec<Scheme>,
    certificate: bool,
    cookies: Vec<String>,
    keys: Vec<ApiKeyPlace>,
}

/// There is more than one credential, or one is there twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ambiguous;

impl Places {
    pub fn of<'a>(auths: impl Iterator<Item = &'a Auth>) -> Places {
        let mut places = Places::default();
        for auth in auths {
            match auth.kind.place() {
                Place::Authorization(scheme) => add(&mut places.schemes, &scheme),
                Place::Cookie(name) => add(&mut places.cookies, name),
                Place::Key(place) => add(&mut places.keys, place),
                Place::Connection => places.certificate = true,
            }
        }
        places
    }

    /// The parameters of a query that hold credentials.
    pub fn query_keys(&self) -> impl Iterator<Item = &str> + Clone {
        self.keys.iter().filter_map(|place| match place {
            ApiKeyPlace::Query(name) => Some(name.as_str()),
            ApiKeyPlace::Header(_) => None,
        })
    }

    /// The one credential that a request shows.
    ///
    /// # Errors
    /// It shows more than one.
    pub fn find<'p, 'r>(
        &'p self,
        headers: &'r Headers,
        query: Option<&'r [u8]>,
        certificate: Option<&'r ClientCertificate>,
    ) -> Result<Option<Credential<'p, 'r>>, Ambiguous> {
        let mut found = None;
        if !self.schemes.is_empty() {
            let mut values = headers.get_all(AUTHORIZATION);
            found = values.next().and_then(|value| authorization::read(value.as_bytes(), &self.schemes));
            // The field is no list: of two a server might take the other one, whatever its scheme.
            if values.next().is_some() {
                return Err(Ambiguous);
            }
        }
        for name in &self.cookies {
            for token in cookies(headers, name) {
                one(&mut found, Credential::Cookie { name, token: Digested::new(token) })?;
            }
        }
        for place in &self.keys {
            match place {
                ApiKeyPlace::Header(name) => {
                    for value in headers.get_all(name) {
                        one(&mut found, Credential::ApiKey { place, key: value.as_bytes() })?;
                    }
                }
                ApiKeyPlace::Query(name) => {
                    for key in parameters(query.unwrap_or_default(), name) {
                        one(&mut found, Credential::ApiKey { place, key })?;
                    }
                }
            }
        }
        if found.is_none() && self.certificate {
            found = certificate.map(Credential::Certificate);
        }
        Ok(found)
    }
}

/// Once.
fn add<T: Borrow<B>, B: ToOwned<Owned = T> + PartialEq + ?Sized>(places: &mut Vec<T>, place: &B) {
    if !places.iter().any(|there| there.borrow() == place) {
        places.push(place.to_owned());
    }
}

fn one<'p, 'r>(found: &mut Option<Credential<'p, 'r>>, credential: Credential<'p, 'r>) -> Result<(), Ambiguous> {
    match found.replace(credential) {
        None => Ok(()),
        Some(_) => Err(Ambiguous),
    }
}

/// Every cookie of this name (RFC 6265 section 4.2.1).
pub fn cookies<'r>(headers: &'r Headers, name: &str) -> impl Iterator<Item = &'r [u8]> {
    let pairs = headers.get_all(COOKIE).flat_map(|value| value.as_bytes().split(|&byte| byte == b';'));
    pairs.filter_map(move |pair| {
        let (key, value) = pair.split_at_checked(memchr::memchr(b'=', pair)?)?;
        (crumb_name(key) == name.as_bytes()).then(|| value.get(1..).unwrap_or_default().trim_ascii())
    })
}

/// The name of a cookie without what surrounds it. Frameworks strip blanks there, of Unicode too: `name =x` is to them
/// another value of `name`, so it is one here.
fn crumb_name(key: &[u8]) -> &[u8] {
    let begin = key.iter().position(u8::is_ascii_graphic).unwrap_or(key.len());
    let end = key.iter().rposition(u8::is_ascii_graphic).map_or(begin, |last| last.saturating_add(1));
    key.get(begin..end).unwrap_or_default()
}

/// Every value of a query's parameter, still encoded.
pub fn parameters<'r>(query: &'r [u8], name: &str) -> impl Iterator<Item = &'r [u8]> {
    query.split(|&byte| byte == b'&').filter_map(move |pair| named(pair, name))
}

/// The value of `name=value` where the name, once decoded, is this one.
fn named<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (key, value) = match memchr::memchr(b'=', pair) {
        Some(at) => (pair.get(..at)?, pair.get(at.saturating_add(1)..)?),
        None => (pair, &[][..]),
    };
    (*decoded(key) == *name.as_bytes()).then_some(value)
}

/// A name or a value of a query as it was meant. Most are written as they are.
pub fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'%', b'+', text).is_none() {
        return Cow::Borrowed(text);
    }
    let plus_is_blank: Vec<u8> = text.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
    Cow::Owned(percent_encoding::percent_decode(&plus_is_blank).collect())
}

/// What is taken out of a request before it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withheld<'p> {
    Nothing,
    Authorization,
    Header(&'p HeaderName),
    Cookie(&'p str),
}

impl<'p> Withheld<'p> {
    /// The cookie that is taken out.
    pub fn cookie(self) -> Option<&'p str> {
        match self {
            Withheld::Cookie(cookie) => Some(cookie),
            Withheld::Nothing | Withheld::Authorization | Withheld::Header(_) => None,
        }
    }
}

impl<'p, 'r> Credential<'p, 'r> {
    pub fn bearer(&self) -> Option<&Digested<'r>> {
        if let Credential::Bearer(token) = self { Some(token) } else { None }
    }

    /// The token in the cookie of this name.
    pub fn cookie(&self, wanted: &str) -> Option<&Digested<'r>> {
        if let Credential::Cookie { name, token } = self { Some(token).filter(|_| *name == wanted) } else { None }
    }

    /// The key in this place.
    pub fn key(&self, wanted: &ApiKeyPlace) -> Option<&'r [u8]> {
        if let Credential::ApiKey { place, key } = self { Some(*key).filter(|_| *place == wanted) } else { None }
    }

    pub fn basic(&self) -> Option<&'r [u8]> {
        if let Credential::Basic(text) = self { Some(text) } else { None }
    }

    pub fn certificate(&self) -> Option<&'r ClientCertificate> {
        if let Credential::Certificate(certificate) = self { Some(certificate) } else { None }
    }

    /// What keeps it from the backend; `forward` is the route's `forward_credential`. A key in a query is never sent
    /// on as part of the target: see [`without_parameters`].
    pub fn withheld(&self, forward: Option<bool>) -> Withheld<'p> {
        // An app that looks at tokens sees what it saw before.
        if forward.unwrap_or(self.bearer().is_some()) {
            return Withheld::Nothing;
        }
        match self {
            Credential::Bearer(_) | Credential::Basic(_) | Credential::Malformed(_) => Withheld::Authorization,
            Credential::Cookie { name, .. } => Withheld::Cookie(name),
            Credential::ApiKey { place: ApiKeyPlace::Header(name), .. } => Withheld::Header(name),
            Credential::ApiKey { place: ApiKeyPlace::Query(_), .. } | Credential::Certificate(_) => Withheld::Nothing,
        }
    }
}

/// A query without the parameters of these names; `None` when none of them is in it. The rest stays as it was.
pub fn without_parameters<'n>(query: &[u8], names: impl Iterator<Item = &'n str> + Clone) -> Option<Vec<u8>> {
    // Of most routes: nothing of the query is looked at.
    names.clone().next()?;
    let holds = |pair: &[u8]| names.clone().any(|name| named(pair, name).is_some());
    if !query.split(|&byte| byte == b'&').any(holds) {
        return None;
    }
    let kept: Vec<&[u8]> = query.split(|&byte| byte == b'&').filter(|pair| !holds(pair)).collect();
    Some(kept.join(&b'&'))
}

/// A `Cookie` field's value without the cookie of this name; `None` when nothing is left.
pub fn without_cookie(value: &[u8], name: &str) -> Option<Vec<u8>> {
    let is_it = |pair: &[u8]| pair.split(|&byte| byte == b'=').next().map(crumb_name) == Some(name.as_bytes());
    let kept: Vec<&[u8]> = value
        .split(|&byte| byte == b';')
        .map(<[u8]>::trim_ascii)
        .filter(|pair| !pair.is_empty() && !is_it(pair))
        .collect();
    (!kept.is_empty()).then(|| kept.join(&b"; "[..]))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> Headers {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        };
        fields.iter().map(field).collect()
    }

    fn everywhere() -> Places {
        Places {
            schemes: vec![Scheme::Bearer, Scheme::Basic],
            certificate: true,
            cookies: vec!["session".into()],
            keys: vec![ApiKeyPlace::Header(HeaderName::from_static("x-api-key")), ApiKeyPlace::Query("api key".into())],
        }
    }

    #[test]
    fn one_credential_is_found_wherever_it_is() {
        let places = everywhere();
        let find = |fields: &[(&'static str, &'static str)], query: &'static str| {
            let headers = headers(fields);
            match places.find(&headers, Some(query.as_bytes()), None) {
                Ok(Some(Credential::Bearer(token))) => format!("bearer {}", String::from_utf8_lossy(token.text())),
                Ok(Some(Credential::Cookie { token, .. })) => {
                    format!("cookie {}", String::from_utf8_lossy(token.text()))
                }
                Ok(Some(Credential::ApiKey { key, .. })) => format!("key {}", String::from_utf8_lossy(key)),
                Ok(Some(Credential::Basic(text))) => format!("basic {}", String::from_utf8_lossy(text)),
                Ok(Some(Credential::Malformed(_))) => "malformed".to_owned(),
                Ok(Some(Credential::Certificate(_))) => "certificate".to_owned(),
                Ok(None) => "none".to_owned(),
                Err(Ambiguous) => "ambiguous".to_owned(),
            }
        };
        assert_eq!(find(&[], "a=b"), "none");
        assert_eq!(find(&[("authorization", "bEARER  abc")], ""), "bearer abc");
        assert_eq!(find(&[("authorization", "Bearer")], ""), "bearer ");
        assert_eq!(find(&[("authorization", "Bearerabc")], ""), "malformed");
        assert_eq!(find(&[("authorization", "Basic YQ==")], ""), "basic YQ==");
        assert_eq!(find(&[("authorization", "Digest x")], ""), "none");
        assert_eq!(find(&[("authorization", "Basic\tYQ==")], ""), "malformed");
        assert_eq!(find(&[("authorization", "Basic\tYQ=="), ("x-api-key", "k")], ""), "ambiguous");
        assert_eq!(find(&[("cookie", "a=b; session=t.o.k")], ""), "cookie t.o.k");
        assert_eq!(find(&[("x-api-key", "k")], ""), "key k");
        for query in ["api+key=k", "api%20key=k&b=c", "x=y&%61pi%20key=k"] {
            assert_eq!(find(&[], query), "key k", "{query}");
        }
        assert_eq!(find(&[("x-api-key", "k"), ("authorization", "Bearer t")], ""), "ambiguous");
        assert_eq!(find(&[("x-api-key", "k"), ("x-api-key", "k")], ""), "ambiguous");
        assert_eq!(find(&[("authorization", "Bearer t"), ("authorization", "Bearer t")], ""), "ambiguous");
        assert_eq!(find(&[("authorization", "Digest x"), ("authorization", "Bearer t")], ""), "ambiguous");
        assert_eq!(find(&[("cookie", "session=a; session=b")], ""), "ambiguous");
        assert_eq!(find(&[("cookie", "session=a"), ("cookie", "session=b")], ""), "ambiguous");
        assert_eq!(find(&[("cookie", "session=a; session =b")], ""), "ambiguous");
        assert_eq!(find(&[], "api+key=a&api%20key=a"), "ambiguous");
        assert_eq!(find(&[("authorization", "Basic YQ==")], "api+key=k"), "ambiguous");
    }

    #[test]
    fn keys_are_cut_out_of_a_query() {
        let cut = |query: &str| {
            without_parameters(query.as_bytes(), ["key"].into_iter()).map(|kept| String::from_utf8(kept).unwrap())
        };
        assert_eq!(cut("a=b&c"), None);
        assert_eq!(cut("key=1").as_deref(), Some(""));
        assert_eq!(cut("a=b&key=1&c=%20&k%65y=2").as_deref(), Some("a=b&c=%20"));
        assert_eq!(cut("akey=1&keys=2"), None);
    }

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let find = |value: &'static str| {
            let headers = headers(&[("cookie", value)]);
            cookies(&headers, "session").map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        assert_eq!(find("a=1; session=x=y; b=2"), [b"x=y"]);
        assert!(find("mysession=1").is_empty() && find("session").is_empty());
        // As Python strips both.
        assert_eq!(find("session =1;\tsession\t= 2 ; session\u{a0}=3; \u{2003}session=4"), [b"1", b"2", b"3", b"4"]);
        assert!(find("session x=1; =1; \u{a0}=1; sessio\u{e9}=1").is_empty());
    }

    #[test]
    fn a_cookie_is_cut_out_of_its_field() {
        let cut = |value: &str| without_cookie(value.as_bytes(), "s").map(|kept| String::from_utf8(kept).unwrap());
        assert_eq!(cut("a=1; s=2;b=3").as_deref(), Some("a=1; b=3"));
        assert_eq!(cut("s=2"), None);
        assert_eq!(cut("ss=2").as_deref(), Some("ss=2"));
        assert_eq!(cut("a=1; s =2; s\u{a0}=3; s").as_deref(), Some("a=1"));
    }
}
