//! `passerelle explain`: what would become of a request, by the file alone or as the running gateway has it.

use std::fmt;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;

use super::admin::{Question, post, reachable};
use super::{Exit, print_error, print_problems};
use crate::config;
use crate::explain::{Asked, Explanation, Moment, explain, without_userinfo};
use crate::gateway::Gateway;
use crate::observe::metrics::Metrics;

/// How long the gateway may take for each step of its answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// No explanation is longer.
const LONGEST_ANSWER: u64 = 16 * 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    Human,
    Json,
}

/// The request, and who explains it.
#[derive(Debug, clap::Args)]
pub(super) struct Request {
    /// The method, if it is not GET (with -d: POST), and the URL
    #[arg(value_names = ["METHOD", "URL"], num_args = 1..=2, required = true)]
    request: Vec<String>,
    /// A field of the request; @FILE takes each line of a file for one, which keeps a credential off the command line
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE|@FILE")]
    headers: Vec<String>,
    /// The body of the request; its Content-Type is what -H says
    #[arg(short = 'd', long = "data", value_name = "BODY|@FILE")]
    data: Option<String>,
    /// Whose connection it comes by
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    client: IpAddr,
    /// The listener that it arrives at; otherwise the one that fits the URL best
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// `json` prints the explanation as one object
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    /// Ask the running gateway, at `address` of `[admin]`: its servers, limits and keys as they are now
    #[arg(long)]
    live: bool,
}

/// What is wrong with the command line.
#[derive(Debug, PartialEq, Eq)]
enum Usage {
    Url(String),
    Header(String),
    File { name: String, why: String },
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Usage::Url(url) => {
                write!(f, "`{}` is no URL: write http://HOST/PATH or https://HOST/PATH", url.escape_debug())
            }
            // What stands there may be a credential.
            Usage::Header(name) => write!(f, "-H takes \"NAME: VALUE\": there is no colon{}", name.escape_debug()),
            Usage::File { name, why } => write!(f, "`{}` cannot be read: {why}", name.escape_debug()),
        }
    }
}

pub(super) fn run(path: &Path, request: &Request) -> Exit {
    let asked = match asked(request) {
        Ok(asked) => asked,
        Err(usage) => return wrong(&usage.to_string()),
    };
    let explained = if request.live { live(path, &asked) } else { offline(path, &asked) };
    match explained {
        Ok(explanation) => print(&explanation, request.format),
        Err(exit) => exit,
    }
}

fn offline(path: &Path, asked: &Asked) -> Result<Explanation, Exit> {
    let (gateway, problems) = config::load(path).build(|settings, problems| {
        let metrics = Metrics::new(settings.server.workers.get());
        Gateway::build(settings, None, &metrics, problems)
    });
    let Some(gateway) = gateway else {
        print_problems(&problems);
        return Err(Exit::Wrong);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(|error| failed(&format!("nothing can be judged: {error}")))?;
    runtime.block_on(explain(&gateway, asked, Moment::Offline)).map_err(|unaskable| wrong(&unaskable.to_string()))
}

/// The file is read only for `address` and `token` of `[admin]`; what else may be wrong with it does not matter.
fn live(path: &Path, asked: &Asked) -> Result<Explanation, Exit> {
    let mut admin = None;
    let (_, problems) = config::load(path).build(|settings, _| {
        admin = Some(settings.admin);
        None::<()>
    });
    let Some(admin) = admin else {
        print_problems(&problems);
        return Err(Exit::Wrong);
    };
    let address = admin.address.value;
    let failed_there =
        |why: &str, hint: &str| failed(&format!("{address} does not explain as a gateway that runs: {why}; {hint}"));
    let unheard = |why: &dyn fmt::Display| failed_there(&why.to_string(), "address of [admin] says where it is");
    let body = serde_json::to_vec(asked).map_err(|error| unheard(&error))?;
    let question = Question {
        path: "/explain",
        body: &body,
        token: admin.token.as_ref(),
        patience: PATIENCE,
        most: LONGEST_ANSWER,
    };
    let answer = post(reachable(address), &question).map_err(|error| unheard(&error))?;
    if answer.status == StatusCode::OK {
        return serde_json::from_slice(&answer.body).map_err(|error| unheard(&error));
    }
    let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = |name: &str| problem.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    // Others than the admin listener answer so too, a listener for requests among them, whose errors have a cause.
    let of_admin = text("type") == "about:blank" && problem.get("cause").is_none();
    let told = format!("it answers {} {}", answer.status.as_u16(), text("detail"));
    Err(match answer.status {
        StatusCode::BAD_REQUEST if of_admin => wrong(&text("detail")),
        StatusCode::UNAUTHORIZED if of_admin => {
            failed_there(told.trim_end_matches(['.', ' ']), "token of [admin] must be the one that it runs with")
        }
        _ => unheard(&told.trim_end_matches(['.', ' '])),
    })
}

fn print(explanation: &Explanation, format: Format) -> Exit {
    let text = match format {
        Format::Human => explanation.human(),
        Format::Json => match serde_json::to_string_pretty(explanation) {
            Ok(json) => json + "\n",
            Err(error) => return failed(&error.to_string()),
        },
    };
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Exit::Fine,
        Err(error) => failed(&format!("cannot write to standard output: {error}")),
    }
}

