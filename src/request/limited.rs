//! A request's body under the route's `max_body`, counted, and without trailers that only the gateway may send.

use std::num::NonZeroU64;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderName;
use http_body::{Body, Frame, SizeHint};

use super::pace::Pace;
use super::rejection::Cause;
use crate::body::{RequestBody, Source};
use crate::upstream::journey::Journey;

struct Limited {
    source: Source,
    left: u64,
    journey: Rc<Journey>,
    reserved: Option<Arc<[HeaderName]>>,
    pace: Option<Box<Pace>>,
}

/// Fails with `BodyTooLarge` past `limit` bytes and tells `journey` of every byte. Trailers of `reserved` names, beside
/// those that never pass, are left out: whoever receives them may merge them with the fields of the head. A body that
/// comes slower than `min_rate`, in bytes a second, fails with `UploadTooSlow`.
///
/// # Errors
/// `BodyTooLarge` at once when the stated length is past the limit.
pub fn limit(
    body: RequestBody,
    limit: u64,
    journey: &Rc<Journey>,
    reserved: Option<&Arc<[HeaderName]>>,
    min_rate: Option<NonZeroU64>,
) -> Result<RequestBody, Cause> {
    match body {
        body @ (RequestBody::Empty | RequestBody::Whole(_) | RequestBody::Held(_)) => Ok(body),
        RequestBody::Stream(source) if source.size_hint().exact().is_some_and(|length| length > limit) => {
            Err(Cause::BodyTooLarge)
        }
        RequestBody::Stream(source) => {
            let (journey, reserved) = (Rc::clone(journey), reserved.cloned());
            let pace = min_rate.map(|rate| Box::new(Pace::new(rate)));
            Ok(RequestBody::Stream(Box::pin(Limited { source, left: limit, journey, reserved, pace })))
        }
    }
}

impl Body for Limited {
    type Data = Bytes;
    type Error = Cause;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        let polled = self.source.as_mut().poll_frame(cx);
        let mut frame = match (polled, &mut self.pace) {
            (Poll::Ready(frame), _) => frame,
            (Poll::Pending, None) => return Poll::Pending,
            (Poll::Pending, Some(pace)) => {
                ready!(pace.poll_too_slow(cx));
                return Poll::Ready(Some(Err(Cause::UploadTooSlow)));
            }
        };
        if let (Some(Ok(frame)), Some(reserved)) = (&mut frame, &self.reserved)
            && let Some(trailers) = frame.trailers_mut()
        {
            for name in reserved.iter() {
                trailers.remove(name);
            }
        }
        if let Some(Ok(frame)) = &frame {
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            let received = &self.journey.received;
            received.set(received.get().saturating_add(length));
            if let Some(pace) = &mut self.pace {
                pace.came(length);
            }
            match self.left.checked_sub(length) {
                Some(left) => self.left = left,
                None => return Poll::Ready(Some(Err(Cause::BodyTooLarge))),
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.source.size_hint()
    }
}
