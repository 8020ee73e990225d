//! The environment of an app's processes: what its settings give, and a handful of variables without which nothing runs.
//! Nothing else of the gateway's own.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::Path;

use crate::config::settings::AppSettings;

/// Where programs are looked for, whatever the gateway was started with.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What of the gateway's environment reaches whatever fetches packages: where they are fetched from and by which way.
const FETCHING: [&str; 11] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
];

/// Likewise, by how they begin.
const FETCHING_PREFIXES: [&str; 2] = ["PIP_", "UV_"];

/// Names and values. Not shown: many values are secret.
#[derive(Clone, Default)]
pub(super) struct Environ(BTreeMap<OsString, OsString>);

impl fmt::Debug for Environ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

impl Environ {
    /// What every process has.
    fn bare(home: &Path) -> Environ {
        let mut environ = Environ::default();
        environ.set("PATH", SYSTEM_PATH);
        environ.set("HOME", home);
        environ.set("LANG", "C.UTF-8");
        environ.set("PYTHONUNBUFFERED", "1");
        environ
    }

    /// For whatever builds environments: no variable of the app but those that say where packages come from.
    pub(super) fn for_builds(settings: &AppSettings, home: &Path) -> Environ {
        let mut environ = Environ::bare(home);
        let fetches =
            |name: &str| FETCHING.contains(&name) || FETCHING_PREFIXES.iter().any(|part| name.starts_with(part));
        for (name, value) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(fetches)) {
            environ.set(name, value);
        }
        for (name, value) in settings.env.iter().filter(|(name, _)| fetches(name)) {
            environ.set(name, value.expose());
        }
        environ
    }

    /// For workers and hooks. `scripts`: where the environment has its commands.
    pub(super) fn for_app(settings: &AppSettings, home: &Path, scripts: &Path) -> Environ {
        let mut environ = Environ::bare(home);
        let mut path = OsString::from(scripts);
        path.push(":");
        path.push(SYSTEM_PATH);
        environ.set("PATH", path);
        if let Some(environment) = scripts.parent() {
            environ.set("VIRTUAL_ENV", environment);
        }
        for name in &settings.pass_env {
            if let Some(value) = std::env::var_os(name) {
                environ.set(name, value);
            }
        }
        for (name, value) in &settings.env {
            environ.set(name, value.expose());
        }
        environ
    }

    pub(super) fn set(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) {
        self.0.insert(name.into(), value.into());
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(OsStr::new(name));
    }

    pub(super) fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    pub(super) fn variables(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.0.iter()
    }
}
