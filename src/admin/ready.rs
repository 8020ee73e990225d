//! Whether the gateway should be sent requests.

use serde::Serialize;

use super::lifecycle::{Lifecycle, Phase};
use crate::gateway::Gateway;

/// The body of `/ready`.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub(super) enum Readiness {
    Ready,
    NotReady { reasons: Vec<Reason> },
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub(super) enum Reason {
    /// Not every listening socket is bound.
    NotBound,
    /// The process was told to end.
    Draining,
    /// An upstream that `ready_requires` names.
    NoHealthyServer { upstream: String },
    /// An auth that a route lists has no keys to verify tokens with.
    NoKeys { auth: String },
}

/// A configuration that was never loaded has no admin listener to ask, so that is no reason here.
pub(super) fn readiness(gateway: &Gateway, lifecycle: &Lifecycle) -> Readiness {
    let mut reasons = Vec::new();
    match lifecycle.phase() {
        Phase::Starting => reasons.push(Reason::NotBound),
        Phase::Serving => {}
        Phase::Draining => reasons.push(Reason::Draining),
    }
    for required in &gateway.settings.admin.ready_requires {
        let healthy = gateway.upstreams.get(required.value.as_str()).is_some_and(|upstream| upstream.is_healthy());
        if !healthy {
            reasons.push(Reason::NoHealthyServer { upstream: required.value.clone() });
        }
    }
    for auth in gateway.auths.values().filter(|auth| gateway.uses(&auth.name)) {
        if auth.kind.keys().is_some_and(|keys| keys.current().is_err()) {
            reasons.push(Reason::NoKeys { auth: auth.name.to_string() });
        }
    }
    if reasons.is_empty() { Readiness::Ready } else { Readiness::NotReady { reasons } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::testing;
    use crate::upstream::health::Failure;

    #[test]
    fn the_reasons_are_told() {
        let gateway = testing::gateway(testing::with_token(None));
        let lifecycle = Lifecycle::new();
        assert_eq!(readiness(&gateway, &lifecycle), Readiness::NotReady { reasons: vec![Reason::NotBound] });
        lifecycle.bound(std::collections::BTreeMap::new());
        assert_eq!(readiness(&gateway, &lifecycle), Readiness::Ready);
        lifecycle.draining();
        let draining = readiness(&gateway, &lifecycle);
        assert_eq!(
            serde_json::to_string(&draining).unwrap(),
            r#"{"status":"not_ready","reasons":[{"reason":"draining"}]}"#
        );
    }

    #[test]
    fn a_required_upstream_must_have_a_healthy_server() {
        let gateway = testing::gateway(testing::requiring("orders"));
        let lifecycle = Lifecycle::new();
        lifecycle.bound(std::collections::BTreeMap::new());
        assert_eq!(readiness(&gateway, &lifecycle), Readiness::Ready);
        let server = gateway.upstreams.get("orders").unwrap().servers().remove(0);
        for _ in 0..100 {
            server.health.failed(Failure::Connect);
        }
        let reasons = vec![Reason::NoHealthyServer { upstream: "orders".to_owned() }];
        assert_eq!(readiness(&gateway, &lifecycle), Readiness::NotReady { reasons });
    }
}
