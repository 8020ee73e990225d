use bytes::BytesMut;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, VARY};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// As they come off a connection.
fn came(fields: &[(&str, &str)]) -> Headers {
    let text: String = fields.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let head = BytesMut::from(text.as_str());
    let mut places = Places::with_room_for(fields.len());
    for line in head[..].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let colon = line.iter().position(|byte| *byte == b':').unwrap();
        places.take(&head, &line[..colon], &line[colon + 1..]).unwrap();
    }
    places.settle(head, |name| assert!(!name.iter().any(u8::is_ascii_uppercase)))
}

fn lines(headers: &Headers) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value.as_bytes()))).collect()
}

#[test]
fn what_came_is_found_under_its_name_in_lower_case() {
    let headers = came(&[("Host", "a"), ("ACCEPT", "b"), ("X-One", ""), ("accept", "c")]);
    assert_eq!(headers.get(HOST).unwrap(), "a");
    assert_eq!(headers.get("x-one").unwrap(), "");
    assert!(headers.get_all(ACCEPT).map(Value::as_bytes).eq([b"b", b"c"]));
    assert!(headers.get("x-on").is_none() && headers.get("x-two").is_none());
    assert!(headers.keys().map(Name::as_str).eq(["host", "accept", "x-one", "accept"]));
    assert_eq!((headers.len(), headers.is_empty()), (4, false));
}

#[test]
fn what_is_kept_shares_the_bytes_of_its_head() {
    let headers = came(&[("X-One", "value"), ("x-none", "")]);
    let value = headers.get("x-one").unwrap();
    assert_eq!(value.owned().as_bytes().as_ptr(), value.as_bytes().as_ptr());
    assert_eq!(value.bytes().as_ptr(), value.as_bytes().as_ptr());
    let none = headers.get("x-none").unwrap();
    assert!(none.owned().is_empty() && none.bytes().is_empty());
    assert_eq!(headers.keys().next().and_then(Name::owned), Some(HeaderName::from_static("x-one")));
}

