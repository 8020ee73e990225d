//! Validators of a file, and the requests that are made under conditions (RFC 9110 sections 8.8 and 13).

use std::time::{Duration, SystemTime};

use http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE};
use http::{HeaderName, HeaderValue};

use super::find::Found;
use crate::headers::Headers;
use crate::http1::tags::tags;

/// What a client's copy is compared with.
#[derive(Clone, Debug)]
pub struct Validators {
    /// Strong. Of length and time of change to the nanosecond, which copies of a release share, so that any of several
    /// gateways confirms what another has sent. Where builds that want to be reproducible give all files the same day, of
    /// the file's number too: one that is put in another's place by renaming has another.
    pub etag: HeaderValue,
    pub modified: Option<SystemTime>,
}

/// What the conditions of a request come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Send,
    NotModified,
    Failed,
}

impl Validators {
    pub fn of(found: &Found) -> Validators {
        let coding = found.coding.map_or("", |coding| coding.suffix());
        let modified = found.modified;
        let told = modified.told();
        let inode = if told.is_none() { format!("-{:x}", found.inode) } else { String::new() };
        let text = format!("\"{:x}.{:x}-{:x}{inode}{coding}\"", modified.seconds, modified.nanoseconds, found.length);
        Validators {
            // Always of visible ASCII.
            etag: HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("\"\"")),
            // RFC 9110 section 8.8.2.1: never later than the answer.
            modified: told.map(|modified| modified.min(SystemTime::now())),
        }
    }

    /// Judges the preconditions of a GET or HEAD in the order of RFC 9110 section 13.2.2. `weakened`: whether clients may
    /// hold the weak form of a tag, because answers are compressed on their way; `If-Match` takes it for the tag then.
    pub fn judge(&self, request: &Headers, weakened: bool) -> Verdict {
        let etag = self.etag.as_bytes();
        if request.contains_key(IF_MATCH) {
            if !listed(request, &IF_MATCH, |tag| tag == etag || (weakened && without_weak(tag) == etag)) {
                return Verdict::Failed;
            }
        } else if let (Some(since), Some(modified)) = (date(request, &IF_UNMODIFIED_SINCE), self.modified)
            && modified > since
        {
            return Verdict::Failed;
        }
        if request.contains_key(IF_NONE_MATCH) {
            if listed(request, &IF_NONE_MATCH, |tag| without_weak(tag) == etag) {
                return Verdict::NotModified;
            }
        } else if let (Some(since), Some(modified)) = (date(request, &IF_MODIFIED_SINCE), self.modified)
            && modified <= since
        {
            return Verdict::NotModified;
        }
        Verdict::Send
    }

    /// Whether `Range` counts: what `If-Range` holds is still the very same.
    pub fn range_holds(&self, request: &Headers) -> bool {
        let mut values = request.get_all(IF_RANGE);
        match (values.next(), values.next()) {
            (None, _) => true,
            (Some(_), Some(_)) => false,
            (Some(value), None) if value.as_bytes().ends_with(b"\"") => value == self.etag,
            (Some(_), None) => {
                // RFC 9110 section 8.8.2.2: a file that was written within this second may be written again in it.
                let settled = |modified: &SystemTime| {
                    SystemTime::now().duration_since(*modified).is_ok_and(|age| age > Duration::from_secs(1))
                };
                let modified = self.modified.filter(settled);
                modified.is_some() && date(request, &IF_RANGE) == modified
            }
        }
    }
}