fn failed(message: &str) -> Exit {
    print_error(&format!("passerelle: {message}\n"));
    Exit::Failed
}

fn wrong(message: &str) -> Exit {
    print_error(&format!("passerelle: {message}\n"));
    Exit::Wrong
}

/// The request of the command line.
fn asked(request: &Request) -> Result<Asked, Usage> {
    let (method, url) = match request.request.as_slice() {
        [method, url] => (method.as_str(), url),
        [url] => (if request.data.is_some() { "POST" } else { "GET" }, url),
        _ => return Err(Usage::Url(String::new())),
    };
    let Url { tls, user, host, target } = Url::parse(url).ok_or_else(|| Usage::Url(without_userinfo(url)))?;
    let mut headers = Vec::new();
    for text in &request.headers {
        match text.strip_prefix('@') {
            Some(name) => {
                let file = String::from_utf8_lossy(&read(name)?).into_owned();
                for (number, line) in file.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
                    let place = format!(" in line {} of {name}", number.saturating_add(1));
                    headers.push(header(line).ok_or(Usage::Header(place))?);
                }
            }
            None => headers.push(header(text).ok_or(Usage::Header(String::new()))?),
        }
    }
    if let Some(user) = user
        && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization"))
    {
        headers.push(basic(user));
    }
    let body = match &request.data {
        None => None,
        Some(text) => Some(match text.strip_prefix('@') {
            Some(name) => STANDARD.encode(read(name)?),
            None => STANDARD.encode(text),
        }),
    };
    Ok(Asked {
        method: method.to_owned(),
        tls,
        host: Some(host.to_owned()),
        target,
        headers,
        body,
        client: Some(request.client),
        listener: request.listener.clone(),
    })
}

/// A URL taken apart; without its fragment, which no client sends.
#[derive(Debug, PartialEq, Eq)]
struct Url<'a> {
    tls: bool,
    /// The name and the password.
    user: Option<&'a str>,
    host: &'a str,
    target: String,
}

impl Url<'_> {
    fn parse(url: &str) -> Option<Url<'_>> {
        let (scheme, rest) = url.split_once("://")?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, target) = rest.split_at_checked(rest.find(['/', '?']).unwrap_or(rest.len()))?;
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        let slash = if target.starts_with('/') { "" } else { "/" };
        (!host.is_empty()).then(|| Url { tls, user, host, target: format!("{slash}{target}") })
    }
}

/// The field that curl makes of a user name and a password in a URL.
fn basic(user: &str) -> (String, String) {
    let colon = if user.contains(':') { "" } else { ":" };
    let decoded: Vec<u8> = percent_encoding::percent_decode_str(&format!("{user}{colon}")).collect();
    ("Authorization".to_owned(), format!("Basic {}", STANDARD.encode(decoded)))
}

