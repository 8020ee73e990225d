//! Which file says what to install, with which Python, and what makes another environment of it.

use super::*;

async fn key(site: &Site) -> String {
    site.find(&without_uv()).await.unwrap_or_else(|failure| panic!("{failure}")).key().to_owned()
}

#[tokio::test]
async fn a_key_changes_with_what_the_environment_is_made_of_and_with_nothing_else() {
    let site = Site::new("");
    let nothing = key(&site).await;
    site.write("requirements.txt", "-r base.txt\n./local\n--find-links wheels\n").write("base.txt", "flask\n");
    site.write("local/pyproject.toml", "[project]\n").write("wheels/a-1-py3-none-any.whl", "");
    let mut keys = vec![nothing, key(&site).await];
    assert_eq!(keys[1].len(), 32);
    for (file, text) in [
        ("base.txt", "flask>=3\n"),
        ("requirements.txt", "-r base.txt\n./local\n--find-links wheels\n# more\n"),
        ("local/pyproject.toml", "[project]\nname = \"local\"\n"),
        ("wheels/b-1-py3-none-any.whl", ""),
    ] {
        site.write(file, text);
        let key = key(&site).await;
        assert!(!keys.contains(&key), "{file} makes no difference");
        keys.push(key);
    }
    site.write("app.py", WSGI).write("notes.txt", "x").write("local/__pycache__/x.pyc", "x");
    assert_eq!(Some(&key(&site).await), keys.last());
}

#[tokio::test]
async fn the_lock_comes_first_then_the_project_then_the_requirements() {
    let site = Site::new("");
    site.write("requirements.txt", "flask\n");
    let shown = async || match site.find(&without_uv()).await.unwrap().kind {
        Kind::Made(making) => making.source.shown(),
        Kind::There(_) => panic!(),
    };
    assert_eq!(shown().await, "requirements.txt");
    site.write("pyproject.toml", "[project]\nname = \"shop\"\nversion = \"1\"\ndependencies = [\"flask\"]\n");
    assert_eq!(shown().await, "pyproject.toml");
    site.write("uv.lock", "version = 1\nrequires-python = \">=3.8\"\n");
    assert_eq!(shown().await, "uv.lock");
}

#[tokio::test]
async fn a_file_that_is_named_is_in_the_code_or_beside_the_configuration() {
    let site = Site::new("requirements = \"requirements/prod.txt\"");
    let failure = site.find(&without_uv()).await.err().unwrap();
    assert!(failure.why.contains("neither in the app's directory nor beside the configuration"), "{failure}");
    let beside = site.directory.path().join("requirements");
    std::fs::create_dir(&beside).unwrap();
    std::fs::write(beside.join("prod.txt"), "flask\n").unwrap();
    let found = async || match site.find(&without_uv()).await.unwrap().kind {
        Kind::Made(making) => making.source,
        Kind::There(_) => panic!(),
    };
    let source = Source::Requirements { file: beside.join("prod.txt"), directory: beside.clone() };
    assert_eq!(found().await, source);
    site.write("requirements/prod.txt", "flask\n");
    let file = site.code().join("requirements/prod.txt");
    assert_eq!(found().await, Source::Requirements { file, directory: site.code() });
}

#[tokio::test]
async fn a_project_that_does_not_say_what_to_install_is_told_what_to_write() {
    let site = Site::new("");
    for (text, told) in [
        ("[tool.poetry]\nname = \"shop\"\n", "poetry export"),
        ("[tool.ruff]\n", "has no [project]"),
        ("[project]\nname = \"shop\"\ndynamic = [\"dependencies\"]\n", "leaves its `dependencies` to the build"),
        ("[project]\ndependencies = [1]\n", "no requirement"),
        ("[project]\ndependencies = [\"--index-url=https://example.com\"]\n", "no requirement"),
        ("[project]\nrequires-python = \"^3.8\"\n", "`requires-python`"),
        ("[project\n", "is not TOML"),
    ] {
        site.write("pyproject.toml", text);
        let failure = site.find(&without_uv()).await.err().unwrap();
        assert!(failure.why.contains(told), "{text}: {failure}");
    }
}

