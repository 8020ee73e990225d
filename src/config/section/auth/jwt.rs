//! `kind = "jwt"`

use std::path::PathBuf;
use std::time::Duration;

use super::super::super::node::Node;
use super::super::super::problem::Problem;
use super::super::super::reader::Table;
use super::super::super::settings::{At, FetchUrl, JwtAlgorithm, JwtKeys, JwtSettings, Secret, TokenFrom};
use super::super::super::suggest::is_slip;
use super::super::super::value::choice::{choice, unknown};
use super::super::super::value::{self, fetch_url::fetch_url, number};
use super::{claims, public_key};

const LEEWAY: Duration = Duration::from_secs(30);
/// Clocks that are further apart are broken.
const LONGEST_LEEWAY: Duration = Duration::from_secs(5 * 60);
const MAX_STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// Behind the issuer (OpenID Connect Discovery 1.0 section 4).
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// Where keys come from, by the key that says so.
const SOURCES: [&str; 3] = ["jwks_url", "jwks_file", "secret"];

pub(super) fn read(table: &Table<'_>) -> Option<JwtSettings> {
    let fetched = !table.has("jwks_file") && !table.has("secret");
    let discovered = fetched && !table.has("jwks_url");
    let issuer = table.require("issuer", "\"https://login.example.com\"", |node| issuer(node, discovered));
    let audience = table.require("audience", "\"NAME\", which tokens for this service carry as `aud`", audience);
    let algorithms = algorithms(table, table.has("secret"));
    let keys = keys(table, algorithms.as_deref().unwrap_or_default(), issuer.as_ref());
    let ca = table.get("ca", file);
    let max_stale = table.or("max_stale", MAX_STALE, number::timeout);
    let claims = claims::read(table);
    let leeway = table.or("leeway", LEEWAY, leeway);
    let token_from = table.or("token_from", TokenFrom::Header, token_from);
    let token_type = table.get("token_type", |node| non_empty(node, "a type such as \"at+jwt\""));
    if !fetched {
        for key in ["ca", "max_stale"] {
            if let Some(node) = table.node(key) {
                let problem = Problem::error(&node.cx.span(&node.key_range), format!("{} has no use here", node.key));
                table.cx.report_missing(problem.help("no keys are fetched: leave it out"));
            }
        }
    }
    let (issuer, keys) = (issuer?.0, keys?);
    Some(JwtSettings {
        issuer,
        audience: audience?,
        keys,
        algorithms: algorithms?,
        claims,
        leeway,
        token_from,
        token_type,
        max_stale,
        ca,
    })
}

/// With the place of its discovery document where keys are found by it.
fn issuer(node: &Node<'_>, discovered: bool) -> Option<(String, Option<FetchUrl>)> {
    let issuer = non_empty(node, "what tokens carry as `iss`, such as \"https://login.example.com\"")?;
    if issuer.trim_end_matches('/').ends_with(DISCOVERY) {
        return node.refuse_with(
            format!("{} is where the issuer's discovery document is, not the issuer", node.key),
            format!("leave {DISCOVERY} off; the document says `issuer` to the letter"),
        );
    }
    if !discovered {
        return Some((issuer, None));
    }
    let web = issuer.starts_with("https://") || issuer.starts_with("http://");
    if !web || issuer.contains('?') {
        return node.refuse_with(
            "keys cannot be found by discovery: this issuer is no plain URL",
            "say where they are: jwks_url, jwks_file or secret",
        );
    }
    let mut url = fetch_url(node, "https://login.example.com")?;
    url.path = format!("{}{DISCOVERY}", url.path.trim_end_matches('/'));
    Some((issuer, Some(url)))
}

/// One or a list, none of them twice.
pub(super) fn audience(node: &Node<'_>) -> Option<Vec<String>> {
    let audience = node.one_or_more(|node| non_empty(node, "an audience, or a list of them"))?;
    for (index, name) in audience.iter().enumerate() {
        if audience.iter().take(index).any(|earlier| earlier == name) {
            return node.refuse(format!("{} names one of its members twice", node.key));
        }
    }
    Some(audience)
}

/// All of the kind that the keys can be of.
fn algorithms(table: &Table<'_>, secret: bool) -> Option<Vec<JwtAlgorithm>> {
    let Some(node) = table.node("algorithms") else {
        let default: &[_] = match secret {
            true => &[JwtAlgorithm::Hs256],
            false => &[JwtAlgorithm::Rs256, JwtAlgorithm::Es256, JwtAlgorithm::EdDsa],
        };
        return Some(default.to_vec());
    };
    let takes = "a list of algorithms such as [\"RS256\"]";
    let algorithms = node.list_of(takes, |member| algorithm(member, secret))?;
    if algorithms.is_empty() {
        return node.refuse(format!("{} is empty", node.key));
    }
    for (index, algorithm) in algorithms.iter().enumerate() {
        if algorithms.iter().take(index).any(|earlier| earlier == algorithm) {
            return node.refuse(format!("{} names {} twice", node.key, algorithm.as_str()));
        }
    }
    Some(algorithms)
}

