//! API keys, client certificates, user names and passwords: each alone, and what becomes of two in one request, over
//! HTTP/1.1 and HTTP/2, in front of a service that says what it was told.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, SupportedProtocolVersion};
use serde_json::Value;

use crate::harness::http::{Client, Response};
use crate::harness::http2::Http2;
use crate::harness::tls::{Certificate, client_config, connect};
use crate::harness::{Fake, Gateway, Setup, backends, eventually};

/// A key, and its SHA-256.
pub(super) const KEY: &str = "psk_one";
const KEY_HASH: &str = "sha256:0a559a278c7391524bc3d2cb72fe4b085e23a1b8050210bba3cc0dd235226c01";

/// "alice" with the password "secret", hashed in the fastest way that there is.
const HTPASSWD: &str = "alice:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";

pub(super) const KEYS: &str = "[auth.partners]\nkind = \"api_key\"\nheader = \"X-API-Key\"\n";
const QUERY: &str = "[auth.links]\nkind = \"api_key\"\nquery = \"api key\"\n";
pub(super) const OPS: &str =
    "[auth.ops]\nkind = \"basic\"\nhtpasswd = \"ops.htpasswd\"\nroles = { alice = [\"clerk\"] }\n";
const MACHINES: &str = "[auth.machines]\nkind = \"client_certificate\"\n\
                        roles = { \"CN=batch\" = [\"clerk\"], \"dns:Batch.Internal\" = [\"batch\"] }\n";

/// One key, with a role and a scope.
pub(super) fn keys() -> String {
    format!("keys = [{{ name = \"acme\", hash = \"{KEY_HASH}\", roles = [\"clerk\"], scopes = [\"orders:read\"] }}]\n")
}

pub(super) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// The passwords that [`OPS`] names.
pub(super) fn write_ops(directory: &Path) {
    write(directory, "ops.htpasswd", HTPASSWD);
}

/// Whole, by renaming.
fn write(directory: &Path, name: &str, text: &str) {
    std::fs::write(directory.join("next"), text).unwrap();
    std::fs::rename(directory.join("next"), directory.join(name)).unwrap();
}

fn ask(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> Response {
    Client::connect(gateway.port("http")).ask("GET", path, headers)
}

/// What the service saw of a field.
fn told(seen: &Value, name: &str) -> Option<String> {
    let fields = seen["headers"].as_array().unwrap_or_else(|| panic!("{seen}")).iter();
    let mut values = fields.filter(|field| field[0] == name).map(|field| field[1].as_str().unwrap().to_owned());
    let value = values.next();
    assert_eq!(values.next(), None, "{name} comes twice: {seen}");
    value
}

/// Subject, roles, scopes, method.
fn caller(seen: &Value) -> [Option<String>; 4] {
    ["x-auth-subject", "x-auth-roles", "x-auth-scopes", "x-auth-method"].map(|name| told(seen, name))
}

fn is(subject: &str, roles: &str, scopes: &str, method: &str) -> [Option<String>; 4] {
    [subject, roles, scopes, method].map(|text| Some(text.to_owned()))
}

/// Issues certificates to clients.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, name: &str, alternatives: &[&str], serial: u64) -> Arc<SingleCertAndKey> {
        let alternatives: Vec<String> = alternatives.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(alternatives).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().unwrap();
        let certificate: CertificateDer<'static> = params.signed_by(&key, &self.0).unwrap().der().clone();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
        Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key)))
    }

    fn revoking(&self, serial: u64) -> String {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2124, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).unwrap().pem().unwrap()
    }
}

type Shown<'a> = Option<&'a Arc<SingleCertAndKey>>;

/// A gateway with TLS that asks for certificates, in front of the service that echoes.
struct Secure {
    gateway: Gateway,
    site: Certificate,
    authority: Authority,
}

