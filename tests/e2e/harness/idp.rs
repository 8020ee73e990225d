//! A real identity provider: `tests/idp/provider.mjs`, an OpenID-certified server on node.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use serde_json::Value;

use super::http::{Client, Response};
use super::process::Process;
use super::{eventually, free_port};

/// The secret of the clients `shop`, which gets tokens, and `gateway`, which asks about them.
pub const SECRET: &str = "a secret that is shared with the provider";

/// An identity provider on a port of loopback.
pub struct IdentityProvider {
    /// `None` before its first start.
    process: Option<Process>,
    port: u16,
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

impl IdentityProvider {
    /// Starts one with signing keys of its own, and waits until it listens.
    pub fn start() -> IdentityProvider {
        let mut provider = IdentityProvider { process: None, port: 0, state: tempfile::tempdir().unwrap() };
        provider.start_again();
        provider
    }

    /// One whose place is known, and that is not there yet: `start_again` brings it.
    pub fn away() -> IdentityProvider {
        IdentityProvider { process: None, port: free_port(), state: tempfile::tempdir().unwrap() }
    }

    /// The same place, other signing keys, and none of the opaque tokens.
    pub fn start_again(&mut self) {
        let modules = installed();
        let process = Process::start(modules.join("node").to_str().unwrap(), |command| {
            command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/idp/provider.mjs"));
            command.arg("--modules").arg(&modules).arg("--state").arg(self.state.path());
            command.arg("--port").arg(self.port.to_string());
            command.env("NODE_NO_WARNINGS", "1");
        });
        self.port = process.output().find("the identity provider says where it listens", |line| {
            line.strip_prefix("the identity provider listens on http://127.0.0.1:")?.parse().ok()
        });
        self.process = Some(process);
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
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
        self.process.as_mut().unwrap().kill();
    }

    /// Stops it in its tracks: its port accepts, and nobody answers.
    pub fn freeze(&self) {
        self.process.as_ref().unwrap().signal(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.process.as_ref().unwrap().signal(Signal::CONT);
    }

    fn post(&self, path: &str, form: &[(&str, &str)]) -> Response {
        // RFC 6749 section 2.3.1: both halves are form-encoded before they are joined.
        let secret: String = form_urlencoded::byte_serialize(SECRET.as_bytes()).collect();
        let authorization = format!("Basic {}", STANDARD.encode(format!("shop:{secret}")));
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let headers =
            [("Authorization", authorization.as_str()), ("Content-Type", "application/x-www-form-urlencoded")];
        Client::connect(self.port).ask_with("POST", path, &headers, body.as_bytes())
    }

    fn issue(&self, form: &[(&str, &str)], properties: &str) -> String {
        let resource = format!("https://orders.example/?{properties}");
        let response = self.post("/token", &[form, &[("resource", &resource)]].concat());
        assert_eq!(response.status, 200, "{response:?}");
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
        let response = self.post("/token/revocation", &[("token", token)]);
        assert_eq!(response.status, 200, "{response:?}");
    }

    /// New signing keys; the old ones stay published if `keep`.
    pub fn rotate(&self, keep: bool) {
        let response = super::http::get(self.port, &format!("/_test/rotate?keep={}", u8::from(keep)));
        assert_eq!(response.status, 200, "{response:?}");
    }

    /// How often it was asked for this path since it was started.
    pub fn asked(&self, path: &str) -> u64 {
        let asked: BTreeMap<String, Value> =
            serde_json::from_slice(&super::http::get(self.port, "/_test/asked").body).unwrap();
        asked.get(path).map_or(0, |count| count.as_u64().unwrap())
    }

    /// Waits until it was asked for this path more often than `before`.
    pub fn asked_more_than(&self, path: &str, before: u64) {
        eventually(&format!("the provider is asked for {path}"), || (self.asked(path) > before).then_some(()));
    }
}

/// One for all tests that change nothing about it.
pub fn shared() -> &'static IdentityProvider {
    static SHARED: OnceLock<IdentityProvider> = OnceLock::new();
    SHARED.get_or_init(IdentityProvider::start)
}