#[test]
fn what_is_put_in_takes_the_place_of_the_first_of_its_name() {
    let mut headers = came(&[("Vary", "a"), ("Host", "b"), ("VARY", "c")]);
    headers.insert(VARY, HeaderValue::from_static("d"));
    headers.insert_if_absent(HOST, HeaderValue::from_static("e"));
    headers.insert_if_absent(CONTENT_TYPE, HeaderValue::from_static("f"));
    headers.append(VARY, HeaderValue::from_static("g"));
    let expected = [("vary", "d"), ("host", "b"), ("content-type", "f"), ("vary", "g")];
    assert_eq!(lines(&headers), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(headers.take(VARY).unwrap(), "d");
    assert_eq!((headers.take(VARY), headers.len()), (None, 2));
    headers.retain(|name| name != HOST);
    assert!(headers.keys().map(Name::as_str).eq(["content-type"]));
}

#[test]
fn those_of_one_name_are_brought_together() {
    let headers = came(&[("Host", "a"), ("X-One", "b"), ("host", "c"), ("x-two", "d"), ("x-one", "e"), ("x-one", "f")]);
    let sorted: String = headers.sorted().iter().map(|(_, value)| value.to_str().unwrap()).collect();
    assert_eq!(sorted, "acbefd");
}

#[test]
fn nothing_is_taken_that_lies_elsewhere() {
    let (head, other) = (BytesMut::from("a: b"), BytesMut::from("a: b"));
    let mut places = Places::with_room_for(1);
    assert!(places.take(&head, &other[..1], &head[3..]).is_none());
    assert!(places.take(&head[..3], &head[..1], &head[2..]).is_none(), "past its end");
    assert!(places.take(&head[1..], &head[..1], &head[3..]).is_none(), "before its beginning");
    let long = BytesMut::from(vec![b'a'; 70_000].as_slice());
    assert!(places.take(&long, &long[..65_536], b"").is_none());
    assert!(places.take(&long, &long[..65_535], b"").is_some());
}

/// What parses heads takes what the library takes, so that everything that came can be given to the library.
#[test]
fn names_and_values_are_valid_to_the_library() {
    for byte in 0..=u8::MAX {
        let parsed = |name: &[u8], value: &[u8]| {
            let head = [name, b": ", value, b"\r\n\r\n"].concat();
            let mut fields = [httparse::EMPTY_HEADER];
            let parsed = httparse::parse_headers(&head, &mut fields);
            let Ok(httparse::Status::Complete((_, [field]))) = parsed else { return None };
            Some((field.name.as_bytes().to_vec(), field.value.to_vec()))
        };
        if let Some((name, _)) = parsed(&[b'a', byte], b"b") {
            assert!(HeaderName::from_bytes(&name).is_ok(), "{byte:#x}");
        }
        if let Some((_, value)) = parsed(b"a", &[b'b', byte, b'c']) {
            assert!(HeaderValue::from_bytes(&value).is_ok(), "{byte:#x}");
            let both = HeaderValue::from_bytes(&value).unwrap();
            assert_eq!(Value::from(&both).to_str().ok(), both.to_str().ok(), "{byte:#x}");
        }
    }
}

#[test]
fn nothing_secret_is_shown() {
    let shown = format!("{:?}", came(&[("Authorization", "Bearer secret")]));
    assert_eq!(shown, "[\"authorization\"]");
    let value = HeaderValue::from_static("secret");
    assert!(!format!("{:?}", Value::from(&value)).contains("secret"));
}

/// A change that both are put through.
#[derive(Clone, Debug)]
enum Change {
    Append(&'static str, u8),
    Insert(&'static str, u8),
    InsertIfAbsent(&'static str, u8),
    Remove(&'static str),
    Take(&'static str),
    ThereAndBack,
}

const NAMES: [&str; 6] = ["host", "accept", "x-one", "x-two", "x-three", "content-length"];

fn changes() -> impl Strategy<Value = Change> {
    let (name, value) = (|| select(&NAMES[..]), any::<u8>);
    prop_oneof![
        (name(), value()).prop_map(|(name, value)| Change::Append(name, value)),
        (name(), value()).prop_map(|(name, value)| Change::Insert(name, value)),
        (name(), value()).prop_map(|(name, value)| Change::InsertIfAbsent(name, value)),
        name().prop_map(Change::Remove),
        name().prop_map(Change::Take),
        Just(Change::ThereAndBack),
    ]
}

proptest! {
    #[test]
    fn whatever_is_done_to_them_they_are_what_a_map_would_be(
        began in vec((select(&["Host", "ACCEPT", "X-One", "x-two"][..]), "[a-z]{0,3}"), 0..6),
        changes in vec(changes(), 0..12),
    ) {
        let began: Vec<(&str, &str)> = began.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut headers = came(&began);
        let mut map = HeaderMap::new();
        for (name, value) in &began {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        for change in changes {
            match change {
                Change::Append(name, value) => {
                    headers.append(HeaderName::from_static(name), HeaderValue::from(u16::from(value)));
                    map.append(name, HeaderValue::from(u16::from(value)));
                }
                Change::Insert(name, value) => {
                    headers.insert(HeaderName::from_static(name), HeaderValue::from(u16::from(value)));
                    map.insert(name, HeaderValue::from(u16::from(value)));
                }
                Change::InsertIfAbsent(name, value) => {
                    headers.insert_if_absent(HeaderName::from_static(name), HeaderValue::from(u16::from(value)));
                    map.entry(name).or_insert(HeaderValue::from(u16::from(value)));
                }
                Change::Remove(name) => {
                    headers.remove(name);
                    map.remove(name);
                }
                Change::Take(name) => prop_assert_eq!(headers.take(name), map.remove(name)),
                Change::ThereAndBack => headers = HeaderMap::from(headers).into(),
            }
            prop_assert_eq!((headers.len(), headers.is_empty()), (map.len(), map.is_empty()));
            for name in NAMES {
                prop_assert_eq!(headers.contains_key(name), map.contains_key(name));
                prop_assert_eq!(headers.get(name).map(Value::owned), map.get(name).cloned());
                prop_assert!(headers.get_all(name).map(Value::as_bytes).eq(map.get_all(name).iter().map(HeaderValue::as_bytes)));
            }
            prop_assert_eq!(HeaderMap::from(headers.clone()), map.clone());
            prop_assert_eq!(Headers::from(map.clone()).len(), map.len());
        }
    }
}
