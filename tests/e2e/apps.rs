//! Apps that the gateway runs: each kind of server serves, with as many processes and slots as the configuration says.

use std::path::Path;

use crate::harness::apps::{Plan, asgi, wsgi};
use crate::harness::http::get;
use crate::harness::{Site, eventually};

/// Two workers, each a process with a socket of its own, which the gateway knows by name.
#[track_caller]
fn two_workers_serve(site: &Site, slots: Option<u64>) {
    let pids = site.pids("shop");
    assert_eq!(pids.len(), 2, "{}", site.app("shop"));
    let servers = site.servers();
    let labels: Vec<&str> = servers.iter().map(|server| server["server"].as_str().unwrap()).collect();
    assert_eq!(labels, ["worker-1", "worker-2"]);
    for server in &servers {
        assert_eq!(server["slots"].as_u64(), slots, "{server}");
        assert_eq!(server["state"], "up", "{server}");
    }
    let sockets: Vec<_> = site.there("run").into_iter().map(|name| site.place().join("run").join(name)).collect();
    assert_eq!(sockets.len(), 2, "{sockets:?}");
    for directory in &sockets {
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(directory).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o700, "{}", directory.display());
        std::os::unix::net::UnixStream::connect(directory.join("http")).unwrap();
    }
}

fn lines(server: &str, more: &str) -> String {
    format!("server = \"{server}\"\nworkers = 2\n{more}")
}

#[test]
fn wsgi_services_run_under_each_server_that_can() {
    let one = (lines("gunicorn", ""), 1);
    let four = (lines("gunicorn", "threads = 4"), 4);
    let granian = (lines("granian", "threads = 3"), 3);
    let uwsgi = (lines("uwsgi", "threads = 2"), 2);
    for (lines, slots) in [one, four, granian, uwsgi] {
        let site = Plan::new(&wsgi("one"), &lines).start();
        two_workers_serve(&site, Some(slots));
        assert_eq!(site.get("/length").text(), "one 0");
        let mut client = crate::harness::http::Client::connect(site.port());
        let answer = client.ask_with("POST", "/length", &[], &[b'x'; 100_000]);
        assert_eq!((answer.status, answer.text().as_str()), (200, "one 100000"), "{lines}");
        // Requests reach both.
        let first = site.get("/pid").text();
        eventually("the other worker answers too", || (site.get("/pid").text() != first).then_some(()));
    }
}

#[test]
fn asgi_services_run_under_each_server_that_can() {
    for (server, more, slots) in
        [("uvicorn", "", None), ("granian", "", None), ("gunicorn", "", None), ("uvicorn", "slots = 7", Some(7))]
    {
        let site = Plan::new(&asgi("one"), &lines(server, more)).start();
        two_workers_serve(&site, slots);
        assert_eq!(site.get("/length").text(), "one 0");
        let mut socket = crate::websocket::WebSocket::open(site.port(), "/ws");
        socket.echo(server);
    }
}

#[test]
fn a_thread_is_a_slot() {
    // None of the four is answered before all have arrived.
    let site = Plan::new(&wsgi("one"), "server = \"gunicorn\"\nworkers = 1\nthreads = 4").start();
    let port = site.port();
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..4).map(|_| scope.spawn(move || get(port, "/together"))).collect();
        for answer in asked {
            assert_eq!(answer.join().unwrap().text(), "together");
        }
    });
}

#[test]
fn flask_and_fastapi_need_no_word_about_servers() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let flask = "workers = 2\nhealth = { path = \"/healthz\" }\nenv = { ORDERS_DB = \"/dev/shm/none\" }";
    let site = Plan::new("", flask).directory(&examples.join("orders")).start();
    two_workers_serve(&site, Some(1));
    assert_eq!(site.get("/healthz").text(), "ok\n");
    drop(site);
    let fastapi = "workers = 2\nhealth = { path = \"/healthz\" }";
    let site = Plan::new("", fastapi).directory(&examples.join("chat")).entry("chat:app").start();
    two_workers_serve(&site, None);
    let told = site.get("/echo").json();
    assert_eq!((&told["scheme"], &told["client"]), (&"http".into(), &"127.0.0.1".into()), "{told}");
}

const MANAGE: &str = "import os, sys\nos.environ['DJANGO_SETTINGS_MODULE'] = 'shop.settings'\n\
    from django.core.management import execute_from_command_line\nexecute_from_command_line(sys.argv)\n";

const SETTINGS: &str = "import os\nSECRET_KEY = os.environ['SECRET_KEY']\nALLOWED_HOSTS = ['*']\nROOT_URLCONF = 'shop.urls'\n\
    INSTALLED_APPS = ['django.contrib.sessions']\nMIDDLEWARE = ['django.contrib.sessions.middleware.SessionMiddleware']\n\
    DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': os.environ['HOME'] + '/shop.sqlite3'}}\n";

const URLS: &str = "from django.http import HttpResponse\nfrom django.urls import path\n\
    def visit(request):\n    request.session['visits'] = request.session.get('visits', 0) + 1\n    \
    return HttpResponse(str(request.session['visits']))\n\
    def healthz(request):\n    return HttpResponse('ok')\n\
    urlpatterns = [path('visit', visit), path('healthz', healthz)]\n";

const DJANGO_WSGI: &str = "import os\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings')\n\
    from django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()\n";

/// The tables that the service needs are there before its first worker is; they outlive releases.
#[test]
fn django_migrates_before_it_serves() {
    let site = Plan::new("", "")
        .lines("workers = 2\nhealth = { path = \"/healthz\" }\nenv = { SECRET_KEY = \"not for anybody to see\" }")
        .lines("pre_release = [\"python\", \"manage.py\", \"migrate\"]")
        .file("manage.py", MANAGE)
        .file("shop/__init__.py", "")
        .file("shop/settings.py", SETTINGS)
        .file("shop/urls.py", URLS)
        .file("shop/wsgi.py", DJANGO_WSGI)
        .entry("shop.wsgi:application")
        .start();
    two_workers_serve(&site, Some(1));
    let visit = |cookie: &str| {
        let mut client = crate::harness::http::Client::connect(site.port());
        client.ask("GET", "/visit", &[("Cookie", cookie)])
    };
    let first = visit("");
    assert_eq!(first.text(), "1", "{first:?}");
    let cookie = first.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(visit(&cookie).text(), "2");
    let told = site.release();
    assert!(told.contains("Applying") || told.contains("No migrations to apply"), "{told}");
    assert_eq!(visit(&cookie).text(), "3");
    assert!(!site.gateway.output().contains("not for anybody"));
}

#[test]
fn what_is_asked_of_no_app_says_which_there_are() {
    let site = Plan::new(&wsgi("one"), "workers = 1").start();
    let (status, output) = site.command("release", &["shopp"]);
    assert_eq!(status.code(), Some(1));
    assert!(output.contains("there is no app `shopp`; there is shop"), "{output}");
    let (status, output) = site.command("release", &["--directory", "/nowhere/at/all", "shop"]);
    assert!(!status.success() && output.contains("/nowhere/at/all"), "{output}");
    let (status, output) = site.command("apps", &[]);
    assert!(status.success(), "{output}");
    for word in ["shop: release 1, 1 of 1 workers serve", "worker", "serving"] {
        assert!(output.to_lowercase().contains(word), "{output}");
    }
}
