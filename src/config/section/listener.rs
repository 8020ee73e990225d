//! `[listener.NAME]`

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use super::super::node::Node;
use super::super::problem::Problem;
use super::super::reader::Table;
use super::super::settings::{
    At, CertificateFiles, ClientAuthSettings, Http2Settings, ListenerSettings, ListenerTlsSettings, Rate, TlsVersion,
};
use super::super::value::choice::choice;
use super::super::value::{self, net, number};
use super::TEN_THOUSAND;

pub(super) fn read(table: Table<'_>) -> Option<ListenerSettings> {
    let addresses = table.require("address", "\"0.0.0.0:8080\"", |node| {
        node.one_or_more(|member| net::listen_address(member).map(|address| member.at(address)))
    });
    let tls = table.node("tls");
    let settings = ListenerSettings {
        addresses: addresses.unwrap_or_default(),
        trusted_proxies: table
            .or("trusted_proxies", Vec::new(), |node| node.list_of("a list of networks", net::network)),
        proxy_protocol: table.or("proxy_protocol", false, Node::boolean),
        max_connections: table.or("max_connections", TEN_THOUSAND, |node| number::length(node, 10_000_000)),
        header_timeout: table.or("header_timeout", Duration::from_secs(30), number::timeout),
        body_timeout: table.or("body_timeout", Duration::from_secs(30), number::timeout),
        idle_timeout: table.or("idle_timeout", Duration::from_secs(75), number::timeout),
        max_header_bytes: table.or("max_header_bytes", 32 * 1024, |node| number::memory_size(node, 1024..=1024 * 1024)),
        max_headers: table.or("max_headers", 100, |node| number::length(node, 4096).map(NonZeroUsize::get)),
        http2: http2(&table, tls.is_some()),
        redirect_to_https: table.get("redirect_to_https", port),
        tls: tls.as_ref().and_then(Node::table).and_then(read_tls),
    };
    if settings.proxy_protocol && settings.trusted_proxies.is_empty() && !table.has("trusted_proxies") {
        demand_trusted(&table);
    }
    if table.has("redirect_to_https") && tls.is_some() {
        refuse_redirect(&table);
    }
    table.finish();
    // What failed has been reported; what is left shall be judged all the same.
    Some(settings)
}

fn demand_trusted(table: &Table<'_>) {
    if let Some(node) = table.node("proxy_protocol") {
        let problem =
            Problem::error(&node.span(), "`proxy_protocol` is demanded of trusted_proxies, and there are none");
        table.cx.report_missing(problem.help("add trusted_proxies = [\"10.0.0.0/8\"], the networks of your proxies"));
    }
}

fn refuse_redirect(table: &Table<'_>) {
    if let Some(node) = table.node("redirect_to_https") {
        let problem = Problem::error(&node.cx.span(&node.key_range), "a listener with `tls` cannot redirect to HTTPS");
        table.cx.report(problem.help("put `redirect_to_https` on the listener for plain HTTP"));
    }
}

fn port(node: &Node<'_>) -> Option<u16> {
    node.integer(1..=65535).and_then(|port| u16::try_from(port).ok())
}

fn http2(listener: &Table<'_>, tls: bool) -> Http2Settings {
    let hundred = NonZeroU32::MIN.saturating_add(99);
    let mut settings = Http2Settings {
        max_streams: NonZeroU32::MIN.saturating_add(127),
        max_resets: Rate { count: hundred, per: Duration::from_secs(1) },
    };
    let Some(node) = listener.node("http2") else {
        return settings;
    };
    if let Some(table) = node.table() {
        settings.max_streams = table.or("max_streams", settings.max_streams, |node| number::count(node, 10_000));
        settings.max_resets = table.or("max_resets", settings.max_resets, number::rate);
        table.finish();
    }
    if !tls {
        let problem = Problem::warning(
            &node.cx.span(&node.key_range),
            "`http2` has no effect on a listener without `tls`: HTTP/2 is chosen in the TLS handshake",
        );
        listener.cx.report_missing(problem);
    }
    settings
}

fn read_tls(table: Table<'_>) -> Option<ListenerTlsSettings> {
    let example = "[{ chain = \"certs/site.pem\", key = \"certs/site.key\" }]";
    let certificates = table.require("certificates", example, |node| {
        let certificates = node.list_of("a list of certificates", certificate)?;
        if certificates.is_empty() {
            return node.refuse_with("`certificates` is empty", format!("write certificates = {example}"));
        }
        Some(certificates)
    });
    let min_version = table.or("min_version", TlsVersion::Tls12, |node| {
        choice(node, &[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)])
    });
    let client_auth = client_auth(&table);
    table.finish();
    Some(ListenerTlsSettings { certificates: certificates?, min_version, client_auth })
}

fn client_auth(table: &Table<'_>) -> Option<ClientAuthSettings> {
    let (ca, crl) = (table.get("client_ca", file), table.get("client_crl", file));
    if let Some(node) = table.node("client_crl").filter(|_| !table.has("client_ca")) {
        let problem = Problem::error(&node.cx.span(&node.key_range), "`client_crl` has no effect without `client_ca`");
        table.cx.report_missing(problem.help("add client_ca = \"certs/partners-ca.pem\", who issues the certificates"));
    }
    Some(ClientAuthSettings { ca: ca?, crl })
}

/// `{ chain = "…", key = "…" }`
pub(super) fn certificate(node: &Node<'_>) -> Option<CertificateFiles> {
    let table = node.table()?;
    let chain = table.require("chain", "\"certs/site.pem\"", file);
    let key = table.require("key", "\"certs/site.key\"", file);
    table.finish();
    Some(CertificateFiles { chain: chain?, key: key? })
}

fn file(node: &Node<'_>) -> Option<At<PathBuf>> {
    value::path(node).map(|path| node.at(path))
}
