//! `internal_files`: what a service may have sent by naming it.

use std::sync::Arc;

use super::path::{Beneath, Dotfiles};
use super::root::Root;
use crate::config::settings::InternalFilesSettings;

/// The directories of one route, those with the longest names first.
#[derive(Debug)]
pub struct InternalFiles {
    list: Vec<Internal>,
}

#[derive(Debug)]
struct Internal {
    /// Begins with a slash and does not end with one, unless it is that.
    prefix: String,
    root: Arc<Root>,
}

/// A file that was named, as it is looked up.
#[derive(Debug)]
pub struct Named<'a> {
    pub root: &'a Arc<Root>,
    pub path: Beneath,
}

impl Internal {
    fn directory(&self) -> &[u8] {
        self.root.path().as_os_str().as_encoded_bytes()
    }
}

impl InternalFiles {
    /// `None`: nothing is declared.
    pub fn build(settings: &[InternalFilesSettings]) -> Option<InternalFiles> {
        let one = |settings: &InternalFilesSettings| Internal {
            prefix: settings.prefix.clone(),
            root: Arc::new(Root::new(settings.directory.value.clone())),
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
        let path: Vec<u8> = percent_encoding::percent_decode(path).collect();
        self.named(&path, |internal| internal.prefix.as_bytes(), "its path begins with no key of internal_files")
    }

    /// What `X-Sendfile` names: an absolute path on disk.
    ///
    /// # Errors
    /// Why it may not be sent.
    pub fn by_disk(&self, value: &[u8]) -> Result<Named<'_>, &'static str> {
        if !value.starts_with(b"/") {
            return Err("its path is not absolute");
        }
        self.named(value, Internal::directory, "its path lies beneath no directory of internal_files")
    }

    /// The longest that `path` begins with, in whole names.
    fn named<'s>(
        &'s self,
        path: &[u8],
        of: impl Fn(&'s Internal) -> &'s [u8],
        unknown: &'static str,
    ) -> Result<Named<'s>, &'static str> {
        let beneath = |internal: &'s Internal| {
            let prefix = of(internal);
            let rest = path.strip_prefix(prefix.strip_suffix(b"/").unwrap_or(prefix))?.strip_prefix(b"/")?;
            Some((prefix.len(), internal, rest.to_vec()))
        };
        let (_, internal, rest) =
            self.list.iter().filter_map(beneath).max_by_key(|(length, ..)| *length).ok_or(unknown)?;
        Ok(Named { root: &internal.root, path: Beneath::of_disk(&rest, Dotfiles::Shown)? })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn internal() -> InternalFiles {
        let one = |(prefix, directory): (&str, &str)| Internal {
            prefix: prefix.into(),
            root: Arc::new(Root::new(PathBuf::from(directory))),
        };
        InternalFiles {
            list: [("/protected", "/srv/p"), ("/protected/deep", "/srv/deep"), ("/", "/srv/all/")].map(one).into(),
        }
    }

    fn shown(named: Result<Named<'_>, &'static str>) -> Option<String> {
        let named = named.ok()?;
        Some(format!("{} {}", named.root.path().display(), String::from_utf8_lossy(named.path.as_bytes())))
    }

    #[test]
    fn urls_are_decoded_and_find_the_longest_prefix() {
        let internal = internal();
        let url = |text: &str| shown(internal.by_url(text.as_bytes()));
        assert_eq!(url("/protected/a%20b.pdf?x=1"), Some("/srv/p a b.pdf".into()));
        assert_eq!(url("/protected/deep/a"), Some("/srv/deep a".into()));
        assert_eq!(url("/protected/deeper/.a"), Some("/srv/p deeper/.a".into()));
        assert_eq!(url("/protectedx/a"), Some("/srv/all/ protectedx/a".into()));
        for outside in
            ["/protected/../x", "/protected/%2e%2e/x", "/protected/%2E%2E%2fx", "/protected//x", "protected/a", ""]
        {
            assert_eq!(url(outside), None, "{outside}");
        }
    }

    #[test]
    fn paths_on_disk_lie_beneath_a_directory() {
        let internal = internal();
        let disk = |text: &str| shown(internal.by_disk(text.as_bytes()));
        assert_eq!(disk("/srv/p/a%20b"), Some("/srv/p a%20b".into()));
        assert_eq!(disk("/srv/all/a"), Some("/srv/all/ a".into()));
        for outside in ["/srv/px/a", "/etc/passwd", "/srv/p/../x", "srv/p/a", "a", "/srv"] {
            assert_eq!(disk(outside), None, "{outside}");
        }
    }
}
