//! Every kind of credential and every pair of kinds, from outside, over HTTP/1.1 and HTTP/2.
//!
//! One gateway has a route for each kind and for each pair of kinds. Against each route every combination of no, a
//! valid and an invalid credential of every kind in question is sent, and what must come of it is said by one small
//! function that knows nothing of how the gateway decides.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use rustls::version::TLS13;

use crate::harness::http::Client;
use crate::harness::http2::Http2;
use crate::harness::idp::{self, IdentityProvider};
use crate::harness::tls::{Authority, Certificate, TlsStream, client_config_as, connect};
use crate::harness::{Fake, Gateway};

/// A kind of credential, and where it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Jwt,
    Cookie,
    Opaque,
    Header,
    Query,
    Basic,
    Certificate,
}

use Kind::{Basic, Certificate as ByCertificate, Cookie, Header, Jwt, Opaque, Query};

const KINDS: [Kind; 7] = [Jwt, Cookie, Opaque, Header, Query, Basic, ByCertificate];

impl Kind {
    /// The name of its auth.
    fn auth(self) -> &'static str {
        match self {
            Jwt => "staff",
            Cookie => "session",
            Opaque => "opaque",
            Header => "partners",
            Query => "links",
            Basic => "ops",
            ByCertificate => "machines",
        }
    }

    /// What the backend is told of who shows a valid one.
    fn method_and_subject(self) -> (&'static str, &'static str) {
        match self {
            Jwt => ("jwt", "alice"),
            Cookie => ("jwt", "carol"),
            Opaque => ("introspection", "olga"),
            Header => ("api_key", "acme"),
            Query => ("api_key", "shared-link"),
            Basic => ("basic", "bob"),
            ByCertificate => ("client_certificate", "DNS:batch.internal"),
        }
    }

    fn challenge(self) -> &'static str {
        match self {
            Jwt | Cookie | Opaque => "Bearer",
            Header | Query => "ApiKey",
            Basic => "Basic",
            ByCertificate => "ClientCertificate",
        }
    }

    fn is_bearer(self) -> bool {
        matches!(self, Jwt | Opaque)
    }

    fn is_token(self) -> bool {
        matches!(self, Jwt | Opaque | Cookie)
    }
}

/// What a request shows of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Valid,
    Invalid,
}

use Shown::{Invalid, Valid};

/// Texts of credentials, valid and invalid ones.
struct Credentials {
    tokens: [(Kind, String, String); 3],
}

const GOOD_KEY: &str = "good-key-of-acme";
const GOOD_LINK: &str = "good-key-of-a-link";
const GOOD_PASSWORD: &str = "bob:good-password";
const BAD: [&str; 3] = ["bad-key-of-acme", "bad-key-of-a-link", "bob:bad-password"];

impl Credentials {
    fn of(provider: &IdentityProvider) -> Credentials {
        let jwt = |user: &str| {
            let token = provider.token(user, "orders:read", "alg=ES256");
            let for_others = provider.token(user, "orders:read", "alg=ES256&audience=others");
            (token, for_others)
        };
        let (alice, carol) = (jwt("alice"), jwt("carol"));
        let opaque = provider.token("olga", "orders:read", "");
        let revoked = provider.token("olga", "orders:read", "");
        provider.revoke(&revoked);
        Credentials { tokens: [(Jwt, alice.0, alice.1), (Cookie, carol.0, carol.1), (Opaque, opaque, revoked)] }
    }

    fn text(&self, kind: Kind, shown: Shown) -> &str {
        fn pick<'a>(shown: Shown, valid: &'a str, invalid: &'a str) -> &'a str {
            if shown == Valid { valid } else { invalid }
        }
        match kind {
            Jwt | Cookie | Opaque => {
                let (_, valid, invalid) = self.tokens.iter().find(|(found, ..)| *found == kind).unwrap();
                pick(shown, valid, invalid)
            }
            Header => pick(shown, GOOD_KEY, BAD[0]),
            Query => pick(shown, GOOD_LINK, BAD[1]),
            Basic => pick(shown, GOOD_PASSWORD, BAD[2]),
            ByCertificate => "",
        }
    }

