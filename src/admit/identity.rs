//! Who a caller is, once that has been proved.

use std::fmt;
use std::sync::Arc;

use crate::config::settings::IdentityHeaders;
use crate::fields::Fields;

/// How a caller was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Jwt,
    Introspection,
    ApiKey,
    ClientCertificate,
    Basic,
}

impl Method {
    /// As the configuration calls the kind.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Jwt => "jwt",
            Method::Introspection => "introspection",
            Method::ApiKey => "api_key",
            Method::ClientCertificate => "client_certificate",
            Method::Basic => "basic",
        }
    }
}

/// A caller who is known. Made once for a credential and shared by all requests that show it.
#[derive(PartialEq, Eq)]
pub struct Identity {
    auth: Arc<str>,
    method: Method,
    roles: Box<[Box<str>]>,
    scopes: Box<[Box<str>]>,
    /// The subject behind its auth's name and a colon.
    qualified: Box<str>,
    /// What a backend is told, encoded.
    told: Told,
}

#[derive(PartialEq, Eq)]
struct Told {
    subject: Box<[u8]>,
    roles: Box<[u8]>,
    scopes: Box<[u8]>,
}

impl Identity {
    /// `auth` is the name of the `[auth.NAME]` that proved it.
    pub fn new(
        auth: &Arc<str>,
        method: Method,
        subject: &str,
        roles: impl IntoIterator<Item = String>,
        scopes: impl IntoIterator<Item = String>,
    ) -> Identity {
        let roles = distinct(roles);
        let scopes = distinct(scopes);
        let told = Told { subject: encoded(subject), roles: joined(&roles, b','), scopes: joined(&scopes, b' ') };
        Identity {
            auth: Arc::clone(auth),
            method,
            roles,
            scopes,
            qualified: format!("{auth}:{subject}").into_boxed_str(),
            told,
        }
    }

    /// The name of the `[auth.NAME]` that proved it.
    pub fn auth(&self) -> &Arc<str> {
        &self.auth
    }

    pub fn method(&self) -> Method {
        self.method
    }

    /// As the issuer has it; two auths may know different callers by the same one.
    pub fn subject(&self) -> &str {
        self.qualified.get(self.auth.len().saturating_add(1)..).unwrap_or_default()
    }

    /// `AUTH:SUBJECT`: distinct callers have distinct ones, since the name of an auth holds no colon.
    pub fn qualified(&self) -> &str {
        &self.qualified
    }

    /// Each once, in order.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.roles.iter().map(|role| &**role)
    }

    /// Likewise.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.scopes.iter().map(|scope| &**scope)
    }

    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|has| **has == *role)
    }

    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|has| **has == *scope)
    }

    /// Bytes that it holds, for whoever bounds how many of them are kept.
    pub fn size(&self) -> usize {
        let lists = self.roles.iter().chain(&self.scopes).map(|text| text.len().saturating_add(16));
        let told = self.told.subject.len() + self.told.roles.len() + self.told.scopes.len();
        size_of::<Identity>() + lists.sum::<usize>() + self.qualified.len() + told
    }

    /// Writes the fields that tell a backend who is calling. Each value is one line of visible ASCII: whatever a
    /// claim holds, it makes neither a second role nor a second field. `urllib.parse.unquote` gives it back.
    pub fn write(&self, names: &IdentityHeaders, out: &mut impl Fields) {
        out.put(&names.subject, &[&self.told.subject]);
        out.put(&names.roles, &[&self.told.roles]);
        out.put(&names.scopes, &[&self.told.scopes]);
        out.put(&names.method, &[self.method.as_str().as_bytes()]);
    }

    /// The subject in that form.
    pub fn told_subject(&self) -> &[u8] {
        &self.told.subject
    }
}

/// The subject may be a person's name: whoever prints this has not thought of that.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("auth", &self.auth).field("method", &self.method).finish_non_exhaustive()
    }
}

fn distinct(names: impl IntoIterator<Item = String>) -> Box<[Box<str>]> {
    let mut names: Vec<Box<str>> = names.into_iter().filter(|name| !name.is_empty()).map(String::into).collect();
    names.sort_unstable();
    names.dedup();
    names.into_boxed_slice()
}

fn joined(names: &[Box<str>], separator: u8) -> Box<[u8]> {
    let encoded: Vec<Box<[u8]>> = names.iter().map(|name| encoded(name)).collect();
    encoded.join(&separator).into_boxed_slice()
}

/// Percent-encodes all but visible ASCII, and of that the percent sign, what separates lists, and quotes.
fn encoded(text: &str) -> Box<[u8]> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or(b'0');
    let mut out = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b'%' | b',' | b';' | b'"' | b'\\') {
            out.push(byte);
        } else {
            out.extend([b'%', digit(byte >> 4), digit(byte & 0xf)]);
        }
    }
    out.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::http1::encode::Lines;

    fn identity(subject: &str, roles: &[&str], scopes: &[&str]) -> Identity {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        Identity::new(&Arc::from("staff"), Method::Jwt, subject, owned(roles), owned(scopes))
    }

    fn written(identity: &Identity) -> String {
        let mut out = BytesMut::new();
        identity.write(&IdentityHeaders::default(), &mut Lines(&mut out));
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn a_backend_is_told() {
        let text = written(&identity("auth0|alice@example.com", &["reader", "clerk", "reader"], &["b", "a:x"]));
        assert_eq!(
            text,
            "x-auth-subject: auth0|alice@example.com\r\nx-auth-roles: clerk,reader\r\n\
             x-auth-scopes: a:x b\r\nx-auth-method: jwt\r\n"
        );
    }

    #[test]
    fn no_claim_makes_a_second_role_or_a_field() {
        let text = written(&identity("a\r\nX-Admin: 1", &["reader,admin", "ümlaut", ""], &["one two"]));
        assert_eq!(
            text,
            "x-auth-subject: a%0D%0AX-Admin:%201\r\nx-auth-roles: reader%2Cadmin,%C3%BCmlaut\r\n\
             x-auth-scopes: one%20two\r\nx-auth-method: jwt\r\n"
        );
    }

    #[test]
    fn subjects_are_qualified_by_their_auth() {
        let identity = identity("a:b", &[], &[]);
        assert_eq!((identity.subject(), identity.qualified()), ("a:b", "staff:a:b"));
    }
}
