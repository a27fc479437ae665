//! Who we are: the attributes that every span, metric and log line is sent with.
//!
//! Named by OpenTelemetry's conventions for services, hosts and processes. The command line is left out: it may
//! hold what nobody should read.

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;

use crate::config::{ConfigError, SERVICE, Settings};

/// Of this process under `settings`. What the operator says goes before what is found out.
///
/// # Errors
/// [`ConfigError`] if the attributes are no pairs.
pub(super) fn of(settings: &Settings) -> Result<Resource, ConfigError> {
    let said = settings.resource_attributes()?;
    let mut builder = Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes(found(settings))
        .with_attributes(said.into_iter().map(|(name, value)| KeyValue::new(name, value)));
    if settings.service_name != SERVICE {
        builder = builder.with_service_name(settings.service_name.clone());
    }
    Ok(builder.build())
}

fn found(settings: &Settings) -> Vec<KeyValue> {
    // A replica without a name is another one after every start.
    let instance = match settings.replica.as_str() {
        "" => uuid::Uuid::now_v7().to_string(),
        name => name.to_owned(),
    };
    let mut found = vec![
        KeyValue::new("service.name", SERVICE),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", instance),
        KeyValue::new("host.arch", architecture()),
        KeyValue::new("os.type", std::env::consts::OS),
        KeyValue::new("process.pid", i64::from(std::process::id())),
    ];
    // proc(5), Linux only.
    if let Ok(name) = std::fs::read_to_string("/proc/sys/kernel/hostname") {
        found.push(KeyValue::new("host.name", name.trim().to_owned()));
    }
    let executable = std::env::current_exe().ok();
    if let Some(name) = executable.as_ref().and_then(|path| path.file_name()) {
        let name = name.to_string_lossy().into_owned();
        found.push(KeyValue::new("process.executable.name", name));
    }
    found
}

/// Rust's name for the processor in the conventions' words.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "arm" => "arm32",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(settings: &Settings, name: &'static str) -> Option<String> {
        let found = of(settings).unwrap().get(&name.into());
        found.map(|value| value.to_string())
    }

    #[test]
    fn what_the_operator_says_goes_before_what_is_found_out() {
        let plain = Settings::default();
        assert_eq!(value(&plain, "service.name").as_deref(), Some("undertone"));
        assert_eq!(value(&plain, "os.type").as_deref(), Some(std::env::consts::OS));
        assert_ne!(value(&plain, "service.instance.id"), value(&plain, "service.instance.id"));
        let said = Settings {
            resource_attributes: "service.name=ears,deployment.environment.name=ward".to_owned(),
            replica: "undertone-0".to_owned(),
            ..Settings::default()
        };
        assert_eq!(value(&said, "service.name").as_deref(), Some("ears"));
        assert_eq!(value(&said, "deployment.environment.name").as_deref(), Some("ward"));
        assert_eq!(value(&said, "service.instance.id").as_deref(), Some("undertone-0"));
        let named = Settings { service_name: "listener".to_owned(), ..said };
        assert_eq!(value(&named, "service.name").as_deref(), Some("listener"));
    }
}
