//! Requests that the gateway makes by itself, each over a connection of its own: checks of servers, and documents that
//! they publish. Answers are judged as strictly as those to requests of clients.

use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, HOST};
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connect::ServerStream;
use super::http1::HEAD_LIMITS;
use super::http2::Heads;
use super::http2::connections::builder;
use super::server::Server;
use super::uwsgi;
use crate::config::settings::{Protocol, UwsgiParams};
use crate::fields::Fields;
use crate::headers::Headers;
use crate::http1::chunked::{Decoded, Decoder};
use crate::http1::encode::Lines;
use crate::http1::framing;
use crate::http1::head::{HeadError, HeadScan, Kind, ResponseHead, Seen, take_response};

/// Bytes that there is room for when something is read.
const READ: usize = 4 * 1024;

/// A GET.
pub(super) struct Question<'a> {
    /// A path, perhaps with a query.
    pub(super) target: &'a str,
    pub(super) host: &'a HeaderValue,
    pub(super) fields: &'a [(HeaderName, HeaderValue)],
    pub(super) params: &'a UwsgiParams,
}

impl Question<'_> {
    /// Asks `server` over `stream`; the head of its final answer, and what is to be read of it.
    ///
    /// # Errors
    /// What went wrong; for the log.
    pub(super) async fn ask<'s>(
        &self,
        server: &Server,
        stream: &'s mut ServerStream,
    ) -> Result<(ResponseHead, Rest<'s>), String> {
        match server.protocol {
            Protocol::Http1 => self.ask_with(self.head(), stream).await,
            Protocol::Uwsgi => self.ask_with(self.packet()?, stream).await,
            Protocol::Http2 => self.ask_over_http2(server, stream).await,
        }
    }

    fn head(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(256);
        out.extend_from_slice(b"GET ");
        out.extend_from_slice(self.target.as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        self.write_fields(&mut Lines(&mut out));
        out.extend_from_slice(b"\r\n");
        out
    }

    fn packet(&self) -> Result<BytesMut, String> {
        uwsgi::get(self.target, self.host.as_bytes(), self.params, |out| self.write_fields(out))
            .map_err(|uwsgi::TooLarge| "it does not fit into a packet of the uwsgi protocol".to_owned())
    }

    fn write_fields(&self, out: &mut impl Fields) {
        out.add(&HOST, self.host);
        for (name, value) in self.fields {
            out.add(name, value);
        }
        out.put(&CONNECTION, &[b"close"]);
    }

    async fn ask_with<'s>(
        &self,
        bytes: BytesMut,
        stream: &'s mut ServerStream,
    ) -> Result<(ResponseHead, Rest<'s>), String> {
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
                return Ok((head, Rest::Http1 { stream, buffer, decoder: Decoder::new(framing) }));
            }
            buffer.reserve(READ);
            if stream.read_buf(&mut buffer).await.map_err(told)? == 0 {
                return Err("it closed the connection before an answer".to_owned());
            }
        }
    }

    async fn ask_over_http2<'s>(
        &self,
        server: &Server,
        stream: &'s mut ServerStream,
    ) -> Result<(ResponseHead, Rest<'s>), String> {
        let told = |error: h2::Error| error.to_string();
        let (mut sender, connection) = builder().handshake(stream).await.map_err(told)?;
        let mut connection = Box::pin(connection);
        let scheme = if server.tls.is_some() { "https" } else { "http" };
        let uri = Uri::builder().scheme(scheme).authority(self.host.as_bytes()).path_and_query(self.target);
        let uri = uri.build().map_err(|error| error.to_string())?;
        let mut request = Request::get(uri).version(Version::HTTP_2).body(()).map_err(|error| error.to_string())?;
        let mut heads = Heads::default();
        self.write_fields(&mut heads);
        *request.headers_mut() = heads.0;
        let (mut response, _) = sender.send_request(request, true).map_err(told)?;
        let mut ended = false;
        let response = tokio::select! {
            biased;
            response = &mut response => response,
            _ = &mut connection => {
                // What came before the end is there.
                ended = true;
                response.await
            }
        };
        let (parts, receive) = response.map_err(told)?.into_parts();
        let headers = Headers::from(parts.headers);
        let seen = Seen::of(&headers);
        let head = ResponseHead { status: parts.status, version: parts.version, headers, seen };
        let connection = (!ended).then_some(connection);
        Ok((head, Rest::Http2 { connection, receive, _sender: sender }))
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
pub(super) enum Rest<'s> {
    Http1 {
        stream: &'s mut ServerStream,
        buffer: BytesMut,
        decoder: Decoder,
    },
    Http2 {
        /// Until it has ended.
        connection: Option<Pin<Box<h2::client::Connection<&'s mut ServerStream, Bytes>>>>,
        receive: h2::RecvStream,
        /// The connection ends with the last of them.
        _sender: h2::client::SendRequest<Bytes>,
    },
}

/// What is said of an answer that breaks off.
const CUT: &str = "it closed the connection before the answer was complete";

impl Rest<'_> {
    /// The next piece; `None` at its end.
    ///
    /// # Errors
    /// The answer breaks off or is malformed.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, String> {
        match self {
            Rest::Http1 { stream, buffer, decoder } => loop {
                match decoder.decode(buffer) {
                    Ok(Decoded::Data(data)) => return Ok(Some(data)),
                    Ok(Decoded::Trailers(_)) => {}
                    Ok(Decoded::End) => return Ok(None),
                    Ok(Decoded::NeedMore) => {
                        buffer.reserve(READ);
                        match stream.read_buf(buffer).await {
                            Ok(0) if decoder.closed() => return Ok(None),
                            Ok(0) => return Err(CUT.to_owned()),
                            Ok(_) => {}
                            Err(error) => return Err(error.to_string()),
                        }
                    }
                    Err(_) => return Err("its answer is not HTTP".to_owned()),
                }
            },
            Rest::Http2 { connection, receive, .. } => {
                let mut ended = false;
                let data = match connection {
                    None => receive.data().await,
                    Some(driven) => tokio::select! {
                        biased;
                        data = receive.data() => data,
                        _ = driven => {
                            ended = true;
                            receive.data().await
                        }
                    },
                };
                if ended {
                    *connection = None;
                }
                let data = data.transpose().map_err(|error| error.to_string())?;
                // A connection that has ended has no windows.
                let _ = receive.flow_control().release_capacity(data.as_ref().map_or(0, Bytes::len));
                Ok(data)
            }
        }
    }
}
