//! A body whose length a server must be told before it comes, though the client did not state it: it is held until its
//! end is known.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::rejection::Cause;
use crate::body::RequestBody;

/// Bytes of one body that are held.
const MOST_HELD: usize = 64 * 1024;

/// Pieces of one body that are held: each costs beside its bytes.
const MOST_PIECES: usize = 1024;

/// The same body with its length; without trailers, which the uwsgi protocol has no place for.
///
/// # Errors
/// `LengthRequired` for a body of more than 64 KiB; those of reading it.
pub(super) async fn measured(mut body: RequestBody) -> Result<RequestBody, Cause> {
    let mut pieces = VecDeque::new();
    let mut length: usize = 0;
    while let Some(frame) = std::future::poll_fn(|cx| body.poll_frame(cx)).await {
        let Ok(data) = frame?.into_data() else { continue };
        length = length.saturating_add(data.len());
        if length > MOST_HELD || pieces.len() >= MOST_PIECES {
            return Err(Cause::LengthRequired);
        }
        pieces.push_back(data);
    }
    if pieces.is_empty() {
        return Ok(RequestBody::Empty);
    }
    Ok(RequestBody::Stream(Box::pin(Measured { pieces, left: length as u64 })))
}

struct Measured {
    pieces: VecDeque<Bytes>,
    left: u64,
}

impl Body for Measured {
    type Data = Bytes;
    type Error = Cause;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
        let piece = self.pieces.pop_front();
        self.left = self.left.saturating_sub(piece.as_ref().map_or(0, |piece| piece.len() as u64));
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
