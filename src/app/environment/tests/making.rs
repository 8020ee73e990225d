//! Environments made, used again, made anew, and removed.

use super::*;
use crate::app::environment::server::WorkerClass;

/// Both ways of making one.
fn ways() -> [(&'static str, Search); 2] {
    [("pip", without_uv()), ("uv", with_uv())]
}

const LOCAL: &str = "--no-index\n--find-links wheels\n";

#[tokio::test]
async fn packages_come_from_a_directory_and_the_server_is_added() {
    for (way, search) in ways() {
        let site = Site::new("");
        site.wheel("tiny", &[]).wheel("gunicorn", &[]);
        site.write("requirements.txt", &format!("{LOCAL}tiny==1.0\n")).write("app.py", WSGI);
        let made = site.build(&search).await.unwrap_or_else(|failure| panic!("{way}: {failure}"));
        assert_eq!((made.server, made.interface), (AppServer::Gunicorn, Interface::Wsgi), "{way}");
        assert!(made.took > Duration::ZERO, "{way}");
        assert_eq!(printed(&made.python, "import tiny, gunicorn; print(tiny.version)"), "1.0", "{way}");
        let version = printed(&made.python, "import platform; print(platform.python_version())");
        assert_eq!(made.python_version, version);
        let compiled = printed(&made.python, "import importlib.util as u; print(u.find_spec('tiny').cached)");
        assert!(Path::new(&compiled).exists(), "{way}: {compiled}");
        // The second time it is there.
        let again = site.build(&search).await.unwrap();
        assert_eq!(again, Environment { took: Duration::ZERO, ..made }, "{way}");
        assert_eq!(site.environments().len(), 1, "{way}");
    }
}

#[tokio::test]
async fn a_variable_says_where_packages_come_from() {
    let search = with_uv();
    let site = Site::new("env = { PIP_NO_INDEX = \"1\", PIP_FIND_LINKS = \"wheels /nowhere\" }");
    site.wheel("tiny", &[]).wheel("uvicorn", &[]);
    site.write("requirements.txt", "tiny\n").write("app.py", ASGI);
    let made = site.build(&search).await.unwrap_or_else(|failure| panic!("{failure}"));
    // What uvicorn is better with is not in the directory.
    assert_eq!((made.server, made.interface), (AppServer::Uvicorn, Interface::Asgi));
}

#[tokio::test]
async fn an_installer_that_fails_has_the_last_word() {
    for (way, search) in ways() {
        let site = Site::new("env = { PIP_INDEX_URL = \"https://user:hunter2hunter2@127.0.0.1:1/simple\" }");
        site.wheel("tiny", &[]).write("app.py", WSGI);
        site.write("requirements.txt", &format!("{LOCAL}not-there-hunter2hunter2==7.1\n"));
        let failure = site.build(&search).await.unwrap_err();
        assert!(failure.why.contains("requirements.txt could not be installed: it exited with code 1"), "{failure}");
        assert!(failure.to_string().contains("not-there-(secret)"), "{way}: {failure}");
    }
}

#[tokio::test]
async fn what_was_cut_short_is_made_anew() {
    let search = with_uv();
    let site = Site::new("");
    site.wheel("tiny", &[]).wheel("gunicorn", &[]).write("app.py", WSGI);
    site.write("requirements.txt", &format!("{LOCAL}tiny\n"));
    let made = site.build(&search).await.unwrap();
    let environment = made.scripts.parent().unwrap();
    // As it is when the gateway dies in the middle, or the interpreter is gone.
    for missing in ["passerelle-made", "bin/python"] {
        std::fs::remove_file(environment.join(missing)).unwrap();
        std::fs::write(environment.join("left-over"), "").unwrap();
        let again = site.build(&search).await.unwrap();
        assert_eq!(again.python, made.python);
        assert!(again.took > Duration::ZERO, "without {missing}");
        assert!(!environment.join("left-over").exists(), "without {missing}");
    }
}

#[tokio::test]
async fn an_entry_that_is_wrong_costs_no_second_installation() {
    let site = Site::new("");
    site.wheel("tiny", &[]).wheel("gunicorn", &[]);
    site.write("requirements.txt", &format!("{LOCAL}tiny\n")).write("app.py", "import nowhere\n");
    let failure = site.build(&with_uv()).await.unwrap_err();
    assert!(failure.why.contains("the module nowhere is not there"), "{failure}");
    let environment = site.app.place.environments().join(&site.environments()[0]);
    std::fs::write(environment.join("kept"), "").unwrap();
    site.write("app.py", WSGI);
    site.build(&with_uv()).await.unwrap();
    assert!(environment.join("kept").exists());
}

#[tokio::test]
async fn another_server_gets_an_environment_of_its_own() {
    let search = with_uv();
    let mut site = Site::new("");
    site.wheel("tiny", &[]).wheel("gunicorn", &[]).wheel("granian", &[]).write("app.py", WSGI);
    site.write("requirements.txt", &format!("{LOCAL}tiny\n"));
    let first = site.build(&search).await.unwrap();
    site.app.settings.server = Some(AppServer::Granian);
    let key = site.find(&search).await.unwrap().key().to_owned();
    let second = site.build(&search).await.unwrap();
    assert_eq!(second.server, AppServer::Granian);
    assert_ne!(second.python, first.python);
    assert_eq!(printed(&first.python, "import importlib.util as u; print(u.find_spec('granian'))"), "None");
    assert_eq!(site.environments(), [key.clone(), format!("{key}-granian")]);
    let again = site.build(&search).await.unwrap();
    assert_eq!(again, Environment { took: Duration::ZERO, ..second });
    // Both are of one recipe.
    std::fs::create_dir(site.app.place.environments().join("other")).unwrap();
    prune(&site.app, &BTreeSet::from([key.clone()])).await.unwrap();
    assert_eq!(site.environments().len(), 2);
    prune(&site.app, &BTreeSet::new()).await.unwrap();
    assert!(site.environments().is_empty());
}

#[tokio::test]
async fn nothing_beyond_an_environment_is_removed_with_it() {
    let site = Site::new("");
    let outside = site.directory.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("precious"), "").unwrap();
    let environments = site.app.place.environments();
    std::os::unix::fs::symlink(&outside, environments.join("link")).unwrap();
    std::fs::create_dir(environments.join("old")).unwrap();
    std::os::unix::fs::symlink(&outside, environments.join("old/link")).unwrap();
    std::fs::write(environments.join("file"), "").unwrap();
    prune(&site.app, &BTreeSet::new()).await.unwrap();
    assert!(site.environments().is_empty());
    assert!(outside.join("precious").exists());
}