impl Secure {
    fn start(url: String, route: &str, rest: &str) -> Secure {
        let (site, authority) = (Certificate::new(&["localhost"]), Authority::new());
        let setup = Setup::before([url]).route(route).rest(rest).rest(
            "[listener.https]\naddress = \"127.0.0.1:@https@\"\n[listener.https.tls]\nclient_ca = \"clients.pem\"\n\
             client_crl = \"clients.crl\"\ncertificates = [{ chain = \"site.pem\", key = \"site.key\" }]",
        );
        let gateway = Gateway::start_with(&setup.text(), |directory, _| {
            site.write(directory, "site");
            write(directory, "clients.pem", &authority.0.pem());
            write(directory, "clients.crl", &authority.revoking(666));
            write(directory, "ops.htpasswd", HTPASSWD);
        });
        Secure { gateway, site, authority }
    }

    fn config(&self, shown: Shown<'_>, alpn: &[&str], version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
        let config = client_config(&[&self.site], alpn, &[version]);
        let Some(shown) = shown else { return config };
        let mut config = ClientConfig::clone(&config);
        config.client_auth_cert_resolver = Arc::clone(shown) as Arc<dyn rustls::client::ResolvesClientCert>;
        Arc::new(config)
    }

    /// Status and body: the same in both protocols.
    fn ask(&self, shown: Shown<'_>, path: &str, headers: &[(&str, &str)]) -> (u16, Value) {
        let port = self.gateway.port("https");
        let mut client = connect(port, "localhost", &self.config(shown, &[], &TLS13)).unwrap();
        let one = client.ask("GET", path, headers);
        let mut request = Request::get(format!("https://localhost{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut client = Http2::connect(port, "localhost", &self.config(shown, &["h2"], &TLS13));
        let two = client.ask(request.body(()).unwrap(), b"").unwrap();
        let (first, second) = (one.json(), two.json());
        assert_eq!(one.status, two.status(), "{first} {second}");
        assert_eq!(first["cause"], second["cause"]);
        if one.status == 200 {
            assert_eq!(caller(&first), caller(&second));
        }
        (one.status, first)
    }
}

#[test]
fn a_new_key_is_pasted_and_opens_the_door() {
    let made = |arguments: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_passerelle")).args(["key", "new"]).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, out, explained) = made(&["--name", "acme & \"sons\"", "--role", "clerk", "--scope", "orders:read"]);
    assert_eq!(code, Some(0));
    let lines: Vec<&str> = out.lines().collect();
    let [key, entry] = lines[..] else { panic!("{out}") };
    assert!(key.starts_with("psk_") && key.len() == 47, "{key}");
    assert!(!entry.contains(key) && !explained.contains(key), "{entry}\n{explained}");
    let (_, other, _) = made(&["--name", "acme"]);
    assert_ne!(other.lines().next(), Some(key));
    for wrong in [&[][..], &["--name", ""], &["--name", "a\nb"], &["--name", "a", "--role", ""]] {
        assert_eq!(made(wrong).0, Some(2), "{wrong:?}");
    }

    let setup = Setup::before([backends::chat().url()]).route("auth = [\"partners\"]\nscopes = [\"orders:read\"]");
    let gateway = setup.rest(&format!("{KEYS}keys = [\n{entry}\n]\n")).start();
    let answer = ask(&gateway, "/echo", &[("X-API-Key", key)]);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(caller(&answer.json()), is("acme%20&%20%22sons%22", "clerk", "orders:read", "api_key"));
    assert_eq!(told(&answer.json(), "x-api-key"), None, "the key is not for the service");
    for (headers, cause) in [
        (&[][..], "unauthenticated"),
        (&[("X-API-Key", "")], "invalid_credentials"),
        (&[("X-API-Key", "psk_wrong")], "invalid_credentials"),
        (&[("Authorization", key)], "unauthenticated"),
    ] {
        let answer = ask(&gateway, "/echo", headers);
        assert_eq!((answer.status, answer.cause().as_str()), (401, cause), "{headers:?}");
        assert_eq!(answer.header("www-authenticate"), Some("ApiKey realm=\"partners\", header=\"x-api-key\""));
    }
    gateway.metric_reaches("passerelle_denied_total", &["route=\"all\"", "rule=\"auth\""], 4.0);
}