    /// The target and the fields that show all of these.
    fn request(&self, path: &str, all: &[(Kind, Shown)]) -> (String, Vec<(&'static str, String)>) {
        let (mut target, mut fields) = (format!("{path}?page=1"), Vec::new());
        for &(kind, shown) in all {
            let text = self.text(kind, shown);
            match kind {
                Jwt | Opaque => fields.push(("authorization", format!("Bearer {text}"))),
                Cookie => fields.push(("cookie", format!("theme=dark; session={text}"))),
                Header => fields.push(("x-api-key", text.to_owned())),
                Query => target.push_str(&format!("&key={text}&size=2")),
                Basic => fields.push(("authorization", format!("Basic {}", STANDARD.encode(text)))),
                // It is the connection that shows it.
                ByCertificate => {}
            }
        }
        (target, fields)
    }

    /// Whether what a backend was sent holds this credential.
    fn is_in(&self, kind: Kind, sent: &str) -> bool {
        match kind {
            Jwt | Cookie | Opaque | Header | Query => sent.contains(self.text(kind, Valid)),
            Basic => sent.contains(&STANDARD.encode(GOOD_PASSWORD)),
            ByCertificate => false,
        }
    }
}

/// What must come of a request.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Known(Kind),
    Unauthenticated,
    Invalid,
    Ambiguous,
}

/// The rules: a route takes one credential of the kinds that it lists, a certificate counts where nothing else is
/// shown, and what is not valid is not made up for by anything. `Authorization` is no list: where it is looked at,
/// there is one.
fn outcome(listed: &[Kind], shown: &[(Kind, Shown)]) -> Outcome {
    let in_authorization = |kind: &Kind| matches!(kind, Jwt | Opaque | Basic);
    let authorizations = shown.iter().filter(|(kind, _)| in_authorization(kind)).count();
    if authorizations > 1 && listed.iter().any(in_authorization) {
        return Outcome::Ambiguous;
    }
    let taken = |kind: Kind| listed.contains(&kind) || (kind.is_bearer() && listed.iter().any(|kind| kind.is_bearer()));
    let counting = shown.iter().filter(|(kind, _)| taken(*kind));
    let (certificates, others): (Vec<_>, Vec<_>) = counting.partition(|(kind, _)| *kind == ByCertificate);
    match (&others[..], &certificates[..]) {
        ([], []) => Outcome::Unauthenticated,
        ([one], _) | ([], [one, ..]) => match one {
            (kind, Valid) if listed.contains(kind) => Outcome::Known(*kind),
            // A token of the other sort than is taken here, or one that nobody accepts.
            (_, Valid | Invalid) => Outcome::Invalid,
        },
        ([_, _, ..], _) => Outcome::Ambiguous,
    }
}

/// Connections of all sorts to one gateway: over each version of HTTP, with no, a valid and an unfit certificate.
struct Clients {
    http1: [Client<TlsStream>; 3],
    http2: [Http2; 3],
}

struct Answer {
    status: u16,
    challenges: Vec<String>,
    body: String,
}

impl Clients {
    fn connect(gateway: &Gateway, site: &Certificate, authority: &Authority) -> Clients {
        let valid = authority.client("batch", &["batch.internal"]);
        // The auth goes by alternative names, and there is none.
        let unfit = authority.client("batch", &[]);
        let port = gateway.port("https");
        let config = |own, alpn| client_config_as(own, &[site], &[alpn], &[&TLS13]);
        let all = [None, Some(&valid), Some(&unfit)];
        Clients {
            http1: all.map(|own| connect(port, "localhost", &config(own, "http/1.1")).unwrap()),
            http2: all.map(|own| Http2::connect(port, "localhost", &config(own, "h2"))),
        }
    }

