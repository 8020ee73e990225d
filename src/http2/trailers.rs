//! The fields behind a body (RFC 9113 section 8.1), judged as those of a head are.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::hpack::decode::{Checked, Take};
use super::request::is_valid;
use crate::http1::connection::is_hop_by_hop;
use crate::http1::head::Limits;

/// Trailers are malformed, or more than a head may be: the stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Trailers that are being read.
pub struct Reading {
    limits: Limits,
    bytes: usize,
    fields: Result<HeaderMap, Malformed>,
}

impl Reading {
    pub fn new(limits: Limits) -> Reading {
        Reading { limits, bytes: 0, fields: Ok(HeaderMap::new()) }
    }

    /// # Errors
    /// [`Malformed`].
    pub fn finish(self) -> Result<HeaderMap, Malformed> {
        self.fields
    }

    fn add(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        let fields = self.fields.as_mut().ok()?;
        self.bytes = self.bytes.saturating_add(name.len()).saturating_add(value.len());
        if self.bytes > self.limits.bytes || fields.len() >= self.limits.fields {
            return None;
        }
        let name = HeaderName::from_bytes(name).ok()?;
        if is_hop_by_hop((&name).into()) {
            return None;
        }
        let value = HeaderValue::from_maybe_shared(Bytes::copy_from_slice(value)).ok()?;
        fields.try_append(name, value).ok().map(|_| ())
    }
}

impl Take for Reading {
    fn take(&mut self, name: &[u8], value: &[u8], checked: Checked) -> Checked {
        // A pseudo-field has no valid name.
        let is_pseudo = name.first() == Some(&b':');
        if self.fields.is_ok() && (is_pseudo || !is_valid(name, value, checked) || self.add(name, value).is_none()) {
            self.fields = Err(Malformed);
            return checked;
        }
        if self.fields.is_ok() { Checked::Field } else { checked }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { bytes: 64, target: 64, fields: 3 };

    fn read(fields: &[(&str, &str)]) -> Result<HeaderMap, Malformed> {
        let mut reading = Reading::new(LIMITS);
        for (name, value) in fields {
            reading.take(name.as_bytes(), value.as_bytes(), Checked::Nothing);
        }
        reading.finish()
    }

    #[test]
    fn trailers_are_fields_and_few() {
        let read_well = read(&[("x-sum", "1"), ("x-sum", "2")]).unwrap();
        assert!(read_well.get_all("x-sum").iter().eq(["1", "2"]));
        let long = "a".repeat(64);
        let cases: [&[(&str, &str)]; 7] = [
            &[(":path", "/")],
            &[("X-Sum", "1")],
            &[("x", "\r\n")],
            &[("connection", "x")],
            &[("te", "trailers")],
            &[("x", &long)],
            &[("x", "1"); 4],
        ];
        for fields in cases {
            assert_eq!(read(fields), Err(Malformed), "{fields:?}");
        }
    }

    #[test]
    fn what_was_valid_elsewhere_is_no_pseudo_field_here() {
        let mut reading = Reading::new(LIMITS);
        reading.take(b":method", b"GET", Checked::Field);
        assert_eq!(reading.finish(), Err(Malformed));
    }
}
