//! Entries of many kinds, imported by the machine's interpreter.

use super::*;
use crate::app::environment::server::WorkerClass;

/// What of each is found: an interface, or a part of why there is none. The app prints, and has modules that are named
/// like Python's own.
#[tokio::test]
async fn entries_are_told_apart() {
    let site = Site::new("");
    site.write("json.py", "raise RuntimeError('not this one')\n");
    site.write("inspect.py", "raise RuntimeError('not this one')\n");
    site.write("package/__init__.py", "").write("package/wsgi.py", "from . import other\napplication = other.Wsgi()\n");
    site.write("package/other.py", "class Wsgi:\n    def __call__(self, environ, start_response): pass\n");
    site.write("src/hidden/__init__.py", "");
    site.write("broken.py", "def deeper():\n    return 1 / 0\n\ndeeper()\n");
    site.write("leaves.py", "import sys\nsys.exit('no settings')\n");
    site.write("dies.py", "import os\nprint('last words', flush=True)\nos._exit(3)\n");
    site.write("lacks.py", "import flask_sqlalchemy_not_here\n");
    site.write(
        "kinds.py",
        r#"
import functools, sys, threading, time
print("noise", end="")
print("passerelle-0123 {}", file=sys.stderr)
threading.Thread(target=time.sleep, args=(3600,)).start()

def wsgi(environ, start_response): pass
async def asgi(scope, receive, send): pass
def asgi_by_arity(scope, receive, send): return asgi(scope, receive, send)
def decorated_wsgi(*args, **kwargs): return wsgi(*args, **kwargs)

@functools.wraps(asgi)
def decorated_asgi(*args, **kwargs): return asgi(*args, **kwargs)

class AsgiClass:
    def __init__(self, scope, receive, send): pass
    def __await__(self): yield
class WsgiClass:
    def __init__(self, environ, start_response): pass
    def __iter__(self): yield b""
class Asgi:
    async def __call__(self, scope, receive, send): pass
class Set:
    def __init__(self): self.__call__ = self.later
    async def later(self, scope, receive, send): pass
    def __call__(self, *args): pass
class Wsgi:
    def __call__(self, environ, start_response): pass

partial_asgi = functools.partial(asgi)
partial_wsgi = functools.partial(lambda other, environ, start_response: None, 1)
asgi_object, wsgi_object, set_object = Asgi(), Wsgi(), Set()
class holder:
    inner = Asgi()
def factory(): return Wsgi()
def odd(one): pass
number = 7
"#,
    );
    let commands = Commands::new(&site.app, None);
    let search = without_uv();
    let environ = installer::environ(&site.app);
    let found = interpreter::find(&commands, &search, &interpreter::Wanted::default(), None, false, &environ).await;
    let (Python::Here(interpreter), _) = found.unwrap() else { panic!() };
    let cases = [
        ("package.wsgi:application", "WSGI"),
        ("kinds:wsgi", "WSGI"),
        ("kinds:asgi", "ASGI"),
        ("kinds:asgi_by_arity", "ASGI"),
        ("kinds:decorated_wsgi", "WSGI"),
        ("kinds:decorated_asgi", "ASGI"),
        ("kinds:AsgiClass", "ASGI"),
        ("kinds:WsgiClass", "WSGI"),
        ("kinds:asgi_object", "ASGI"),
        ("kinds:wsgi_object", "WSGI"),
        ("kinds:set_object", "ASGI"),
        ("kinds:partial_asgi", "ASGI"),
        ("kinds:partial_wsgi", "WSGI"),
        ("kinds:holder.inner", "ASGI"),
        ("kinds:factory", "add a line such as `app = factory()`"),
        ("kinds:odd", "neither a WSGI nor an ASGI application"),
        ("kinds:number", "of type int, which cannot be called"),
        ("kinds:application", "kinds has no application; what could be meant: asgi_object, partial_asgi"),
        ("kinds:holder.outer", "has no outer"),
        ("nowhere:app", "there is no module nowhere in the app's directory"),
        ("package.nowhere:app", "there is no module package.nowhere"),
        ("hidden:app", "it is beneath `src`: add PYTHONPATH = \"src\""),
        ("lacks:app", "the module flask_sqlalchemy_not_here is not there"),
        ("broken:app", "broken:app cannot be imported"),
        ("leaves:app", "leaves:app cannot be imported"),
        ("dies:app", "did not survive it: it exited with code 3"),
    ];
    for (written, expected) in cases {
        let mut app = Site::new("").app;
        app.settings.entry = written.parse().unwrap();
        app.account = site.app.account.clone();
        app.place = site.app.place.clone();
        let commands = Commands::new(&app, None);
        let scripts = interpreter.path.parent().unwrap();
        let found = entry::interface(&commands, 1, &interpreter.path, scripts, &site.code()).await;
        let told = match &found {
            Ok(interface) => interface.to_string(),
            Err(failure) => failure.why.clone(),
        };
        assert!(told.contains(expected), "{written}: {told}");
        let output = found.err().map(|failure| failure.output.join("\n")).unwrap_or_default();
        match written {
            "broken:app" => {
                let place = format!("File \"{}/broken.py\", line 4, in <module>", site.code().display());
                let first = output.lines().nth(1).unwrap();
                assert!(first.contains(&place), "the traceback does not begin with the app's own: {output}");
                assert!(output.ends_with("ZeroDivisionError: division by zero"), "{output}");
            }
            "leaves:app" => assert!(output.contains("SystemExit: no settings"), "{output}"),
            "dies:app" => assert!(output.contains("last words"), "{output}"),
            _ => {}
        }
    }
}

