//! What is public and was written where a secret belongs. Whoever knows the public key of an issuer could sign tokens
//! with it, were it taken for the secret of HS256.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

/// What `text` is, if it is a key or a certificate and not a secret of its own.
pub(super) fn is_public(text: &str) -> Option<&'static str> {
    let text = text.trim();
    if text.contains("-----BEGIN") || text.contains("---- BEGIN SSH2") {
        return Some("a key or a certificate in PEM");
    }
    if ["ssh-", "ecdsa-sha2-"].iter().any(|prefix| text.starts_with(prefix)) && text.contains(" AAAA") {
        return Some("a public key of SSH");
    }
    if let Ok(serde_json::Value::Object(jwk)) = serde_json::from_str(text)
        && (jwk.contains_key("kty") || jwk.contains_key("keys"))
    {
        return Some("a JSON Web Key");
    }
    is_public_der(text).then_some("a public key or a certificate in DER")
}

/// As consoles of issuers show a public key: the inside of a PEM file, in base64 or hexadecimal.
fn is_public_der(text: &str) -> bool {
    let lenient = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let plain: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let hexadecimal = || {
        let (pairs, rest) = plain.as_bytes().as_chunks::<2>();
        let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        pairs.iter().map(byte).collect::<Option<Vec<u8>>>().filter(|_| rest.is_empty())
    };
    [alphabet::STANDARD, alphabet::URL_SAFE]
        .iter()
        .filter_map(|alphabet| GeneralPurpose::new(alphabet, lenient).decode(&plain).ok())
        .chain(hexadecimal())
        .any(|der| {
            SubjectPublicKeyInfoOwned::from_der(&der).is_ok()
                || Certificate::from_der(&der).is_ok()
                // PKCS#1: a sequence of two numbers, the first of them long.
                || matches!(der.as_slice(), [0x30, 0x82, _, _, 0x02, 0x82, ..])
        })
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use rcgen::{KeyPair, PublicKeyData};

    use super::*;

    #[test]
    fn what_is_public() {
        let key = KeyPair::generate().unwrap();
        let der = key.subject_public_key_info();
        let certificate = rcgen::generate_simple_self_signed(["a.example.com".to_owned()]).unwrap().cert;
        let hexadecimal: String = der.iter().map(|byte| format!("{byte:02x}")).collect();
        let folded = STANDARD.encode(&der).split_at(40).0.to_owned() + "\n" + STANDARD.encode(&der).split_at(40).1;
        for public in [
            key.public_key_pem().as_str(),
            &format!("\n  {}", key.serialize_pem()),
            &certificate.pem(),
            &STANDARD.encode(&der),
            &URL_SAFE_NO_PAD.encode(&der),
            &STANDARD.encode(certificate.der()),
            &folded,
            &hexadecimal,
            &format!("MIIBCgKCAQEA{}IDAQAB", "u1SU".repeat(64)),
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIX8r7nRVZ5FJaKO",
            "{\"kty\": \"RSA\", \"n\": \"0vx7\", \"e\": \"AQAB\"}",
            " {\"keys\": []}",
        ] {
            assert!(is_public(public).is_some(), "{public}");
        }
    }

    #[test]
    fn what_is_a_secret() {
        for secret in [
            "",
            "a-secret-of-32-bytes-at-the-least",
            "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
            "{\"salt\": 1}",
            "{kty}",
            "ssh-keys-are-not-what-this-is-about",
        ] {
            assert_eq!(is_public(secret), None, "{secret}");
        }
    }
}