#[tokio::test]
async fn hashes_are_checked() {
    for (way, search) in ways() {
        let site = Site::new("");
        site.wheel("tiny", &[]).wheel("gunicorn", &[]).write("app.py", WSGI);
        let wrong = hash_of(&site, "gunicorn");
        site.write("requirements.txt", &format!("{LOCAL}tiny==1.0 --hash=sha256:{wrong}\n"));
        let failure = site.build(&search).await.unwrap_err();
        assert!(failure.to_string().to_lowercase().contains("hash"), "{way}: {failure}");
        assert!(failure.to_string().contains(&hash_of(&site, "tiny")), "{way}: {failure}");
    }
}

#[tokio::test]
async fn where_hashes_are_demanded_the_server_must_have_one_too() {
    let mut site = Site::new("");
    site.wheel("tiny", &[]).wheel("gunicorn", &[]).write("app.py", WSGI);
    let tiny = format!("{LOCAL}tiny==1.0 \\\n    --hash=sha256:{}\n", hash_of(&site, "tiny"));
    site.write("requirements.txt", &tiny);
    let failure = site.build(&with_uv()).await.unwrap_err();
    assert!(failure.why.contains("demands hashes, and gunicorn is not in it"), "{failure}");
    // One that is asked for is missed before anything is made.
    site.app.settings.server = Some(AppServer::Gunicorn);
    let failure = site.find(&with_uv()).await.err().unwrap();
    assert!(failure.why.contains("demands hashes, and gunicorn is not in it"), "{failure}");
    site.write("requirements.txt", &format!("{tiny}gunicorn==1.0 --hash=sha256:{}\n", hash_of(&site, "gunicorn")));
    assert_eq!(site.build(&with_uv()).await.unwrap().server, AppServer::Gunicorn);
}

/// What it is that was made before changes nothing.
#[tokio::test]
async fn gunicorn_serves_asgi_with_its_worker_class_whatever_is_there() {
    let mut site = Site::new("");
    for (name, requires) in [("uvicorn", &[][..]), ("gunicorn", &[]), ("uvicorn-worker", &["uvicorn", "gunicorn"])] {
        site.wheel(name, requires);
    }
    site.write("app.py", ASGI).write("requirements.txt", LOCAL);
    assert_eq!(site.build(&with_uv()).await.unwrap().server, AppServer::Uvicorn);
    site.app.settings.server = Some(AppServer::Gunicorn);
    for again in [false, true] {
        let made = site.build(&with_uv()).await.unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!((made.server, made.worker_class), (AppServer::Gunicorn, Some(WorkerClass::UvicornWorker)));
        assert_eq!(made.took == Duration::ZERO, again);
        assert!(made.is_there(&site.app).await);
    }
    // Nor does what is made for WSGI.
    site.write("app.py", WSGI);
    assert_eq!(site.build(&with_uv()).await.unwrap().worker_class, None);
    assert_eq!(site.environments().len(), 3);
    // What is cut short is not there.
    let made = site.build(&with_uv()).await.unwrap();
    std::fs::write(made.scripts.with_file_name("passerelle-made"), "packages").unwrap();
    assert!(!made.is_there(&site.app).await);
}

/// Of a wheel of the site.
fn hash_of(site: &Site, name: &str) -> String {
    let wheel = std::fs::read(site.code().join(format!("wheels/{name}-1.0-py3-none-any.whl"))).unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &wheel);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn what_a_requirement_brings_along_is_found_and_versions_stay() {
    let search = with_uv();
    let site = Site::new("");
    site.wheel("gunicorn", &["tiny>=1"]).write("app.py", WSGI);
    let wheels = site.code().join("wheels");
    wheel(&wheels, "tiny", "1.0", &[]);
    wheel(&wheels, "tiny", "2.0", &[]);
    site.write("requirements.txt", &format!("{LOCAL}tiny==1.0\n"));
    let made = site.build(&search).await.unwrap();
    assert_eq!(printed(&made.python, "import tiny; print(tiny.version)"), "1.0");
    // A server that would need another version is refused, not forced in.
    site.wheel("gunicorn", &["tiny>=2"]).write("requirements.txt", &format!("{LOCAL}tiny==1.0 # again\n"));
    let failure = site.build(&search).await.unwrap_err();
    assert!(failure.why.contains("gunicorn could not be installed"), "{failure}");
    assert!(failure.to_string().contains("tiny"), "{failure}");
}
