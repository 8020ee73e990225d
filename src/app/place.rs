//! Where an app has its things: releases, environments, sockets, a home. All beneath one directory that is the gateway's.

use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::account::Account;

/// The longest path of a Unix socket, in bytes.
const LONGEST_ADDRESS: usize = 107;

/// About the longest that is put into the directory of sockets: release, worker, and what gunicorn listens at beside.
const SOCKET_NAME: &str = "/99999-999/gunicorn.ctl";

/// The directory of one app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    root: PathBuf,
    /// What one user has built another cannot use.
    environments: PathBuf,
}

impl Place {
    pub(super) fn new(state: &Path, app: &str, account: &Account) -> Place {
        let root = state.join("apps").join(app);
        let environments = match &account.ids {
            Some(ids) => root.join(format!("environments-{}", ids.uid)),
            None => root.join("environments"),
        };
        Place { root, environments }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// One directory for each release.
    pub(super) fn releases(&self) -> PathBuf {
        self.root.join("releases")
    }

    /// One directory for each environment, by its key.
    pub(super) fn environments(&self) -> PathBuf {
        self.environments.clone()
    }

    /// `HOME` of the app's processes.
    pub(super) fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    /// What packages were fetched before, so that not everything is fetched again.
    pub(super) fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// Sockets of workers.
    pub(super) fn sockets(&self) -> PathBuf {
        self.root.join("run")
    }

    /// Whether the sockets of workers can be bound: their whole paths are part of their addresses, which are short.
    pub(super) fn has_room_for_sockets(&self) -> bool {
        self.sockets().as_os_str().len().saturating_add(SOCKET_NAME.len()) <= LONGEST_ADDRESS
    }

    /// Names the release that serves.
    pub(super) fn current(&self) -> PathBuf {
        self.root.join("current")
    }

    /// Held for as long as a gateway runs the app.
    pub(super) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Makes every directory. Those above are passed through by everybody and listed by nobody; what is the app's belongs
    /// to its user alone.
    ///
    /// # Errors
    /// The system refuses; the path is named.
    pub(super) fn prepare(&self, account: &Account) -> io::Result<()> {
        passage(&self.root)?;
        passage(&self.releases())?;
        for own in [self.environments(), self.home(), self.cache(), self.sockets()] {
            private(&own, account)?;
        }
        Ok(())
    }
}

/// A directory that only leads elsewhere.
pub(super) fn passage(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o711).create(path).map_err(|error| named(path, &error))
}

/// A directory that only `account`, and the gateway, may look into.
pub(super) fn private(path: &Path, account: &Account) -> io::Result<()> {
    let told = |error: io::Error| named(path, &error);
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(told(error)),
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(told)?;
    account.own(path).map_err(told)
}

pub(super) fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
