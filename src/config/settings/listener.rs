//! Settings of `[listener.NAME]`: where clients come in, how, and what they may take up.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::At;

/// `[listener.NAME]`
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    pub addresses: Vec<At<ListenAddress>>,
    pub trusted_proxies: Vec<IpNet>,
    pub proxy_protocol: bool,
    pub max_connections: NonZeroUsize,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub idle_timeout: Duration,
    /// Bytes of a whole request head.
    pub max_header_bytes: usize,
    pub max_headers: usize,
    pub http2: Http2Settings,
    /// The port that clients are sent to.
    pub redirect_to_https: Option<u16>,
    pub tls: Option<ListenerTlsSettings>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenAddress {
    Socket(SocketAddr),
    /// `systemd:NAME`, a socket that systemd passes.
    Systemd(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Settings {
    pub max_streams: NonZeroU32,
    pub max_resets: Rate,
}

/// "100/s", "1000/min".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub count: NonZeroU32,
    pub per: Duration,
}

#[derive(Clone, Debug)]
pub struct ListenerTlsSettings {
    /// At least one.
    pub certificates: Vec<CertificateFiles>,
    pub min_version: TlsVersion,
    /// `None`: clients are not asked for a certificate.
    pub client_auth: Option<ClientAuthSettings>,
}

/// `client_ca` and `client_crl`: PEM files, absolute paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuthSettings {
    pub ca: At<PathBuf>,
    pub crl: Option<At<PathBuf>>,
}

/// PEM files, absolute paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    pub chain: At<PathBuf>,
    pub key: At<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}
