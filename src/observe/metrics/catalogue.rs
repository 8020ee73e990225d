//! The name, type, labels and meaning of every metric of the gateway. `docs/metrics.md` tells users the same.

use prometheus::proto::MetricType;

/// One row: what a scrape says of a metric before its values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) kind: MetricType,
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

macro_rules! families {
    ($($family:ident $kind:ident $name:literal [$($label:literal)*] $help:literal;)*) => {
        /// A metric: in the words of Prometheus a family, one series for each set of label values.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum Family { $($family,)* }

        impl Family {
            pub(super) const ALL: &'static [Family] = &[$(Family::$family,)*];

            pub(super) fn row(self) -> Row {
                match self {
                    $(Family::$family => Row {
                        name: $name,
                        kind: MetricType::$kind,
                        labels: &[$($label,)*],
                        help: $help,
                    },)*
                }
            }
        }
    };
}

families! {
    // Requests. A request that matched no route has the route "".
    Requests COUNTER "passerelle_requests_total" ["route" "method" "status"]
        "Requests that were answered or given up, by method and class of status.";
    RequestDuration HISTOGRAM "passerelle_request_duration_seconds" ["route"]
        "From a request's head to the end of its response.";
    UpstreamDuration HISTOGRAM "passerelle_upstream_duration_seconds" ["route"]
        "What of that was spent on a server.";
    RequestsInFlight GAUGE "passerelle_requests_in_flight" ["route"]
        "Requests being worked on.";
    RequestBytes COUNTER "passerelle_request_body_bytes_total" ["route"]
        "Body bytes received from clients.";
    ResponseBytes COUNTER "passerelle_response_body_bytes_total" ["route"]
        "Body bytes sent to clients.";
    Rejections COUNTER "passerelle_rejections_total" ["cause" "blame"]
        "Requests that were refused or failed, by cause and by who has to change something.";
    Denied COUNTER "passerelle_denied_total" ["route" "rule"]
        "Requests that a rule of their route kept out: auth, origin, roles, scopes, a limit, a kind of validation.";
    ValidationViolations COUNTER "passerelle_validation_violations_total" ["route" "rule"]
        "Requests that validation let through, since its mode is report, and would have kept out.";

    Compressed COUNTER "passerelle_compressed_responses_total" ["coding"]
        "Responses that were compressed on their way, by coding.";
    CompressedInput COUNTER "passerelle_compressed_input_bytes_total" ["coding"]
        "Body bytes that were compressed.";
    CompressedOutput COUNTER "passerelle_compressed_output_bytes_total" ["coding"]
        "Body bytes that they were compressed to.";
    NotCompressed COUNTER "passerelle_compression_refused_total" []
        "Responses that were not compressed since as many were being compressed as may be at the same time.";

    // Listeners.
    ConnectionsOpen GAUGE "passerelle_connections_open" ["listener" "protocol"]
        "Client connections that are open; an upgraded one counts as upgraded.";
    ConnectionsOpened COUNTER "passerelle_connections_opened_total" ["listener" "protocol"]
        "Client connections that were opened, or upgraded.";
    ConnectionsTurnedAway COUNTER "passerelle_connections_turned_away_total" ["listener"]
        "Client connections closed at once because max_connections were open.";
    TlsHandshakes COUNTER "passerelle_tls_handshakes_total" ["listener"]
        "TLS handshakes that were completed.";
    TlsHandshakeFailures COUNTER "passerelle_tls_handshake_failures_total" ["listener" "reason"]
        "TLS handshakes that failed.";
    ProxyProtocolFailures COUNTER "passerelle_proxy_protocol_failures_total" ["listener"]
        "Connections closed because their PROXY protocol header was missing or malformed.";
    Floods COUNTER "passerelle_http2_floods_total" ["listener"]
        "HTTP/2 connections closed because the client reset more streams than max_resets allows, or sent what only burdens.";

    // Upstreams.
    ServerUp GAUGE "passerelle_upstream_server_up" ["upstream" "server"]
        "1 while the server may be chosen, else 0.";
    ServerEjected GAUGE "passerelle_upstream_server_ejected" ["upstream" "server"]
        "1 while the server is ejected because requests to it failed, else 0.";
    ServerInFlight GAUGE "passerelle_upstream_requests_in_flight" ["upstream" "server"]
        "Requests that the server is working on.";
    ServerConnections COUNTER "passerelle_upstream_connections_total" ["upstream" "server" "reused"]
        "Connections that requests were sent over: kept ones (true) and new ones (false).";
    ConnectFailures COUNTER "passerelle_upstream_connect_failures_total" ["upstream" "server"]
        "Connections to the server that could not be made.";
    Ejections COUNTER "passerelle_upstream_ejections_total" ["upstream" "server"]
        "How often the server was taken out, by failed requests or by failed checks.";
    Retries COUNTER "passerelle_upstream_retries_total" ["upstream"]
        "Requests that were sent again after a failure.";
    RetriesRefused COUNTER "passerelle_upstream_retries_refused_total" ["upstream"]
        "Requests that could have been sent again, had the retry budget allowed it.";

    Slots GAUGE "passerelle_upstream_slots" ["upstream" "server"]
        "Requests that the server runs at once at most; absent where slots are not bounded.";
    SlotsBusy GAUGE "passerelle_upstream_slots_busy" ["upstream" "server"]
        "Slots of the server that are taken; upgraded connections hold none.";
    QueueLength GAUGE "passerelle_upstream_queue_length" ["upstream"]
        "Requests that wait for a slot.";
    QueueWait HISTOGRAM "passerelle_upstream_queue_wait_seconds" ["upstream"]
        "How long requests waited that had to wait for a slot and got one.";
    QueueDropped COUNTER "passerelle_upstream_queue_dropped_total" ["upstream" "reason"]
        "Requests that found no slot free and got none: full, timeout, overload, client_left, no_server.";

    // Apps that the gateway runs. Numbers of workers are used again: there are never more than run at once.
    AppWorkers GAUGE "passerelle_app_workers" ["app" "state"]
        "Workers of the app: starting, serving, ready (of a release that does not serve), leaving.";
    AppWorkersWanted GAUGE "passerelle_app_workers_wanted" ["app"]
        "Workers of the app that should serve.";
    AppRestarts COUNTER "passerelle_app_restarts_total" ["app" "reason"]
        "Workers that were started in place of others: exited, not_started, memory, health, by_server.";
    AppCpu COUNTER "passerelle_app_cpu_seconds_total" ["app"]
        "Processor time of all processes of the app's workers, in seconds.";
    AppResident GAUGE "passerelle_app_resident_bytes" ["app" "worker"]
        "Memory that a worker's processes take, what several processes share counted for each by its part.";
    AppMemoryLimit GAUGE "passerelle_app_memory_limit_bytes" ["app"]
        "Memory past which a worker is replaced; absent where there is no limit.";
    AppOpenFiles GAUGE "passerelle_app_open_files" ["app" "worker"]
        "Files and sockets that a worker's processes have open.";
    AppWorkerAge GAUGE "passerelle_app_worker_age_seconds" ["app" "worker"]
        "Since the worker was started.";
    AppRelease GAUGE "passerelle_app_release" ["app"]
        "The number of the release that serves; absent while none does.";
    AppReleases COUNTER "passerelle_app_releases_total" ["app" "outcome"]
        "Releases, by what came of them: released, failed (before the switch), taken_back (after it), rolled_back (as asked).";
    AppBuild GAUGE "passerelle_app_build_seconds" ["app"]
        "How long code and environment of the last release took.";
    AppStart GAUGE "passerelle_app_start_seconds" ["app"]
        "How long the workers of the last release took until all were ready.";

    // Bodies that are held.
    BufferedBytes GAUGE "passerelle_buffered_bytes" ["place"]
        "Bytes of bodies that are held now, in memory and on disk (temp_directory).";
    SpooledBodies GAUGE "passerelle_spooled_bodies" []
        "Bodies that have a temporary file now.";
    Spooled COUNTER "passerelle_spooled_total" ["direction"]
        "Bodies that outgrew memory and got a temporary file.";
    SpooledBytes COUNTER "passerelle_spooled_bytes_total" ["direction"]
        "Bytes written to temporary files.";
    SpoolRefused COUNTER "passerelle_spool_refused_total" ["direction"]
        "Bodies that could not go to a temporary file, because of temp_limit, a full disk or a failure: requests are refused, responses wait for their client.";

    // Issuers of tokens.
    Keys GAUGE "passerelle_auth_keys" ["auth"]
        "Keys of the issuer that tokens are verified with now; 0 while there are none.";
    KeysAge GAUGE "passerelle_auth_keys_age_seconds" ["auth"]
        "Since the issuer's keys were last fetched.";
    KeyFetches COUNTER "passerelle_auth_key_fetches_total" ["auth" "result"]
        "How often the issuer was asked for its keys, by result.";
    Introspections COUNTER "passerelle_introspections_total" ["auth" "result"]
        "Tokens that the introspection server was asked about, by what came of it; answers of the cache do not count.";
    IntrospectionsInFlight GAUGE "passerelle_introspections_in_flight" ["auth"]
        "Questions that the introspection server has not answered yet.";

    // Limits and the stores that they are counted in.
    LimitKeys GAUGE "passerelle_limit_keys" ["limit"]
        "Keys that the limit counts in this process now, each by itself.";
    LimitOverflow COUNTER "passerelle_limit_overflow_total" ["limit"]
        "How often the limit found no room for a key of its own, and counted a request together with all such keys.";
    // Documents that upstreams publish.
    DocumentTimestamp GAUGE "passerelle_openapi_document_timestamp_seconds" ["route"]
        "When the OpenAPI document in use was last fetched or confirmed; 0: there is none yet.";
    DocumentFetches COUNTER "passerelle_openapi_fetches_total" ["route" "result"]
        "Fetches of OpenAPI documents, by result: success (a new one), unchanged, unreachable, unusable.";

    StoreUp GAUGE "passerelle_store_up" ["store"]
        "1 while the store is counted in, 0 until it was reached and while a worker cannot.";
    StoreDecisions COUNTER "passerelle_store_decisions_total" ["store" "result"]
        "Decisions that were wanted of the store, by what came of it.";
    StoreDuration HISTOGRAM "passerelle_store_duration_seconds" ["store"]
        "From asking the store to its answer, or to giving up.";

    // The gateway itself.
    Reloads COUNTER "passerelle_reloads_total" ["result"]
        "Configurations that were loaded again, by result.";
    LastReload GAUGE "passerelle_last_reload_success_timestamp_seconds" []
        "When the configuration in force was loaded.";
    LogRecordsLost COUNTER "passerelle_log_records_lost_total" ["reason"]
        "Log lines that were not written.";
    BuildInfo GAUGE "passerelle_build_info" ["version"]
        "Always 1; the label tells the version.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        for family in Family::ALL {
            let row = family.row();
            assert!(row.name.starts_with("passerelle_"), "{}", row.name);
            assert_eq!(row.name.ends_with("_total"), row.kind == MetricType::COUNTER, "{}", row.name);
            if row.kind == MetricType::HISTOGRAM {
                assert!(row.name.ends_with("_seconds"), "{}", row.name);
            }
            assert!(row.help.ends_with('.'), "{}", row.name);
        }
    }

    #[test]
    fn names_are_distinct() {
        let mut names: Vec<_> = Family::ALL.iter().map(|family| family.row().name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Family::ALL.len());
    }

    #[test]
    fn users_are_told_of_every_metric() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).unwrap();
        for family in Family::ALL {
            let row = family.row();
            let labels = row.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
            let line = format!("| `{}` | {} |", row.name, if labels.is_empty() { "–" } else { &labels });
            assert!(page.contains(&line), "docs/metrics.md lacks a row that begins: {line}");
        }
    }
}