fn algorithm(node: &Node<'_>, secret: bool) -> Option<JwtAlgorithm> {
    if node.is_string() && node.text("the name of an algorithm")?.text.eq_ignore_ascii_case("none") {
        return node.refuse_with("`none` is no signature", "anybody could write such tokens: leave it out");
    }
    if let Some((name, instead)) = not_taken(node) {
        return node.refuse_with(format!("{name} is not taken"), instead);
    }
    let algorithm = choice(node, &JwtAlgorithm::ALL)?;
    let name = algorithm.as_str();
    match (algorithm.secret_bytes().is_some(), secret) {
        (true, true) | (false, false) => Some(algorithm),
        (true, false) => node.refuse_with(
            format!("{name} does not go with public keys"),
            "its key is a secret; were a public key taken for one, whoever knows it could sign tokens: leave it out, \
             or write `secret`",
        ),
        (false, true) => node.refuse_with(
            format!("{name} does not go with `secret`"),
            "its tokens are verified with a public key: write jwks_url or jwks_file, or take HS256, HS384 or HS512",
        ),
    }
}

/// Algorithms that there are (RFC 7518, RFC 8812, RFC 9864), and what to take instead.
fn not_taken(node: &Node<'_>) -> Option<(&'static str, &'static str)> {
    const NOT_TAKEN: [(&str, &str); 4] = [
        ("ES512", "of elliptic curves ES256, ES384 and EdDSA are: let the issuer sign with one of them"),
        ("ES256K", "of elliptic curves ES256, ES384 and EdDSA are: let the issuer sign with one of them"),
        ("Ed448", "of elliptic curves ES256, ES384 and EdDSA are: let the issuer sign with one of them"),
        ("Ed25519", "write \"EdDSA\": tokens name it so"),
    ];
    let written = node.literal()?;
    NOT_TAKEN.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(written))
}

/// At most one source; discovery where there is none.
fn keys(
    table: &Table<'_>,
    algorithms: &[JwtAlgorithm],
    issuer: Option<&(String, Option<FetchUrl>)>,
) -> Option<JwtKeys> {
    let sources: Vec<Node<'_>> = SOURCES.iter().filter_map(|source| table.node(source)).collect();
    if let [first, second, ..] = sources.as_slice() {
        let problem = Problem::error(&second.cx.span(&second.key_range), "keys come from one place")
            .also(&first.cx.span(&first.key_range), "here is another");
        table.cx.report(problem.help("leave all but one of jwks_url, jwks_file and secret out"));
    }
    let url = table.get("jwks_url", |node| fetch_url(node, "https://login.example.com/jwks.json"));
    let path = table.get("jwks_file", file);
    let secret = table.get("secret", |node| secret(node, algorithms));
    match sources.as_slice() {
        [] => issuer?.1.clone().map(JwtKeys::Discovery),
        [_] => url.map(JwtKeys::Url).or(path.map(JwtKeys::File)).or(secret.map(JwtKeys::Secret)),
        [_, _, ..] => None,
    }
}

fn secret(node: &Node<'_>, algorithms: &[JwtAlgorithm]) -> Option<Secret> {
    let text = node.secret_text("a secret such as \"${file:/run/secrets/jwt}\"")?;
    if let Some(public) = public_key::is_public(&text.text) {
        return node.refuse_with(
            format!("{} is {public}: whoever knows that could sign tokens", node.key),
            "public keys are verified with, not shared: put them into a JWK Set, and name it as `jwks_file`",
        );
    }
    let demanding = algorithms.iter().filter_map(|algorithm| Some((algorithm.secret_bytes()?, algorithm))).max();
    match demanding {
        Some((bytes, algorithm)) if text.text.len() < bytes => node.refuse_with(
            format!("{} is too short for {}: {bytes} bytes are the least", node.key, algorithm.as_str()),
            format!("make one from random bytes: openssl rand -base64 {bytes}"),
        ),
        Some(_) | None => Some(Secret::new(text.text)),
    }
}

fn leeway(node: &Node<'_>) -> Option<Duration> {
    let leeway = number::duration(node)?;
    if leeway > LONGEST_LEEWAY {
        return node.refuse_with(
            format!("{} takes at most 5m", node.key),
            "so far apart no clocks should be: set them by NTP",
        );
    }
    Some(leeway)
}

fn token_from(node: &Node<'_>) -> Option<TokenFrom> {
    let words = ["header", "cookie:NAME"];
    let text = node.text("\"header\" or \"cookie:NAME\"")?;
    if text.text == "header" {
        return Some(TokenFrom::Header);
    }
    match text.text.strip_prefix("cookie:") {
        Some(name) if is_cookie_name(name) => Some(TokenFrom::Cookie(name.to_owned())),
        Some(_) => node.refuse(format!("{} names no cookie", text.quoted())),
        None => match text.text.split_once(':').filter(|(word, _)| !text.secret && is_slip(word, "cookie")) {
            Some((_, name)) => node.refuse_with(
                format!("{} takes \"header\" or \"cookie:NAME\", not {}", node.key, text.quoted()),
                format!("did you mean \"cookie:{}\"?", name.escape_debug()),
            ),
            None => unknown(node, &text, &words),
        },
    }
}

/// RFC 6265 section 4.1.1: a token of RFC 9110.
fn is_cookie_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&byte);
    (1..=256).contains(&name.len()) && name.bytes().all(plain)
}

fn non_empty(node: &Node<'_>, takes: &str) -> Option<String> {
    let text = node.text(takes)?;
    if text.text.is_empty() { node.refuse(format!("{} is empty", node.key)) } else { Some(text.text) }
}

fn file(node: &Node<'_>) -> Option<At<PathBuf>> {
    value::path(node).map(|path| node.at(path))
}
