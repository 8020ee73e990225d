//! What keys of other proxies, and keys in the wrong section, are called here.

/// What to write in place of `key`, in the table at this dotted path.
pub(super) fn of_key(path: &str, key: &str) -> Option<&'static str> {
    let mut parts = path.split('.');
    let section = (parts.next().unwrap_or_default(), parts.nth(1));
    let key = key.to_ascii_lowercase().replace('-', "_");
    match (section, key.as_str()) {
        (("upstream", None), "workers" | "threads" | "max_connections" | "max_conns" | "concurrency") => {
            Some("how many requests each server runs at once is `slots`")
        }
        (("upstream", None), "url" | "address" | "backend" | "backends") => {
            Some("write servers = [\"http://127.0.0.1:8001\"]")
        }
        (("upstream", None), "priority") => Some("it belongs to [route.NAME]"),
        (("route" | "defaults", None), "slots" | "queue" | "max_upgraded" | "health" | "retry" | "balance") => {
            Some("it belongs to [upstream.NAME]")
        }
        (("route", None), "root" | "static" | "static_files" | "directory" | "alias") => {
            Some("files = \"DIRECTORY\" serves what lies beneath a directory")
        }
        (("route", None), "index" | "try_files") => {
            Some("of a directory `index.html` is served; `fallback` names an upstream for what is not there")
        }
        (("route", None), "proxy_pass" | "servers" | "backend") => {
            Some("upstream = \"NAME\" names an [upstream.NAME] with the servers")
        }
        (("app", None), "module" | "app" | "callable" | "wsgi" | "asgi" | "application") => {
            Some("write entry = \"MODULE:CALLABLE\"")
        }
        (("app", None), "command" | "cmd" | "exec") => {
            Some("the gateway starts the server itself: write entry, server and args")
        }
        (("app", None), "venv" | "virtualenv" | "virtual_env" | "interpreter") => {
            Some("write python = \".venv/bin/python\" for an environment that is there")
        }
        (("app", None), "root" | "path" | "chdir" | "cwd" | "working_directory") => Some("write directory = \"PATH\""),
        (("app", None), "processes" | "instances" | "replicas") => Some("write workers = NUMBER"),
        (("app", None), "host" | "bind" | "port" | "socket" | "address" | "servers") => {
            Some("the gateway finds each worker on a socket of its own")
        }
        (("app", None), "memory" | "max_memory" | "memory_max") => Some("write memory_limit = \"512 MiB\""),
        (("app", None), "group" | "groups") => Some("an app runs with the groups of its user"),
        (("app", None), "reload" | "autoreload") => Some("`passerelle release NAME` brings new code into service"),
        (("route" | "defaults" | "server" | "listener", None), "gzip" | "brotli" | "zstd" | "compression") => {
            Some("answers are compressed unless compress = false, in [defaults] or on a route")
        }
        _ => None,
    }
}

/// The word for what others call so.
pub(super) fn of_word(word: &str) -> Option<&'static str> {
    Some(match word.to_ascii_lowercase().replace('-', "_").as_str() {
        "least_conn" | "leastconn" | "least_connections" | "least_request" => "least_requests",
        "rr" | "wrr" | "roundrobin" => "round_robin",
        "random" | "p2c" | "two_random_choices" => "random_two",
        "ip_hash" | "source" | "client_ip" => "hash:client_ip",
        _ => return None,
    })
}

/// What to write for a server whose scheme is of another program.
pub(super) fn of_scheme(scheme: &str) -> Option<&'static str> {
    Some(match scheme {
        "grpc" => "gRPC goes over HTTP/2: write h2c://HOST:PORT",
        "grpcs" => "gRPC goes over HTTP/2: write h2://HOST:PORT",
        "ws" => "WebSockets are upgraded from HTTP: write http://HOST:PORT",
        "wss" => "WebSockets are upgraded from HTTP: write https://HOST:PORT",
        "fastcgi" | "fcgi" | "scgi" | "ajp" => "this is not spoken here: Python servers speak http:// or uwsgi://",
        _ => return None,
    })
}
