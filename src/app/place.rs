//! Where an app has its things: releases, environments, sockets, a home. All beneath one directory that is the gateway's.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::account::Account;

/// The longest path of a Unix socket on Linux, and of what is beneath the directory of sockets.
const LONGEST_SOCKET: usize = 107;
const LONGEST_NAME: usize = "/1000000-1000/gunicorn.ctl".len();

/// The directory of one app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    root: PathBuf,
    /// What one user has built another cannot use.
    environments: PathBuf,
    sockets: PathBuf,
}

impl Place {
    pub(super) fn new(state: &Path, app: &str, account: &Account) -> Place {
        let root = state.join("apps").join(app);
        let environments = match &account.ids {
            Some(ids) => root.join(format!("environments-{}", ids.uid)),
            None => root.join("environments"),
        };
        let within = root.join("run");
        let fits = within.as_os_str().len().saturating_add(LONGEST_NAME) <= LONGEST_SOCKET;
        let sockets = if fits { within } else { elsewhere(&root) };
        Place { root, environments, sockets }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of everything that outlives the process, of all apps.
    pub(super) fn state(&self) -> &Path {
        self.root.ancestors().nth(2).unwrap_or(&self.root)
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

    /// Directories of workers, each with a socket. Only the gateway makes them: what an app's user could plant here would
    /// be taken for one.
    pub(super) fn sockets(&self) -> &Path {
        &self.sockets
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
        passage(&self.sockets)?;
        let found = std::fs::symlink_metadata(&self.sockets).map_err(|error| named(&self.sockets, &error))?;
        if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
            let foreign = io::Error::other("it is another user's: remove it");
            return Err(named(&self.sockets, &foreign));
        }
        for own in [self.environments(), self.home(), self.cache()] {
            private(&own, account)?;
        }
        account.can_enter(&self.root)
    }
}

/// Where sockets are whose path would be too long for the system: a name that nobody else's app has.
fn elsewhere(root: &Path) -> PathBuf {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, root.as_os_str().as_encoded_bytes());
    let digits: String = digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    std::env::temp_dir().join(format!("passerelle-{digits}"))
}

/// A directory that only leads elsewhere.
pub(crate) fn passage(path: &Path) -> io::Result<()> {
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
