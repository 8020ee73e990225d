//! Credentials that are shown in a way of their own: what a lenient framework would take for one is one here. And who
//! is named in the records of requests that were refused.

use crate::harness::http::{Client, Response};
use crate::harness::{Fake, Gateway, Setup};
use crate::identity::{KEY, KEYS, OPS, basic, keys, write_ops};

/// HS256.
const STAFF: &str = "[auth.staff]\nkind = \"jwt\"\nissuer = \"https://idp.example\"\naudience = [\"orders\"]\n\
                     secret = \"ssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssss\"\n";

fn ask(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> Response {
    Client::connect(gateway.port("http")).ask("GET", path, headers)
}

/// Django REST framework splits the field at any white space, others at the first blank; some take a list.
#[test]
fn no_credential_hides_behind_another_in_a_spelling_of_its_own() {
    let fake = Fake::ok();
    let route = "auth = [\"partners\", \"ops\", \"staff\"]\nforward_credential = false";
    let rest = [KEYS, &keys(), OPS, STAFF].concat();
    let config = Setup::before([fake.url()]).route(route).rest(&rest).text();
    let gateway = Gateway::start_with(&config, |directory, _| write_ops(directory));
    let valid = basic("alice", "secret");
    let text = valid.strip_prefix("Basic ").unwrap();
    for shown in [
        format!("Basic\t{text}"),
        format!("bASIC\t {text}"),
        format!("Basic\u{a0}{text}"),
        format!("\u{a0}Basic {text}"),
        format!("\u{2005}Basic {text}"),
        format!("Digest x, Basic {text}"),
        format!("Digest x,\tbasic\u{a0}{text}"),
        format!(",Basic {text}"),
        format!("Basic:{text}"),
        format!("Basic,{text}"),
        "Bearer\te30.e30.e30".to_owned(),
        "Bearer,e30.e30.e30".to_owned(),
        "Bearer:".to_owned(),
    ] {
        let alone = ask(&gateway, "/", &[("Authorization", &shown)]);
        assert_eq!((alone.status, alone.cause().as_str()), (401, "invalid_credentials"), "{shown:?}");
        let both = ask(&gateway, "/", &[("Authorization", &shown), ("X-API-Key", KEY)]);
        assert_eq!((both.status, both.cause().as_str()), (400, "ambiguous_credentials"), "{shown:?}");
    }
    assert!(fake.requests().is_empty(), "what is refused reaches no server");

    // Of schemes that the route does not list it says nothing.
    for shown in ["Digest x", "Digest username=\"basic\"", "Basically x", "Token Basic", "Negotiate YQ=="] {
        assert_eq!(ask(&gateway, "/", &[("Authorization", shown), ("X-API-Key", KEY)]).status, 200, "{shown}");
        assert!(fake.requests().pop().is_some_and(|sent| sent.head.contains(shown)), "{shown} goes on as it came");
    }
}

#[test]
fn whoever_lacks_a_role_or_a_scope_is_named() {
    let fake = Fake::ok();
    let rest = format!(
        "{KEYS}{}[log]\nsubject = true\n[limit.one]\nrate = \"1/h\"\nkey = \"subject\"\n\
         [route.roles]\npath = \"/roles\"\nauth = [\"partners\"]\nroles = [\"admin\"]\nupstream = \"app\"\n\
         [route.scopes]\npath = \"/scopes\"\nauth = [\"partners\"]\nscopes = [\"orders:write\"]\nupstream = \"app\"\n",
        keys()
    );
    let gateway = Setup::before([fake.url()]).route("auth = [\"partners\"]\nlimits = [\"one\"]").rest(&rest).start();
    assert_eq!(ask(&gateway, "/", &[("X-API-Key", KEY)]).status, 200);
    for (path, status, cause) in
        [("/roles", 403, "role_missing"), ("/scopes", 403, "scope_missing"), ("/", 429, "rate_limited")]
    {
        let refused = ask(&gateway, path, &[("X-API-Key", KEY)]);
        assert_eq!((refused.status, refused.cause().as_str()), (status, cause));
        assert_eq!(gateway.access_record(&refused)["subject"], "partners:acme", "{cause}");
    }
    let unknown = ask(&gateway, "/roles", &[("X-API-Key", "psk_wrong")]);
    assert_eq!((unknown.status, gateway.access_record(&unknown).get("subject")), (401, None));
}