    /// The same request over HTTP/1.1 and HTTP/2.
    fn ask(&mut self, target: &str, fields: &[(&str, String)], certificate: Option<Shown>) -> [Answer; 2] {
        let index = match certificate {
            None => 0,
            Some(Valid) => 1,
            Some(Invalid) => 2,
        };
        let borrowed: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let first = self.http1[index].ask("GET", target, &borrowed);
        let mut request = Request::get(format!("https://localhost{target}"));
        for (name, value) in borrowed {
            request = request.header(name, value);
        }
        let second = self.http2[index].ask(request.body(()).unwrap(), b"").unwrap();
        let challenges = second.head.headers.get_all("www-authenticate").iter();
        [
            Answer {
                status: first.status,
                challenges: first.headers_named("www-authenticate").into_iter().map(str::to_owned).collect(),
                body: first.text(),
            },
            Answer {
                status: second.status(),
                challenges: challenges.map(|value| value.to_str().unwrap().to_owned()).collect(),
                body: String::from_utf8(second.body).unwrap(),
            },
        ]
    }
}

fn config(provider: &IdentityProvider, backend: &Fake, routes: &[Vec<Kind>]) -> String {
    let (issuer, introspection, url) = (provider.issuer(), provider.introspection_url(), backend.url());
    let hash = |key: &str| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let (acme, link) = (hash(GOOD_KEY), hash(GOOD_LINK));
    let mut config = format!(
        r#"
[listener.https]
address = "127.0.0.1:@https@"

[listener.https.tls]
certificates = [{{ chain = "site.pem", key = "site.key" }}]
client_ca = "clients.pem"

[upstream.app]
servers = ["{url}"]

[auth.staff]
kind = "jwt"
issuer = "{issuer}"
audience = ["orders"]

[auth.session]
kind = "jwt"
issuer = "{issuer}"
audience = ["orders"]
token_from = "cookie:session"

[auth.opaque]
kind = "introspection"
url = "{introspection}"
client_id = "gateway"
client_secret = "{secret}"

[auth.partners]
kind = "api_key"
header = "X-API-Key"
keys = [{{ name = "acme", hash = "sha256:{acme}" }}]

[auth.links]
kind = "api_key"
query = "key"
keys = [{{ name = "shared-link", hash = "sha256:{link}" }}]

[auth.ops]
kind = "basic"
htpasswd = "ops.htpasswd"

[auth.machines]
kind = "client_certificate"
subject = "san"
"#,
        secret = idp::SECRET
    );
    for listed in routes {
        let auths: Vec<&str> = listed.iter().map(|kind| kind.auth()).collect();
        config.push_str(&format!(
            "\n[route.{}]\npath = \"{}\"\nupstream = \"app\"\nauth = {auths:?}\n",
            auths.join("_"),
            path(listed)
        ));
    }
    config
}

fn path(listed: &[Kind]) -> String {
    let auths: Vec<&str> = listed.iter().map(|kind| kind.auth()).collect();
    format!("/{}", auths.join("/and/"))
}

/// Each kind alone, and each pair.
fn routes() -> Vec<Vec<Kind>> {
    let mut routes: Vec<Vec<Kind>> = KINDS.iter().map(|&kind| vec![kind]).collect();
    for (index, &one) in KINDS.iter().enumerate() {
        routes.extend(KINDS[index + 1..].iter().map(|&other| vec![one, other]));
    }
    routes
}

/// Every way to show no, a valid or an invalid credential of each of two kinds.
fn ways(one: Kind, other: Kind) -> Vec<Vec<(Kind, Shown)>> {
    let states = [None, Some(Valid), Some(Invalid)];
    let each = states.iter().flat_map(|first| states.iter().map(move |second| (*first, *second)));
    each.map(|(first, second)| {
        first.map(|shown| (one, shown)).into_iter().chain(second.map(|shown| (other, shown))).collect()
    })
    .collect()
}