fn header(text: &str) -> Option<(String, String)> {
    text.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
}

fn read(name: &str) -> Result<Vec<u8>, Usage> {
    std::fs::read(name).map_err(|error| Usage::File { name: name.to_owned(), why: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(request: &[&str], headers: &[&str], data: Option<&str>) -> Request {
        Request {
            request: request.iter().map(|text| (*text).to_owned()).collect(),
            headers: headers.iter().map(|text| (*text).to_owned()).collect(),
            data: data.map(str::to_owned),
            client: "127.0.0.1".parse().unwrap(),
            listener: None,
            format: Format::Human,
            live: false,
        }
    }

    #[test]
    fn urls_are_taken_apart() {
        for (url, tls, user, host, target) in [
            ("https://api.example.com/orders/42?a=b#c", true, None, "api.example.com", "/orders/42?a=b"),
            ("HTTP://[::1]:8080", false, None, "[::1]:8080", "/"),
            ("http://a?b", false, None, "a", "/?b"),
            ("http://a//b/../c", false, None, "a", "//b/../c"),
            ("http://user:p@ss@a:80/b@c", false, Some("user:p@ss"), "a:80", "/b@c"),
        ] {
            assert_eq!(Url::parse(url), Some(Url { tls, user, host, target: target.to_owned() }));
        }
        for wrong in ["/orders", "api.example.com/orders", "ftp://a/b", "https://", "https:///a", "http://a@/b"] {
            assert_eq!(Url::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn users_of_urls_authenticate_as_with_curl() {
        let sent = |url: &str, headers: &[&str]| asked(&request(&[url], headers, None)).unwrap().headers;
        let field = |value: &str| vec![("Authorization".to_owned(), value.to_owned())];
        assert_eq!(sent("http://al%40x:s%3Ac@a/", &[]), field("Basic YWxAeDpzOmM="));
        assert_eq!(sent("http://al@a/", &[]), field("Basic YWw6"));
        assert_eq!(sent("http://al:b@a/", &["Authorization: x"]), field("x"));
    }

    #[test]
    fn requests_are_read_as_curl_would() {
        let get = asked(&request(&["http://a/b"], &["X-A:  b : c "], None)).unwrap();
        assert_eq!((get.method.as_str(), get.body), ("GET", None));
        assert_eq!(get.headers, [("X-A".to_owned(), "b : c".to_owned())]);
        let post = asked(&request(&["http://a/b"], &[], Some("{}"))).unwrap();
        assert_eq!((post.method.as_str(), post.body.as_deref()), ("POST", Some("e30=")));
        assert_eq!(asked(&request(&["PUT", "http://a/b"], &[], Some("{}"))).unwrap().method, "PUT");
    }

    #[test]
    fn fields_and_bodies_come_from_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| format!("@{}", directory.path().join(name).display());
        std::fs::write(directory.path().join("fields"), "Authorization: Bearer x\n\nX-A: 1\n").unwrap();
        std::fs::write(directory.path().join("body"), b"\xff\n").unwrap();
        let read = asked(&request(&["http://a/"], &[&path("fields")], Some(&path("body")))).unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(read.headers, [pair("Authorization", "Bearer x"), pair("X-A", "1")]);
        assert_eq!(read.body.as_deref(), Some("/wo="));
    }

    /// A credential that was mistyped does not end up on a screen.
    #[test]
    fn what_is_wrong_is_told_without_what_stands_there() {
        let told = |request: &Request| asked(request).unwrap_err().to_string();
        assert_eq!(
            told(&request(&["http://a/"], &["Bearer hidden"], None)),
            "-H takes \"NAME: VALUE\": there is no colon"
        );
        assert!(told(&request(&["a/b"], &[], None)).starts_with("`a/b` is no URL: write http://HOST/PATH"));
        assert!(told(&request(&["ftp://al:hidden@a/b"], &[], None)).starts_with("`ftp://a/b` is no URL"));
        assert!(told(&request(&["http://a/"], &["@/nowhere"], None)).starts_with("`/nowhere` cannot be read: "));
    }
}
