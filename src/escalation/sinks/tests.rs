//! Delivery files as they are written: what is taken, what is refused and how that is told.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::escalation::life::{Kind, Occurrence};
use crate::policy::Severity;
use crate::secrets::Secrets;
use crate::yaml::YamlError;

/// Secrets that a test knows.
struct Known;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

impl Secrets for Known {
    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "WHSEC" => Some(SECRET.to_owned()),
            "TOKEN" => Some("a-bearer-token".to_owned()),
            "URL" => Some("https://example.org/hooks/capability?sig=abcdef".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    fn file(&self, path: &Path) -> io::Result<String> {
        match path.to_str() {
            Some("/run/secrets/whsec") => Ok(format!("{SECRET}\n")),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

fn parse(sinks: &str) -> Result<Delivery, YamlError> {
    Delivery::parse(&format!("schema: undertone.delivery/v1\nsinks:\n{sinks}"), &Known)
}

fn refused(sinks: &str) -> String {
    parse(sinks).err().unwrap_or_else(|| panic!("taken: {sinks}")).to_string()
}

fn webhook(settings: &str) -> String {
    format!("  - name: a\n    webhook: {{{settings}}}\n")
}

const GOOD: &str = "url: 'https://example.org/hook', secrets: [{env: WHSEC}]";

const EVERYTHING: &str = r#"
  - name: ward-7
    webhook:
      url: https://example.org/hook
      secrets: [{env: WHSEC}, {file: /run/secrets/whsec}]
      headers: {x-ward: "7", authorization: {env: TOKEN}}
    route:
      min_severity: medium
      policies: [care-call]
      labels: {ward: "7"}
      events: [raised, cleared]
    text: "{{ escalation.title }}"
    timeout: 10s
    connect_timeout: 2s
    retry: {first: 500ms, longest: 5m, attempts: 7, retry_after: 2h}
    concurrency: 3
    circuit: {failures: 4, pause: 1m}
  - name: bus
    cloudevents: {url: "http://10.0.0.7/events", mode: binary, source: /wards/7, allow_private: true, token: {env: TOKEN}}
  - name: records
    fhir: {url: "https://fhir.example.org/r4", patient_system: "urn:oid:1.2.3", without_patient: display}
  - name: pager
    pagerduty: {routing_key: {env: TOKEN}}
  - name: stream
    nats: {servers: ["nats://127.0.0.1:4222"], stream: ESCALATIONS, create_stream: true, user: u, password: {env: TOKEN}}
"#;

#[test]
fn every_setting_is_taken() {
    let delivery = parse(EVERYTHING).unwrap();
    let kinds: Vec<&str> = delivery.sinks().iter().map(|sink| sink.kind()).collect();
    assert_eq!(kinds, ["webhook", "cloudevents", "fhir", "pagerduty", "nats"]);
    let ward = &delivery.sinks()[0];
    assert_eq!(ward.name(), "ward-7");
    assert_eq!(ward.target(), "https://example.org/hook");
    assert_eq!(ward.timeout(), Duration::from_secs(10));
    assert_eq!(ward.max_attempts(), 7);
    assert_eq!(ward.first_backoff(), Duration::from_millis(500));
    assert_eq!(ward.longest_backoff(), Duration::from_secs(300));
    assert_eq!(ward.concurrency(), 3);
    assert_eq!((ward.circuit_failures(), ward.circuit_pause()), (4, Duration::from_secs(60)));
    assert_eq!(ward.takes(), "raised, cleared; severity medium and up; policy care-call; ward = 7");
}

#[test]
fn routes_decide_what_a_sink_wants() {
    let delivery = parse(EVERYTHING).unwrap();
    let [ward, .., pager, stream] = delivery.sinks() else { panic!("sinks") };
    let mut occurrence = sample(Kind::Raised, "s", SAMPLE_TIME);
    assert!(ward.wants(&occurrence) && pager.wants(&occurrence) && stream.wants(&occurrence));
    occurrence.escalation.severity = Severity::Low;
    assert!(!ward.wants(&occurrence) && pager.wants(&occurrence));
    let updated = sample(Kind::Updated, "s", SAMPLE_TIME);
    assert!(!pager.wants(&updated), "a late update would reopen what is resolved");
    assert!(stream.wants(&updated));
}

#[test]
fn defaults_are_the_documented_ones() {
    let delivery = parse(&webhook(GOOD)).unwrap();
    let sink = &delivery.sinks()[0];
    assert_eq!(sink.timeout(), Duration::from_secs(15));
    assert_eq!(sink.max_attempts(), 24);
    assert_eq!(sink.first_backoff(), Duration::from_secs(1));
    assert_eq!(sink.longest_backoff(), Duration::from_secs(600));
    assert_eq!(sink.concurrency(), 8);
    assert_eq!((sink.circuit_failures(), sink.circuit_pause()), (5, Duration::from_secs(30)));
}

#[test]
fn no_secret_shows_in_debug_output() {
    let sinks = format!(
        "{EVERYTHING}  - name: hidden\n    webhook: {{url: {{env: URL}}, secrets: [{{env: WHSEC}}]}}\n"
    );
    let delivery = parse(&sinks).unwrap();
    let shown = format!("{delivery:?} {delivery:#?}");
    for secret in [SECRET, "MfKQ9r8G", "a-bearer-token", "capability", "abcdef"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    assert_eq!(delivery.sinks()[5].target(), "https://example.org/[redacted]");
}

#[test]
fn an_error_names_line_column_field_and_remedy() {
    let error = refused(&webhook("url: 'ftp://example.org', secrets: [{env: WHSEC}]"));
    assert_eq!(
        error,
        "line 4, column 20: sinks[0].webhook.url: the scheme is neither http nor https; use https"
    );
    let error = refused("  - name: a\n    webhook: {url: 'https://x', secrets: [{env: NOPE}]}\n");
    assert_eq!(
        error,
        "line 4, column 43: sinks[0].webhook.secrets[0]: the environment variable NOPE is not set; \
         set it where the service is started"
    );
}

#[test]
fn unknown_keys_are_refused_with_their_place() {
    let error = refused(&webhook(&format!("{GOOD}, retires: 3")));
    assert!(error.starts_with("line 4, column "), "{error}");
    assert!(error.contains("sinks[0].webhook.retires: "), "{error}");
    assert!(error.contains("retires"), "{error}");
    assert!(!error.contains('\n'), "{error}");
}

#[test]
fn a_secret_in_the_file_is_refused_and_not_repeated() {
    for text in [
        webhook(&format!("url: 'https://example.org', secrets: [{SECRET}]")),
        webhook(&format!("url: 'https://example.org', secrets: {SECRET}")),
        webhook(&format!("{GOOD}, headers: {{authorization: Bearer {SECRET}}}")),
        webhook(&format!("url: 'https://u:{SECRET}@example.org', secrets: [{{env: WHSEC}}]")),
        format!("  - name: a\n    webhook: {SECRET}\n"),
        format!("  - name: a\n    pagerduty: {{routing_key: {SECRET}}}\n"),
        format!("  - name: a\n    fhir: {{url: 'https://example.org', token: {SECRET}}}\n"),
        format!("  - name: a\n    nats: {{servers: ['nats://u:{SECRET}@h:4222']}}\n"),
        format!(
            "  - name: a\n    nats: {{servers: ['nats://h'], credentials: {{env: {SECRET}}}}}\n"
        ),
    ] {
        let error = refused(&text);
        // Even the name of a variable, which is no secret, is one here only by mistake.
        if !text.contains("credentials") {
            assert!(!error.contains("MfKQ9r8G"), "{error}");
        }
    }
    let error = refused(&format!("  - name: a\n    pagerduty: {{routing_key: {SECRET}}}\n"));
    assert!(error.contains("write {env: NAME} or {file: PATH}"), "{error}");
    assert!(error.contains("sinks[0].pagerduty.routing_key"), "{error}");
}

#[test]
fn private_addresses_are_refused_in_every_spelling() {
    for host in [
        "127.0.0.1",
        "127.1",
        "0x7f.1",
        "2130706433",
        "0177.0.0.1",
        "[::1]",
        "[::ffff:10.0.0.1]",
        "169.254.169.254",
        "[fd00:ec2::254]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:7f00:1::]",
        "0",
    ] {
        let error =
            refused(&webhook(&format!("url: 'https://{host}/', secrets: [{{env: WHSEC}}]")));
        assert!(error.contains("is not a public address"), "{host}: {error}");
        let allowed =
            format!("url: 'https://{host}/', secrets: [{{env: WHSEC}}], allow_private: true");
        assert!(parse(&webhook(&allowed)).is_ok(), "{host}");
    }
}

#[test]
fn http_needs_to_be_allowed() {
    let http = "url: 'http://example.org/', secrets: [{env: WHSEC}]";
    assert!(refused(&webhook(http)).contains("allow_http: true"));
    assert!(parse(&webhook(&format!("{http}, allow_http: true"))).is_ok());
}

#[test]
fn what_cannot_be_is_refused() {
    let with = |more: &str| format!("{}    {more}\n", webhook(GOOD));
    for (text, part) in [
        (webhook("url: 'https://x', secrets: []"), "1 to 8 are needed"),
        (webhook("url: 'https://x', secrets: [{env: TOKEN}]"), "whsec_"),
        (webhook("url: 'https://x', secrets: [{env: EMPTY}]"), "is empty"),
        (webhook("url: 'https://x', secrets: [{file: /nope}]"), "/nope"),
        (webhook("url: 'https://x', secrets: [{env: WHSEC, file: /x}]"), "exactly one"),
        (webhook("url: '/hook', secrets: [{env: WHSEC}]"), "relative URL"),
        (webhook(&format!("{GOOD}, headers: {{webhook-id: x}}")), "sets this header itself"),
        (webhook(&format!("{GOOD}, headers: {{cookie: x}}")), "a secret must not stand"),
        (with("timeout: 5m"), "set 1s to 2m"),
        (with("timeout: 15"), "this is no duration"),
        (with("timeout: soon"), "this is no duration"),
        (with("concurrency: 0"), "set 1 to 256"),
        (with("retry: {first: 10m, longest: 1m}"), "sinks[0].retry.longest"),
        (with("retry: {attempts: 0}"), "sinks[0].retry.attempts"),
        (with("circuit: {failures: 0}"), "sinks[0].circuit.failures"),
        (with("text: '{{ escalation.titel }}'"), "sinks[0].text"),
        (with("route: {min_severity: dire}"), "dire"),
        (with("pagerduty: {routing_key: {env: TOKEN}}"), "exactly one of"),
        ("  - name: a\n".to_owned(), "exactly one of"),
        (format!("{}{}", webhook(GOOD), webhook(GOOD)), "already"),
        (webhook(GOOD).replace("name: a", "name: A"), "is no name of a sink"),
        ("  - name: a\n    nats: {servers: []}\n".to_owned(), "1 to 16 are needed"),
        ("  - name: a\n    nats: {servers: [x], create_stream: true}\n".to_owned(), "no name"),
        ("  - name: a\n    nats: {servers: [x], user: u}\n".to_owned(), "go together"),
        (
            "  - name: a\n    nats: {servers: [x], token: {env: TOKEN}, credentials: {env: TOKEN}}\n"
                .to_owned(),
            "several of",
        ),
        (
            "  - name: a\n    nats: {servers: [x], credentials: {env: TOKEN}}\n".to_owned(),
            "no NATS credentials",
        ),
        ("  - name: a\n    nats: {servers: [x], subject: 'a.{b}'}\n".to_owned(), "placeholder"),
        (
            "  - name: a\n    cloudevents: {url: 'https://x', source: 'a b'}\n".to_owned(),
            "no URI reference",
        ),
    ] {
        let error = refused(&text);
        assert!(error.contains(part), "{text}\n{error}");
        assert!(!error.contains('\n'), "{error}");
        assert!(!error.contains("a-bearer-token"), "{error}");
    }
    let error = Delivery::parse("schema: undertone.delivery/v2\nsinks: []\n", &Known).unwrap_err();
    assert!(error.to_string().contains("write undertone.delivery/v1"), "{error}");
    assert!(Delivery::parse("{", &Known).is_err());
}

#[test]
fn a_session_without_a_patient_is_dead_with_the_remedy() {
    let sinks = "  - name: a\n    fhir: {url: 'https://example.org'}\n";
    let mut occurrence = sample(Kind::Raised, "s", SAMPLE_TIME);
    let render = |sinks: &str, occurrence: &Occurrence| {
        parse(sinks).unwrap().sinks()[0].render(occurrence, SAMPLE_TIME)
    };
    assert!(render(sinks, &occurrence).is_ok());
    occurrence.escalation.labels.insert("patient".to_owned(), "Meier, Anna".to_owned());
    let Err(Verdict::Dead { problem }) = render(sinks, &occurrence) else { panic!("sent") };
    assert!(problem.contains("patient_system"), "{problem}");
    occurrence.escalation.labels.remove("patient");
    let Err(Verdict::Dead { problem }) = render(sinks, &occurrence) else { panic!("sent") };
    assert!(problem.contains("without_patient: display"), "{problem}");
    let display = sinks.replace("org'", "org', without_patient: display");
    let body = render(&display, &occurrence).unwrap().body;
    assert!(body.contains("Unknown patient, session s"), "{body}");
}

#[test]
fn labels_become_references() {
    let body = |settings: &str, patient: &str| {
        let sinks = format!("  - name: a\n    fhir: {{url: 'https://example.org'{settings}}}\n");
        let mut occurrence = sample(Kind::Raised, "s", SAMPLE_TIME);
        occurrence.escalation.labels.insert("patient".to_owned(), patient.to_owned());
        let rendered = parse(&sinks).unwrap().sinks()[0].render(&occurrence, SAMPLE_TIME).unwrap();
        let bundle: serde_json::Value = serde_json::from_str(&rendered.body).unwrap();
        bundle["entry"][0]["resource"]["subject"].clone()
    };
    assert_eq!(body("", "42")["reference"], "Patient/42");
    assert_eq!(body("", "Patient/42")["reference"], "Patient/42");
    let absolute = "https://other.example.org/Patient/42";
    assert_eq!(body("", absolute)["reference"], absolute);
    let identifier = &body(", patient_system: 'urn:oid:1.2.3'", "MRN 42")["identifier"];
    assert_eq!(identifier["value"], "MRN 42");
}

#[test]
fn a_body_is_the_same_for_every_attempt_and_the_signature_is_not() {
    let delivery = parse(&webhook(GOOD)).unwrap();
    let occurrence = sample(Kind::Raised, "s", SAMPLE_TIME);
    let first = delivery.sinks()[0].render(&occurrence, SAMPLE_TIME).unwrap();
    let later = SAMPLE_TIME.after(Duration::from_secs(60));
    let second = delivery.sinks()[0].render(&occurrence, later).unwrap();
    assert_eq!(first.body, second.body);
    let header = |rendered: &Rendered, name: &str| {
        let found = rendered.headers.iter().find(|(known, _)| known == name).unwrap();
        found.1.clone()
    };
    assert_eq!(header(&first, "webhook-id"), header(&second, "webhook-id"));
    assert_ne!(header(&first, "webhook-signature"), header(&second, "webhook-signature"));
}

#[test]
fn the_schema_describes_every_sink() {
    let schema = Delivery::schema();
    assert_eq!(schema["properties"]["schema"]["const"], "undertone.delivery/v1");
    assert_eq!(schema["additionalProperties"], false);
    let sink = &schema["$defs"]["Sink"];
    assert_eq!(sink["oneOf"].as_array().unwrap().len(), 5);
    for kind in ["webhook", "cloudevents", "fhir", "pagerduty", "nats"] {
        assert!(sink["properties"][kind].is_object(), "{kind}");
    }
    assert_eq!(sink["properties"]["timeout"]["default"], "15s");
}
