//! docs/python.md, held against real frameworks and servers: what the page says to set makes services see the client as
//! it is.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::backends::Backend;
use crate::harness::http::Client;
use crate::harness::tls::{Certificate, TlsStream, client_config, connect};
use crate::harness::{Gateway, Setup, eventually};

/// What every service here tells of a request: its address, a link to itself, whether it is secure, whose it is.
const FLASK: &str = "
from flask import Flask, jsonify, request, url_for

app = Flask(__name__)


@app.get('/healthz')
def healthz():
    return 'ok'


@app.get('/where')
def where():
    link = url_for('where', _external=True)
    return jsonify(url=request.url, link=link, secure=request.is_secure, client=request.remote_addr)
";

const DJANGO: &str = "
from django.conf import settings

settings.configure(
    SECRET_KEY='x' * 50,
    ROOT_URLCONF=__name__,
    MIDDLEWARE=['django.middleware.security.SecurityMiddleware', 'django.middleware.csrf.CsrfViewMiddleware'],
    SECURE_SSL_REDIRECT=True,
    SECURE_REDIRECT_EXEMPT=['healthz'],
    **{name: value for name, value in page.items() if name.isupper()},
)

from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse
from django.middleware.csrf import get_token
from django.urls import path, reverse


def where(request):
    link = request.build_absolute_uri(reverse('where'))
    client = page['client_address'](request)
    told = dict(url=request.build_absolute_uri(), link=link, secure=request.is_secure(), client=client)
    return JsonResponse(dict(told, token=get_token(request)))


urlpatterns = [path('where', where, name='where'), path('healthz', lambda request: HttpResponse('ok')),
               path('checked', lambda request: HttpResponse('ok'))]
application = get_wsgi_application()
";

const FASTAPI: &str = "
from fastapi import FastAPI, Request

app = FastAPI()


@app.get('/healthz')
def healthz():
    return 'ok'


@app.get('/where')
def where(request: Request):
    link = str(request.url_for('where'))
    secure = request.url.scheme == 'https'
    return dict(url=str(request.url), link=link, secure=secure, client=request.client.host)
";

