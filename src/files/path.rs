//! Paths beneath a directory, as names that the file system is asked for.
//!
//! Whatever could lead out is refused before the kernel sees it, though the kernel is told to refuse it too.

/// A path that stays beneath where it begins: no `.` and `..`, no empty names, no NUL. It has names, or is the
/// directory itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beneath {
    /// Without a slash at either end.
    text: Vec<u8>,
    /// Whether it was written as a directory's: empty, or with a slash behind it.
    directory: bool,
}

/// Whether names that begin with a dot count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dotfiles {
    /// They are not there. `.well-known` (RFC 8615) as the first name is.
    Hidden,
    Shown,
}

/// What becomes of `..` where a path is written in its shortest form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parents {
    /// It stays, for whoever refuses it.
    Kept,
    /// It takes the name before it away.
    Taken,
}

/// The shortest form of an absolute path: without empty names and `.`. A slash at its end stays.
pub fn shortest(path: &[u8], parents: Parents) -> Vec<u8> {
    let mut names: Vec<&[u8]> = Vec::new();
    let mut directory = true;
    for name in path.split(|&byte| byte == b'/') {
        directory = matches!(name, b"" | b"." | b"..");
        match name {
            b"" | b"." => {}
            b".." if parents == Parents::Taken => drop(names.pop()),
            name => names.push(name),
        }
    }
    let slash: &[u8] = if directory && !names.is_empty() { b"/" } else { b"" };
    [b"/", names.join(&b'/').as_slice(), slash].concat()
}

impl Beneath {
    /// Reads what of a URL's path lies beneath a directory: percent-encoded, without the slash at its front.
    ///
    /// # Errors
    /// Why no file can have that name.
    pub fn of_url(path: &str, dotfiles: Dotfiles) -> Result<Beneath, &'static str> {
        if memchr::memchr(b'%', path.as_bytes()).is_none() {
            return Beneath::read(path.as_bytes(), |name, out| out.extend_from_slice(name), dotfiles);
        }
        Beneath::read(path.as_bytes(), |name, out| out.extend(percent_encoding::percent_decode(name)), dotfiles)
    }

    /// Reads what of a path on disk lies beneath a directory, without the slash at its front.
    ///
    /// # Errors
    /// Why it may not.
    pub fn of_disk(path: &[u8], dotfiles: Dotfiles) -> Result<Beneath, &'static str> {
        Beneath::read(path, |name, out| out.extend_from_slice(name), dotfiles)
    }

    fn read(path: &[u8], decode: impl Fn(&[u8], &mut Vec<u8>), dotfiles: Dotfiles) -> Result<Beneath, &'static str> {
        let (names, directory) = match path.strip_suffix(b"/") {
            Some(names) => (names, true),
            None => (path, path.is_empty()),
        };
        let mut text = Vec::with_capacity(names.len());
        if names.is_empty() {
            return if path.len() > 1 { Err("a name in it is empty") } else { Ok(Beneath { text, directory }) };
        }
        for name in names.split(|&byte| byte == b'/') {
            if !text.is_empty() {
                text.push(b'/');
            }
            let from = text.len();
            decode(name, &mut text);
            match text.get(from..).unwrap_or_default() {
                b"" => return Err("a name in it is empty"),
                b"." | b".." => return Err("it holds a dot segment"),
                name if name.contains(&0) => return Err("a name in it holds a NUL byte"),
                name if name.contains(&b'/') => return Err("a name in it holds a slash"),
                b".well-known" if from == 0 => {}
                [b'.', ..] if dotfiles == Dotfiles::Hidden => return Err("names that begin with a dot are not served"),
                _ => {}
            }
        }
        Ok(Beneath { text, directory })
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    pub fn is_directory(&self) -> bool {
        self.directory
    }

    /// The path of `name` within it.
    pub fn join(&self, name: &str) -> Vec<u8> {
        let slash: &[u8] = if self.text.is_empty() { b"" } else { b"/" };
        [&self.text, slash, name.as_bytes()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortest_forms() {
        for (path, kept, taken) in [
            ("/a/b", "/a/b", "/a/b"),
            ("//a/.//b/./", "/a/b/", "/a/b/"),
            ("/a/../b", "/a/../b", "/b"),
            ("/../../a/b/..", "/../../a/b/../", "/a/"),
            ("/a/b/.", "/a/b/", "/a/b/"),
            ("/", "/", "/"),
            ("/..", "/../", "/"),
            ("/.a/..b", "/.a/..b", "/.a/..b"),
        ] {
            assert_eq!(shortest(path.as_bytes(), Parents::Kept), kept.as_bytes(), "{path}");
            assert_eq!(shortest(path.as_bytes(), Parents::Taken), taken.as_bytes(), "{path}");
        }
    }

    fn url(path: &str) -> Option<(String, bool)> {
        let beneath = Beneath::of_url(path, Dotfiles::Hidden).ok()?;
        Some((String::from_utf8_lossy(&beneath.text).into_owned(), beneath.directory))
    }

    #[test]
    fn names_are_decoded() {
        assert_eq!(url(""), Some((String::new(), true)));
        assert_eq!(url("a.css"), Some(("a.css".into(), false)));
        assert_eq!(url("a/b%20c/d"), Some(("a/b c/d".into(), false)));
        assert_eq!(url("a/"), Some(("a".into(), true)));
        assert_eq!(url("%C3%A9"), Some(("é".into(), false)));
        assert_eq!(url("a..b/c..."), Some(("a..b/c...".into(), false)));
        assert_eq!(url(".well-known/security.txt"), Some((".well-known/security.txt".into(), false)));
    }

    #[test]
    fn what_leads_out_or_is_hidden_is_no_name() {
        for path in [
            "..",
            "../a",
            "a/..",
            "a/../b",
            ".",
            "a/./b",
            "%2e%2e/a",
            "%2E%2E",
            "a/%2e%2e/b",
            "a%2Fb",
            "..%2Fa",
            "a%00b",
            "%00",
            "a//b",
            "/a",
            "//",
            "a//",
            ".env",
            ".git/config",
            "a/.htaccess",
            "%2Eenv",
            "a/.well-known/x",
            ".well-known/.x",
            ".well-known2",
        ] {
            assert_eq!(url(path), None, "{path}");
        }
        assert!(Beneath::of_url("a/.b", Dotfiles::Shown).is_ok());
        assert!(Beneath::of_disk(b"a%2e%2e/.b", Dotfiles::Shown).is_ok());
        assert!(Beneath::of_disk(b"a/../b", Dotfiles::Shown).is_err());
    }
}
