//! The body: its bounds, what must be in it, and whether it is taken in before a server is chosen.

use std::rc::Rc;

use http::HeaderValue;

use super::Moment;
use super::admission::Who;
use super::explanation::Decision;
use super::walk::{Normal, Walk};
use super::wording::size;
use crate::body::RequestBody;
use crate::request::buffering::{bounds, is_taken_in};
use crate::request::limited::limit;
use crate::request::onward::Onward;
use crate::request::outgoing::wanted_upgrade;
use crate::request::rejection::{Cause, Rejection};
use crate::validate::{Found, Judging, Validation};

/// A body as it would go on.
pub(super) struct Carried {
    /// `None`: nobody knows beforehand.
    pub(super) length: Option<u64>,
    pub(super) upgrade: Option<HeaderValue>,
    taken_in: bool,
}

impl Carried {
    fn of(body: &RequestBody, onward: &Onward<'_>) -> Carried {
        let Onward { inbound, route, upstream, .. } = onward;
        Carried {
            length: body.length(),
            upgrade: wanted_upgrade(inbound, body),
            taken_in: is_taken_in(body, &inbound.headers, &route.settings.buffer, upstream.needs_lengths),
        }
    }
}

impl<'g> Walk<'g> {
    pub(super) async fn body(
        &mut self,
        onward: &Onward<'_>,
        normal: &Normal<'_>,
        who: &Who,
        body: RequestBody,
    ) -> Result<Carried, Rejection> {
        let route = onward.route;
        let validation = route.validation.as_ref();
        let most = validation.map_or(route.settings.max_body, Validation::hard_limit);
        let (name, length) = (&route.name, body.length());
        let keys =
            [&*format!("route.{name}.validate.max_body"), &format!("route.{name}.max_body"), "defaults.max_body"];
        let place = self.place(if validation.is_some() { &keys } else { keys.get(1..).unwrap_or_default() });
        let said = match length {
            Some(0) => "none".to_owned(),
            Some(length) => format!("{} of at most {}", size(length), size(most)),
            None => format!("of a length that is not stated, at most {}", size(most)),
        };
        let reserved = self.gateway.routes.reserved_trailers.as_ref();
        let body = match limit(body, most, &Rc::default(), reserved, None) {
            Ok(body) => body,
            Err(cause) => return Err(self.refuse("body", &said, place, cause.into())),
        };
        self.pass("body", said, place.clone());
        let mut carried = Carried::of(&body, onward);
        if let Some(validation) = validation
            && let Some(body) = self.validate(validation, onward, normal, who, body).await?
        {
            carried = Carried::of(&body, onward);
        }
        let held = carried.taken_in.then(|| bounds(&route.settings.buffer).most());
        let is_here = normal.body_bytes;
        if carried.length.is_none() && is_here > most && held.is_none_or(|held| most <= held) {
            let said = format!("{}, which is found while it comes, of at most {}", size(is_here), size(most));
            return Err(self.refuse("body", &said, place, Cause::BodyTooLarge.into()));
        }
        let Some(held) = held else { return Ok(carried) };
        // Once it is here its length is known.
        carried.length = carried.length.or(Some(is_here));
        let place = self.of_route(route, "buffer");
        let said = format!("taken in whole before a server is chosen, at most {}", size(held));
        if carried.length.is_some_and(|length| length > held) {
            return Err(self.refuse("buffer", &said, place, Cause::BodyPastBuffer.into()));
        }
        self.pass("buffer", said, place);
        Ok(carried)
    }

    /// The body as it goes on from here; `None`: nobody knows, for it was not judged.
    async fn validate(
        &mut self,
        validation: &Validation,
        onward: &Onward<'_>,
        normal: &Normal<'_>,
        who: &Who,
        body: RequestBody,
    ) -> Result<Option<RequestBody>, Rejection> {
        let place = self.route_key(onward.route, "validate");
        if normal.body_is_elsewhere {
            let said = "the body is not here: -d shows it";
            self.step("validate", Decision::Unknown, said, place);
            self.provided("the body is valid".to_owned());
            return Ok(None);
        }
        if self.moment == Moment::Offline && validation.openapi().is_some_and(|openapi| openapi.published().is_some()) {
            let said = "the OpenAPI document is fetched from the upstream by the running gateway: --live judges by it";
            self.step("validate", Decision::Unknown, said, place);
            self.provided("the request is valid by the OpenAPI document of the upstream".to_owned());
            return Ok(None);
        }
        let judge = async move |judging: &Judging<'_>| validation.judge_for_nobody(judging, body).await;
        match onward.judged(judge).await {
            Found::Nothing(body) => {
                self.pass("validate", "nothing is wrong with it", place);
                Ok(Some(body))
            }
            Found::LetThrough(told, body) => {
                self.pass("validate", format!("mode = \"report\" lets it through: {told}"), place);
                Ok(Some(body))
            }
            Found::Refused(rejection) if rejection.cause == Cause::ScopeMissing && matches!(who, Who::Somebody) => {
                let said = "the OpenAPI document demands scopes; those of the caller are not known here";
                self.step("validate", Decision::Unknown, said, place);
                Ok(None)
            }
            Found::Refused(rejection) => {
                let said = rejection.detail().unwrap_or_else(|| rejection.cause.row().title).to_owned();
                Err(self.refuse("validate", &said, place, rejection))
            }
        }
    }
}