fn check(credentials: &Credentials, listed: &[Kind], shown: &[(Kind, Shown)], answer: &Answer) {
    let expected = outcome(listed, shown);
    let case = || format!("{listed:?} shown {shown:?} must be {expected:?}: {} {:?}", answer.status, answer.body);
    let cause = |cause: &str| answer.body.contains(&format!("\"cause\":\"{cause}\""));
    let mut challenges: Vec<&str> = listed.iter().map(|kind| kind.challenge()).collect();
    challenges.sort_unstable();
    challenges.dedup();
    let is_bearer = |challenge: &&String| challenge.starts_with("Bearer ");
    let bearer = answer.challenges.iter().find(is_bearer).map(String::as_str).unwrap_or_default();
    match &expected {
        Outcome::Known(kind) => {
            assert_eq!(answer.status, 200, "{}", case());
            let (method, subject) = kind.method_and_subject();
            let sent = answer.body.to_lowercase();
            assert!(sent.contains(&format!("\r\nx-auth-method: {method}\r\n")), "{}", case());
            assert!(sent.contains(&format!("\r\nx-auth-subject: {}\r\n", subject.to_lowercase())), "{}", case());
            assert_eq!(credentials.is_in(*kind, &answer.body), kind.is_bearer(), "{}", case());
            assert!(answer.body.contains("?page=1"), "{}", case());
        }
        Outcome::Unauthenticated => {
            assert!(answer.status == 401 && cause("unauthenticated"), "{}", case());
            assert!(!bearer.contains("error"), "{} {bearer}", case());
        }
        Outcome::Invalid => {
            assert!(answer.status == 401 && cause("invalid_credentials"), "{}", case());
            let by_token = shown.iter().any(|(kind, _)| kind.is_token() && *kind != ByCertificate);
            let told = bearer.contains("error=\"invalid_token\"");
            assert_eq!(told, !bearer.is_empty() && by_token, "{} {bearer}", case());
        }
        Outcome::Ambiguous => {
            assert!(answer.status == 400 && cause("ambiguous_credentials"), "{}", case());
            assert!(bearer.is_empty() || bearer.contains("error=\"invalid_request\""), "{} {bearer}", case());
        }
    }
    if answer.status == 401 {
        let mut told: Vec<&str> = answer.challenges.iter().filter_map(|value| value.split(' ').next()).collect();
        told.sort_unstable();
        told.dedup();
        assert_eq!(told, challenges, "{}", case());
    }
}

#[test]
fn every_kind_and_every_pair_of_kinds() {
    let provider = IdentityProvider::start();
    let credentials = Credentials::of(&provider);
    let (backend, routes) = (Fake::echo(), routes());
    let (site, authority) = (Certificate::new(&["localhost"]), Authority::new("partners"));
    let password = bcrypt::hash(GOOD_PASSWORD.split_once(':').unwrap().1, 4).unwrap();
    let gateway = Gateway::start_with(&config(&provider, &backend, &routes), |directory, _| {
        site.write(directory, "site");
        std::fs::write(directory.join("clients.pem"), &authority.pem).unwrap();
        std::fs::write(directory.join("ops.htpasswd"), format!("bob:{password}\n")).unwrap();
    });
    let mut clients = Clients::connect(&gateway, &site, &authority);
    let mut ask = |listed: &[Kind], shown: &[(Kind, Shown)]| {
        let (target, fields) = credentials.request(&path(listed), shown);
        let certificate = shown.iter().find(|(kind, _)| *kind == ByCertificate).map(|(_, shown)| *shown);
        for answer in clients.ask(&target, &fields, certificate) {
            check(&credentials, listed, shown, &answer);
        }
    };
    // Where JWTs are taken, what looks like one is not asked about.
    for shown in [Valid, Invalid] {
        ask(&[Jwt, Opaque], &[(Jwt, shown)]);
    }
    assert_eq!(provider.asked("/token/introspection"), 0);
    for listed in &routes {
        // A kind alone beside every other, which the route does not list; a pair among itself.
        let others = KINDS.into_iter().filter(|kind| *kind != listed[0]);
        for other in others.filter(|other| listed.len() == 1 || listed[1] == *other) {
            ways(listed[0], other).iter().for_each(|shown| ask(listed, shown));
        }
    }
}
