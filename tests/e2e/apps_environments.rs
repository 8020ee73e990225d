//! Environments that the gateway makes, with the machine's own Python and packages that are at hand.

use std::path::Path;

use crate::harness::apps::{Plan, is_root, output_of, wsgi};
use crate::harness::backends::python_program;
use crate::harness::{Site, eventually, eventually_every};

/// A directory with wheels of what is installed for the tests.
pub fn wheels(names: &[&str]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let anybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), anybody).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/wheel.py");
    let arguments = [&[script, directory.path().to_str().unwrap()], names].concat();
    output_of(&python_program("python"), &arguments);
    directory
}

/// An environment with gunicorn that anybody can run in, made of the machine's own Python without an installer.
pub fn for_anybody() -> tempfile::TempDir {
    let wheels = wheels(&["gunicorn", "packaging"]);
    let directory = tempfile::tempdir().unwrap();
    let anybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), anybody).unwrap();
    let system = ["/usr/bin/python3", "/usr/local/bin/python3"].into_iter().find(|path| Path::new(path).exists());
    let path = directory.path().to_str().unwrap();
    output_of(system.expect("the system has a Python"), &["-m", "venv", "--without-pip", path]);
    let python = format!("{path}/bin/python");
    let packages = output_of(&python, &["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]);
    for wheel in std::fs::read_dir(wheels.path()).unwrap() {
        output_of(&python, &["-m", "zipfile", "-e", wheel.unwrap().path().to_str().unwrap(), packages.trim()]);
    }
    directory
}

/// Whom apps run as whose environment anybody could use.
fn user() -> &'static str {
    if is_root() { "user = \"nobody\"" } else { "" }
}

fn requirements(wheels: &Path, more: &str) -> String {
    format!("--no-index\n--find-links {}\n{more}\n", wheels.display())
}

/// The build backend of a package of the app's own, which takes as long as it is let.
const BACKEND: &str = "import os, time\n\
    def get_requires_for_build_wheel(config=None):\n    return []\n\
    def build_wheel(directory, config=None, metadata=None):\n    open(os.environ['HOME'] + '/began', 'w').close()\n    time.sleep(600)\n\
    prepare_metadata_for_build_wheel = build_wheel\n";

/// An offline machine: a folder of wheels is all there is.
#[test]
fn an_environment_is_made_of_a_folder_of_wheels() {
    let wheels = wheels(&["gunicorn", "packaging"]);
    let code = wsgi("one") + "\nimport packaging\n";
    let plan =
        Plan::new(&code, "workers = 1\nkeep = 1").environment("requirements = \"requirements.txt\"").user(user());
    let mut site = plan.file("requirements.txt", &requirements(wheels.path(), "gunicorn\npackaging")).start();
    assert_eq!(site.get("/version").text(), "one");
    let there = |count: usize| site.there(&environments()).len() == count;
    assert!(there(1));
    // The same packages are no reason for another environment.
    let told = site.release();
    assert!(told.contains("is there already"), "{told}");
    assert!(there(1));
    // A requirement that cannot be had: the installer's own words, and what serves serves on.
    let before = site.pids("shop");
    site.write("shop/requirements.txt", &requirements(wheels.path(), "gunicorn\npackaging\nno-such-thing==1.0"));
    let told = site.no_release();
    assert!(told.contains("no-such-thing"), "{told}");
    assert!(told.contains("No matching distribution") || told.contains("not found"), "{told}");
    assert_eq!((site.get("/version").text().as_str(), site.pids("shop")), ("one", before));
    eventually("what was half made is removed", || there(1).then_some(()));
    // Other packages are another environment, and the first goes with the release that had it.
    let first = site.there(&environments());
    let version = output_of(&python_program("python"), &["-c", "import packaging; print(packaging.__version__)"]);
    site.write("shop/requirements.txt", &requirements(wheels.path(), &format!("gunicorn\npackaging=={version}")));
    site.write("shop/app.py", &wsgi("two"));
    site.release();
    assert_eq!(site.get("/version").text(), "two");
    eventually("the first is removed", || {
        let now = site.there(&environments());
        (now.len() == 1 && now.is_disjoint(&first)).then_some(())
    });
    called_off_while_packages_are_installed(&site, wheels.path());
    killed_while_packages_are_installed(&mut site, wheels.path());
    assert_eq!(site.get("/version").text(), "two");
}

fn called_off_while_packages_are_installed(site: &Site, wheels: &Path) {
    let before = site.processes();
    let began = takes_long_to_install(site, wheels);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| site.command("release", &["shop"]));
        eventually("the installer is at it", || (began.exists() || asked.is_finished()).then_some(()));
        let (status, told) = site.command("rollback", &["shop"]);
        assert!(status.success() && told.contains("called off"), "{told}");
        let (status, told) = asked.join().unwrap();
        assert!(!status.success() && told.contains("a rollback was asked for"), "{told}");
    });
    std::fs::remove_file(began).unwrap();
    assert_eq!((site.there(&environments()).len(), site.there("releases").len()), (1, 1));
    eventually_every(std::time::Duration::from_millis(100), "nothing of it runs", || {
        (site.processes().len() == before.len()).then_some(())
    });
}

/// Requirements whose installer is at it for long; the file that says that it is.
fn takes_long_to_install(site: &Site, wheels: &Path) -> std::path::PathBuf {
    site.write("shop/slow/backend.py", BACKEND);
    site.write(
        "shop/slow/pyproject.toml",
        "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n[project]\nname = \"slow\"\nversion = \"1\"\n",
    );
    site.write("shop/requirements.txt", &requirements(wheels, "gunicorn\n./slow"));
    site.place().join("home/began")
}

fn killed_while_packages_are_installed(site: &mut Site, wheels: &Path) {
    let began = takes_long_to_install(site, wheels);
    let config = site.gateway.config_path();
    let asked = std::thread::spawn(move || {
        crate::harness::gateway::passerelle(&["release", "--config", config.to_str().unwrap(), "shop"])
    });
    eventually("the installer is at it", || {
        if asked.is_finished() {
            panic!("{}", site.gateway.output());
        }
        began.exists().then_some(())
    });
    let installing = site.processes();
    site.gateway.kill();
    assert!(!asked.join().unwrap().0.success());
    site.gateway.start_again();
    site.serves();
    eventually_every(std::time::Duration::from_millis(100), "nothing of it runs", || {
        let now = site.processes();
        installing.iter().all(|(pid, _)| now.iter().all(|(other, _)| other != pid)).then_some(())
    });
    eventually("nothing of it is there", || {
        (site.there(&environments()).len() == 1 && site.there("releases").len() == 1).then_some(())
    });
}

fn environments() -> String {
    match is_root() {
        true => format!("environments-{}", nix::unistd::User::from_name("nobody").unwrap().unwrap().uid),
        false => "environments".to_owned(),
    }
}
