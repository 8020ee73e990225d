//! The Python services of `examples/` by themselves: what every other test here relies on.

use serde_json::json;

use crate::harness::http::{Client, get};
use crate::harness::{Fake, backends};

#[test]
fn orders_are_kept_and_found_again() {
    let port = backends::orders_threads().port();
    let order = br#"{"item": "tea", "quantity": 2}"#;
    let made = Client::connect(port).ask_with("POST", "/orders", &[("Content-Type", "application/json")], order);
    assert_eq!(made.status, 201, "{made:?}");
    let found = get(port, made.header("location").unwrap());
    assert_eq!(found.json(), made.json());
    assert_eq!(found.json()["item"], json!("tea"));

    let refused = Client::connect(port).ask_with("POST", "/orders", &[("Content-Type", "application/json")], b"{}");
    assert_eq!(refused.status, 400);
    assert_eq!(get(port, "/orders/999999").status, 404);
}

#[test]
fn the_sync_worker_answers_too() {
    let response = get(backends::orders_sync().port(), "/echo?x=1");
    assert_eq!(response.json()["query"], json!("x=1"));
    assert_eq!(response.header("connection"), Some("close"));
}

#[test]
fn invoices_are_listed() {
    let response = get(backends::invoices().port(), "/invoices/3/");
    assert_eq!(response.json(), json!({ "number": 3, "total": "37.50" }));
}

#[test]
fn chat_takes_messages() {
    let port = backends::chat().port();
    let json_type = [("Content-Type", "application/json")];
    let message = br#"{"author": "ada", "text": "hello"}"#;
    assert_eq!(Client::connect(port).ask_with("POST", "/messages", &json_type, message).status, 201);
    assert_eq!(Client::connect(port).ask_with("POST", "/messages", &json_type, b"{}").status, 422);
    assert_eq!(get(port, "/messages?limit=1").json()[0]["author"], json!("ada"));
}

#[test]
fn a_fake_server_does_as_it_is_told() {
    let fake = Fake::ok();
    assert_eq!(get(fake.port(), "/here").text(), "ok\n");
    assert_eq!(fake.request().target(), "/here");
}
