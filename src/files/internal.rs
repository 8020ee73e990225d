//! `internal_files`: what a service may have sent by naming it.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

use super::Readers;
use super::path::{Beneath, Dotfiles, Parents, shortest};
use super::root::Root;
use crate::config::settings::InternalFilesSettings;

/// The directories of one route.
#[derive(Debug)]
pub struct InternalFiles {
    list: Vec<Internal>,
}

#[derive(Debug)]
struct Internal {
    /// Begins with a slash and does not end with one, unless it is that.
    prefix: String,
    root: Arc<Root>,
    /// The root's path in its shortest form, as a service may write it too.
    directory: Vec<u8>,
}

/// A file that was named, as it is looked up.
#[derive(Debug)]
pub struct Named<'a> {
    pub root: &'a Arc<Root>,
    pub path: Beneath,
}

const NO_KEY: &str = "its path begins with no key of internal_files";
const NO_DIRECTORY: &str = "its path lies beneath no directory of internal_files";

impl Internal {
    fn new(prefix: String, root: Root) -> Internal {
        let directory = shortest(root.path().as_os_str().as_encoded_bytes(), Parents::Taken);
        Internal { prefix, root: Arc::new(root), directory }
    }
}

impl InternalFiles {
    /// `None`: nothing is declared.
    pub fn build(settings: &[InternalFilesSettings]) -> Option<InternalFiles> {
        let one = |settings: &InternalFilesSettings| {
            Internal::new(settings.prefix.clone(), Root::new(settings.directory.value.clone()))
        };
        let list: Vec<Internal> = settings.iter().map(one).collect();
        (!list.is_empty()).then_some(InternalFiles { list })
    }

    /// Every directory.
    pub fn roots(&self) -> impl Iterator<Item = &Root> {
        self.list.iter().map(|internal| &*internal.root)
    }

    /// What `X-Accel-Redirect` names: a path as in a URL, percent-encoded, perhaps with a query that means nothing here.
    ///
    /// # Errors
    /// Why nothing may be sent for it.
    pub fn by_url(&self, value: &[u8]) -> Result<Named<'_>, &'static str> {
        let path = value.split(|&byte| byte == b'?').next().unwrap_or_default();
        let path: Vec<u8> = percent_encoding::percent_decode(&in_utf8(path)).collect();
        if !path.starts_with(b"/") {
            return Err(NO_KEY);
        }
        let path = shortest(&path, Parents::Kept);
        longest(self.list.iter().map(|internal| (internal, internal.prefix.as_bytes())), &path).unwrap_or(Err(NO_KEY))
    }

    /// What `X-Sendfile` names: an absolute path on disk. It is compared as it is written; where that leads nowhere, as
    /// what it and the directories really are, since either side may have resolved the links of a deployment. Which file
    /// is sent is decided by neither: the kernel looks it up beneath the directory.
    ///
    /// # Errors
    /// Why it may not be sent.
    pub async fn by_disk(&self, readers: &Readers, value: &[u8]) -> Result<Named<'_>, &'static str> {
        if !value.starts_with(b"/") {
            return Err("its path is not absolute");
        }
        let path = in_utf8(value).into_owned();
        let written = self.list.iter().map(|internal| (internal, internal.directory.as_slice()));
        if let Some(named) = longest(written, &shortest(&path, Parents::Taken)) {
            return named;
        }
        let roots: Vec<Arc<Root>> = self.list.iter().map(|internal| Arc::clone(&internal.root)).collect();
        let resolve = move || {
            let real: Vec<_> = roots.iter().map(|root| real(root.path().as_os_str().as_bytes())).collect();
            Ok((real, real_of_file(path)))
        };
        let (real, path) = readers.run(resolve).await.map_err(|_| NO_DIRECTORY)?;
        let really = self.list.iter().zip(&real).filter_map(|(internal, real)| Some((internal, real.as_deref()?)));
        longest(really, &path).unwrap_or(Err(NO_DIRECTORY))
    }
}

/// The directory with the longest name that `path` begins with, in whole names.
fn longest<'s, 'n>(
    named: impl Iterator<Item = (&'s Internal, &'n [u8])>,
    path: &[u8],
) -> Option<Result<Named<'s>, &'static str>> {
    let beneath = |(internal, name): (&'s Internal, &'n [u8])| {
        let rest = path.strip_prefix(name.strip_suffix(b"/").unwrap_or(name))?.strip_prefix(b"/")?;
        Some((name.len(), internal, rest.to_vec()))
    };
    let (_, internal, rest) = named.filter_map(beneath).max_by_key(|(length, ..)| *length)?;
    Some(Beneath::of_disk(&rest, Dotfiles::Shown).map(|path| Named { root: &internal.root, path }))
}

/// WSGI has text sent as Latin-1, names of files as well: what is not UTF-8 was meant so.
fn in_utf8(value: &[u8]) -> Cow<'_, [u8]> {
    match std::str::from_utf8(value) {
        Ok(_) => Cow::Borrowed(value),
        Err(_) => Cow::Owned(value.iter().map(|&byte| char::from(byte)).collect::<String>().into_bytes()),
    }
}