#[test]
fn keys_in_a_file_change_without_a_restart() {
    let fake = Fake::ok();
    let entry = |name: &str, hash: &str| format!("{{ name = \"{name}\", hash = \"{hash}\" }}");
    let config = Setup::before([fake.url()])
        .route("auth = [\"partners\"]\nforward_credential = true")
        .rest(&format!("{KEYS}keys_file = \"keys.toml\"\n"))
        .text();
    let gateway = Gateway::start_with(&config, |directory, _| write(directory, "keys.toml", "keys = []\n"));
    let status = || ask(&gateway, "/", &[("X-API-Key", KEY)]).status;
    assert_eq!(status(), 401);
    write(gateway.directory(), "keys.toml", &format!("keys = [{}]\n", entry("acme", KEY_HASH)));
    eventually("the new key is taken", || (status() == 200).then_some(()));
    assert!(fake.requests().iter().all(|request| request.header("x-api-key") == Some(KEY)), "it was to go on");

    // What cannot be read changes nothing, and is told without the key.
    write(gateway.directory(), "keys.toml", &format!("keys = [{}]\n", entry("acme", "psk_pasted")));
    let (ended, told) = gateway.reload();
    assert!(!ended.success() && told.contains("keys.toml` line 1: this is not the digest of a key"), "{told}");
    assert!(!told.contains("psk_pasted"), "{told}");
    assert_eq!(status(), 200);

    write(
        gateway.directory(),
        "keys.toml",
        &format!("keys = [{}]\n", entry("zeta", &format!("sha256:{}", "0".repeat(64)))),
    );
    eventually("the old key is no longer taken", || (status() == 401).then_some(()));
}

#[test]
fn a_key_in_the_query_is_seen_by_nobody_else() {
    let rest = format!(
        "{QUERY}{}[log]\nsubject = true\n[route.away]\npath = \"/away\"\nauth = [\"links\"]\nredirect = {{ to = \"/there\" }}\n\
         [route.open]\npath = \"/open\"\nauth = \"public\"\nupstream = \"app\"\n",
        keys()
    );
    let gateway = Setup::before([backends::chat().url()]).route("auth = [\"links\"]").rest(&rest).start();
    for (query, left) in
        [("api+key=psk_one", ""), ("a=1&api%20key=psk%5Fone&b=%20x", "a=1&b=%20x"), ("%61pi+key=psk_one&&c", "&c")]
    {
        let answer = ask(&gateway, &format!("/echo?{query}"), &[]);
        assert_eq!(answer.status, 200, "{answer:?}");
        let seen = answer.json();
        assert_eq!((seen["query"].as_str(), caller(&seen)[0].as_deref()), (Some(left), Some("acme")), "{query}");
        assert!(!seen.to_string().contains("psk"), "{seen}");
        let record = gateway.access_record(&answer);
        assert_eq!(record["subject"], "links:acme");
    }
    let answer = ask(&gateway, "/away?x=1&api+key=psk_one", &[]);
    assert_eq!((answer.status, answer.header("location")), (308, Some("/there?x=1")));
    for query in ["api+key=psk_one&api+key=psk_one", "api+key=psk_one&api%20key=x"] {
        let answer = ask(&gateway, &format!("/echo?{query}"), &[]);
        assert_eq!((answer.status, answer.cause().as_str()), (400, "ambiguous_credentials"));
    }
    assert_eq!(ask(&gateway, "/echo?api+key=psk_wrong", &[]).status, 401);
    let (_, log) = gateway.stop();
    assert!(!log.contains("psk"), "{log}");
}