fn without_weak(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// Whether a list of entity tags is `*` or holds one that `is_it`.
fn listed(request: &Headers, name: &HeaderName, is_it: impl Fn(&[u8]) -> bool) -> bool {
    request.get_all(name).any(|line| line.as_bytes().trim_ascii() == b"*" || tags(line.as_bytes()).any(&is_it))
}

/// A field that holds one date; any other is as good as none.
fn date(request: &Headers, name: &HeaderName) -> Option<SystemTime> {
    let mut values = request.get_all(name);
    let value = values.next()?.to_str().ok().and_then(|text| httpdate::parse_http_date(text).ok());
    value.filter(|_| values.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::super::kind::Kind;
    use super::*;

    const THEN: &str = "Sat, 01 Feb 2025 10:00:00 GMT";
    const EARLIER: &str = "Sat, 01 Feb 2025 09:59:59 GMT";

    fn validators() -> Validators {
        Validators {
            etag: HeaderValue::from_static("\"a,b\""),
            modified: Some(httpdate::parse_http_date(THEN).unwrap()),
        }
    }

    fn request(fields: &[(HeaderName, &'static str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers
    }

    fn judge(fields: &[(HeaderName, &'static str)]) -> Verdict {
        validators().judge(&request(fields), false)
    }

    #[test]
    fn copies_of_a_release_have_the_same_tags() {
        let tag = |seconds: u64| {
            let home = tempfile::tempdir().unwrap();
            let file = std::fs::File::create(home.path().join("file")).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
            let stat = rustix::fs::fstat(&file).unwrap();
            let other = std::fs::File::create(home.path().join("other")).unwrap();
            other.set_modified(file.metadata().unwrap().modified().unwrap()).unwrap();
            let stats = [stat, rustix::fs::fstat(&other).unwrap()];
            stats.map(|stat| {
                Validators::of(&Found::new(other.try_clone().unwrap().into(), &stat, Kind::of(b""), None)).etag
            })
        };
        let [one, other] = tag(1_700_000_000);
        assert_eq!(one, other);
        let [one, other] = tag(1);
        assert_ne!(one, other, "of the same made-up day");
    }

    #[test]
    fn preconditions() {
        use Verdict::{Failed, NotModified, Send};
        assert_eq!(judge(&[]), Send);
        for same in ["\"a,b\"", "W/\"a,b\"", "*", "\"x\", \"a,b\"", "\"x\",W/\"a,b\" ", ", ,\"a,b\""] {
            assert_eq!(judge(&[(IF_NONE_MATCH, same)]), NotModified, "{same}");
        }
        assert_eq!(judge(&[(IF_NONE_MATCH, "\"x\""), (IF_NONE_MATCH, "\"a,b\"")]), NotModified);
        for other in ["\"x\"", "a,b", "\"a\", \"b\"", "\"a,b", "w/\"a,b\"", ""] {
            assert_eq!(judge(&[(IF_NONE_MATCH, other)]), Send, "{other}");
        }
        assert_eq!(judge(&[(IF_MODIFIED_SINCE, THEN)]), NotModified);
        assert_eq!(judge(&[(IF_MODIFIED_SINCE, EARLIER)]), Send);
        assert_eq!(judge(&[(IF_MODIFIED_SINCE, "yesterday")]), Send);
        assert_eq!(judge(&[(IF_MODIFIED_SINCE, THEN), (IF_NONE_MATCH, "\"x\"")]), Send, "the tag goes first");
        assert_eq!(judge(&[(IF_MATCH, "\"a,b\"")]), Send);
        assert_eq!(judge(&[(IF_MATCH, "*")]), Send);
        assert_eq!(judge(&[(IF_MATCH, "W/\"a,b\"")]), Failed, "compared strongly");
        let weak = request(&[(IF_MATCH, "W/\"a,b\"")]);
        assert_eq!(validators().judge(&weak, true), Send, "it was given so, of a compressed answer");
        assert_eq!(judge(&[(IF_MATCH, "\"x\"")]), Failed);
        assert_eq!(judge(&[(IF_UNMODIFIED_SINCE, THEN)]), Send);
        assert_eq!(judge(&[(IF_UNMODIFIED_SINCE, EARLIER)]), Failed);
        assert_eq!(judge(&[(IF_UNMODIFIED_SINCE, EARLIER), (IF_MATCH, "\"a,b\"")]), Send);
        assert_eq!(judge(&[(IF_MATCH, "\"a,b\""), (IF_NONE_MATCH, "\"a,b\"")]), NotModified);
    }

    #[test]
    fn ranges_of_what_has_changed_do_not_count() {
        let holds = |value: &'static str| validators().range_holds(&request(&[(IF_RANGE, value)]));
        assert!(validators().range_holds(&Headers::new()));
        assert!(holds("\"a,b\"") && holds(THEN));
        for other in ["W/\"a,b\"", "\"x\"", EARLIER, "Sat, 01 Feb 2025 10:00:01 GMT", "soon", ""] {
            assert!(!holds(other), "{other}");
        }
    }
}
