//! What results come from: the model and the settings that they depend on, and what their tables look like.

use serde::Serialize;
use serde_json::Value;

use super::schema::SCHEMA;
use crate::model::Manifest;
use crate::wire::parse::{AnalysisSettings, ClipSettings};

/// What all results of one output have in common.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Origin {
    /// Version of the tables' schema.
    pub schema: u32,
    /// The model.
    pub model: ModelName,
    /// How clips are analysed.
    pub analysis: AnalysisSettings,
    /// Whether each channel is analysed on its own.
    pub separate_channels: bool,
}

/// Which model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelName {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of its ONNX file, lower-case hex.
    pub sha256: String,
}

impl Origin {
    /// Results of the model with `manifest` under `settings`.
    pub fn new(manifest: &Manifest, settings: &ClipSettings) -> Self {
        Self {
            schema: SCHEMA,
            model: ModelName {
                name: manifest.name.clone(),
                version: manifest.version.clone(),
                sha256: manifest.sha256.clone(),
            },
            analysis: settings.analysis.clone(),
            separate_channels: settings.separate_channels,
        }
    }

    /// As it is written down in an output.
    pub(super) fn to_json(&self) -> String {
        // Text and numbers: there is nothing that JSON has not.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// How it differs from what is `written` in an output, in words; empty if it does not. An error if that
    /// is no such thing.
    pub(super) fn differences(&self, written: &[u8]) -> Result<String, serde_json::Error> {
        let theirs: Value = serde_json::from_slice(written)?;
        // By way of text, so that the numbers of both have been through the same.
        let ours: Value = serde_json::from_str(&self.to_json())?;
        let mut told = Vec::new();
        differ("", &theirs, &ours, &mut told);
        Ok(told.join("; "))
    }
}

fn differ(key: &str, theirs: &Value, ours: &Value, told: &mut Vec<String>) {
    if let (Value::Object(a), Value::Object(b)) = (theirs, ours) {
        let mut names: Vec<&String> = a.keys().chain(b.keys()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            let of = |map: &serde_json::Map<_, Value>| map.get(name).cloned().unwrap_or_default();
            differ(&key, &of(a), &of(b), told);
        }
    } else if theirs != ours {
        told.push(format!("{key} is {theirs} there and {ours} here"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::parse::{Defaults, default_analysis};

    fn origin() -> Origin {
        Origin {
            schema: SCHEMA,
            model: ModelName { name: "m".into(), version: "1.0.0".into(), sha256: "ab".into() },
            analysis: default_analysis(&Defaults::default()),
            separate_channels: false,
        }
    }

    #[test]
    fn what_is_written_down_is_known_again() {
        assert_eq!(origin().differences(origin().to_json().as_bytes()).unwrap(), "");
    }

    #[test]
    fn each_difference_is_named() {
        let mut other = origin();
        other.schema = 9;
        other.model.sha256 = "cd".into();
        other.analysis.tracker.min_confidence = 0.7;
        let told = origin().differences(other.to_json().as_bytes()).unwrap();
        for part in ["schema is 9 there and 1 here", "model.sha256 is \"cd\"", "min_confidence"] {
            assert!(told.contains(part), "{told}");
        }
        assert_eq!(told.matches("there and").count(), 3, "{told}");
        assert!(origin().differences(b"nonsense").is_err());
    }
}
