//! The one table from the cause of a refusal to its status, blame, title and remedy.
//!
//! Every answer that the gateway itself makes because something went wrong comes from here: problem body, log field
//! and metric label are all drawn from the same row.

use http::{HeaderValue, StatusCode};

/// Who has to change something for the request to succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    Client,
    Gateway,
    Upstream,
}

impl Blame {
    pub fn as_str(self) -> &'static str {
        match self {
            Blame::Client => "client",
            Blame::Gateway => "gateway",
            Blame::Upstream => "upstream",
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub status: StatusCode,
    /// The cause in one word: problem body, log field and metric label.
    pub cause: &'static str,
    pub blame: Blame,
    /// For the client: what happened, nothing internal.
    pub title: &'static str,
    /// For the log: what to change, naming the key.
    pub remedy: &'static str,
}

macro_rules! causes {
    ($($variant:ident $status:ident $blame:ident $cause:literal $title:literal $remedy:literal;)*) => {
        /// Why a request was refused or failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Cause { $(#[doc = $title] $variant,)* }

        impl Cause {
            /// Every cause, in the order of its index.
            pub const ALL: &'static [Cause] = &[$(Cause::$variant,)*];

            /// The cause's row of the table.
            pub fn row(self) -> Row {
                match self {
                    $(Cause::$variant => Row {
                        status: StatusCode::$status,
                        cause: $cause,
                        blame: Blame::$blame,
                        title: $title,
                        remedy: $remedy,
                    },)*
                }
            }
        }
    };
}

causes! {
    // What the client sent.
    MalformedHead BAD_REQUEST Client "malformed_head"
        "The request head is malformed."
        "The client must send a head as RFC 9112 says.";
    AmbiguousFraming BAD_REQUEST Client "ambiguous_framing"
        "The request's length is ambiguous."
        "The client must send either one Content-Length or a final chunked Transfer-Encoding.";
    MalformedBody BAD_REQUEST Client "malformed_body"
        "The request body's framing is malformed."
        "The client must send chunks as RFC 9112 section 7.1 says.";
    BadHost BAD_REQUEST Client "bad_host"
        "The Host is missing, doubled or malformed."
        "The client must send exactly one valid Host.";
    BadTarget BAD_REQUEST Client "bad_target"
        "The request target is refused."
        "Dot segments, backslashes, control characters and bad percent codes are always refused; %2F is allowed by encoded_slashes = true on the route.";
    ClientClosed BAD_REQUEST Client "client_closed"
        "The client closed the connection before the answer."
        "Nothing to change, unless the upstream is slower than its clients are patient.";
    PlainHttp BAD_REQUEST Client "plain_http"
        "This port speaks TLS: write https:// in the address."
        "A listener without tls and with redirect_to_https sends such clients to the right port.";
    HeaderTimeout REQUEST_TIMEOUT Client "header_timeout"
        "The request head did not arrive in time."
        "Raise header_timeout of the listener if honest clients are this slow.";
    BodyTimeout REQUEST_TIMEOUT Client "body_timeout"
        "The request body stopped arriving."
        "Raise body_timeout of the listener if honest clients pause this long.";
    TargetTooLong URI_TOO_LONG Client "target_too_long"
        "The request target is longer than 8 KiB."
        "Send long parameters in a body; the bound on the target is 8 KiB, or max_header_bytes where that is less.";
    HeadersTooLarge REQUEST_HEADER_FIELDS_TOO_LARGE Client "headers_too_large"
        "The request head is too large or has too many fields."
        "Raise max_header_bytes or max_headers of the listener.";
    BodyTooLarge PAYLOAD_TOO_LARGE Client "body_too_large"
        "The request body is too large."
        "Raise max_body of the route or in [defaults].";
    ExpectationFailed EXPECTATION_FAILED Client "expectation_failed"
        "The only expectation that can be met is 100-continue."
        "The client must not send any other Expect.";
    MethodRefused METHOD_NOT_ALLOWED Client "method_refused"
        "This method is not served."
        "CONNECT and TRACE are never forwarded.";
    VersionNotSupported HTTP_VERSION_NOT_SUPPORTED Client "version_not_supported"
        "This version of HTTP is not served."
        "The client must speak HTTP/1.0, HTTP/1.1 or HTTP/2.";
    // What the configuration says.
    NoRoute NOT_FOUND Client "no_route"
        "Nothing is served here."
        "Add a [route.NAME] whose host and path match.";
    MethodNotAllowed METHOD_NOT_ALLOWED Client "method_not_allowed"
        "This method is not allowed here."
        "Add the method to methods of the route.";
    AddressDenied FORBIDDEN Client "address_denied"
        "This address is not allowed here."
        "See allow and deny of the route, and trusted_proxies of the listener.";
    TooManyConnections SERVICE_UNAVAILABLE Gateway "too_many_connections"
        "The gateway holds as many connections as it may."
        "Raise max_connections of the listener.";
    TooManyUpgraded SERVICE_UNAVAILABLE Gateway "too_many_upgraded"
        "As many upgraded connections are open as may be."
        "Raise max_upgraded of the upstream.";
    ShutDown SERVICE_UNAVAILABLE Gateway "shut_down"
        "The gateway ended before the request did."
        "Raise shutdown_grace in [server] if requests may take longer.";
    Internal INTERNAL_SERVER_ERROR Gateway "internal_error"
        "The gateway failed."
        "This is a defect of the gateway: please report it with the request ID.";
    // What the upstream did.
    NoHealthyServer SERVICE_UNAVAILABLE Upstream "no_healthy_server"
        "No server can take the request now."
        "See passerelle_upstream_server_up and the health checks of [upstream.NAME.health].";
    UpstreamUnresolved SERVICE_UNAVAILABLE Upstream "upstream_unresolved"
        "No server's name could be resolved."
        "Check the names in servers of the upstream and the resolver of this machine.";
    UpstreamConnectRefused BAD_GATEWAY Upstream "upstream_connect_refused"
        "The server refused the connection."
        "Check that the server runs and that the address in servers of the upstream is right.";
    UpstreamConnectTimeout GATEWAY_TIMEOUT Upstream "upstream_connect_timeout"
        "The server could not be reached in time."
        "Check the network and the server's backlog, or raise connect in timeouts of the upstream.";
    UpstreamConnectFailed BAD_GATEWAY Upstream "upstream_connect_failed"
        "The server could not be reached."
        "Check the address in servers of the upstream, and the permissions of a Unix socket.";
    UpstreamTlsFailed BAD_GATEWAY Upstream "upstream_tls_failed"
        "The server's TLS handshake failed."
        "Check ca, client and server_name in [upstream.NAME.tls].";
    UpstreamTimeout GATEWAY_TIMEOUT Upstream "upstream_timeout"
        "The server did not answer in time."
        "Find what is slow in the service, or raise response in timeouts of the route or the upstream.";
    UpstreamBodyTimeout GATEWAY_TIMEOUT Upstream "upstream_body_timeout"
        "The server stopped in the middle of the exchange."
        "Find what stalls in the service, or raise between_bytes in timeouts of the route or the upstream.";
    UpstreamClosedEarly BAD_GATEWAY Upstream "upstream_closed_early"
        "The server closed the connection before the answer was complete."
        "See the server's own log: a worker was killed, restarted or timed out.";
    UpstreamInvalidResponse BAD_GATEWAY Upstream "upstream_invalid_response"
        "The server's answer is not valid HTTP."
        "See what the server sends: ambiguous lengths and malformed heads are refused.";
    UpstreamHeadersTooLarge BAD_GATEWAY Upstream "upstream_headers_too_large"
        "The server's answer has too large a head."
        "The service sends more than 64 KiB or 256 fields of headers: look at its cookies.";
}

impl Cause {
    /// Whether the connection ends with the answer: what comes behind such a request cannot be trusted to be the next.
    pub fn ends_connection(self) -> bool {
        matches!(
            self,
            Cause::MalformedHead
                | Cause::AmbiguousFraming
                | Cause::MalformedBody
                | Cause::BadHost
                | Cause::BadTarget
                | Cause::HeaderTimeout
                | Cause::BodyTimeout
                | Cause::TargetTooLong
                | Cause::HeadersTooLarge
                | Cause::MethodRefused
                | Cause::VersionNotSupported
        )
    }

    /// The cause's place in [`Cause::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

/// A refusal, with what its answer carries beside the row.
#[derive(Clone, Debug)]
pub struct Rejection {
    pub cause: Cause,
    /// `Allow` of a 405.
    pub allow: Option<HeaderValue>,
}

impl From<Cause> for Rejection {
    fn from(cause: Cause) -> Self {
        Rejection { cause, allow: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_follow_the_table() {
        for (index, cause) in Cause::ALL.iter().enumerate() {
            assert_eq!(cause.index(), index);
        }
    }

    #[test]
    fn causes_are_distinct_words() {
        let mut words: Vec<_> = Cause::ALL.iter().map(|cause| cause.row().cause).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Cause::ALL.len());
        assert!(words.iter().all(|word| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    }
}