#[test]
fn nobody_is_named_in_logs_that_were_not_asked_to() {
    let gateway = Setup::before([backends::chat().url()])
        .route("auth = [\"partners\"]\nroles = [\"clerk\"]")
        .rest(&format!("{KEYS}{}", keys()))
        .start();
    for key in [KEY, "psk_wrong"] {
        let answer = ask(&gateway, "/echo", &[("X-API-Key", key)]);
        assert_eq!(gateway.access_record(&answer).get("subject"), None);
    }
    let (_, log) = gateway.stop();
    assert!(!log.contains("acme") && !log.contains("psk"), "{log}");
}

#[test]
fn a_certificate_names_its_holder() {
    let secure =
        Secure::start(backends::chat().url(), "auth = [\"machines\"]\nroles = [\"clerk\", \"batch\"]", MACHINES);
    let issue = |name: &str, alternatives: &[&str]| secure.authority.issue(name, alternatives, 1);
    let batch = issue("batch", &[]);
    let (status, seen) = secure.ask(Some(&batch), "/echo", &[("X-Auth-Subject", "CN=root"), ("X_Auth_Roles", "admin")]);
    assert_eq!((status, caller(&seen)), (200, is("CN=batch", "clerk", "", "client_certificate")));
    assert_eq!(told(&seen, "x_auth_roles"), None);
    let (status, seen) = secure.ask(Some(&issue("Größe, GmbH", &["BATCH.internal"])), "/echo", &[]);
    let subject = "CN=Gr%C3%B6%C3%9Fe%5C%2C%20GmbH";
    assert_eq!((status, caller(&seen)), (200, is(subject, "batch", "", "client_certificate")));

    // Names that only look like those of somebody with a role.
    for name in ["x,CN=batch", "x+CN=batch", "batch ", "DNS:batch.internal", "CN=batch", "batch\\"] {
        let (status, refused) = secure.ask(Some(&issue(name, &[])), "/echo", &[]);
        assert_eq!((status, refused["cause"].as_str()), (403, Some("role_missing")), "{name}");
    }
    let (status, refused) = secure.ask(None, "/echo", &[]);
    assert_eq!((status, refused["cause"].as_str()), (401, Some("unauthenticated")));
}

#[test]
fn a_resumed_session_is_still_that_of_its_certificate() {
    let secure = Secure::start(backends::chat().url(), "auth = [\"machines\"]", MACHINES);
    let batch = secure.authority.issue("batch", &[], 1);
    for version in [&TLS12, &TLS13] {
        let config = secure.config(Some(&batch), &[], version);
        let kinds = [HandshakeKind::Full, HandshakeKind::Resumed].map(|_| {
            let mut client = connect(secure.gateway.port("https"), "localhost", &config).unwrap();
            // Several on one connection.
            for _ in 0..2 {
                let answer = client.ask("GET", "/echo", &[]);
                assert_eq!(answer.status, 200, "{answer:?}");
                assert_eq!(caller(&answer.json())[0].as_deref(), Some("CN=batch"));
            }
            client.stream.conn.handshake_kind()
        });
        assert_eq!(kinds, [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)], "{version:?}");
    }
}

#[test]
fn a_certificate_that_is_not_trusted_gets_no_further_than_the_handshake() {
    let fake = Fake::ok();
    let secure = Secure::start(fake.url(), "auth = [\"machines\"]", MACHINES);
    let revoked = secure.authority.issue("batch", &[], 666);
    let stranger = Authority::new().issue("batch", &[], 1);
    for shown in [&revoked, &stranger] {
        let config = secure.config(Some(shown), &[], &TLS13);
        // In TLS 1.3 a client learns of it only when it reads.
        let asked = connect(secure.gateway.port("https"), "localhost", &config).and_then(|mut client| {
            client.try_send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
            client.try_answer_to("GET")
        });
        assert!(asked.is_err(), "{asked:?}");
    }
    assert_eq!(fake.requests().len(), 0);
    secure.gateway.metric_reaches("passerelle_tls_handshake_failures_total", &["listener=\"https\""], 2.0);
}