/// Where a path leads, without links.
fn real(path: &[u8]) -> Option<Vec<u8>> {
    let real = std::fs::canonicalize(OsStr::from_bytes(path)).ok()?;
    Some(real.into_os_string().into_vec())
}

/// The last name stays as it is: if it is a link, it is judged as one beneath the directory.
fn real_of_file(path: Vec<u8>) -> Vec<u8> {
    let (directory, name) = path.split_at(path.iter().rposition(|&byte| byte == b'/').unwrap_or(0));
    match real(directory) {
        Some(directory) => [&directory, name].concat(),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn internal() -> InternalFiles {
        let one = |(prefix, directory): (&str, &str)| Internal::new(prefix.into(), Root::new(directory.into()));
        let list = [("/protected", "/srv/p"), ("/protected/deep", "/srv/app/../deep"), ("/", "/srv/all/")];
        InternalFiles { list: list.map(one).into() }
    }

    fn shown(named: Result<Named<'_>, &'static str>) -> Option<String> {
        let named = named.ok()?;
        Some(format!("{} {}", named.root.path().display(), String::from_utf8_lossy(named.path.as_bytes())))
    }

    #[test]
    fn urls_are_decoded_and_find_the_longest_prefix() {
        let internal = internal();
        let url = |text: &[u8]| shown(internal.by_url(text));
        assert_eq!(url(b"/protected/a%20b.pdf?x=1"), Some("/srv/p a b.pdf".into()));
        assert_eq!(url(b"/protected/deep/a"), Some("/srv/app/../deep a".into()));
        assert_eq!(url(b"/protected/deeper/.a"), Some("/srv/p deeper/.a".into()));
        assert_eq!(url(b"/protectedx/a"), Some("/srv/all/ protectedx/a".into()));
        assert_eq!(url(b"//protected//./x"), Some("/srv/p x".into()));
        assert_eq!(url(b"/protected/%C3%A9"), Some("/srv/p \u{e9}".into()));
        assert_eq!(url(b"/protected/\xe9"), Some("/srv/p \u{e9}".into()), "as Django writes what is not quoted");
        for outside in [&b"/protected/../x"[..], b"/protected/%2e%2e/x", b"/protected/%2E%2E%2fx", b"protected/a", b""]
        {
            assert_eq!(url(outside), None, "{}", String::from_utf8_lossy(outside));
        }
    }

    #[tokio::test]
    async fn paths_on_disk_lie_beneath_a_directory() {
        let internal = internal();
        for (path, expected) in [
            (&b"/srv/p/a%20b"[..], Some("/srv/p a%20b")),
            (b"/srv/all/a", Some("/srv/all/ a")),
            (b"/srv/deep/a", Some("/srv/app/../deep a")),
            (b"/srv/app/../p/a", Some("/srv/p a")),
            (b"//srv/./p//a", Some("/srv/p a")),
            (b"/srv/p/\xe9", Some("/srv/p \u{e9}")),
            (b"/srv/p/\xc3\xa9", Some("/srv/p \u{e9}")),
            (b"/srv/px/a", None),
            (b"/etc/passwd", None),
            (b"/srv/p/../x", None),
            (b"srv/p/a", None),
            (b"a", None),
            (b"/srv", None),
        ] {
            let named = shown(internal.by_disk(&Readers::default(), path).await);
            assert_eq!(named.as_deref(), expected, "{}", String::from_utf8_lossy(path));
        }
    }

    #[tokio::test]
    async fn links_of_a_deployment_are_one_with_what_they_lead_to() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().canonicalize().unwrap();
        std::fs::create_dir_all(home.join("releases/1/files")).unwrap();
        std::fs::write(home.join("outside"), "secret").unwrap();
        symlink("releases/1", home.join("current")).unwrap();
        symlink(home.join("releases/1/files/a"), home.join("link")).unwrap();
        symlink("../../../outside", home.join("releases/1/files/out")).unwrap();
        let (link, plain) = (home.join("current/files"), home.join("releases/1/files"));
        for (configured, written) in [(&link, &plain), (&plain, &link), (&link, &link)] {
            let list = vec![Internal::new("/".into(), Root::new(configured.clone()))];
            let internal = InternalFiles { list };
            let named = |path: std::path::PathBuf| {
                let internal = &internal;
                async move { shown(internal.by_disk(&Readers::default(), path.as_os_str().as_bytes()).await) }
            };
            assert_eq!(named(written.join("a")).await, Some(format!("{} a", configured.display())));
            // Which leads out, as the kernel will find.
            assert_eq!(named(written.join("out")).await, Some(format!("{} out", configured.display())));
            assert_eq!(named(home.join("outside")).await, None);
            assert_eq!(named(home.join("link")).await, None, "a link outside is none of the directory's files");
        }
    }
}
