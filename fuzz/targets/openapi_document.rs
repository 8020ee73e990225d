//! OpenAPI documents: whatever is published is compiled or refused, in the same way twice, and what is compiled judges.
#![no_main]

use http::Method;
use libfuzzer_sys::fuzz_target;
use passerelle::request::violation::MOST_VIOLATIONS;
use passerelle::validate::content::MediaType;
use passerelle::validate::openapi::Alone;

fuzz_target!(|input: &[u8]| {
    // Behind a zero byte: a body for it.
    let (document, body) = match input.iter().position(|byte| *byte == 0) {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (input, &b"{}"[..]),
    };
    let (api, again) = match (Alone::compile(document), Alone::compile(document)) {
        (Ok(api), Ok(again)) => (api, again),
        (Err(why), Err(again)) => return assert!(why == again && !why.is_empty()),
        (Ok(_), Err(why)) | (Err(why), Ok(_)) => panic!("only once: {why}"),
    };
    assert_eq!(api.operations(), again.operations());
    for media_type in ["application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=X"] {
        let Some(media_type) = MediaType::parse(media_type) else { panic!("{media_type}") };
        for (method, path) in [(Method::POST, "/x"), (Method::PUT, "/x/1"), (Method::GET, "/")] {
            let told = api.judge(&method, path, &media_type, body);
            assert!(told.as_ref().is_none_or(|told| told.len() <= MOST_VIOLATIONS + 1));
            assert_eq!(told, again.judge(&method, path, &media_type, body));
        }
    }
});
