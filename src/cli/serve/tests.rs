//! What is found of a service, and what it is written down as.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::target::Target;
use super::text::{Plan, Tls};
use super::*;
use crate::config::settings::ListenAddress;

/// Files beneath a directory that is no longer there when this is dropped.
fn project(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().canonicalize().unwrap().join("shop");
    for (path, text) in files {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    (home, root)
}

/// The directory from the project's, the entry, and the name.
fn found(root: &Path, target: &str) -> (String, String, String) {
    let target = Target::find(target, root).unwrap_or_else(|error| panic!("{target}: {error}"));
    let directory = target.directory.strip_prefix(root).unwrap().display().to_string();
    (directory, target.entry.to_string(), target.name)
}

fn refused(root: &Path, target: &str) -> String {
    Target::find(target, root).unwrap_err().to_string().replace(&root.display().to_string(), "ROOT")
}

fn owned(directory: &str, entry: &str, name: &str) -> (String, String, String) {
    (directory.to_owned(), entry.to_owned(), name.to_owned())
}

const FLASK: &str =
    "from flask import Flask\n\napp = Flask(__name__)\n\n@app.get('/healthz')\ndef healthz():\n    return 'ok'\n";

#[test]
fn files_and_modules() {
    let (_home, root) = project(&[
        ("app.py", FLASK),
        ("pkg/__init__.py", ""),
        ("pkg/web/__init__.py", "app = 1"),
        ("pkg/web/site.py", FLASK),
        ("orders/app.py", FLASK),
        ("my-app.py", FLASK),
    ]);
    assert_eq!(found(&root, "app.py:app"), owned("", "app:app", "shop"));
    assert_eq!(found(&root, "app.py"), owned("", "app:app", "shop"));
    assert_eq!(found(&root, "app:app"), owned("", "app:app", "shop"));
    assert_eq!(found(&root, "app"), owned("", "app:app", "shop"));
    assert_eq!(found(&root, "./app.py:app.wsgi_app"), owned("", "app:app.wsgi_app", "shop"));
    assert_eq!(found(&root, "orders/app.py:app"), owned("orders", "app:app", "orders"));
    assert_eq!(found(&root.join("orders"), "../orders/app.py:app").1, "app:app");
    // What lies in a package is imported as a part of it.
    for target in ["pkg/web/site.py:app", "pkg.web.site:app"] {
        assert_eq!(found(&root, target), owned("", "pkg.web.site:app", "pkg"), "{target}");
    }
    assert_eq!(found(&root, "pkg/web/__init__.py:app"), owned("", "pkg.web:app", "pkg"));
    assert_eq!(found(&root, "pkg.web:app"), owned("", "pkg.web:app", "pkg"));

    assert!(refused(&root, "none.py:app").starts_with("there is no none.py in ROOT\n"));
    assert!(refused(&root, "pkg.none:app").starts_with("pkg.none:app: there is no module pkg.none in ROOT\n"));
    assert!(refused(&root, "my-app.py:app").contains("`my-app` is no name of a module\nrename it"));
    assert!(refused(&root, "app.py:create_app()").contains("nothing is called"));
    assert!(refused(&root, "orders:app").contains("name the file in it: orders/app.py:app"));
    assert!(Target::find("app:app", &root.join("none")).is_err());
}

#[test]
fn a_folder_s_one_service_is_found() {
    let of = |files: &[(&str, &str)]| {
        let (_home, root) = project(files);
        Target::find(".", &root).map(|target| target.entry.to_string()).map_err(|error| error.to_string())
    };
    assert_eq!(of(&[("app.py", FLASK)]), Ok("app:app".to_owned()));
    assert_eq!(of(&[("main.py", "api: FastAPI = FastAPI(title='x')\n")]), Ok("main:api".to_owned()));
    assert_eq!(of(&[("main.py", "service = fastapi.FastAPI()\n")]), Ok("main:service".to_owned()));
    assert_eq!(of(&[("app.py", "async def app(scope, receive, send):\n    pass\n")]), Ok("app:app".to_owned()));
    // What is made for servers is what servers run.
    assert_eq!(
        of(&[("app.py", FLASK), ("wsgi.py", "from app import app as application\n")]),
        Ok("wsgi:application".to_owned())
    );
    assert_eq!(of(&[("shop/__init__.py", ""), ("shop/main.py", FLASK)]), Ok("shop.main:app".to_owned()));
    let several = of(&[("app.py", FLASK), ("main.py", FLASK)]).unwrap_err();
    assert!(several.contains("holds several services") && several.contains("shop/main.py:app"), "{several}");
    let none = of(&[("util.py", "x = 1\n"), ("main.py", "if app == 1:\n    app = 2\n")]).unwrap_err();
    assert!(none.starts_with("no service was found in "), "{none}");
    let (_home, root) = project(&[("app.py", "def create_app():\n    return 1\n")]);
    assert!(refused(&root, "app.py").contains("defines create_app(), and nothing here calls it\nadd a line"));
}

#[test]
fn what_lies_in_src_is_found_from_above() {
    let project_toml = ("pyproject.toml", "[project]\nname = \"shop\"\ndependencies = [\"flask\"]\n");
    let files = [project_toml, ("src/shopx/__init__.py", ""), ("src/shopx/web.py", FLASK)];
    let (home, root) = project(&files);
    let in_src = |target: &Target| (target.directory == root, target.within.display().to_string());
    for target in ["src/shopx/web.py:app", "src/shopx/web.py", "shopx.web:app", "./src/shopx/web.py:app"] {
        let found = Target::find(target, &root).unwrap_or_else(|error| panic!("{target}: {error}"));
        assert_eq!(in_src(&found), (true, "src".to_owned()), "{target}");
        assert_eq!((found.entry.to_string().as_str(), found.name.as_str()), ("shopx.web:app", "shopx"));
    }
    let above = Target::find("shop/src/shopx/web.py:app", home.path()).unwrap();
    assert_eq!(in_src(&above), (true, "src".to_owned()));
    // What another folder above says is not this one's.
    let (home, root) = project(&[("app.py", FLASK), ("deep/app.py", FLASK)]);
    std::fs::write(home.path().join("requirements.txt"), "flask\n").unwrap();
    assert_eq!(Target::find("app.py:app", &root).unwrap().directory, root);
    std::fs::write(root.join("pyproject.toml"), "[tool.ruff]\n").unwrap();
    assert_eq!(Target::find("deep/app.py:app", &root).unwrap().directory, root.join("deep"));
    std::fs::write(root.join("requirements.txt"), "flask\n").unwrap();
    let deep = Target::find("deep/app.py:app", &root).unwrap();
    assert_eq!((deep.directory, deep.within, deep.name.as_str()), (root.clone(), "deep".into(), "deep"));
    assert_eq!(Target::find("app.py:app", &root.join("deep")).unwrap().directory, root.join("deep"));
}

#[test]
fn a_folder_s_service_may_be_anywhere_that_is_usual() {
    let of = |files: &[(&str, &str)]| {
        let (_home, root) = project(files);
        Target::find(".", &root).map(|target| target.entry.to_string()).map_err(|error| error.to_string())
    };
    let web = "from flask import Flask\nweb = Flask(__name__)\n";
    assert_eq!(of(&[("src/shopx/__init__.py", ""), ("src/shopx/main.py", FLASK)]), Ok("shopx.main:app".to_owned()));
    assert_eq!(of(&[("src/main.py", FLASK)]), Ok("main:app".to_owned()));
    assert_eq!(of(&[("shopz/__init__.py", FLASK)]), Ok("shopz:app".to_owned()));
    assert_eq!(of(&[("__init__.py", FLASK)]), Ok("shop:app".to_owned()));
    // It only hands on what is the other's.
    let both = [("shopz/__init__.py", "from .app import app\n"), ("shopz/app.py", FLASK)];
    assert_eq!(of(&both), Ok("shopz.app:app".to_owned()));
    assert_eq!(of(&[("server.py", web), ("util.py", "x = 1\n"), ("test_web.py", web)]), Ok("server:web".to_owned()));
    assert_eq!(of(&[("src/shopx/__init__.py", ""), ("src/shopx/web.py", web)]), Ok("shopx.web:web".to_owned()));
    assert!(of(&[("server.py", web), ("other.py", web)]).unwrap_err().contains("several services"));
    let factory = "def create_app():\n    return 1\n";
    for file in ["app.py", "inv/__init__.py", "src/inv/__init__.py"] {
        let told = of(&[(file, factory)]).unwrap_err();
        assert!(
            told.contains(&format!("/{file} defines create_app(), and nothing here calls it\nadd a line")),
            "{told}"
        );
    }
    let (_home, root) =
        project(&[("src/manage.py", "'DJANGO_SETTINGS_MODULE', 'config.settings'"), ("src/config/wsgi.py", "")]);
    std::fs::write(root.join("requirements.txt"), "django\n").unwrap();
    let django = Target::find(".", &root).unwrap();
    assert_eq!((django.directory, django.within, django.name.as_str()), (root, "src".into(), "shop"));
}

#[test]
fn what_cannot_be_read_is_told_as_that() {
    use std::os::unix::fs::PermissionsExt;
    // Nothing is closed to root.
    if rustix::process::geteuid().is_root() {
        return;
    }
    let (_home, root) = project(&[("app.py", FLASK), ("closed/app.py", FLASK)]);
    let close = |path: &str| std::fs::set_permissions(root.join(path), std::fs::Permissions::from_mode(0o0)).unwrap();
    close("app.py");
    close("closed");
    for target in [".", "app.py", "closed", "closed/app.py:app"] {
        assert!(refused(&root, target).to_lowercase().contains("permission denied"), "{target}");
    }
    std::fs::set_permissions(root.join("closed"), std::fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn django_is_asked_by_its_own_files() {
    const MANAGE: &str = "import os\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'mysite.settings')\n";
    const URLS: &str = "urlpatterns = [\n    path('admin/', admin.site.urls),\n    path('healthz/', ok),\n]\n";
    let of = |files: &[(&str, &str)]| {
        let (_home, root) = project(files);
        Target::find(".", &root).map(|target| (target.entry.to_string(), target.name, target.health))
    };
    let as_made = [
        ("manage.py", MANAGE),
        ("mysite/settings.py", "ROOT_URLCONF = \"mysite.urls\"\nWSGI_APPLICATION = \"mysite.wsgi.application\"\n"),
        ("mysite/wsgi.py", ""),
        ("mysite/asgi.py", ""),
        ("mysite/urls.py", URLS),
    ];
    let expected =
        |entry: &str, health: Option<&str>| Ok((entry.to_owned(), "mysite".to_owned(), health.map(str::to_owned)));
    assert_eq!(of(&as_made), expected("mysite.wsgi:application", Some("/healthz/")));
    let asgi = [
        ("manage.py", MANAGE),
        (
            "mysite/settings.py",
            "ASGI_APPLICATION = 'mysite.asgi.application'\nWSGI_APPLICATION = 'mysite.wsgi.application'",
        ),
    ];
    assert_eq!(of(&asgi), expected("mysite.asgi:application", None));
    let by_file = [
        ("manage.py", MANAGE),
        ("mysite/settings.py", "# WSGI_APPLICATION = 'x.y'\n"),
        ("mysite/asgi.py", ""),
        ("mysite/wsgi.py", ""),
    ];
    assert_eq!(of(&by_file), expected("mysite.asgi:application", None));
    let split = [
        ("manage.py", "os.environ.setdefault(\n    \"DJANGO_SETTINGS_MODULE\",\n    \"mysite.settings.dev\",\n)\n"),
        ("mysite/settings/__init__.py", ""),
        ("mysite/settings/base.py", "WSGI_APPLICATION = 'mysite.server.application'\n"),
        ("mysite/settings/dev.py", "from .base import *\n"),
    ];
    assert_eq!(of(&split), expected("mysite.server:application", None));
    let named_config = [("manage.py", "'DJANGO_SETTINGS_MODULE', 'config.settings'"), ("config/wsgi.py", "")];
    assert_eq!(of(&named_config), Ok(("config.wsgi:application".to_owned(), "shop".to_owned(), None)));
    assert!(of(&[("manage.py", "")]).is_err());
    assert!(of(&[("manage.py", MANAGE)]).is_err());
}

#[test]
fn a_health_path_is_one_of_the_service_itself() {
    let of = |files: &[(&str, &str)]| {
        let (_home, root) = project(files);
        Target::find("app.py:app", &root).unwrap().health
    };
    assert_eq!(of(&[("app.py", FLASK)]).as_deref(), Some("/healthz"));
    assert_eq!(of(&[("app.py", "@app.route('/ready')\n@app.route('/health')\n")]).as_deref(), Some("/health"));
    assert_eq!(
        of(&[("app.py", "x"), ("views.py", "from app import app\n@app.get(\"/livez\")\n")]).as_deref(),
        Some("/livez")
    );
    assert_eq!(of(&[("app.py", "routes = [\n    Route(\"/health\", ok),\n]")]).as_deref(), Some("/health"));
    // Behind a prefix that is said elsewhere, or in something else's text.
    assert_eq!(of(&[("app.py", "@router.get('/health')\n# see /healthz\nURL = '/ready'\n")]), None);
    assert_eq!(
        of(&[("app.py", "x"), ("tests/test_app.py", "@app.get('/healthz')\n"), (".venv/a.py", "@app.get('/healthz')")]),
        None
    );
}

#[test]
fn a_path_is_shown_that_answers() {
    let of = |files: &[(&str, &str)], target: &str| {
        let (_home, root) = project(files);
        Target::find(target, &root).unwrap().but_root
    };
    let flask = |paths: &str| of(&[("app.py", paths)], "app.py:app");
    assert_eq!(flask("@app.get('/orders/<int:id>')\n@app.get('/orders')\n").as_deref(), Some("/orders"));
    assert_eq!(flask("@app.get('/orders')\n@app.get('/')\n"), None);
    assert_eq!(flask("x = 1\n"), None);
    let django = |urls: &str| {
        let settings = "ROOT_URLCONF = 'mysite.urls'\nWSGI_APPLICATION = 'mysite.wsgi.application'\n";
        let manage = "'DJANGO_SETTINGS_MODULE', 'mysite.settings'";
        of(&[("manage.py", manage), ("mysite/settings.py", settings), ("mysite/urls.py", urls)], ".")
    };
    let (admin, api) = ("path('admin/', admin.site.urls),\n", "path('api/', include('api.urls')),\n");
    assert_eq!(django(&format!("{api}{admin}")).as_deref(), Some("/admin/"));
    assert_eq!(django(&format!("{admin}path('', include('shop.urls')),\n")), None);
}

#[test]
fn workers_are_a_number_or_two() {
    assert_eq!("4".parse::<Workers>().unwrap().to_string(), "4");
    assert_eq!("2-8".parse::<Workers>().unwrap().to_string(), "{ min = 2, max = 8 }");
    for wrong in ["", "0", "0-4", "8-2", "-", "2-", "many", "-4"] {
        assert!(wrong.parse::<Workers>().is_err(), "{wrong}");
    }
}

#[test]
fn names_are_fit_for_sections() {
    for (name, expected) in [("shop", "shop"), ("my.shop", "my-shop"), ("café", "caf-"), ("", "app")] {
        assert_eq!(plain(name), expected);
    }
}

fn plan() -> Plan {
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    Plan {
        asked: "app.py:app".to_owned(),
        target: Target {
            directory: "/srv/shop".into(),
            entry: "app:app".parse().unwrap(),
            name: "shop".to_owned(),
            within: PathBuf::new(),
            health: Some("/healthz".to_owned()),
            but_root: None,
        },
        address: address("127.0.0.1:8443"),
        tls: Some(Tls { chain: "/state/tls/localhost.pem".into(), key: "/state/tls/localhost.key".into(), own: true }),
        admin: address("127.0.0.1:9600"),
        workers: None,
        threads: None,
        server: None,
        packages: None,
        env: Vec::new(),
        env_file: None,
        health: Some(Health::Found("/healthz".to_owned())),
        user: None,
        state: "/state".into(),
    }
}

/// Each text is as `tests/serve/NAME.toml` has it, and says what was asked for. `UPDATE_GOLDEN=1` writes them anew.
#[test]
fn texts_are_as_recorded() {
    let everything = Plan {
        asked: "shop --threads 4".to_owned(),
        target: Target { health: None, directory: "/srv/a \"shop\"${x}".into(), within: "src".into(), ..plan().target },
        address: "0.0.0.0:443".parse().unwrap(),
        tls: Some(Tls { chain: "/srv/a \"shop\"${x}/chain.pem".into(), key: "/etc/${x}.key".into(), own: false }),
        workers: Some(Workers { min: 2, max: 8 }),
        threads: Some(4),
        server: Some(AppServer::Gunicorn),
        env_file: Some("/srv/a \"shop\"${x}/.env".into()),
        packages: Some(PackagesFrom::Requirements("/srv/a \"shop\"${x}/requirements/prod.txt".into())),
        env: vec![("MODE".to_owned(), "a \"b\" ${c}".to_owned())],
        user: Some("shop".to_owned()),
        ..plan()
    };
    let plain = Plan {
        tls: None,
        address: "127.0.0.1:8080".parse().unwrap(),
        packages: Some(PackagesFrom::Interpreter("/srv/shop/.venv/bin/python".into())),
        user: Some("61234".to_owned()),
        ..plan()
    };
    for (name, plan) in [("default", plan()), ("everything", everything), ("plain", plain)] {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve").join(name).with_extension("toml");
        let text = plan.text();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(golden.parent().unwrap()).unwrap();
            std::fs::write(&golden, &text).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&golden).unwrap_or_default(), text, "{name}");
        let loaded = config::load_text("passerelle.toml", &text, &plan.target.directory, &Outside::new(&|_| None));
        // Files that it names need not be there.
        let (settings, problems) = loaded.build(|settings, problems| {
            problems.retain(|problem| !problem.message.contains("cannot read"));
            Some(settings)
        });
        let settings = settings.unwrap_or_else(|| panic!("{name}: {problems:?}"));
        let app = &settings.apps["shop"];
        assert_eq!(app.directory.value.join("x"), plan.target.directory.join("./x"), "{name}");
        assert_eq!(app.entry, plan.target.entry);
        assert_eq!(app.threads.get(), plan.threads.unwrap_or(1));
        for (name, value) in &plan.env {
            assert_eq!(app.env[name].expose(), value);
        }
        assert_eq!(app.env.contains_key("PYTHONPATH"), !plan.target.within.as_os_str().is_empty());
        assert_eq!(app.user.as_ref().map(|user| user.value.clone()), plan.user);
        let listener = settings.listeners.values().next().unwrap();
        assert_eq!(listener.addresses[0].value, ListenAddress::Socket(plan.address));
        let tls = listener.tls.as_ref().map(|tls| (&tls.certificates[0].chain.value, &tls.certificates[0].key.value));
        assert_eq!(tls, plan.tls.as_ref().map(|tls| (&tls.chain, &tls.key)));
    }
}

#[test]
fn the_greeting_says_where_and_how() {
    let text = greeting(&plan(), 5, false);
    for part in [
        "Serving shop on https://127.0.0.1:8443, 5 workers, as your own user\n",
        "curl --cacert /state/tls/localhost.pem https://localhost:8443/\n",
        "http://127.0.0.1:9600/status",
        "passerelle apps --config /srv/shop/passerelle.toml",
        "passerelle serve app.py:app --print-config >/srv/shop/passerelle.toml",
        "Ctrl-C ends it.",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let plain = Plan { tls: None, user: Some("shop".to_owned()), ..plan() };
    let text = greeting(&plain, 1, true);
    assert!(text.contains("on http://127.0.0.1:8443, 1 worker, as the user shop\n"), "{text}");
    assert!(text.contains("curl http://localhost:8443/\n"), "{text}");
    // One that answers.
    let without = Plan {
        target: Target { but_root: Some("/orders".to_owned()), ..plan().target },
        asked: String::new(),
        ..plan()
    };
    let text = greeting(&without, 1, true);
    assert!(text.contains("https://localhost:8443/healthz\n"), "{text}");
    assert!(text.contains("passerelle serve --print-config >"), "{text}");
}

#[test]
fn the_greeting_says_what_may_surprise() {
    let (_home, root) = project(&[("app.py", FLASK)]);
    let plan = Plan {
        target: Target { directory: root.clone(), ..plan().target },
        user: Some("61234".to_owned()),
        asked: "'my app.py:app'".to_owned(),
        ..plan()
    };
    let text = || greeting(&plan, 1, false).replace(&root.display().to_string(), "ROOT");
    assert!(text().contains("as user 61234, which nothing else runs as\n"), "{}", text());
    assert!(text().contains("serve 'my app.py:app' --print-config >ROOT/passerelle.toml\n"), "{}", text());
    assert!(!text().contains("Not "), "{}", text());
    for file in ["passerelle.toml", ".env", "db.sqlite3", "instance/shop.db", "venv/x.db", "venv/pyvenv.cfg"] {
        std::fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
        std::fs::write(root.join(file), "").unwrap();
    }
    let text = text();
    for part in [
        "Not read         ROOT/passerelle.toml: it is there, and `passerelle run` reads it\n",
        "serve 'my app.py:app' --print-config\n",
        "Not read         ROOT/.env, unless the service does: --env-file ROOT/.env makes variables of it\n",
        "Not kept         db.sqlite3, instance/shop.db: each release",
        "install -m 600 -o 61234 -g 61234 ROOT/db.sqlite3 /state/apps/shop/home/\n",
        "os.path.expanduser(\"~/db.sqlite3\")",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