#[test]
fn passwords_are_judged_by_their_file() {
    let route = "auth = [\"ops\"]\nroles = [\"clerk\"]";
    let secure = Secure::start(backends::chat().url(), route, &format!("{OPS}[log]\nsubject = true\n"));
    let gateway = &secure.gateway;
    // The second time it is remembered.
    for _ in 0..2 {
        let (status, seen) = secure.ask(None, "/echo", &[("Authorization", &basic("alice", "secret"))]);
        assert_eq!((status, caller(&seen)), (200, is("alice", "clerk", "", "basic")));
        assert_eq!(told(&seen, "authorization"), None, "the password is not for the service");
    }
    let answer = ask(gateway, "/echo", &[("Authorization", &basic("alice", "secret"))]);
    assert_eq!(gateway.access_record(&answer)["subject"], "ops:alice");
    for wrong in [basic("alice", "Secret"), basic("bob", "secret"), basic("", ""), "Basic".into(), "Basic ???".into()] {
        let (status, refused) = secure.ask(None, "/echo", &[("Authorization", &wrong)]);
        assert_eq!((status, refused["cause"].as_str()), (401, Some("invalid_credentials")), "{wrong}");
    }
    let answer = ask(gateway, "/echo", &[]);
    assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"ops\", charset=\"UTF-8\""));

    // What was remembered ends with the file that said so; and a user who has no role is known, and no more.
    write(gateway.directory(), "ops.htpasswd", &HTPASSWD.replace("alice", "bob"));
    let status = |user: &str| ask(gateway, "/echo", &[("Authorization", &basic(user, "secret"))]).status;
    eventually("alice is gone", || (status("alice") == 401).then_some(()));
    assert_eq!(status("bob"), 403);
    write(gateway.directory(), "ops.htpasswd", "bob:secret\n");
    let (ended, told) = gateway.reload();
    assert!(!ended.success() && told.contains("ops.htpasswd` line 1: this kind of hash is not taken"), "{told}");
    assert!(!told.contains("bob:") && status("bob") == 403);
}

/// One worker, whose every request would wait if it hashed a password itself.
#[test]
fn a_flood_of_wrong_passwords_delays_nobody_else() {
    const FLOOD: usize = 50;
    let fake = Fake::ok();
    let rest =
        format!("{OPS}[server]\nworkers = 1\n[route.open]\npath = \"/open\"\nauth = \"public\"\nupstream = \"app\"\n");
    let config = Setup::before([fake.url()]).route("auth = [\"ops\"]").rest(&rest).text();
    // Sixteen times as slow.
    let slow = HTPASSWD.replace("$04$", "$08$");
    let gateway = Gateway::start_with(&config, |directory, _| write(directory, "ops.htpasswd", &slow));
    let mut other = Client::connect(gateway.port("http"));
    assert_eq!(other.ask("GET", "/open", &[]).status, 200);

    let (answered, turned_away) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for number in 0..FLOOD {
            let (gateway, answered, turned_away) = (&gateway, &answered, &turned_away);
            scope.spawn(move || {
                let user = if number % 2 == 0 { "alice" } else { "nobody" };
                let answer = ask(gateway, "/", &[("Authorization", &basic(user, &format!("wrong{number}")))]);
                match (answer.status, answer.cause().as_str()) {
                    (401, "invalid_credentials") => {}
                    (503, "auth_unavailable") => drop(turned_away.fetch_add(1, Ordering::SeqCst)),
                    other => panic!("{other:?}"),
                }
                answered.fetch_add(1, Ordering::SeqCst);
            });
        }
        eventually("the line is full", || (turned_away.load(Ordering::SeqCst) > 0).then_some(()));
        for _ in 0..50 {
            assert_eq!(other.ask("GET", "/open", &[]).status, 200);
        }
        let still = FLOOD - answered.load(Ordering::SeqCst);
        assert!(still > 0, "all of the flood was judged before fifty requests were that have nothing to do with it");
    });
}

