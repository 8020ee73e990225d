//! Real environments, of packages made by hand.

mod entries;
mod locks;
mod making;
mod sources;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::config::{Outside, load_text};

/// An app with its code, and packages to install.
struct Site {
    directory: tempfile::TempDir,
    app: App,
}

const WSGI: &str = "def app(environ, start_response): pass\n";
const ASGI: &str = "async def app(scope, receive, send): pass\n";

impl Site {
    /// `lines`: of `[app.shop]`. The gateway that is root runs it as another user.
    fn new(lines: &str) -> Site {
        let directory = tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o755)).tempdir().unwrap();
        let place = directory.path().display();
        std::fs::create_dir(directory.path().join("code")).unwrap();
        std::fs::create_dir(directory.path().join("state")).unwrap();
        let user = if nix::unistd::Uid::effective().is_root() { "user = \"nobody\"\n" } else { "" };
        let entry = if lines.contains("entry =") { "" } else { "entry = \"app:app\"\n" };
        let text = format!(
            "[server]\nstate_directory = \"{place}/state\"\n[listener.http]\naddress = \"127.0.0.1:0\"\n\
             [app.shop]\ndirectory = \"{place}/code\"\n{entry}{user}{lines}\n\
             [route.all]\npath = \"/{{*rest}}\"\nupstream = \"shop\"\n"
        );
        let loaded = load_text("test.toml", &text, directory.path(), &Outside::new(&|_| None));
        let (settings, problems) = loaded.build(|settings, _| Some(settings));
        let settings = settings.unwrap_or_else(|| panic!("{problems:?}"));
        let mut problems = Vec::new();
        let app = App::build("shop", &settings.apps["shop"], &directory.path().join("state"), &mut problems);
        let app = app.unwrap_or_else(|| panic!("{problems:?}"));
        app.place.prepare(&app.account).unwrap();
        Site { directory, app }
    }

    fn code(&self) -> PathBuf {
        self.directory.path().join("code")
    }

    /// Writes a file of the code.
    fn write(&self, name: &str, text: &str) -> &Site {
        let path = self.code().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    /// Puts a package into the code's `wheels`.
    fn wheel(&self, name: &str, requires: &[&str]) -> &Site {
        wheel(&self.code().join("wheels"), name, "1.0", requires);
        self
    }

    async fn find(&self, search: &Search) -> Result<Recipe, Failure> {
        Recipe::find_among(&self.app, &self.code(), &self.code(), search).await
    }

    async fn build(&self, search: &Search) -> Result<Environment, Failure> {
        let progress = Progress::new(&self.app.name);
        self.find(search).await?.build(&self.app, 1, &progress).await
    }

    /// The names of the environments that are there.
    fn environments(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.app.place.environments()).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// A wheel whose module says its version. `requires`: other packages.
fn wheel(directory: &Path, name: &str, version: &str, requires: &[&str]) {
    const SCRIPT: &str = "import sys, zipfile\n\
        directory, name, version, *requires = sys.argv[1:]\n\
        module = name.replace('-', '_')\n\
        info = f'{module}-{version}.dist-info'\n\
        metadata = f'Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n'\n\
        metadata += ''.join(f'Requires-Dist: {it}\\n' for it in requires)\n\
        files = {f'{module}/__init__.py': f'version = {version!r}\\n', f'{info}/METADATA': metadata,\n\
        \x20        f'{info}/WHEEL': 'Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n'}\n\
        files[f'{info}/RECORD'] = ''.join(f'{it},,\\n' for it in [*files, f'{info}/RECORD'])\n\
        with zipfile.ZipFile(f'{directory}/{module}-{version}-py3-none-any.whl', 'w') as wheel:\n\
        \x20   for path, text in files.items(): wheel.writestr(zipfile.ZipInfo(path), text)\n";
    std::fs::create_dir_all(directory).unwrap();
    let mut python = Command::new("python3");
    python.args(["-c", SCRIPT]).arg(directory).args([name, version]).args(requires);
    assert!(python.status().unwrap().success());
}

/// The machine's interpreters, and no uv.
fn without_uv() -> Search {
    let path = std::env::var_os("PATH").unwrap();
    Search::of(std::env::split_paths(&path).filter(|directory| !directory.join("uv").exists()))
}

/// The same, and the uv of the tests, where anybody can run it.
fn with_uv() -> Search {
    static COPIED: std::sync::LazyLock<PathBuf> = std::sync::LazyLock::new(|| {
        let venv = std::env::var_os("PASSERELLE_TEST_VENV").map(PathBuf::from);
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let uv = venv.unwrap_or_else(|| root.join("target/test-venv")).join("bin/uv");
        let copies = std::env::temp_dir().join(format!("passerelle-test-uv-{}", std::process::id()));
        let _ = std::fs::create_dir(&copies);
        std::fs::set_permissions(&copies, std::fs::Permissions::from_mode(0o755)).unwrap();
        let told = "uv is missing: tests/run installs what tests need";
        std::fs::copy(&uv, copies.join("uv")).expect(told);
        copies
    });
    let path = std::env::var_os("PATH").unwrap();
    Search::of(std::iter::once(COPIED.clone()).chain(std::env::split_paths(&path)))
}

/// What `python` prints.
fn printed(python: &Path, script: &str) -> String {
    let output = Command::new(python).args(["-c", script]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
