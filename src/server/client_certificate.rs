//! What a client's certificate says of its holder, read once a connection: after a full handshake as after a resumed
//! one, for every protocol alike. The handshake has verified it by then.

use std::net::IpAddr;

use rustls_pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::AnyRef;
use x509_cert::der::{Decode, Encode, Tag, TagNumber};

use crate::certificate_name::{dns, part};
use crate::request::peer::ClientCertificate;

/// `subjectAltName`, RFC 5280 section 4.2.1.6
const ALTERNATIVE_NAMES: &str = "2.5.29.17";

/// The first certificate of those that a client has shown; `None` also for one that cannot be read.
pub(super) fn shown(certificates: Option<&[CertificateDer<'_>]>) -> Option<ClientCertificate> {
    let certificate = certificates?.first()?;
    match read(certificate) {
        Ok(read) => Some(read),
        Err(error) => {
            tracing::debug!(reason = %error, "a client's certificate cannot be read: the client counts as having none");
            None
        }
    }
}

fn read(certificate: &[u8]) -> x509_cert::der::Result<ClientCertificate> {
    let certificate = Certificate::from_der(certificate)?;
    let certificate = certificate.tbs_certificate();
    let mut names = Vec::new();
    let mut subject = String::new();
    // RFC 4514 section 2.1: the last comes first.
    let mut parts: Vec<_> = certificate.subject().iter_rdn().collect();
    parts.reverse();
    for several in parts {
        for (index, attribute) in several.iter().enumerate() {
            let name = text_of(attribute)?;
            if !subject.is_empty() {
                subject.push(if index == 0 { ',' } else { '+' });
            }
            subject.push_str(&name);
            names.push(name);
        }
    }
    let of_subject = names.len();
    for extension in certificate.extensions().into_iter().flatten() {
        if extension.extn_id.to_string() == ALTERNATIVE_NAMES {
            for name in Vec::<AnyRef<'_>>::from_der(extension.extn_value.as_bytes())? {
                names.extend(alternative(name));
            }
        }
    }
    Ok(ClientCertificate::new(subject, names, of_subject, certificate.validity().not_after.to_system_time()))
}

fn text_of(attribute: &AttributeTypeAndValue) -> x509_cert::der::Result<String> {
    let oid = attribute.oid.to_string();
    let bytes = attribute.value.value();
    let tag = attribute.value.header().tag();
    let text = if matches!(tag, Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString) {
        std::str::from_utf8(bytes).ok().map(str::to_owned)
    } else if tag == Tag::BmpString {
        let (units, rest) = bytes.as_chunks();
        let units: Vec<u16> = units.iter().map(|unit| u16::from_be_bytes(*unit)).collect();
        String::from_utf16(&units).ok().filter(|_| rest.is_empty())
    } else {
        // The characters of others (T.61) are anybody's guess: those are told apart by their bytes.
        None
    };
    match text {
        Some(text) => Ok(part(&oid, Ok(&text))),
        None => Ok(part(&oid, Err(&attribute.value.to_der()?))),
    }
}

/// Of the kinds that are known by name; others are passed over.
fn alternative(name: AnyRef<'_>) -> Option<String> {
    let Tag::ContextSpecific { constructed: false, number } = name.header().tag() else { return None };
    let bytes = name.value();
    let text = || std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii() && !text.is_empty());
    match number {
        TagNumber(1) => text().map(|text| format!("EMAIL:{text}")),
        TagNumber(2) => text().map(dns),
        TagNumber(6) => text().map(|text| format!("URI:{text}")),
        TagNumber(7) => {
            let ip = match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
                (Ok(bytes), _) => IpAddr::from(bytes),
                (_, Ok(bytes)) => IpAddr::from(bytes),
                (Err(_), Err(_)) => return None,
            };
            Some(format!("IP:{ip}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::string::BmpString;
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, SanType};

    use super::*;

    fn certificate(subject: &[(DnType, DnValue)], alternatives: Vec<SanType>) -> ClientCertificate {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        params.subject_alt_names = alternatives;
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        shown(Some(&[made.der().clone()])).unwrap()
    }

    fn utf8(text: &str) -> DnValue {
        DnValue::Utf8String(text.into())
    }

    #[test]
    fn every_name_of_a_certificate() {
        let read = certificate(
            &[(DnType::OrganizationName, utf8("Shop, Inc.")), (DnType::CommonName, utf8("batch"))],
            vec![
                SanType::DnsName("Batch.Internal".try_into().unwrap()),
                SanType::URI("spiffe://shop/batch".try_into().unwrap()),
                SanType::Rfc822Name("ops@example.com".try_into().unwrap()),
                SanType::IpAddress("2001:db8::1".parse().unwrap()),
                SanType::OtherName((vec![1, 2, 3], "unknown".into())),
            ],
        );
        assert_eq!(read.subject(), "CN=batch,O=Shop\\, Inc.");
        assert_eq!(
            read.names(),
            [
                "CN=batch",
                "O=Shop\\, Inc.",
                "DNS:batch.internal",
                "URI:spiffe://shop/batch",
                "EMAIL:ops@example.com",
                "IP:2001:db8::1"
            ]
        );
        assert_eq!(read.alternative(), Some("DNS:batch.internal"));
    }

    #[test]
    fn one_text_is_one_name_whatever_its_encoding() {
        let bmp = DnValue::BmpString(BmpString::try_from("Größe").unwrap());
        for value in [utf8("Größe"), bmp] {
            assert_eq!(certificate(&[(DnType::CommonName, value)], Vec::new()).subject(), "CN=Größe");
        }
    }

    #[test]
    fn no_value_is_taken_for_another_name() {
        let read = certificate(
            &[(DnType::CommonName, utf8("x,CN=batch")), (DnType::OrganizationName, utf8("DNS:a"))],
            Vec::new(),
        );
        assert_eq!(read.names(), ["O=DNS:a", "CN=x\\,CN=batch"]);
        assert_eq!(read.subject(), "O=DNS:a,CN=x\\,CN=batch");
        assert_eq!(read.alternative(), None);
    }

    #[test]
    fn no_certificate_and_one_that_is_none() {
        assert!(shown(None).is_none() && shown(Some(&[])).is_none());
        assert!(shown(Some(&[CertificateDer::from(vec![0x30, 0x80, 1, 2, 3])])).is_none());
    }
}
