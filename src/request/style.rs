//! What answers have in common: the format of errors, and the fields that protect browsers.

use std::time::Duration;

use http::{HeaderName, HeaderValue, header};

use crate::config::settings::ErrorFormat;
use crate::headers::Headers;

static SECURITY_HEADERS: [(HeaderName, HeaderValue); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN")),
    (header::REFERRER_POLICY, HeaderValue::from_static("strict-origin-when-cross-origin")),
];

/// The style of a route's answers, or of those that no route gives.
#[derive(Debug)]
pub struct Style {
    pub errors: ErrorFormat,
    security_headers: &'static [(HeaderName, HeaderValue)],
    /// For TLS alone.
    hsts: Option<HeaderValue>,
}

impl Style {
    pub fn new(errors: ErrorFormat, security_headers: bool, hsts: Option<Duration>) -> Style {
        Style {
            errors,
            security_headers: if security_headers { &SECURITY_HEADERS } else { &[] },
            hsts: hsts.and_then(|age| HeaderValue::try_from(format!("max-age={}", age.as_secs())).ok()),
        }
    }

    /// Puts its fields onto an answer: never over what is there, and none of `unwanted`.
    pub fn mark(&self, headers: &mut Headers, tls: bool, unwanted: &[HeaderName]) {
        let hsts = self.hsts.as_ref().filter(|_| tls).map(|value| (&header::STRICT_TRANSPORT_SECURITY, value));
        for (name, value) in self.security_headers.iter().map(|(name, value)| (name, value)).chain(hsts) {
            if unwanted.contains(name) {
                continue;
            }
            if !headers.contains_key(name) {
                headers.append(name, value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_overwritten_and_hsts_is_for_tls() {
        let style = Style::new(ErrorFormat::Problem, true, Some(Duration::from_secs(60)));
        let mut headers = Headers::from_iter([(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"))]);
        style.mark(&mut headers, false, &[header::REFERRER_POLICY]);
        assert_eq!(headers.get(header::X_FRAME_OPTIONS).unwrap(), "DENY");
        assert_eq!(headers.get(header::X_CONTENT_TYPE_OPTIONS).unwrap(), "nosniff");
        assert_eq!(headers.len(), 2);
        style.mark(&mut headers, true, &[]);
        assert_eq!(headers.get(header::STRICT_TRANSPORT_SECURITY).unwrap(), "max-age=60");
        let mut bare = Headers::new();
        Style::new(ErrorFormat::Problem, false, None).mark(&mut bare, true, &[]);
        assert!(bare.is_empty());
    }
}
