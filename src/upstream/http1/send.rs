//! Sending a request: its head, which is in the buffer already, and its body as it comes.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::{Exchange, Replay, Sending};
use crate::http1::encode;
use crate::request::rejection::Cause;

impl Exchange {
    /// Sends as much as can be sent. Ready once all is, or the server takes no more.
    ///
    /// Errors are the client's: reading its body failed.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, body: &mut Replay) -> Poll<Result<(), Cause>> {
        loop {
            let connection = &mut *self.connection;
            let mut body_pending = false;
            while let Sending::Body { chunked } = self.sending {
                if !connection.out.has_room() {
                    break;
                }
                match body.poll_frame(cx) {
                    Poll::Pending => {
                        body_pending = true;
                        break;
                    }
                    Poll::Ready(Some(Err(Cause::BodyTimeout))) if self.is_stream => {}
                    Poll::Ready(Some(Err(cause))) => return Poll::Ready(Err(cause)),
                    Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                        Ok(data) if chunked => connection.out.push_chunk(data),
                        Ok(data) => connection.out.push_data(data),
                        Err(frame) => {
                            if chunked {
                                encode::last_chunk(connection.out.gather(), frame.trailers_ref());
                            }
                            self.sending = Sending::Done;
                        }
                    },
                    Poll::Ready(None) => {
                        if chunked {
                            encode::last_chunk(connection.out.gather(), None);
                        }
                        self.sending = Sending::Done;
                    }
                }
            }
            if connection.out.is_empty() {
                ready!(self.poll_flush(cx));
                let connection = &mut *self.connection;
                if body_pending {
                    if !self.is_stream {
                        // The client is timed where its body is read.
                        connection.timer.clear();
                    } else if !connection.timer.is_set() {
                        connection.timer.set(self.timeouts.between_bytes);
                    }
                    return Poll::Pending;
                }
                if !std::mem::replace(&mut self.waiting, true) {
                    connection.timer.set(self.timeouts.response);
                }
                return Poll::Ready(Ok(()));
            }
            match connection.out.poll_write(&mut connection.stream, cx) {
                Poll::Ready(Ok(_)) => {
                    self.wrote = true;
                    if !connection.out.is_empty() {
                        connection.timer.set(self.timeouts.between_bytes);
                    }
                }
                Poll::Ready(Err(error)) => {
                    connection.out.clear();
                    self.sending = Sending::Refused(error.kind());
                }
                Poll::Pending => {
                    self.time_server();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Sends what TLS has taken and the socket has not.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if matches!(self.sending, Sending::Refused(_)) {
            return Poll::Ready(());
        }
        match Pin::new(&mut self.connection.stream).poll_flush(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => self.sending = Sending::Refused(error.kind()),
            Poll::Pending => {
                self.time_server();
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    /// It is the server's turn to take bytes. While the client's were waited for, nobody timed it.
    fn time_server(&mut self) {
        if !self.connection.timer.is_set() {
            self.connection.timer.set(self.timeouts.between_bytes);
        }
    }
}
