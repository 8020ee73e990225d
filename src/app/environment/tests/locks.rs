//! Locks of uv, with the real uv.

use super::*;
use crate::config::settings::Secret;

/// A project whose lock is made by uv, of packages in a directory.
fn locked(site: &Site) {
    site.wheel("tiny", &[]).wheel("onlydev", &[]).wheel("uvicorn", &[]).write("app.py", ASGI);
    site.write(
        "pyproject.toml",
        "[project]\nname = \"shop\"\nversion = \"1\"\nrequires-python = \">=3.8\"\ndependencies = [\"tiny\"]\n\
         [dependency-groups]\ndev = [\"onlydev\"]\n\
         [build-system]\nrequires = [\"nowhere\"]\nbuild-backend = \"nowhere\"\n",
    );
    let uv = uv();
    let mut lock = Command::new(uv);
    lock.args(["lock", "--quiet", "--no-index", "--find-links", "wheels"]).current_dir(site.code());
    assert!(lock.status().unwrap().success());
}

fn uv() -> PathBuf {
    let venv = std::env::var_os("PASSERELLE_TEST_VENV").map(PathBuf::from);
    venv.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-venv")).join("bin/uv")
}

#[tokio::test]
async fn a_lock_is_installed_as_it_is() {
    for lines in [
        "env = { PIP_FIND_LINKS = \"wheels\", PIP_NO_INDEX = \"1\" }",
        "env = { UV_FIND_LINKS = \"wheels\", UV_OFFLINE = \"1\" }",
    ] {
        let site = Site::new(lines);
        locked(&site);
        // A newer one is there, and is not what was locked.
        wheel(&site.code().join("wheels"), "tiny", "2.0", &[]);
        let made = site.build(&with_uv()).await.unwrap_or_else(|failure| panic!("{lines}: {failure}"));
        assert_eq!(made.server, AppServer::Uvicorn);
        assert_eq!(printed(&made.python, "import tiny; print(tiny.version)"), "1.0");
        let has = |module: &str| {
            printed(&made.python, &format!("import importlib.util as u; print(u.find_spec('{module}') is not None)"))
        };
        assert_eq!(has("onlydev"), "False", "{lines}");
        // The project itself is the code.
        let shop = "import importlib.metadata as m; print('shop' in [it.metadata['Name'] for it in m.distributions()])";
        assert_eq!(printed(&made.python, shop), "False", "{lines}");
        assert_eq!(site.build(&with_uv()).await.unwrap().took, Duration::ZERO);
    }
}

#[tokio::test]
async fn a_wheel_that_is_not_the_locked_one_is_refused() {
    let mut site = Site::new("env = { PIP_FIND_LINKS = \"wheels\" }");
    locked(&site);
    let lock = std::fs::read_to_string(site.code().join("uv.lock")).unwrap();
    let zeros = "0".repeat(64);
    let file = "path = \"tiny-1.0-py3-none-any.whl\"";
    assert!(lock.contains(file), "{lock}");
    site.write("uv.lock", &lock.replace(file, &format!("{file}, hash = \"sha256:{zeros}\"")));
    for offline in ["PIP_NO_INDEX", "UV_OFFLINE"] {
        site.app.settings.env.insert(offline.to_owned(), Secret::new("1".to_owned()));
        let failure = site.build(&with_uv()).await.unwrap_err();
        assert!(failure.why.contains("uv.lock could not be installed"), "{failure}");
        assert!(failure.to_string().contains(&zeros), "{failure}");
        site.app.settings.env.remove(offline);
    }
}

/// uv is fetched like any package: here, from a directory.
#[tokio::test]
async fn where_there_is_no_uv_it_is_fetched_for_a_lock() {
    let site = Site::new("env = { PIP_FIND_LINKS = \"wheels\", PIP_NO_INDEX = \"1\" }");
    locked(&site);
    const SCRIPT: &str = "import sys, zipfile\n\
        files = {'uv-1.0.dist-info/METADATA': 'Metadata-Version: 2.1\\nName: uv\\nVersion: 1.0\\n',\n\
        \x20        'uv-1.0.dist-info/WHEEL': 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n',\n\
        \x20        'uv-1.0.data/scripts/uv': open(sys.argv[1], 'rb').read()}\n\
        files['uv-1.0.dist-info/RECORD'] = ''.join(f'{it},,\\n' for it in [*files, 'uv-1.0.dist-info/RECORD'])\n\
        with zipfile.ZipFile(f'{sys.argv[2]}/uv-1.0-py3-none-any.whl', 'w') as wheel:\n\
        \x20   for path, text in files.items():\n\
        \x20       about = zipfile.ZipInfo(path)\n\
        \x20       about.external_attr = 0o100755 << 16\n\
        \x20       wheel.writestr(about, text)\n";
    let mut python = Command::new("python3");
    python.args(["-c", SCRIPT]).arg(uv()).arg(site.code().join("wheels"));
    assert!(python.status().unwrap().success());
    let made = site.build(&without_uv()).await.unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(printed(&made.python, "import tiny; print(tiny.version)"), "1.0");
    // It stays, for the next lock, and is no part of the environment.
    assert!(site.app.place.cache().join("uv-program/bin/uv").exists());
    assert!(!made.scripts.join("uv").exists());
}
