//! What the parts of the service get of the settings: settings become the types that each of them asks for, and
//! what stands in a file of its own is read.

use std::time::Duration;

use super::{ConfigError, Environment, Settings};
use crate::escalation::sinks::Delivery;
use crate::escalation::{Location, RecorderSettings, StoreError};
use crate::model::{EngineSettings, LoadSettings};
use crate::secrets::Secrets as _;
use crate::wire::parse::Defaults;

impl Settings {
    /// Attributes of the service that the operator has set.
    ///
    /// # Errors
    /// [`ConfigError::Value`] if they are no pairs.
    pub fn resource_attributes(&self) -> Result<Vec<(String, String)>, ConfigError> {
        pairs("resource_attributes", &self.resource_attributes)
    }

    /// Headers of requests to the OTLP endpoint.
    ///
    /// # Errors
    /// [`ConfigError`] if they cannot be read or are no pairs.
    pub fn otlp_headers(&self) -> Result<Vec<(String, String)>, ConfigError> {
        let file = &self.otlp_headers_file;
        if file.as_os_str().is_empty() {
            return pairs("otlp_headers", &self.otlp_headers.0);
        }
        let text = Environment
            .file(file)
            .map_err(|source| ConfigError::Read { path: file.clone(), source })?;
        pairs("otlp_headers_file", text.trim())
    }

    /// The certificates that an https endpoint is trusted by, besides the system's: PEM.
    ///
    /// # Errors
    /// [`ConfigError::Read`].
    pub fn otlp_ca(&self) -> Result<Option<String>, ConfigError> {
        let path = &self.otlp_ca;
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        let read = Environment.file(path);
        read.map(Some).map_err(|source| ConfigError::Read { path: path.clone(), source })
    }

    /// How models are loaded.
    pub fn load(&self) -> LoadSettings {
        LoadSettings {
            engine: EngineSettings {
                max_batch: self.engine_max_batch as usize,
                max_wait: self.engine_max_wait.0,
                queue: self.engine_queue as usize,
            },
            threads: self.engine_threads as usize,
            library: Some(self.ort_dylib_path.clone()).filter(|path| !path.as_os_str().is_empty()),
        }
    }

    /// Where escalations are kept, if anywhere.
    ///
    /// # Errors
    /// [`ConfigError`] if it cannot be read or names no store.
    pub fn store_location(&self) -> Result<Option<Location>, ConfigError> {
        let file = &self.escalation_store_file;
        let (key, text) = if file.as_os_str().is_empty() {
            ("escalation_store", self.escalation_store.0.clone())
        } else {
            let text = std::fs::read_to_string(file)
                .map_err(|source| ConfigError::Read { path: file.clone(), source })?;
            ("escalation_store_file", text)
        };
        match text.trim() {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|error: StoreError| ConfigError::Value {
                key,
                problem: error.to_string(),
            }),
        }
    }

    /// Where escalations are delivered; nowhere without a delivery file.
    ///
    /// # Errors
    /// [`ConfigError`] with file, line and column.
    pub fn delivery(&self) -> Result<Delivery, ConfigError> {
        let path = &self.delivery;
        if path.as_os_str().is_empty() {
            return Ok(Delivery::default());
        }
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        Delivery::parse(&text, &Environment).map_err(|error| ConfigError::Value {
            key: "delivery",
            problem: format!("{}: {error}", path.display()),
        })
    }

    /// How escalations are kept and delivered.
    pub fn recorder(&self) -> RecorderSettings {
        RecorderSettings {
            timeout: self.store_timeout.0,
            backlog: self.escalation_backlog as usize,
            retention: self.escalation_retention.0,
            poll: self.delivery_poll.0,
            lease: self.delivery_lease.0,
            window: self.session_window(),
        }
    }

    /// How long a session counts as alive that nobody speaks of any more. It is spoken of every third of this:
    /// whoever comes back within `resume_window` finds it alive, whenever it was last spoken of.
    fn session_window(&self) -> Duration {
        let window = self.resume_window.0;
        if window.is_zero() { Duration::from_secs(30) } else { window.mul_f32(2.0) }
    }

    /// The share of places that one tenant or identity may take. Without identities all callers are one.
    pub fn share(&self) -> f32 {
        if self.has_identities() { self.max_share } else { 1.0 }
    }

    /// What a session gets that does not say.
    pub fn defaults(&self) -> Defaults {
        Defaults {
            estimate_interval: self.estimate_interval.0,
            voice_on: self.voice_on,
            voice_off: self.voice_off,
            voice_min_speech: self.voice_min_speech.0,
            voice_hang_over: self.voice_hang_over.0,
            voice_lead_in: self.voice_lead_in.0,
            min_speech: self.min_speech.0,
            min_confidence: self.min_confidence,
            carry: self.carry,
        }
    }
}

/// `name=value,name=value`. A problem never shows the values.
pub(super) fn pairs(key: &'static str, text: &str) -> Result<Vec<(String, String)>, ConfigError> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let pair = |(number, part): (usize, &str)| match part.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => {
            let number = number + 1;
            let problem = format!("entry {number} is no name=value; write name=value,name=value");
            Err(ConfigError::Value { key, problem })
        }
    };
    parts.enumerate().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SecretText;

    #[test]
    fn headers_are_pairs_from_a_setting_or_a_file_and_are_never_shown() {
        let otlp_headers = SecretText("x-key = planted,  x-team=a=b".to_owned());
        let settings = Settings { otlp_headers, ..Settings::default() };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected = [pair("x-key", "planted"), pair("x-team", "a=b")];
        assert_eq!(settings.otlp_headers().unwrap(), expected);
        let shown = format!("{settings:?} {}", toml::to_string(&settings).unwrap());
        assert!(shown.contains("[redacted]") && !shown.contains("planted"), "{shown}");

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("headers");
        std::fs::write(&path, "authorization=Bearer planted\n").unwrap();
        let settings = Settings { otlp_headers_file: path.clone(), ..settings };
        let expected = [pair("authorization", "Bearer planted")];
        assert_eq!(settings.otlp_headers().unwrap(), expected);
        std::fs::write(&path, "planted").unwrap();
        let error = settings.otlp_headers().unwrap_err().to_string();
        assert!(error.contains("otlp_headers_file") && !error.contains("planted"), "{error}");
    }
}
