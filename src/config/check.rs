//! Which values settings may have.

use std::time::Duration;

use url::Url;

use super::parts::pairs;
use super::{ConfigError, Settings, Span};
use crate::wire::parse::{
    MAX_CHECKPOINT_INTERVAL, MAX_INTERVAL, MIN_CHECKPOINT_INTERVAL, MIN_INTERVAL,
};

const DAY: Duration = Duration::from_hours(24);

impl Settings {
    /// The first problem.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.check_counts()?;
        self.check_shares()?;
        self.check_spans()?;
        self.check_addresses()?;
        self.check_telemetry()?;
        self.check_exposure()
    }

    fn check_counts(&self) -> Result<(), ConfigError> {
        for (key, value, min, max) in [
            ("max_streams", self.max_streams, 1, 1 << 20),
            ("max_chunk_bytes", self.max_chunk_bytes, 64, 64 << 20),
            ("max_clip_bytes", self.max_clip_bytes, 1 << 10, 1 << 30),
            ("max_clips", self.max_clips, 1, 1024),
            ("max_clips_waiting", self.max_clips_waiting, 0, 1 << 16),
            ("max_connections", self.max_connections, 1, 1 << 20),
            ("max_http_connections", self.max_http_connections, 1, 1 << 20),
            ("max_streams_per_connection", self.max_streams_per_connection, 1, 1 << 20),
            ("max_header_bytes", self.max_header_bytes, 1 << 10, 1 << 20),
            ("max_pending_resets", self.max_pending_resets, 1, 1 << 16),
            ("engine_max_batch", self.engine_max_batch, 1, 1024),
            ("connection_window", self.connection_window, 65_535, 1 << 30),
            ("engine_queue", self.engine_queue, 1, 1 << 20),
            ("engine_threads", self.engine_threads, 1, 256),
            ("worker_threads", self.worker_threads, 0, 1024),
            ("escalation_backlog", self.escalation_backlog, 1, 1 << 24),
            ("max_watchers", self.max_watchers, 1, 1 << 16),
            ("max_resume_token_bytes", self.max_resume_token_bytes, 4096, 3 << 20),
            ("max_handshakes", self.max_handshakes, 1, 1 << 16),
        ] {
            if !(min..=max).contains(&value) {
                return refused(key, format!("must be {min} to {max}, not {value}"));
            }
        }
        Ok(())
    }

    fn check_shares(&self) -> Result<(), ConfigError> {
        for (key, value) in [
            ("voice_on", self.voice_on),
            ("voice_off", self.voice_off),
            ("min_confidence", self.min_confidence),
            ("carry", self.carry),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return refused(key, format!("must be 0 to 1, not {value}"));
            }
        }
        if self.voice_off > self.voice_on {
            let on = self.voice_on;
            return refused("voice_off", format!("must be at most voice_on, which is {on}"));
        }
        if !(self.max_share > 0.0 && self.max_share <= 1.0) {
            let problem = format!("must be above 0 and at most 1, not {}", self.max_share);
            return refused("max_share", problem);
        }
        if !(0.0..=1.0).contains(&self.max_load) {
            return refused("max_load", "must be 0 (no limit) to 1".to_owned());
        }
        if !(self.max_realtime_factor == 0.0 || self.max_realtime_factor >= 1.0) {
            return refused("max_realtime_factor", "must be 0 (no limit) or at least 1".to_owned());
        }
        Ok(())
    }

    fn check_spans(&self) -> Result<(), ConfigError> {
        let window = self.resume_window.0;
        if !window.is_zero() && window < Duration::from_secs(1) {
            return refused(
                "resume_window",
                "must be 0s (no checkpoints) or at least 1s".to_owned(),
            );
        }
        for (key, span, min, max) in [
            ("estimate_interval", self.estimate_interval, MIN_INTERVAL, MAX_INTERVAL),
            ("idle_timeout", self.idle_timeout, Duration::from_millis(100), DAY),
            ("send_timeout", self.send_timeout, Duration::from_millis(100), DAY),
            ("config_timeout", self.config_timeout, Duration::from_millis(100), DAY),
            ("call_timeout", self.call_timeout, Duration::from_millis(100), DAY),
            ("request_timeout", self.request_timeout, Duration::from_millis(100), DAY),
            ("http_head_timeout", self.http_head_timeout, Duration::from_millis(100), DAY),
            ("preface_timeout", self.preface_timeout, Duration::from_millis(100), DAY),
            ("keepalive_interval", self.keepalive_interval, Duration::from_millis(100), DAY),
            ("keepalive_timeout", self.keepalive_timeout, Duration::from_millis(100), DAY),
            ("max_connection_age", self.max_connection_age, Duration::ZERO, 365 * DAY),
            ("quota_audio_per_minute", self.quota_audio_per_minute, Duration::ZERO, 365 * DAY),
            ("max_engine_lag", self.max_engine_lag, Duration::ZERO, Duration::from_mins(1)),
            ("max_worker_delay", self.max_worker_delay, Duration::ZERO, Duration::from_mins(1)),
            ("max_stream_length", self.max_stream_length, Duration::from_secs(1), 365 * DAY),
            ("max_clip_length", self.max_clip_length, Duration::from_secs(1), DAY),
            ("realtime_burst", self.realtime_burst, Duration::from_secs(1), DAY),
            ("no_speech_warning", self.no_speech_warning, Duration::from_secs(1), 365 * DAY),
            ("drain_deadline", self.drain_deadline, Duration::from_millis(100), DAY),
            ("resume_window", self.resume_window, Duration::ZERO, DAY),
            (
                "min_checkpoint_interval",
                self.min_checkpoint_interval,
                MIN_CHECKPOINT_INTERVAL,
                MAX_CHECKPOINT_INTERVAL,
            ),
            ("session_history", self.session_history, Duration::ZERO, DAY),
            ("ended_sessions", self.ended_sessions, Duration::ZERO, DAY),
            ("engine_max_wait", self.engine_max_wait, Duration::ZERO, Duration::from_secs(1)),
            ("voice_min_speech", self.voice_min_speech, Duration::ZERO, Duration::from_secs(2)),
            (
                "voice_hang_over",
                self.voice_hang_over,
                Duration::from_millis(100),
                Duration::from_secs(10),
            ),
            ("voice_lead_in", self.voice_lead_in, Duration::ZERO, Duration::from_secs(2)),
            ("min_speech", self.min_speech, Duration::ZERO, Duration::from_secs(10)),
            (
                "store_timeout",
                self.store_timeout,
                Duration::from_millis(50),
                Duration::from_mins(1),
            ),
            ("escalation_retention", self.escalation_retention, Duration::ZERO, 36_500 * DAY),
            ("watch_heartbeat", self.watch_heartbeat, Duration::from_millis(100), DAY),
            ("watch_poll", self.watch_poll, Duration::from_millis(10), Duration::from_mins(1)),
            ("policy_reload", self.policy_reload, Duration::from_millis(50), DAY),
            ("delivery_lease", self.delivery_lease, Duration::from_secs(1), DAY),
            (
                "delivery_poll",
                self.delivery_poll,
                Duration::from_millis(10),
                Duration::from_mins(1),
            ),
            ("tls_reload", self.tls_reload, Duration::from_millis(50), DAY),
            (
                "handshake_timeout",
                self.handshake_timeout,
                Duration::from_millis(50),
                Duration::from_mins(1),
            ),
            ("identities_reload", self.identities_reload, Duration::from_millis(50), DAY),
            ("jwks_refresh", self.jwks_refresh, Duration::from_millis(50), DAY),
            ("jwks_retry", self.jwks_retry, Duration::from_millis(50), DAY),
            ("jwks_timeout", self.jwks_timeout, Duration::from_millis(50), Duration::from_mins(1)),
            ("otlp_timeout", self.otlp_timeout, Duration::from_millis(50), Duration::from_mins(1)),
            ("trace_stage_interval", self.trace_stage_interval, Duration::from_millis(10), DAY),
            ("census_interval", self.census_interval, Duration::from_millis(10), DAY),
        ] {
            if !(min..=max).contains(&span.0) {
                let (min, max) = (Span(min), Span(max));
                return refused(key, format!("must be {min} to {max}, not {span}"));
            }
        }
        Ok(())
    }

    fn check_addresses(&self) -> Result<(), ConfigError> {
        let words = self.allowed_origins.split(',').map(str::trim);
        for origin in words.filter(|word| !word.is_empty() && *word != "*") {
            let url = origin.parse::<Url>().ok();
            // An origin has no path, not even a slash.
            if url.is_none_or(|url| url.origin().ascii_serialization() != origin) {
                let problem = format!("{origin:?} is no origin; write such as https://app.example");
                return refused("allowed_origins", problem);
            }
        }
        let public = &self.public_url;
        let is_one = || public.parse::<Url>().is_ok_and(|url| url.host().is_some());
        if !(public.is_empty() || public.starts_with("https://") && is_one()) {
            let problem = format!("must be such as https://emotion.example, not {public:?}");
            return refused("public_url", problem);
        }
        Ok(())
    }

    fn check_telemetry(&self) -> Result<(), ConfigError> {
        if !(0.0..=1.0).contains(&self.trace_ratio) {
            return refused("trace_ratio", format!("must be 0 to 1, not {}", self.trace_ratio));
        }
        let endpoint = &self.otlp_endpoint;
        if !endpoint.is_empty()
            && let Err(problem) = check_endpoint(endpoint)
        {
            return refused("otlp_endpoint", problem.to_owned());
        }
        if !self.otlp_ca.as_os_str().is_empty() && !endpoint.starts_with("https://") {
            return refused("otlp_ca", "needs an otlp_endpoint with https://".to_owned());
        }
        pairs("resource_attributes", &self.resource_attributes).map(drop)
    }
}

fn refused<T>(key: &'static str, problem: String) -> Result<T, ConfigError> {
    Err(ConfigError::Value { key, problem })
}

/// Whether the exporter takes it. What is wrong with it is told without it: it may hold a password.
fn check_endpoint(endpoint: &str) -> Result<(), &'static str> {
    let is_http = endpoint.starts_with("http://") || endpoint.starts_with("https://");
    let url = endpoint.parse::<Url>().ok();
    match (url, endpoint.parse::<http::Uri>()) {
        (Some(url), Ok(_)) if is_http => {
            if url.username().is_empty() && url.password().is_none() {
                Ok(())
            } else {
                Err("must have no user and no password; send a header instead, see otlp_headers")
            }
        }
        _ => Err("must be http:// or https:// with a host; example: http://localhost:4317"),
    }
}
