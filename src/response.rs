//! A response on its way to the client, whatever protocol that speaks.

use http::StatusCode;

use crate::body::ResponseBody;
use crate::headers::Headers;

/// A response: its head, and what follows it.
#[derive(Debug)]
pub struct Response<B = ResponseBody> {
    head: Head,
    body: B,
}

/// What a response begins with.
#[derive(Debug)]
pub struct Head {
    pub status: StatusCode,
    pub headers: Headers,
}

impl<B> Response<B> {
    /// With status 200 and without fields.
    pub fn new(body: B) -> Response<B> {
        Response { head: Head { status: StatusCode::OK, headers: Headers::new() }, body }
    }

    pub fn from_parts(head: Head, body: B) -> Response<B> {
        Response { head, body }
    }

    pub fn into_parts(self) -> (Head, B) {
        (self.head, self.body)
    }

    pub fn status(&self) -> StatusCode {
        self.head.status
    }

    pub fn status_mut(&mut self) -> &mut StatusCode {
        &mut self.head.status
    }

    pub fn headers(&self) -> &Headers {
        &self.head.headers
    }

    pub fn headers_mut(&mut self) -> &mut Headers {
        &mut self.head.headers
    }

    pub fn body(&self) -> &B {
        &self.body
    }

    pub fn body_mut(&mut self) -> &mut B {
        &mut self.body
    }

    /// The same with another body.
    pub fn map<T>(self, map: impl FnOnce(B) -> T) -> Response<T> {
        Response { head: self.head, body: map(self.body) }
    }
}