#[tokio::test]
async fn a_project_that_says_nothing_gives_way_to_the_file_that_does() {
    let site = Site::new("");
    site.write("requirements.txt", "flask\n").write("base.txt", "flask\n");
    let dynamic = "[project]\nname = \"shop\"\ndynamic = [\"version\", \"dependencies\"]\n";
    let of_setuptools =
        |file: &str| format!("{dynamic}[tool.setuptools.dynamic]\ndependencies = {{ file = {file} }}\n");
    for (text, expected) in [
        ("[tool.ruff]\nline-length = 100\n", "requirements.txt"),
        ("[tool.poetry]\nname = \"shop\"\n", "requirements.txt"),
        ("[build-system]\nrequires = [\"setuptools\"]\n", "requirements.txt"),
        ("[project]\nname = \"shop\"\n", "requirements.txt"),
        ("[project]\ndependencies = []\n", "requirements.txt"),
        ("[project]\ndependencies = [\"bottle\"]\n", "pyproject.toml"),
        (dynamic, "requirements.txt"),
        (&of_setuptools("[\"requirements.txt\"]"), "requirements.txt"),
        (&of_setuptools("[\"base.txt\"]"), "base.txt"),
        (&of_setuptools("\"base.txt\""), "base.txt"),
        (&of_setuptools("[\"base.txt\", \"more.txt\"]"), "requirements.txt"),
        (&of_setuptools("[\"none.txt\"]"), "requirements.txt"),
    ] {
        site.write("pyproject.toml", text);
        let found = site.find(&without_uv()).await.unwrap_or_else(|failure| panic!("{text}: {failure}"));
        let Kind::Made(making) = found.kind else { panic!() };
        assert_eq!(making.source.shown(), expected, "{text}");
    }
    // What it demands of the Python holds all the same.
    site.write("pyproject.toml", "[project]\nrequires-python = \">=4\"\n");
    assert!(site.find(&without_uv()).await.err().unwrap().why.contains(">=4 as the project demands"));
    // And what is broken is told.
    site.write("pyproject.toml", "[project\n");
    assert!(site.find(&without_uv()).await.err().unwrap().why.contains("is not TOML"));
}

#[tokio::test]
async fn the_dependencies_of_a_project_are_installed() {
    let site = Site::new("env = { PIP_NO_INDEX = \"1\", PIP_FIND_LINKS = \"wheels\" }");
    site.wheel("tiny", &[]).wheel("granian", &[]).wheel("uvicorn", &[]).write("app.py", ASGI);
    let dependencies =
        "[project]\nrequires-python = \">=3.8\"\ndependencies = [\"tiny>=1; python_version>'3'\", \"granian\"]\n";
    site.write("pyproject.toml", dependencies);
    let made = site.build(&with_uv()).await.unwrap_or_else(|failure| panic!("{failure}"));
    // It is named.
    assert_eq!(made.server, AppServer::Granian);
    assert_eq!(printed(&made.python, "import tiny; print(tiny.version)"), "1.0");
}

#[tokio::test]
async fn a_python_that_is_not_here_is_told() {
    let site = Site::new("");
    site.write("pyproject.toml", "[project]\nrequires-python = \">=4\"\n");
    let failure = site.find(&without_uv()).await.err().unwrap();
    assert!(failure.why.contains("at least 3.8, >=4 as the project demands"), "{failure}");
    assert!(failure.output.iter().any(|line| line.contains(" is Python 3.")), "{failure}");
    // A hope is not a demand.
    site.write("pyproject.toml", "[project]\nrequires-python = \">=3.8\"\n").write(".python-version", "3.99\n");
    let Kind::Made(making) = site.find(&without_uv()).await.unwrap().kind else { panic!() };
    assert!(making.note.unwrap().contains("`.python-version` asks for 3.99"));
    // uv would fetch it.
    let Kind::Made(making) = site.find(&with_uv()).await.unwrap().kind else { panic!() };
    assert_eq!(making.python, Python::Fetched("3.99".to_owned()));
}
