//! The one table from the cause of a refusal to its status, blame, title and remedy.
//!
//! Every answer that the gateway itself makes because something went wrong comes from here: problem body, log field
//! and metric label are all drawn from the same row.

use http::{HeaderName, HeaderValue, StatusCode};

use super::violation::Violation;

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
    ClientStalled REQUEST_TIMEOUT Client "client_stalled"
        "The client took nothing more of the answer."
        "Raise body_timeout of the listener: an answer is broken off once nothing of it was taken for twice as long.";
    TargetTooLong URI_TOO_LONG Client "target_too_long"
        "The request target is longer than 8 KiB."
        "Send long parameters in a body; the bound on the target is 8 KiB, or max_header_bytes where that is less.";
    HeadersTooLarge REQUEST_HEADER_FIELDS_TOO_LARGE Client "headers_too_large"
        "The request head is too large or has too many fields."
        "Raise max_header_bytes or max_headers of the listener.";
    UwsgiVariablesTooLarge REQUEST_HEADER_FIELDS_TOO_LARGE Client "uwsgi_variables_too_large"
        "The request head is too large for the service."
        "A uwsgi packet holds 64 KiB of variables: lower max_header_bytes of the listener, or reach the server by http://.";
    BodyTooLarge PAYLOAD_TOO_LARGE Client "body_too_large"
        "The request body is too large."
        "Raise max_body of the route or in [defaults].";
    BodyPastBuffer PAYLOAD_TOO_LARGE Client "body_past_buffer"
        "The request body is too large to be held."
        "Raise disk in buffer of the route or in [defaults], or set request = false there: then the server is sent the body while it comes.";
    UploadTooSlow REQUEST_TIMEOUT Client "upload_too_slow"
        "The request body arrives too slowly."
        "Lower min_upload_rate of the route if honest clients are this slow.";
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
    // Files.
    FileNotFound NOT_FOUND Client "file_not_found"
        "There is no such file."
        "See detail for where it was looked for: beneath files of the route, without names that begin with a dot and links that lead out.";
    FileForbidden FORBIDDEN Gateway "file_forbidden"
        "This file cannot be served."
        "The user that the gateway runs as must be able to read the file and to enter every directory above it.";
    FileUnreadable INTERNAL_SERVER_ERROR Gateway "file_unreadable"
        "The file could not be read."
        "See detail for what the operating system says: the disk, the network in front of it, or too many open files.";
    FileChanged INTERNAL_SERVER_ERROR Gateway "file_changed"
        "The file became shorter while it was sent."
        "Put new files in place by renaming them instead of writing over the old ones.";
    PreconditionFailed PRECONDITION_FAILED Client "precondition_failed"
        "The file is not the one that the request is about any more."
        "The client must fetch the file again: its If-Match or If-Unmodified-Since does not hold.";
    RangeNotSatisfiable RANGE_NOT_SATISFIABLE Client "range_not_satisfiable"
        "The file has no such range."
        "The client must ask for bytes that are there: Content-Range tells the length.";
    InternalFileRefused BAD_GATEWAY Upstream "internal_file_refused"
        "The server named a file that may not be sent."
        "X-Accel-Redirect must begin with a key of internal_files of the route, X-Sendfile with one of its directories: see detail.";
    InternalFileMissing NOT_FOUND Upstream "internal_file_missing"
        "The file that the server named is not there."
        "See detail for where it was looked for: the service and the gateway must see the same files.";
    // Who may call, how often, with what.
    AmbiguousCredentials BAD_REQUEST Client "ambiguous_credentials"
        "The request shows more than one credential."
        "The client must send one credential; see auth of the route for the kinds that are taken.";
    Unauthenticated UNAUTHORIZED Client "unauthenticated"
        "Credentials are needed here."
        "The client must send a credential of one of the kinds that auth of the route lists.";
    InvalidCredentials UNAUTHORIZED Client "invalid_credentials"
        "The credentials are not valid."
        "See detail for what is wrong with them, and [auth.NAME] for what is demanded.";
    OriginRefused FORBIDDEN Client "origin_refused"
        "This request may not come from a page of another site."
        "A token in a cookie counts only with an Origin of this host, or one of origins in cors of the route.";
    RoleMissing FORBIDDEN Client "role_missing"
        "A role is missing."
        "The caller needs one of the roles of the route; see roles_claim and roles_map of its [auth.NAME].";
    ScopeMissing FORBIDDEN Client "scope_missing"
        "A scope is missing."
        "The caller's token needs all of the scopes of the route, or of the operation in its OpenAPI document.";
    AuthUnavailable SERVICE_UNAVAILABLE Gateway "auth_unavailable"
        "The credentials cannot be judged now."
        "See detail: the issuer's keys or its introspection cannot be reached, or too many ask at once.";
    RateLimited TOO_MANY_REQUESTS Client "rate_limited"
        "Too many requests."
        "The client must wait as long as Retry-After says; see rate and burst of the [limit.NAME] in detail.";
    TooManyAtOnce TOO_MANY_REQUESTS Client "too_many_at_once"
        "Too many requests at the same time."
        "The client must wait for its other requests; see concurrent of the [limit.NAME] in detail.";
    LimitStoreUnavailable SERVICE_UNAVAILABLE Gateway "limit_store_unavailable"
        "The request cannot be counted now."
        "The store of a limit cannot be reached: see [store.NAME], or set its when_unreachable to local or allow.";
    UnsupportedMediaType UNSUPPORTED_MEDIA_TYPE Client "unsupported_media_type"
        "This type of body is not taken here."
        "See content_types in validate of the route, or the requestBody of the operation.";
    CodedBody UNSUPPORTED_MEDIA_TYPE Client "coded_body"
        "A body that is compressed is not taken here."
        "The client must send the body without Content-Encoding where it is validated.";
    InvalidRequest UNPROCESSABLE_ENTITY Client "invalid_request"
        "The request is not valid."
        "See violations in the answer; mode = \"report\" in validate of the route lets such requests through.";
    UnknownOperation NOT_FOUND Client "unknown_operation"
        "The API has no such operation."
        "The OpenAPI document in validate of the route has no such path.";
    UnknownMethod METHOD_NOT_ALLOWED Client "unknown_method"
        "The API has no such method here."
        "The OpenAPI document in validate of the route has the path, but not the method.";
    DocumentUnavailable SERVICE_UNAVAILABLE Upstream "document_unavailable"
        "The request cannot be validated now."
        "The OpenAPI document has not been fetched from the upstream yet: see openapi in validate of the route.";
    ValidationOverloaded SERVICE_UNAVAILABLE Gateway "validation_overloaded"
        "Too many requests are being validated."
        "The bodies that are held for validation fill their memory: lower max_body in validate of the routes.";
    // What the gateway is short of.
    TooManyConnections SERVICE_UNAVAILABLE Gateway "too_many_connections"
        "The gateway holds as many connections as it may."
        "Raise max_connections of the listener.";
    TooManyUpgraded SERVICE_UNAVAILABLE Gateway "too_many_upgraded"
        "As many upgraded connections are open as may be."
        "Raise max_upgraded of the upstream.";
    TempLimitReached INSUFFICIENT_STORAGE Gateway "temp_limit_reached"
        "The gateway holds as many bodies as it may."
        "Raise temp_limit in [server], or lower disk in buffer of the routes.";
    DiskFull INSUFFICIENT_STORAGE Gateway "disk_full"
        "The gateway has no room for the body."
        "Make room where temp_directory of [server] is, or name another; temp_limit should be below what is free there.";
    TempFileFailed INTERNAL_SERVER_ERROR Gateway "temp_file_failed"
        "The gateway could not hold the body."
        "See detail for what the system said of a file in temp_directory of [server].";
    ShutDown SERVICE_UNAVAILABLE Gateway "shut_down"
        "The gateway ended before the request did."
        "Raise shutdown_grace in [server] if requests may take longer.";
    Internal INTERNAL_SERVER_ERROR Gateway "internal_error"
        "The gateway failed."
        "This is a defect of the gateway: please report it with the request ID.";
    // What the upstream did.
    QueueFull SERVICE_UNAVAILABLE Upstream "queue_full"
        "Too many requests are waiting for a server."
        "All slots are taken and the queue is full: add workers or servers, find what is slow in the service, or raise size in queue of the upstream.";
    QueueTimeout SERVICE_UNAVAILABLE Upstream "queue_timeout"
        "No server became free in time."
        "All slots were taken for as long as a request may wait: add workers or servers (and raise slots), find what is slow in the service, or raise max_wait in queue of the upstream.";
    Overloaded SERVICE_UNAVAILABLE Upstream "overloaded"
        "The servers are overloaded."
        "More requests come than the servers can carry, so that the newest are served and the others are refused early: add workers or servers (and raise slots), or find what is slow in the service.";
    AppNotRunning SERVICE_UNAVAILABLE Upstream "app_not_running"
        "The service is not running."
        "See what the app says in the log, and `passerelle apps`: it is being built or started for the first time, could not be started, or ends by itself again and again.";
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
    UpstreamSendTimeout GATEWAY_TIMEOUT Upstream "upstream_send_timeout"
        "The server stopped taking the request."
        "Find what stalls in the service before it has read its request, or raise between_bytes in timeouts of the route or the upstream.";
    UpstreamTimeout GATEWAY_TIMEOUT Upstream "upstream_timeout"
        "The server did not answer in time."
        "Find what is slow in the service, or raise response in timeouts of the route or the upstream.";
    UpstreamBodyTimeout GATEWAY_TIMEOUT Upstream "upstream_body_timeout"
        "The server stopped in the middle of its answer."
        "Find what stalls in the service while it answers, or raise between_bytes in timeouts of the route or the upstream.";
    StreamSilent GATEWAY_TIMEOUT Upstream "stream_silent"
        "Neither side of the stream sent anything in time."
        "Raise between_bytes in timeouts of the route or the upstream if honest streams are silent for this long.";
    UpstreamClosedEarly BAD_GATEWAY Upstream "upstream_closed_early"
        "The server closed the connection instead of answering."
        "See detail if there is one, and the server's own log: a worker was killed, restarted or timed out.";
    UpstreamCutShort BAD_GATEWAY Upstream "upstream_cut_short"
        "The server broke off in the middle of its answer."
        "See the server's own log: a worker was killed, restarted or timed out, or the service failed while it wrote.";
    UpstreamStreamReset BAD_GATEWAY Upstream "upstream_stream_reset"
        "The server broke the request off."
        "See the server's own log, and in detail the reason that it gave; REFUSED_STREAM means that it has too much to do.";
    UpstreamKeptConnectionClosed BAD_GATEWAY Upstream "upstream_kept_connection_closed"
        "The server closed a kept connection instead of answering."
        "Set keep_alive in timeouts of the upstream below the server's own; if it is, a worker died with the request: see the server's log.";
    UpstreamInvalidResponse BAD_GATEWAY Upstream "upstream_invalid_response"
        "The server's answer is not valid HTTP."
        "See what the server sends: ambiguous lengths and malformed heads are refused.";
    UpgradeNotSupported NOT_IMPLEMENTED Gateway "upgrade_not_supported"
        "The service takes no upgrades."
        "WebSockets and other upgrades reach servers of http://, https:// and uwsgi://, not of h2:// and h2c://.";
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
                | Cause::UploadTooSlow
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
    /// Most have nothing to add.
    beside: Option<Box<Beside>>,
}

