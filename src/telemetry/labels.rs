//! The values that labels have: enumerations, of which alerts, the dashboard and the documentation speak.
//!
//! A query for a value that nothing ever has finds nothing and looks like peace. The lists here are held by a
//! test (`tests/it/operators.rs`) against the code that gives the values, on the one side, and against queries
//! and documentation on the other.

/// The values of one label of a metric.
#[derive(Debug, Clone, Copy)]
pub struct Values {
    /// OpenTelemetry's name of the metric.
    pub metric: &'static str,
    /// The label.
    pub label: &'static str,
    /// All that it can be.
    pub values: &'static [&'static str],
}

/// Why a server that is loaded as far as it may be refuses a call: [`crate::session::load::Pressure`], and
/// `max_streams`.
pub const OVERLOAD: &[&str] = &["full", "load", "engine_lag", "worker_delay", "memory"];
/// How streams end by the server's fault.
pub const BROKEN_OFF: &[&str] = &["engine", "cut_off"];
/// How attempts end after which a delivery is not tried again.
pub const GIVEN_UP: &[&str] = &["dead", "gone"];
/// What is read anew when it changes, beside policies.
pub const SECRETS: &[&str] = &["certificates", "identities", "keys", "resume_keys"];

/// The ports.
pub const PORTS: &[&str] = &[GRPC, HTTP];
/// The gRPC port.
pub const GRPC: &str = "grpc";
/// The HTTP port.
pub const HTTP: &str = "http";

/// Labels with enumerated values, in the order of the metrics.
pub const ALL: &[Values] = &[
    Values {
        metric: "undertone.tls.handshake.failures",
        label: "reason",
        values: &["failed", "timed_out", "closed"],
    },
    Values {
        metric: "undertone.auth.failures",
        label: "reason",
        values: &[
            "TOKEN_MISSING",
            "TOKEN_UNKNOWN",
            "TOKEN_EXPIRED",
            "TOKEN_INVALID",
            "CERTIFICATE_UNKNOWN",
            "SIGNATURE_MISSING",
            "SIGNATURE_INVALID",
            "KEYS_UNAVAILABLE",
            "ROLE_MISSING",
            "METHOD_UNKNOWN",
        ],
    },
    Values {
        metric: "undertone.quota.refusals",
        label: "reason",
        values: &["quota_streams", "quota_audio"],
    },
    Values {
        metric: "undertone.streams",
        label: "outcome",
        values: &[
            "finished",
            "drained",
            "invalid",
            "full",
            "taken_over",
            "refused",
            "draining",
            "limit",
            "idle",
            "unread",
            "vanished",
            "bad_audio",
            "engine",
            "cut_off",
        ],
    },
    Values { metric: "undertone.streams.refused", label: "call", values: &["stream", "clip"] },
    Values {
        metric: "undertone.streams.refused",
        label: "reason",
        values: &[
            "full",
            "load",
            "engine_lag",
            "worker_delay",
            "memory",
            "clips",
            "draining",
            "quota_streams",
            "quota_audio",
        ],
    },
    Values { metric: "undertone.connections.active", label: "port", values: PORTS },
    Values {
        metric: "undertone.connections.refused",
        label: "reason",
        values: &["connections", "connections_of_address", "preface_timeout", "unread"],
    },
    Values {
        metric: "undertone.streams.resumed",
        label: "outcome",
        values: &[
            "resumed",
            "refused",
            "RESUME_TOKEN_EXPIRED",
            "RESUME_KEY_UNKNOWN",
            "RESUME_TOKEN_VERSION",
            "RESUME_TOKEN_INVALID",
            "RESUME_MODEL_CHANGED",
            "NO_CHECKPOINTS",
            "NO_RANDOM_NUMBERS",
        ],
    },
    Values {
        metric: "undertone.abstentions",
        label: "reason",
        values: &["too_little_speech", "unsure", "no_evidence"],
    },
    Values {
        metric: "undertone.warnings",
        label: "reason",
        values: &[
            "sequence_gap",
            "clipping",
            "no_speech",
            "trailing_bytes",
            "escalations_not_durable",
            "escalations_durable",
            "escalation_lost",
            "budget_spent",
            "not_acknowledged",
        ],
    },
    Values {
        metric: "undertone.escalations",
        label: "event",
        values: &["raised", "updated", "acknowledged", "cleared"],
    },
    Values {
        metric: "undertone.escalations",
        label: "severity",
        values: &["advisory", "low", "medium", "high"],
    },
    Values {
        metric: "undertone.escalations.in_force",
        label: "state",
        values: &["raised", "acknowledged"],
    },
    Values {
        metric: "undertone.delivery.attempts",
        label: "outcome",
        values: &["delivered", "retry", "dead", "gone"],
    },
    Values {
        metric: "undertone.delivery.outstanding",
        label: "state",
        values: &["waiting", "due", "leased", "dead"],
    },
    Values {
        metric: "undertone.policy.reloads",
        label: "outcome",
        values: &["changed", "removed", "refused"],
    },
    Values { metric: "undertone.secrets.reloads", label: "kind", values: SECRETS },
    Values {
        metric: "undertone.secrets.reloads",
        label: "outcome",
        values: &["changed", "refused"],
    },
    Values {
        metric: "undertone.telemetry.exports",
        label: "signal",
        values: &["traces", "metrics", "logs"],
    },
    Values { metric: "undertone.telemetry.exports", label: "outcome", values: &["sent", "failed"] },
    Values { metric: "process.cpu.time", label: "cpu.mode", values: &["user", "system"] },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn values(metric: &str, label: &str) -> &'static [&'static str] {
        let found = ALL.iter().find(|known| known.metric == metric && known.label == label);
        found.unwrap().values
    }

    #[test]
    fn what_stands_at_zero_from_the_start_is_a_value_that_there_is() {
        for (some, metric, label) in [
            (OVERLOAD, "undertone.streams.refused", "reason"),
            (BROKEN_OFF, "undertone.streams", "outcome"),
            (GIVEN_UP, "undertone.delivery.attempts", "outcome"),
            (SECRETS, "undertone.secrets.reloads", "kind"),
        ] {
            for value in some {
                assert!(values(metric, label).contains(value), "{metric} {label} {value}");
            }
        }
    }

    #[test]
    fn every_label_listed_is_one_of_its_metric() {
        for known in ALL {
            let metric = crate::telemetry::described().find(|metric| metric.name == known.metric);
            let metric = metric.unwrap_or_else(|| panic!("there is no metric {}", known.metric));
            assert!(metric.labels.contains(&known.label), "{} {}", known.metric, known.label);
        }
    }
}