/// A route that takes every kind: each pair in one request, in both protocols.
#[test]
fn two_credentials_are_one_too_many_unless_one_is_a_certificate() {
    let rest = [KEYS, &keys(), QUERY, &keys().replace("acme", "link"), OPS, MACHINES].concat();
    let route = "auth = [\"machines\", \"partners\", \"links\", \"ops\"]";
    let secure = Secure::start(backends::chat().url(), route, &rest);
    let (right, wrong) = (basic("alice", "secret"), basic("alice", "wrong"));
    let batch = secure.authority.issue("batch", &[], 1);
    // How each is shown, validly and not, and whom it names.
    let kinds = [
        ("header", [("X-API-Key", KEY), ("X-API-Key", "psk_wrong")], "acme"),
        ("query", [("", "/echo?api+key=psk_one"), ("", "/echo?api+key=psk_wrong")], "link"),
        ("basic", [("Authorization", &right), ("Authorization", &wrong)], "alice"),
    ];
    let ask = |shown: Shown<'_>, credentials: &[(&str, &str)]| {
        let path = credentials.iter().find(|(name, _)| name.is_empty()).map_or("/echo", |(_, path)| *path);
        let headers: Vec<_> = credentials.iter().copied().filter(|(name, _)| !name.is_empty()).collect();
        let (status, body) = secure.ask(shown, path, &headers);
        let detail = if status == 200 { caller(&body)[0].clone() } else { body["cause"].as_str().map(str::to_owned) };
        (status, detail.unwrap())
    };
    let refused = (401, "invalid_credentials".to_owned());
    assert_eq!(ask(Some(&batch), &[]), (200, "CN=batch".into()));
    for (index, (kind, [valid, invalid], subject)) in kinds.iter().enumerate() {
        for shown in [None, Some(&batch)] {
            assert_eq!(ask(shown, &[*valid]), (200, (*subject).into()), "{kind}");
            assert_eq!(ask(shown, &[*invalid]), refused, "{kind}: nothing else is tried");
        }
        for (other, others, _) in &kinds[index + 1..] {
            for second in others {
                for first in [valid, invalid] {
                    let both = ask(None, &[*first, *second]);
                    assert_eq!(both, (400, "ambiguous_credentials".into()), "{kind} and {other}");
                }
            }
        }
    }
}

/// What looks like a JWT is for whoever verifies JWTs where one is listed, even if another route had it introspected.
#[test]
fn what_another_route_had_introspected_is_no_way_around_a_jwt() {
    let answer = "{\"active\":true,\"sub\":\"alice\"}";
    let server = Fake::answering(format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{answer}",
        answer.len()
    ));
    let fake = Fake::ok();
    let rest = format!(
        "[auth.opaque]\nkind = \"introspection\"\nurl = \"{}/introspect\"\nclient_id = \"gateway\"\nclient_secret = \"s\"\n\
         [auth.staff]\nkind = \"jwt\"\nissuer = \"https://idp.example\"\naudience = [\"orders\"]\n\
         secret = \"{}\"\n[route.opaque]\npath = \"/opaque\"\nauth = [\"opaque\"]\nupstream = \"app\"\n",
        server.url(),
        "s".repeat(64)
    );
    let gateway = Setup::before([fake.url()]).route("auth = [\"staff\", \"opaque\"]").rest(&rest).start();
    let status = |path: &str, token: &str| ask(&gateway, path, &[("Authorization", &format!("Bearer {token}"))]).status;
    for token in ["e30.e30.e30", "e30.e30.e30="] {
        assert_eq!((status("/opaque", token), status("/", token)), (200, 401), "{token}");
    }
    assert_eq!(server.requests().len(), 2, "each was asked about once, by the route that does so");
    assert_eq!((status("/", "opaque"), server.requests().len()), (200, 3));
}