#[derive(Clone, Debug, Default)]
struct Beside {
    fields: Vec<(HeaderName, HeaderValue)>,
    violations: Vec<Violation>,
    detail: Option<String>,
}

impl From<Cause> for Rejection {
    fn from(cause: Cause) -> Self {
        Rejection { cause, beside: None }
    }
}

impl Rejection {
    /// With fields for the answer, such as `Allow`.
    pub fn with_fields(mut self, fields: impl IntoIterator<Item = (HeaderName, HeaderValue)>) -> Rejection {
        let mut fields = fields.into_iter().peekable();
        if fields.peek().is_some() {
            self.beside.get_or_insert_default().fields.extend(fields);
        }
        self
    }

    /// With everything that is wrong with the request.
    pub fn with_violations(mut self, violations: Vec<Violation>) -> Rejection {
        self.beside.get_or_insert_default().violations = violations;
        self
    }

    /// With what the log is told beside; nothing secret.
    pub fn with_detail(mut self, detail: String) -> Rejection {
        self.beside.get_or_insert_default().detail = Some(detail);
        self
    }

    pub fn fields(&self) -> &[(HeaderName, HeaderValue)] {
        self.beside.as_ref().map_or(&[], |beside| &beside.fields)
    }

    pub fn violations(&self) -> &[Violation] {
        self.beside.as_ref().map_or(&[], |beside| &beside.violations)
    }

    pub fn detail(&self) -> Option<&str> {
        self.beside.as_ref().and_then(|beside| beside.detail.as_deref())
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
