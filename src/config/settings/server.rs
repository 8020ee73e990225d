//! Settings of the process as a whole: `[server]`, `[admin]`, `[log]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::{At, TempSettings};

/// `[server]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Data-plane threads; one a core when the file says "auto".
    pub workers: NonZeroUsize,
    pub shutdown_grace: Duration,
    pub drain_delay: Duration,
    pub temp: TempSettings,
    /// What outlives the process: releases of apps and their environments.
    pub state_directory: PathBuf,
}

/// `[admin]`
#[derive(Clone, Debug)]
pub struct AdminSettings {
    pub address: At<SocketAddr>,
    /// Demanded by the reader when `address` is beyond loopback.
    pub token: Option<SecretString>,
    pub probe_address: Option<At<SocketAddr>>,
    /// The socket of `passerelle reload` and its kin.
    pub control: Option<At<PathBuf>>,
    pub ready_requires: Vec<At<String>>,
}

impl AdminSettings {
    /// Where the admin listener is when the file does not say.
    pub const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9600);
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    pub level: LogLevel,
    /// `None`: text on a terminal, else JSON.
    pub format: Option<LogFormat>,
    pub output: LogOutput,
    pub access: bool,
    /// Whether access records name the caller.
    pub subject: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Text,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    Stdout,
    Stderr,
    File(PathBuf),
}
