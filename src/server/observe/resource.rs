//! Who we are: the attributes that every span, metric and log line is sent with.
//!
//! Named by OpenTelemetry's conventions for services, hosts and processes. The command line is left out: it may
//! hold what nobody should read.

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;

use crate::config::{ConfigError, Environment, SERVICE, Settings};
use crate::secrets::Secrets;

/// Of this process under `settings`. What the operator says goes before what is found out, and a name of the
/// service that was chosen before one among the attributes, as the specification of resources has it.
///
/// # Errors
/// [`ConfigError`] if the attributes are no pairs, or have an escape that stands for nothing.
pub(super) fn of(settings: &Settings) -> Result<Resource, ConfigError> {
    of_with(settings, &Environment)
}

fn of_with(settings: &Settings, secrets: &impl Secrets) -> Result<Resource, ConfigError> {
    let said = settings.resource_attributes()?.into_iter().map(|(name, value)| {
        let value = unescaped(&value).ok_or_else(|| ConfigError::Value {
            key: "resource_attributes",
            problem: format!("{name}: {value:?} is no text; a percent sign is written %25"),
        })?;
        Ok(KeyValue::new(name, value))
    });
    let mut builder = Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes(found(settings))
        .with_attributes(said.collect::<Result<Vec<_>, ConfigError>>()?);
    // A name that is the default's may have been chosen all the same.
    if settings.service_name != SERVICE || secrets.variable("OTEL_SERVICE_NAME").is_some() {
        builder = builder.with_service_name(settings.service_name.clone());
    }
    Ok(builder.build())
}

/// Values are escaped as in W3C's baggage: `%20` for a blank, `%2C` for a comma. `None` if that is no text.
fn unescaped(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        let digit =
            |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        bytes.push(match byte {
            b'%' => 16 * digit(rest.next()?)? + digit(rest.next()?)?,
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
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
        KeyValue::new("os.type", system()),
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

/// Rust's name for the operating system in the conventions' words.
fn system() -> &'static str {
    match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    }
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
        assert_eq!(value(&plain, "os.type").as_deref(), Some(system()));
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

    #[test]
    fn a_chosen_name_goes_before_the_attributes_even_if_it_is_the_default_one() {
        struct Chosen;
        impl Secrets for Chosen {
            fn variable(&self, name: &str) -> Option<String> {
                (name == "OTEL_SERVICE_NAME").then(|| SERVICE.to_owned())
            }
            fn file(&self, _: &std::path::Path) -> std::io::Result<String> {
                Err(std::io::ErrorKind::NotFound.into())
            }
        }
        let settings =
            Settings { resource_attributes: "service.name=ears".to_owned(), ..Settings::default() };
        let resource = of_with(&settings, &Chosen).unwrap();
        assert_eq!(resource.get(&"service.name".into()).unwrap().to_string(), SERVICE);
    }

    #[test]
    fn values_of_attributes_are_escaped_as_in_baggage() {
        let with = |attributes: &str| Settings {
            resource_attributes: attributes.to_owned(),
            ..Settings::default()
        };
        for (written, meant) in
            [("a%20b", "a b"), ("a%2Cb", "a,b"), ("100%25", "100%"), ("%C3%A9", "\u{e9}")]
        {
            assert_eq!(value(&with(&format!("team={written}")), "team").as_deref(), Some(meant));
        }
        for wrong in ["%", "%2", "%zz", "%ff"] {
            let error = of(&with(&format!("team={wrong}"))).unwrap_err().to_string();
            assert!(error.contains("resource_attributes") && error.contains("team"), "{error}");
        }
    }
}
