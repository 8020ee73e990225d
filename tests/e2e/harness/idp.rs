//! A real identity provider: `tests/idp/provider.mjs`, an OpenID-certified server on node.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;

use rustls::version::TLS13;

use super::eventually;
use super::http::{Client, Response, head};
use super::process::Process;
use super::tls::{self, Certificate, client_config};

/// The secret of the clients `shop`, which gets tokens, and `gateway`, which asks about them.
pub const SECRET: &str = "a secret that is shared with the provider";

/// An identity provider on a port of loopback.
pub struct IdentityProvider {
    process: Process,
    port: u16,
    /// What it shows where it is reached by https.
    certificate: Option<Certificate>,
    state: tempfile::TempDir,
}

/// Where `tests/run` installs node and the provider's modules: beside the Python environment.
fn installed() -> PathBuf {
    let target = std::env::var_os("PASSERELLE_TEST_VENV")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-venv"), PathBuf::from);
    let directory = target.with_file_name("test-idp");
    assert!(
        directory.join("node").exists(),
        "{} is missing: these tests need a real identity provider, which ./tests/run installs before it runs the tests",
        directory.display()
    );
    directory
}

/// Starts the provider, and waits until it says on which port.
fn launch(port: u16, state: &Path, tls: bool) -> (u16, Process) {
    let modules = installed();
    let mut process = Process::start(modules.join("node").to_str().unwrap(), |command| {
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/idp/provider.mjs"));
        command.arg("--modules").arg(&modules).arg("--state").arg(state).arg("--port").arg(port.to_string());
        if tls {
            let (chain, key) = (state.join("site.pem"), state.join("site.key"));
            command.arg("--tls").arg(format!("{},{}", chain.display(), key.display()));
        }
    });
    let port = eventually("the identity provider says where it listens", || {
        let listens =
            |line: &String| line.strip_prefix("the identity provider listens on ")?.rsplit(':').next()?.parse().ok();
        let port = process.output().lines().iter().find_map(listens);
        if let (None, Some(status)) = (port, process.has_ended()) {
            panic!("the identity provider ended with {status}:\n{}", process.output().text());
        }
        port
    });
    (port, process)
}

impl IdentityProvider {
    /// Starts one with signing keys of its own, and waits until it listens.
    pub fn start() -> IdentityProvider {
        IdentityProvider::behind(None)
    }

    /// The same behind TLS.
    pub fn start_with_tls() -> IdentityProvider {
        IdentityProvider::behind(Some(Certificate::new(&["127.0.0.1"])))
    }

    fn behind(certificate: Option<Certificate>) -> IdentityProvider {
        let state = tempfile::tempdir().unwrap();
        if let Some(certificate) = &certificate {
            certificate.write(state.path(), "site");
        }
        let (port, process) = launch(0, state.path(), certificate.is_some());
        IdentityProvider { process, port, certificate, state }
    }

    /// The same place, other signing keys, and none of the opaque tokens.
    pub fn start_again(&mut self) {
        (_, self.process) = launch(self.port, self.state.path(), self.certificate.is_some());
    }

    pub fn issuer(&self) -> String {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// What vouches for it where it is reached by https.
    pub fn authority(&self) -> PathBuf {
        self.state.path().join("site.pem")
    }

    pub fn introspection_url(&self) -> String {
        format!("{}/token/introspection", self.issuer())
    }

    /// The private key by which the client `gateway-by-key` proves itself, ES256, key ID `client-key`.
    pub fn client_key(&self) -> PathBuf {
        self.state.path().join("client-key.pem")
    }

    /// kill -9
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Stops it in its tracks: its port accepts, and nobody answers.
    pub fn freeze(&self) {
        self.process.signal(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.process.signal(Signal::CONT);
    }

    fn exchange(&self, request: &[u8]) -> Response {
        let response = match &self.certificate {
            None => Client::connect(self.port).send(request).answer(),
            Some(certificate) => {
                let config = client_config(&[certificate], &["http/1.1"], &[&TLS13]);
                tls::connect(self.port, "127.0.0.1", &config).unwrap().send(request).answer()
            }
        };
        assert_eq!(response.status, 200, "{response:?}");
        response
    }

    fn get(&self, target: &str) -> Response {
        self.exchange(head("GET", target, &[]).as_bytes())
    }

    fn post(&self, path: &str, form: &[(&str, &str)]) -> Response {
        // RFC 6749 section 2.3.1: both halves are form-encoded before they are joined.
        let secret: String = form_urlencoded::byte_serialize(SECRET.as_bytes()).collect();
        let authorization = format!("Basic {}", STANDARD.encode(format!("shop:{secret}")));
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let head = head(
            "POST",
            path,
            &[
                ("Authorization", &authorization),
                ("Content-Type", "application/x-www-form-urlencoded"),
                ("Content-Length", &body.len().to_string()),
            ],
        );
        self.exchange([head.as_bytes(), body.as_bytes()].concat().as_slice())
    }

    fn issue(&self, form: &[(&str, &str)], properties: &str) -> String {
        let resource = format!("https://orders.example/?{properties}");
        let response = self.post("/token", &[form, &[("resource", &resource)]].concat());
        response.json()["access_token"].as_str().unwrap().to_owned()
    }

    /// A token for a user, of these scopes (`orders:read`, `orders:write`). `properties` say what it is like, as in
    /// `alg=ES256&audience=orders&ttl=600&roles=clerk,reader`; without `alg` it is opaque.
    pub fn token(&self, user: &str, scope: &str, properties: &str) -> String {
        self.issue(&[("grant_type", "password"), ("username", user), ("scope", scope)], properties)
    }

    /// A token for the client `shop` itself.
    pub fn client_token(&self, scope: &str, properties: &str) -> String {
        self.issue(&[("grant_type", "client_credentials"), ("scope", scope)], properties)
    }

    /// Takes an opaque token back (RFC 7009).
    pub fn revoke(&self, token: &str) {
        self.post("/token/revocation", &[("token", token)]);
    }

    /// New signing keys; the old ones stay published if `keep`.
    pub fn rotate(&self, keep: bool) {
        self.get(&format!("/_test/rotate?keep={}", u8::from(keep)));
    }

    /// How often it was asked for this path since it was started.
    pub fn asked(&self, path: &str) -> u64 {
        let asked: BTreeMap<String, u64> = serde_json::from_slice(&self.get("/_test/asked").body).unwrap();
        asked.get(path).copied().unwrap_or(0)
    }
}

/// One for all tests that change nothing about it.
pub fn shared() -> &'static IdentityProvider {
    static SHARED: OnceLock<IdentityProvider> = OnceLock::new();
    SHARED.get_or_init(IdentityProvider::start)
}
