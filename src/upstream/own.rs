//! Requests that the gateway makes by itself, each over a connection of its own: checks of servers, and documents that
//! they publish. Answers are judged as strictly as those to requests of clients.

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, HOST};
use http::{HeaderName, HeaderValue, Method};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connect::ServerStream;
use super::http1::HEAD_LIMITS;
use super::server::Server;
use super::uwsgi;
use crate::config::settings::{Protocol, UwsgiParams};
use crate::fields::Fields;
use crate::http1::chunked::{Decoded, Decoder};
use crate::http1::encode::Lines;
use crate::http1::framing;
use crate::http1::head::{HeadError, HeadScan, Kind, ResponseHead, take_response};

/// A GET.
pub(super) struct Question<'a> {
    /// A path, perhaps with a query.
    pub(super) target: &'a str,
    pub(super) host: &'a HeaderValue,
    pub(super) fields: &'a [(HeaderName, HeaderValue)],
    pub(super) params: &'a UwsgiParams,
}

impl Question<'_> {
    /// What is sent to `server`.
    fn bytes(&self, server: &Server) -> Result<BytesMut, String> {
        match server.protocol {
            Protocol::Http1 => {
                let mut out = BytesMut::with_capacity(256);
                out.extend_from_slice(b"GET ");
                out.extend_from_slice(self.target.as_bytes());
                out.extend_from_slice(b" HTTP/1.1\r\n");
                self.write_fields(&mut Lines(&mut out));
                out.extend_from_slice(b"\r\n");
                Ok(out)
            }
            Protocol::Uwsgi => uwsgi::get(self.target, self.host.as_bytes(), self.params, |out| self.write_fields(out))
                .map_err(|uwsgi::TooLarge| "it does not fit into a packet of the uwsgi protocol".to_owned()),
        }
    }

    fn write_fields(&self, out: &mut impl Fields) {
        out.add(&HOST, self.host);
        for (name, value) in self.fields {
            out.add(name, value);
        }
        out.put(&CONNECTION, &[b"close"]);
    }

    /// Asks `server` over `stream`; the head of its final answer, and what is to be read of it.
    ///
    /// # Errors
    /// What went wrong; for the log.
    pub(super) async fn ask<'s>(
        &self,
        server: &Server,
        stream: &'s mut ServerStream,
    ) -> Result<(ResponseHead, Rest<'s>), String> {
        let bytes = self.bytes(server)?;
        let told = |error: std::io::Error| error.to_string();
        stream.write_all(&bytes).await.map_err(told)?;
        stream.flush().await.map_err(told)?;
        let mut buffer = BytesMut::new();
        let mut scan = HeadScan::default();
        loop {
            if let Some(head) = take_head(&mut buffer, &mut scan)? {
                if head.status.is_informational() {
                    continue;
                }
                let framing = framing::of_response(&Method::GET, head.status, head.version, &head.headers, head.seen)
                    .map_err(|_| "its answer states an ambiguous length".to_owned())?;
                return Ok((head, Rest { stream, buffer, decoder: Decoder::new(framing) }));
            }
            if stream.read_buf(&mut buffer).await.map_err(told)? == 0 {
                return Err("it closed the connection before an answer".to_owned());
            }
        }
    }
}

/// The next head in `buffer`, once it is whole.
fn take_head(buffer: &mut BytesMut, scan: &mut HeadScan) -> Result<Option<ResponseHead>, String> {
    let told = |error: HeadError| match error {
        HeadError::TooLarge | HeadError::TargetTooLong => "its answer has too large a head".to_owned(),
        HeadError::Malformed | HeadError::Version => "its answer is not HTTP".to_owned(),
    };
    let Some(length) = scan.advance(buffer, &HEAD_LIMITS, Kind::Response).map_err(told)? else { return Ok(None) };
    *scan = HeadScan::default();
    take_response(buffer, length, &HEAD_LIMITS).map(Some).map_err(told)
}

/// The body of an answer.
pub(super) struct Rest<'s> {
    stream: &'s mut ServerStream,
    buffer: BytesMut,
    decoder: Decoder,
}

impl Rest<'_> {
    /// The next piece; `None` at its end.
    ///
    /// # Errors
    /// The answer breaks off or is malformed.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            match self.decoder.decode(&mut self.buffer) {
                Ok(Decoded::Data(data)) => return Ok(Some(data)),
                Ok(Decoded::Trailers(_)) => {}
                Ok(Decoded::End) => return Ok(None),
                Ok(Decoded::NeedMore) => match self.stream.read_buf(&mut self.buffer).await {
                    Ok(0) if self.decoder.closed() => return Ok(None),
                    Ok(0) => return Err("it closed the connection before the answer was complete".to_owned()),
                    Ok(_) => {}
                    Err(error) => return Err(error.to_string()),
                },
                Err(_) => return Err("its answer is not HTTP".to_owned()),
            }
        }
    }
}
