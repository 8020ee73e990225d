//! The PROXY protocol, versions 1 and 2: taken from trusted peers, demanded of them, and taken from nobody else.

use std::process::Command;

use rustls::version::TLS13;
use serde_json::json;

use crate::harness::backends;
use crate::harness::http::{Client, head};
use crate::harness::tls::{Certificate, client_config, connect_over};
use crate::harness::{Fake, Gateway, Setup};

/// A version 2 header for TCP over IPv4.
fn version_2(client: [u8; 4], client_port: u16) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    header.extend(client);
    header.extend([192, 0, 2, 1]);
    header.extend(client_port.to_be_bytes());
    header.extend(443_u16.to_be_bytes());
    header
}

fn gateway() -> Gateway {
    Setup::before([backends::chat().url()])
        .listener("proxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\"]\nheader_timeout = \"1s\"")
        .start()
}

#[test]
fn the_client_is_who_the_header_says() {
    let gateway = gateway();
    let headers: [&[u8]; 3] = [
        b"PROXY TCP4 203.0.113.9 192.0.2.1 50000 443\r\n",
        b"PROXY TCP6 2001:db8::9 2001:db8::1 50000 443\r\n",
        &version_2([203, 0, 113, 9], 50000),
    ];
    for (header, client) in headers.iter().zip(["203.0.113.9", "2001:db8::9", "203.0.113.9"]) {
        let mut connection = Client::connect(gateway.port("http"));
        connection.send(header);
        for _ in 0..2 {
            let answer = connection.ask("GET", "/echo", &[]);
            let saw = answer.json()["headers"].to_string();
            assert!(saw.contains(&format!("[\"x-forwarded-for\",\"{client}\"]")), "{saw}");
            assert_eq!(gateway.access_record(&answer)["client"], json!(client));
        }
    }
}

#[test]
fn a_header_may_say_that_it_knows_nothing() {
    let gateway = gateway();
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
    for header in [&b"PROXY UNKNOWN\r\n"[..], local] {
        let mut connection = Client::connect(gateway.port("http"));
        connection.send(header);
        let saw = connection.ask("GET", "/echo", &[]).json()["headers"].to_string();
        assert!(saw.contains("[\"x-forwarded-for\",\"127.0.0.1\"]"), "{saw}");
    }
}

#[test]
fn a_trusted_peer_without_a_proper_header_is_turned_away() {
    let fake = Fake::ok();
    let gateway = Setup::before([fake.url()])
        .listener("proxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\"]\nheader_timeout = \"500ms\"")
        .start();
    let request = head("GET", "/", &[]);
    let mut bad_version = version_2([203, 0, 113, 9], 1);
    bad_version[12] = 0x31;
    let mut short = version_2([203, 0, 113, 9], 1);
    short[15] = 4;
    for header in [
        &b""[..],
        b"PROXY TCP4 203.0.113.9\r\n",
        b"PROXY TCP4 not.an.address 192.0.2.1 1 2\r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 99999 443\r\n",
        &[b"PROXY ", &[b'x'; 200][..]].concat(),
        &bad_version,
        &short,
    ] {
        let mut connection = Client::connect(gateway.port("http"));
        let _ = connection.try_send([header, request.as_bytes()].concat());
        connection.expect_close();
    }
    // One that sends only half of it is not waited for.
    let mut silent = Client::connect(gateway.port("http"));
    silent.send("PROXY TCP4 203");
    silent.expect_close();
    assert!(fake.requests().is_empty());
    gateway.metric_reaches("passerelle_proxy_protocol_failures_total", &["listener=\"http\""], 7.0);
}

#[test]
fn an_untrusted_peer_cannot_say_who_it_is() {
    let fake = Fake::ok();
    let gateway =
        Setup::before([fake.url()]).listener("proxy_protocol = true\ntrusted_proxies = [\"10.0.0.0/8\"]").start();
    let mut connection = Client::connect(gateway.port("http"));
    let request = ["PROXY TCP4 203.0.113.9 192.0.2.1 50000 443\r\n", &head("GET", "/", &[])].concat();
    let _ = connection.try_send(request);
    assert!(connection.try_answer_to("GET").map_or(true, |answer| answer.status == 400));
    assert!(fake.requests().is_empty());
}

#[test]
fn the_header_comes_before_tls() {
    let certificate = Certificate::new(&["localhost"]);
    let setup = Setup::before([backends::chat().url()]).rest(
        "[listener.https]\naddress = \"127.0.0.1:@https@\"\nproxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\"]\n\
         [listener.https.tls]\ncertificates = [{ chain = \"site.pem\", key = \"site.key\" }]",
    );
    let gateway = Gateway::start_with(&setup.text(), |directory, _: &mut Command| certificate.write(directory, "site"));
    let mut plain = Client::connect(gateway.port("https"));
    plain.send(version_2([203, 0, 113, 9], 50000));
    let config = client_config(&[&certificate], &[], &[&TLS13]);
    let mut client = connect_over(plain.stream, "localhost", &config).unwrap();
    let saw = client.ask("GET", "/echo", &[]).json()["headers"].to_string();
    assert!(saw.contains("[\"x-forwarded-for\",\"203.0.113.9\"]") && saw.contains("\"https\""), "{saw}");
}
