//! Files of a route: looked up on this disk, as a request would have them looked up.

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};

use super::admission::LetIn;
use super::explanation::Outcome;
use super::walk::{Normal, Walk};
use super::wording::{text, without_query};
use crate::body::RequestBody;
use crate::config::settings::UpstreamTimeouts;
use crate::files::Readers;
use crate::request::files::{Asked, Files, Unserved};
use crate::request::rejection::Rejection;
use crate::request::route::Route;
use crate::upstream::Upstream;

/// Where what is not there goes.
type Fallback<'g> = Option<(&'g Arc<Upstream>, &'g UpstreamTimeouts)>;

impl<'g> Walk<'g> {
    pub(super) async fn files(
        &mut self,
        route: &'g Route,
        (files, fallback): (&'g Files, Fallback<'g>),
        normal: &Normal<'_>,
        query: Option<&[u8]>,
        admitted: &LetIn<'_>,
        body: RequestBody,
    ) -> Result<Outcome, Rejection> {
        let place = self.route_key(route, "files");
        let asked = Asked { inbound: normal.inbound, path: &normal.path, query: normal.query };
        match (files.serve(route, &Readers::default(), &asked).await, fallback) {
            (Ok(answer), _) => {
                let status = answer.status().as_u16();
                if let Some(location) = answer.headers().get(LOCATION) {
                    self.pass("files", "a directory: the client is sent to its form with a slash", place);
                    return Ok(Outcome::Redirected { status, location: without_query(&text(location)) });
                }
                let field = |name| answer.headers().get(name).map(text).unwrap_or_default();
                self.pass("files", format!("there: {}, {} bytes", field(CONTENT_TYPE), field(CONTENT_LENGTH)), place);
                Ok(Outcome::Answered { status })
            }
            (Err(Unserved::Elsewhere(why)), Some(fallback)) => {
                self.pass("files", format!("{}: on to the fallback", told(&why)), place);
                self.forward(route, fallback, normal, query, admitted, body).await
            }
            (Err(Unserved::Elsewhere(rejection) | Unserved::Refused(rejection)), _) => {
                let said = told(&rejection);
                Err(self.refuse("files", &said, place, rejection))
            }
        }
    }
}

fn told(rejection: &Rejection) -> String {
    rejection.detail().unwrap_or(rejection.cause.row().title).to_owned()
}
