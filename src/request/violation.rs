//! What is wrong with a request, one thing at a time.

use std::borrow::Cow;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub place: Place,
    /// Where in it: a JSON Pointer (RFC 6901) into a body, empty for all of it; of a parameter first its name.
    pub pointer: String,
    /// The rule that is broken, in one word: a keyword of JSON Schema such as `required`, or one of ours.
    pub rule: Cow<'static, str>,
    /// For people.
    pub message: String,
}

/// The part of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Body,
    Path,
    Query,
    Header,
    Cookie,
}

impl Place {
    /// As FastAPI calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Place::Body => "body",
            Place::Path => "path",
            Place::Query => "query",
            Place::Header => "header",
            Place::Cookie => "cookie",
        }
    }
}