/// The frameworks that people have, in an environment that is there.
#[tokio::test]
async fn an_environment_that_is_there_is_used_as_it_is() {
    let venv = std::env::var_os("PASSERELLE_TEST_VENV").map(PathBuf::from);
    let venv = venv.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-venv"));
    let mut site = Site::new(&format!("python = \"{}/bin/python\"", venv.display()));
    // Whose interpreter it is need not be for everybody.
    site.app.account.ids = None;
    site.write(
        "shop.py",
        "from flask import Flask\nflask = Flask(__name__)\nfrom fastapi import FastAPI\napi = FastAPI()\n",
    );
    site.write(
        "site_of_django.py",
        "from django.conf import settings\nsettings.configure(SECRET_KEY='x')\n\
         from django.core.asgi import get_asgi_application\nfrom django.core.wsgi import get_wsgi_application\n\
         wsgi, asgi = get_wsgi_application(), get_asgi_application()\n",
    );
    for (entry, wanted, interface, server) in [
        ("shop:flask", None, Interface::Wsgi, AppServer::Gunicorn),
        ("shop:flask", Some(AppServer::Uwsgi), Interface::Wsgi, AppServer::Uwsgi),
        ("shop:flask", Some(AppServer::Granian), Interface::Wsgi, AppServer::Granian),
        ("shop:api", None, Interface::Asgi, AppServer::Uvicorn),
        ("shop:api", Some(AppServer::Gunicorn), Interface::Asgi, AppServer::Gunicorn),
        ("site_of_django:wsgi", None, Interface::Wsgi, AppServer::Gunicorn),
        ("site_of_django:asgi", None, Interface::Asgi, AppServer::Uvicorn),
    ] {
        site.app.settings.entry = entry.parse().unwrap();
        site.app.settings.server = wanted;
        let found = site.build(&without_uv()).await.unwrap_or_else(|failure| panic!("{entry}: {failure}"));
        assert_eq!((found.interface, found.server), (interface, server), "{entry}");
        assert_eq!(found.scripts, venv.join("bin"));
        let class = (wanted == Some(AppServer::Gunicorn)).then_some(WorkerClass::UvicornWorker);
        assert_eq!(found.worker_class, class, "{entry}");
        assert_eq!(found.took, Duration::ZERO);
    }
    site.app.settings.entry = "shop:flask".parse().unwrap();
    site.app.settings.server = Some(AppServer::Uvicorn);
    let failure = site.build(&without_uv()).await.unwrap_err();
    assert!(failure.why.contains("server = \"gunicorn\""), "{failure}");
    assert!(site.environments().is_empty());
}

/// The system's Python is another version after an upgrade, and links to it stay.
#[test]
fn an_environment_is_of_the_python_that_it_was_made_with() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path();
    for directory in ["bin", "lib/python3.11", "system"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    for version in ["python3.11", "python3.13"] {
        std::fs::write(root.join("system").join(version), "").unwrap();
    }
    let environment = Environment {
        python: root.join("bin/python"),
        scripts: root.join("bin"),
        server: AppServer::Gunicorn,
        interface: Interface::Wsgi,
        worker_class: None,
        python_version: "3.11.2".to_owned(),
        took: Duration::ZERO,
    };
    let link = |version: &str| {
        let _ = std::fs::remove_file(root.join("system/python3"));
        std::os::unix::fs::symlink(version, root.join("system/python3")).unwrap();
    };
    link("python3.11");
    std::os::unix::fs::symlink(root.join("system/python3"), root.join("bin/python")).unwrap();
    assert!(environment.is_of_its_python());
    link("python3.13");
    assert!(!environment.is_of_its_python());
    link("python3.12");
    assert!(!environment.is_of_its_python(), "it is gone");
    link("python3.11");
    std::fs::remove_dir(root.join("lib/python3.11")).unwrap();
    assert!(!environment.is_of_its_python());
}

#[tokio::test]
async fn an_environment_that_is_there_must_have_the_server() {
    let mut site = Site::new("python = \".venv/bin/python\"");
    site.app.account.ids = None;
    site.write("app.py", WSGI);
    let made = Command::new("python3").args(["-m", "venv", "--without-pip"]).arg(site.code().join(".venv")).status();
    assert!(made.unwrap().success());
    let failure = site.build(&without_uv()).await.unwrap_err();
    assert!(failure.why.contains(".venv/bin/python -m pip install gunicorn"), "{failure}");
    // One in the directory that is released comes first.
    let other = site.directory.path().join("other");
    let made = Command::new("python3").args(["-m", "venv", "--without-pip"]).arg(other.join(".venv")).status();
    assert!(made.unwrap().success());
    let recipe = Recipe::find_among(&site.app, &site.code(), &other, &without_uv()).await.unwrap();
    let failure = recipe.build(&site.app, 1, &Progress::new(&site.app.name)).await.unwrap_err();
    assert!(failure.why.contains("other/.venv/bin/python -m pip install gunicorn"), "{failure}");
    std::fs::remove_dir_all(site.code().join(".venv")).unwrap();
    let failure = site.build(&without_uv()).await.unwrap_err();
    assert!(failure.to_string().contains(".venv/bin/python"), "{failure}");
}