/// The code blocks of the page's section with this heading.
fn blocks(heading: &str, language: &str) -> Vec<String> {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/python.md")).unwrap();
    let section = page.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    let fence = format!("```{language}\n");
    section.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// The arguments of the page's command line, without those that say where to listen and what to run.
fn arguments(heading: &str) -> Vec<String> {
    let line = blocks(heading, "sh").remove(0);
    let words: Vec<String> = line.split_whitespace().skip(1).map(str::to_owned).collect();
    let (_, words) = words.split_last().unwrap();
    let mut kept = Vec::new();
    for pair in words.chunks(2) {
        // Two workers would be two processes to start for nothing.
        if !["--bind", "--host", "--port", "--workers"].contains(&pair[0].as_str()) {
            kept.extend_from_slice(pair);
        }
    }
    kept
}

/// A directory with `files`, and its path as backends are known by it.
fn service(files: &[(&str, &str)]) -> (tempfile::TempDir, &'static str) {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let path = directory.path().to_str().unwrap().to_owned().leak();
    (directory, path)
}

/// A gateway with TLS that takes `/shop` off before it asks this server.
fn gateway(backend: &Backend, certificate: &Certificate) -> Gateway {
    let setup = Setup::before([backend.url()]).route("strip_prefix = \"/shop\"").text();
    let text = setup.replace("path = \"/{*rest}\"", "path = \"/shop/{*rest}\"");
    let text = format!(
        "{text}\n[listener.https]\naddress = \"127.0.0.1:@https@\"\n\
         [listener.https.tls]\ncertificates = [{{ chain = \"site.pem\", key = \"site.key\" }}]\n"
    );
    Gateway::start_with(&text, |directory, _| certificate.write(directory, "site"))
}

fn ask(client: &mut Client<TlsStream>) -> Value {
    client.ask("GET", "/shop/where", &[("Host", "shop.example.com"), ("X-Forwarded-For", "203.0.113.9")]).json()
}

/// What a service must say that has been told of its client.
fn seen() -> Value {
    json!({
        "url": "https://shop.example.com/shop/where",
        "link": "https://shop.example.com/shop/where",
        "secure": true,
        "client": "127.0.0.1",
    })
}

fn certified() -> (Certificate, std::sync::Arc<rustls::ClientConfig>) {
    let certificate = Certificate::new(&["localhost"]);
    let config = client_config(&[&certificate], &["http/1.1"], &[&rustls::version::TLS13]);
    (certificate, config)
}

#[test]
fn flask_knows_the_client_with_what_the_page_says() {
    let (certificate, config) = certified();
    let fixed = format!("{FLASK}\n{}", blocks("Flask", "python").concat());
    let (_files, directory) = service(&[("app.py", &fixed), ("unset.py", FLASK)]);
    let arguments = arguments("gunicorn");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let backend = Backend::gunicorn(directory, "app:app", &arguments);
    let gateway_ = gateway(&backend, &certificate);
    let mut client = connect(gateway_.port("https"), "localhost", &config).unwrap();
    assert_eq!(ask(&mut client), seen());

    let unset = Backend::gunicorn(directory, "unset:app", &arguments);
    let gateway_ = gateway(&unset, &certificate);
    let mut client = connect(gateway_.port("https"), "localhost", &config).unwrap();
    assert_eq!(ask(&mut client)["link"], json!("https://shop.example.com/where"), "the prefix is what ProxyFix adds");
}

#[test]
fn django_knows_the_client_with_what_the_page_says() {
    let (certificate, config) = certified();
    let settings = format!("page = {{}}\nexec(r'''\n{}\n''', page)\n", blocks("Django", "python").join("\n"));
    let text = settings.replace("ALLOWED_HOSTS = [", "ALLOWED_HOSTS = ['127.0.0.1', ");
    let prefixed = format!("{text}page['FORCE_SCRIPT_NAME'] = '/shop'\n{DJANGO}");
    let (_files, directory) = service(&[("app.py", &prefixed)]);
    let backend = Backend::gunicorn(directory, "app:application", &["--threads", "4"]);
    let gateway = gateway(&backend, &certificate);
    let mut client = connect(gateway.port("https"), "localhost", &config).unwrap();
    let mut told = ask(&mut client);
    told.as_object_mut().unwrap().remove("token");
    assert_eq!(told, seen());

    // A form of the same origin is taken without CSRF_TRUSTED_ORIGINS, one of another is not.
    let page = client.ask("GET", "/shop/where", &[("Host", "shop.example.com")]);
    let cookie = page.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let token = page.json()["token"].as_str().unwrap().to_owned();
    for (origin, status) in [("https://shop.example.com", 200), ("https://app.example.com", 403)] {
        let fields = [
            ("Host", "shop.example.com"),
            ("Cookie", cookie.as_str()),
            ("X-CSRFToken", token.as_str()),
            ("Origin", origin),
        ];
        assert_eq!(client.ask_with("POST", "/shop/where", &fields, b"").status, status, "{origin}");
    }

    // The view of checks, which no exception keeps from being redirected: with what the page says it is asked.
    let page = blocks("Django", "toml").concat().replace("http://127.0.0.1:8001", &backend.url());
    assert!(page.contains("headers = { X-Forwarded-Proto"));
    let checked = |wanted: &str, page: String, up: f64| {
        let page = page
            .replace("/healthz", "/checked")
            .replace("host = \"shop.example.com\"   ", &format!("{wanted}\nhost = \"shop.example.com\"   "));
        let config = format!("[listener.http]\naddress = \"127.0.0.1:@http@\"\n{page}");
        let gateway = Gateway::start(&config);
        eventually("checks have judged", || (gateway.metric("passerelle_upstream_server_up", &[]) == up).then_some(()));
    };
    let strict = "status = \"200\"\ninterval = \"100ms\"\nfall = 1\nrise = 1";
    checked(strict, page.clone(), 1.0);
    checked(strict, page.replace("headers = { X-Forwarded-Proto", "# headers = { X-Forwarded-Proto"), 0.0);
}

#[test]
fn fastapi_knows_the_client_with_what_the_page_says() {
    let (certificate, config) = certified();
    let (_files, directory) = service(&[("app.py", FASTAPI)]);
    let mut arguments = arguments("uvicorn");
    arguments.extend(["--root-path", "/shop"].map(str::to_owned));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let backend = Backend::uvicorn_with(directory, "app:app", &arguments);
    let gateway = gateway(&backend, &certificate);
    let mut client = connect(gateway.port("https"), "localhost", &config).unwrap();
    assert_eq!(ask(&mut client), seen());
    let documents = client.ask("GET", "/shop/docs", &[("Host", "shop.example.com")]);
    assert!(documents.text().contains("'/shop/openapi.json'"), "{}", documents.text());
}

/// Who is in front of a load balancer says of itself what it likes.
#[test]
fn asgi_services_know_the_client_behind_a_load_balancer() {
    let page = blocks("uvicorn", "python");
    let wrapped = page.iter().find(|block| block.contains("ProxyHeadersMiddleware")).unwrap();
    let wrapped = wrapped.replace("[\"127.0.0.1\"]", "[\"127.0.0.1\", \"127.0.0.9\"]");
    let (_files, directory) = service(&[("app.py", FASTAPI), ("wrapped.py", &wrapped)]);
    let trusting = ["--forwarded-allow-ips", "127.0.0.1,127.0.0.9"];
    let client = |backend: &Backend| {
        let gateway = Setup::before([backend.url()]).listener("trusted_proxies = [\"127.0.0.9/32\"]").start();
        let told = [("Host", "shop.example.com"), ("X-Forwarded-For", "198.51.100.6, 203.0.113.7")];
        let answer = Client::connect_from("127.0.0.9", gateway.port("http")).ask("GET", "/where", &told);
        answer.json()["client"].as_str().unwrap().to_owned()
    };
    assert_eq!(client(&Backend::uvicorn_with(directory, "app:app", &trusting)), "203.0.113.7");
    let everybody = ["--forwarded-allow-ips", "*"];
    assert_eq!(client(&Backend::uvicorn_with(directory, "app:app", &everybody)), "198.51.100.6", "as the page warns");
    assert_eq!(client(&Backend::gunicorn(directory, "wrapped:app", &["--worker-class", "asgi"])), "203.0.113.7");
}
