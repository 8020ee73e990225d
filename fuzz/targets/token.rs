//! Tokens and sets of keys: whatever is sent is refused or read in one way, and what is read twice is the same twice.
#![no_main]

use std::time::{Duration, SystemTime};

use libfuzzer_sys::fuzz_target;
use passerelle::admit::jwt::claims::{Demanded, find, roles, scopes};
use passerelle::admit::jwt::keyset::KeySet;
use passerelle::admit::jwt::token::Token;
use passerelle::config::settings::{ClaimPath, ClaimSettings, JwtAlgorithm};

fn path(text: &str) -> ClaimPath {
    ClaimPath { whole: text.to_owned(), segments: text.split('.').map(str::to_owned).collect() }
}

fuzz_target!(|text: &[u8]| {
    let algorithms = JwtAlgorithm::ALL.map(|(_, algorithm)| algorithm);
    // The base64 of a token hides its JSON from the fuzzer: what is no token as it stands is read as the parts of one.
    let made;
    let token = if text.contains(&b'{') {
        made = text.split(|byte| *byte == 0).map(encoded).collect::<Vec<_>>().join(".");
        made.as_bytes()
    } else {
        text
    };
    if let Ok(token) = Token::parse(token, &algorithms) {
        let secret = KeySet::secret(&[7; 64], &algorithms);
        let _ = secret.verify(token.algorithm, token.key_id.as_deref(), token.message, token.signature);
        let audience = ["orders".to_owned()];
        let demanded = Demanded { issuer: "i", audience: &audience, leeway: Duration::from_secs(30) };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        if let Ok(fitting) = demanded.judge(&token.claims, now) {
            assert!(!fitting.subject.is_empty() && fitting.until > now);
        }
        let settings = ClaimSettings { roles: path("a.b.c"), scopes: path("scope"), roles_map: None };
        let _ = (roles(&token.claims, &settings), scopes(&token.claims, &settings));
        assert_eq!(find(&token.claims, &settings.roles), find(&token.claims, &path("a.b.c")));
    }
    if let Ok(keys) = KeySet::parse(text, &algorithms) {
        assert!(keys.count() > 0);
        assert!(KeySet::parse(text, &algorithms).is_ok_and(|again| again == keys));
    }
});

fn encoded(part: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in part.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            out.push(char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]));
        }
    }
    out
}
