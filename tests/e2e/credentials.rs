//! Credentials that are shown in a way of their own: what a lenient framework would take for one is one here. And who
//! is named in the records of requests that were refused.

use serde_json::json;

use crate::harness::http::{Client, Response};
use crate::harness::{Fake, Gateway, Setup};
use crate::identity::{KEY, KEYS, OPS, basic, keys, write_ops};
use crate::jwt::testing::{Signer, claims, jwks, with};

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
        // Sanic looks for the scheme anywhere.
        format!("Basic{text}"),
        format!("Digest a=\"x Basic {text}\""),
    ] {
        let alone = ask(&gateway, "/", &[("Authorization", &shown)]);
        assert_eq!((alone.status, alone.cause().as_str()), (401, "invalid_credentials"), "{shown:?}");
        let both = ask(&gateway, "/", &[("Authorization", &shown), ("X-API-Key", KEY)]);
        assert_eq!((both.status, both.cause().as_str()), (400, "ambiguous_credentials"), "{shown:?}");
    }
    assert!(fake.requests().is_empty(), "what is refused reaches no server");

    // Of schemes that the route does not list it says nothing.
    for shown in ["Digest x", "Token abc", "Negotiate YQ=="] {
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

/// What a worker remembers of a token never goes before an auth that the route lists earlier: else a request to one
/// route would decide what a caller may do on another.
#[test]
fn the_order_of_the_list_decides_whatever_was_asked_before() {
    let signer = Signer::new("ES256", "key");
    let auth = |name: &str, roles: &str| {
        format!(
            "[auth.{name}]\nkind = \"jwt\"\nissuer = \"https://idp.example\"\naudience = [\"orders\"]\n\
             jwks_file = \"jwks.json\"\n{roles}\n"
        )
    };
    let route = |name: &str, auths: &str, roles: &str| {
        format!("[route.{name}]\npath = \"/{name}\"\nauth = {auths}\nrespond = {{ status = 204 }}\n{roles}\n")
    };
    let config = ["[server]\nworkers = 1\n[listener.http]\naddress = \"127.0.0.1:@http@\"\n".to_owned()]
        .into_iter()
        .chain([auth("a", ""), auth("b", "roles_claim = \"groups\""), auth("elsewhere", "").replace("idp", "other")])
        .chain([
            route("second", "[\"b\"]", ""),
            route("first", "[\"a\"]", ""),
            route("both", "[\"a\", \"b\"]", "roles = [\"admin\"]"),
            route("behind", "[\"elsewhere\", \"b\"]", "roles = [\"admin\"]"),
        ])
        .collect::<String>();
    let gateway = Gateway::start_with(&config, |directory, _| {
        std::fs::write(directory.join("jwks.json"), jwks([&signer])).unwrap();
    });
    let asked = |path: &str, token: &str| ask(&gateway, path, &[("Authorization", &format!("Bearer {token}"))]).status;
    for (what, roles, groups, expected) in
        [("by the first auth", "admin", "reader", 204), ("by the second auth", "reader", "admin", 403)]
    {
        let token = signer.sign(&with(claims(), json!({"roles": [roles], "groups": [groups]})));
        assert_eq!(asked("/second", &token), 204, "{what}");
        assert_eq!([0; 3].map(|_| asked("/both", &token)), [expected; 3], "{what}: the second auth knew it already");
        assert_eq!(asked("/first", &token), 204, "{what}");
        assert_eq!(asked("/both", &token), expected, "{what}");
    }
    // What the first one refused it need not judge again, and says so on routes of its own.
    let token = signer.sign(&with(claims(), json!({"groups": ["admin"]})));
    assert_eq!([0; 3].map(|_| asked("/behind", &token)), [204; 3]);
}
