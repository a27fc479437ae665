//! What operators are given: alerts that Prometheus takes and that fire when they should, a dashboard and a
//! runbook that know the metrics there are, documentation that tells the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use undertone::telemetry::{described, labels};
use undertone::wire::v1;
use undertone::wire::v1::stream_config::Policy;

use crate::otlp::QUIET;
use crate::process::Process;
use crate::signal::{encode, speech};
use crate::support::{PATIENCE, PLAIN, audio, chunks, http_get, stream};

fn file(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text(path: &str) -> String {
    std::fs::read_to_string(file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs Prometheus' own tool; it must succeed.
#[track_caller]
fn promtool(args: &[&str]) {
    let output = Command::new("promtool")
        .args(args)
        .current_dir(file("deploy/prometheus"))
        .output()
        .unwrap_or_else(|error| panic!("promtool ({error}): apt-get install prometheus"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {args:?}: {said}");
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The alerting rules.
fn alerts() -> Vec<Value> {
    let file = yaml("deploy/prometheus/alerts.yaml");
    let groups = file["groups"].as_array().unwrap().clone();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

/// Every query of the dashboard.
fn queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&text("deploy/grafana/undertone.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().clone();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array().cloned());
    targets.flatten().map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

/// The names of metrics in a query: words of ours and of the conventions that are no labels.
fn names_in(query: &str) -> BTreeSet<String> {
    let labels: BTreeSet<String> = described()
        .flat_map(|known| known.labels.iter().map(|label| label.replace('.', "_")))
        .collect();
    query
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| ["undertone_", "process_", "rpc_"].iter().any(|own| word.starts_with(own)))
        .filter(|word| !labels.contains(*word))
        .map(str::to_owned)
        .collect()
}

/// Every name that the metrics page can have.
fn known_names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for known in described() {
        let name = known.on_page();
        if known.kind.name() == "histogram" {
            for part in ["bucket", "sum", "count"] {
                names.insert(format!("{name}_{part}"));
            }
        } else {
            names.insert(name);
        }
    }
    names
}

/// What happens only to servers with TLS, with callers that are turned away, quotas, resumptions, a collector, a store
/// or a policy that fails: described, but not on the page of a run in which all goes well.
const RARE: [&str; 11] = [
    "undertone_tls_certificate_expiry_seconds",
    "undertone_auth_failures_total",
    "undertone_tls_handshake_failures_total",
    "undertone_quota_refusals_total",
    "undertone_connections_refused_total",
    "undertone_streams_refused_total",
    "undertone_streams_resumed_total",
    "undertone_checkpoint_size_bytes",
    "undertone_telemetry_exports_total",
    "undertone_policy_reloads_total",
    "undertone_abstentions_total",
];

#[test]
fn prometheus_takes_the_alerts_and_they_fire_when_they_should() {
    promtool(&["check", "rules", "alerts.yaml"]);
    promtool(&["test", "rules", "alerts.test.yaml"]);
}

#[test]
fn every_alert_says_what_to_do_where_it_is_written_and_is_tried_out_both_ways() {
    let runbook = text("docs/runbook.md");
    let sections: BTreeSet<String> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|line| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-"))
        .map(|section| section.replace(',', ""))
        .collect();
    let tests = text("deploy/prometheus/alerts.test.yaml");
    let alerts = alerts();
    assert!(alerts.len() >= 20);
    for alert in &alerts {
        let name = alert["alert"].as_str().unwrap();
        let annotation = |key: &str| {
            alert["annotations"][key].as_str().unwrap_or_else(|| panic!("{name}: no {key}"))
        };
        assert!(annotation("summary").len() > 20, "{name}");
        assert!(annotation("description").len() > 60, "{name}");
        let anchor = annotation("runbook_url").strip_prefix("docs/runbook.md#").unwrap();
        assert!(sections.contains(anchor), "{name}: the runbook has no section {anchor}");
        let severity = alert["labels"]["severity"].as_str().unwrap();
        assert!(["page", "ticket"].contains(&severity), "{name}: {severity}");
        for how in ["fires", "stays quiet"] {
            assert!(tests.contains(&format!("name: {name} {how}")), "{name} {how}: untested");
        }
    }
    // And the other way round: no section for an alert that is no more.
    for section in sections.iter().filter(|section| section.starts_with("undertone")) {
        let has = |alert: &Value| alert["alert"].as_str().unwrap().to_lowercase() == *section;
        assert!(alerts.iter().any(has), "there is no alert {section}");
    }
    // What the runbook refers to inside itself is there.
    for (_, rest) in runbook.match_indices("](#").map(|(at, m)| runbook.split_at(at + m.len())) {
        let anchor = rest.split(')').next().unwrap();
        assert!(sections.contains(anchor), "the runbook has no section {anchor}");
    }
}

#[test]
fn the_dashboard_fits_grafanas_model_and_prometheus_takes_its_queries() {
    let dashboard: Value = serde_json::from_str(&text("deploy/grafana/undertone.json")).unwrap();
    for key in ["uid", "title", "schemaVersion", "time", "templating", "refresh"] {
        assert!(!dashboard[key].is_null(), "{key}");
    }
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeMap::new();
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is not its own");
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{title} is beyond the edge");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                let other = taken.insert((x, y), title);
                assert!(other.is_none(), "{title} lies on {other:?}");
            }
        }
        let kind = panel["type"].as_str().unwrap();
        assert!(["row", "stat", "timeseries"].contains(&kind), "{title}: {kind}");
        if kind == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}: no unit");
        let targets = panel["targets"].as_array().unwrap();
        let refs: BTreeSet<&str> =
            targets.iter().map(|target| target["refId"].as_str().unwrap()).collect();
        assert_eq!(refs.len(), targets.len(), "{title}");
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let variables: Vec<&str> = variables.iter().map(|v| v["name"].as_str().unwrap()).collect();
    assert_eq!(variables, ["datasource", "job", "instance"]);

    // As recording rules, so that Prometheus' own parser reads them.
    let rules: Vec<Value> = queries()
        .iter()
        .enumerate()
        .map(|(number, query)| {
            let query = query.replace("$__rate_interval", "5m");
            assert!(!query.replace("$job", "").replace("$instance", "").contains('$'), "{query}");
            serde_json::json!({"record": format!("panel:query:{number}"), "expr": query})
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queries.yaml");
    // JSON is YAML.
    let groups = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]});
    std::fs::write(&path, groups.to_string()).unwrap();
    promtool(&["check", "rules", &path.display().to_string()]);
}

/// The metrics page of a server to which much has happened, when all that is `wanted` is on it: some of it is counted
/// by tasks that nobody waits for.
async fn page_after_a_run(wanted: &BTreeSet<String>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("secret"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let delivery = format!(
        "schema: undertone.delivery/v1\nsinks:\n  - name: ward\n    webhook: {{url: \
         'http://127.0.0.1:9/', allow_private: true, secrets: [{{file: '{}'}}]}}\n",
        path("secret")
    );
    std::fs::write(path("delivery.yaml"), delivery).unwrap();
    let process = Process::start(&[
        "--escalation-store",
        &format!("sqlite:{}", path("store.db")),
        "--delivery",
        &path("delivery.yaml"),
        "--census-interval",
        "50ms",
    ])
    .await;
    let client = process.client().await;
    let mut samples = speech(1, 2.0, 16_000);
    samples.extend(vec![0.0; 3 * 16_000]);
    let data = encode(&samples, PLAIN.encoding);
    let config =
        v1::StreamConfig { policy: Some(Policy::PolicyYaml(QUIET.to_owned())), ..PLAIN.config() };
    stream(&client, config, chunks(&data, 3_200)).await.fine();
    // Full scale for a second is a warning; silence makes estimates abstain.
    let loud = encode(&vec![1.0; 16_000], PLAIN.encoding);
    stream(&client, PLAIN.config(), [audio(loud)]).await.fine();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let page = http_get(process.http, "/metrics").await.1;
        let on_page = names_on(&page);
        let missing: Vec<&String> =
            wanted.iter().filter(|name| !on_page.contains(name.as_str())).collect();
        if missing.is_empty() {
            return page;
        }
        assert!(Instant::now() < deadline, "{missing:?} are not on the page");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The names of a metrics page's samples.
fn names_on(page: &str) -> BTreeSet<&str> {
    page.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect()
}

#[tokio::test]
async fn every_metric_of_alerts_and_dashboard_is_on_the_page_of_a_real_run() {
    let known = known_names();
    let alerts = alerts();
    let exprs = alerts.iter().map(|alert| alert["expr"].as_str().unwrap().to_owned());
    let mut used = BTreeSet::new();
    for query in exprs.chain(queries()) {
        for name in names_in(&query) {
            assert!(known.contains(&name), "there is no metric {name}: {query}");
            used.insert(name);
        }
    }
    assert!(used.len() > 40, "{}: does the test still find names?", used.len());
    used.retain(|name| {
        let rare = RARE.iter().any(|rare| name.starts_with(rare));
        // Nothing was delivered in this run, nothing was refused.
        let arrives = name.starts_with("undertone_delivery_lag_seconds");
        !rare && !arrives
    });
    let page = page_after_a_run(&used).await;
    // What alerts on an increase wait for is there before the first one.
    let at_zero = |name: &str, labels: &[&str]| {
        let there = page.lines().any(|line| {
            line.starts_with(name)
                && line.ends_with(" 0")
                && labels.iter().all(|label| line.contains(label))
        });
        assert!(there, "{name} {labels:?} does not stand at 0: {page}");
    };
    for reason in labels::OVERLOAD {
        let reason = format!("reason=\"{reason}\"");
        at_zero("undertone_streams_refused_total{", &["call=\"stream\"", &reason]);
    }
    for outcome in labels::BROKEN_OFF {
        at_zero("undertone_streams_total{", &[&format!("outcome=\"{outcome}\"")]);
    }
    for kind in labels::SECRETS {
        let kind = format!("kind=\"{kind}\"");
        at_zero("undertone_secrets_reloads_total{", &["outcome=\"refused\"", &kind]);
    }
    at_zero("undertone_policy_reloads_total{", &["outcome=\"refused\""]);
    at_zero("undertone_delivery_attempts_total{", &["sink=\"ward\"", "outcome=\"gone\""]);
    // And nothing on the page is undescribed.
    for name in names_on(&page).into_iter().filter(|name| *name != "target_info") {
        assert!(known.contains(name), "{name} is not described");
    }
}

#[tokio::test]
async fn what_clients_say_is_in_no_label_of_any_metric() {
    let process = Process::start(&[]).await;
    let client = process.client().await;
    let data = encode(&speech(1, 1.0, 16_000), PLAIN.encoding);
    let weird = ["planted-1", "planted\"2}", "planted 3 \u{1f600}"];
    for word in weird {
        let label = ("planted-name".to_owned(), word.to_owned());
        for config in [
            v1::StreamConfig {
                session_id: "planted-id".to_owned(),
                labels: [label.clone()].into(),
                ..PLAIN.config()
            },
            v1::StreamConfig { session_id: word.to_owned(), ..PLAIN.config() },
            v1::StreamConfig { model: word.to_owned(), ..PLAIN.config() },
            v1::StreamConfig {
                policy: Some(Policy::PolicyName(word.to_owned())),
                ..PLAIN.config()
            },
            v1::StreamConfig {
                policy: Some(Policy::PolicyYaml(QUIET.replace("quiet", "planted"))),
                ..PLAIN.config()
            },
        ] {
            stream(&client, config, chunks(&data, 3_200)).await;
        }
        let request = v1::GetModelRequest { name: word.to_owned() };
        assert!(client.clone().get_model(request).await.is_err());
    }
    // Methods and services that nobody has declared.
    let channel = crate::support::channel(process.grpc).await;
    for path in ["/planted.Service/Planted", "/undertone.v1.EmotionService/Planted"] {
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        grpc.ready().await.unwrap();
        let codec =
            tonic_prost::ProstCodec::<v1::ListModelsRequest, v1::ListModelsResponse>::default();
        let request = tonic::Request::new(v1::ListModelsRequest {});
        let called = grpc.unary(request, path.parse().unwrap(), codec).await;
        assert!(called.is_err());
    }
    let (_, page) = http_get(process.http, "/metrics").await;
    assert!(!page.contains("planted"), "{page}");
    assert!(page.contains("rpc_method=\"_OTHER\""), "{page}");

    let labels: BTreeMap<String, BTreeSet<String>> = described()
        .map(|known| {
            let labels = known.labels.iter().map(|label| label.replace('.', "_")).collect();
            (known.on_page(), labels)
        })
        .collect();
    let mut series = BTreeMap::<String, usize>::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, rest)) = line.split_once('{') else { continue };
        let name = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|part| name.strip_suffix(part).filter(|name| labels.contains_key(*name)))
            .unwrap_or(name);
        if name == "target_info" {
            continue;
        }
        *series.entry(name.to_owned()).or_default() += 1;
        let known = labels.get(name).unwrap_or_else(|| panic!("{name} is not described"));
        let inside = rest.rsplit_once('}').unwrap().0;
        for label in inside.split(',').filter_map(|pair| pair.split_once('=')).map(|(l, _)| l) {
            let common = label == "le" || label.starts_with("otel_scope");
            assert!(common || known.contains(label), "{name}: the label {label} is not described");
        }
    }
    for (name, count) in series {
        // Buckets times methods times statuses is the most there is.
        assert!(count <= 400, "{name} has {count} series");
    }
}

/// The label matchers of a query or a series, with the metric that they stand behind: name, label, values.
fn matchers(query: &str) -> Vec<(String, String, Vec<String>)> {
    let mut found = Vec::new();
    for (at, _) in query.match_indices('{') {
        let (before, behind) = (&query[..at], &query[at + 1..]);
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let start = before.rfind(|c: char| !is_name(c)).map_or(0, |at| at + 1);
        for pair in behind.split('}').next().unwrap().split(',') {
            let Some((label, value)) = pair.split_once('=') else { continue };
            let values = value.trim_matches(['~', '"']).split('|').map(str::to_owned).collect();
            found.push((
                before[start..].to_owned(),
                label.trim_end_matches('!').to_owned(),
                values,
            ));
        }
    }
    found
}

/// Statuses of gRPC, as the specification writes them.
fn statuses() -> BTreeSet<&'static str> {
    (0..=16).map(|code| undertone::wire::code_name(tonic::Code::from_i32(code))).collect()
}

#[test]
fn queries_and_series_of_tests_ask_for_values_that_labels_can_have() {
    let mut known = BTreeMap::<(String, String), BTreeSet<&str>>::new();
    for values in labels::ALL {
        let metric = described().find(|metric| metric.name == values.metric).unwrap();
        let label = values.label.replace('.', "_");
        known.insert((metric.on_page(), label), values.values.iter().copied().collect());
    }
    for part in ["count", "bucket", "sum"] {
        let name = format!("rpc_server_call_duration_seconds_{part}");
        known.insert((name, "rpc_status_code".to_owned()), statuses());
    }
    // Names that the operator gives, and what Prometheus adds.
    let free = ["job", "instance", "le", "sink", "model", "version", "rpc_method"];
    let alerts = alerts();
    let exprs = alerts.iter().map(|alert| alert["expr"].as_str().unwrap().to_owned());
    let tests = yaml("deploy/prometheus/alerts.test.yaml");
    let series = tests["tests"].as_array().unwrap().iter();
    let series = series.flat_map(|test| test["input_series"].as_array().unwrap());
    let series = series.map(|one| one["series"].as_str().unwrap().to_owned());
    let mut looked_at = 0;
    for query in exprs.chain(queries()).chain(series) {
        for (metric, label, values) in matchers(&query) {
            if free.contains(&&*label) {
                continue;
            }
            let known = known.get(&(metric.clone(), label.clone())).unwrap_or_else(|| {
                panic!("nobody lists the values of {label} of {metric}: {query}")
            });
            for value in values {
                assert!(known.contains(&*value), "{metric}: {label} is never {value:?}: {query}");
                looked_at += 1;
            }
        }
    }
    assert!(looked_at > 50, "{looked_at}: does the test still find values?");
}

/// The text of the item of `path` that begins with `start`, up to the brace that ends it.
fn item(path: &str, start: &str) -> String {
    let source = text(path);
    let at = source.find(start).unwrap_or_else(|| {
        panic!("{path} has no {start:?}: say here where the values of the label come from now")
    });
    let mut depth = 0_usize;
    let mut opened = false;
    source[at..]
        .chars()
        .take_while(|&c| {
            let goes_on = !opened || depth > 0;
            match c {
                '{' => (depth, opened) = (depth + 1, true),
                '}' => depth -= 1,
                _ => {}
            }
            goes_on
        })
        .collect()
}

/// A file and how an item of it begins.
type Place = (&'static str, &'static str);

/// The words in double quotes.
fn quoted(source: &str) -> BTreeSet<String> {
    source.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn labels_have_the_values_that_the_code_gives_them() {
    // Where an enumeration has its names.
    let names: [(&str, &str, &[Place]); 8] = [
        (
            "undertone.auth.failures",
            "reason",
            &[("src/server/identity/error.rs", "pub fn reason(")],
        ),
        ("undertone.streams", "outcome", &[("src/server/status.rs", "pub fn outcome(")]),
        (
            "undertone.streams.refused",
            "reason",
            &[
                ("src/session/load.rs", "pub fn name(self)"),
                ("src/session/admission.rs", "pub fn name(&self)"),
            ],
        ),
        (
            "undertone.streams.resumed",
            "outcome",
            &[
                ("src/session/checkpoint.rs", "pub fn reason("),
                ("src/session/error.rs", "fn resume_refusal("),
            ],
        ),
        ("undertone.abstentions", "reason", &[("src/tracking/tracker.rs", "pub fn name(self)")]),
        ("undertone.warnings", "reason", &[("src/wire/event.rs", "pub fn name(self)")]),
        ("undertone.escalations", "severity", &[("src/policy/decision.rs", "pub fn name(self)")]),
        (
            "undertone.delivery.attempts",
            "outcome",
            &[("src/escalation/store/write/batch.rs", "pub fn name(&self)")],
        ),
    ];
    let listed = |metric: &str, label: &str| -> BTreeSet<String> {
        let found = labels::ALL.iter().find(|v| v.metric == metric && v.label == label);
        found.unwrap().values.iter().map(|value| (*value).to_owned()).collect()
    };
    for (metric, label, sources) in names {
        let given: BTreeSet<String> =
            sources.iter().flat_map(|(path, start)| quoted(&item(path, start))).collect();
        let listed = listed(metric, label);
        let unlisted: Vec<_> = given.difference(&listed).collect();
        assert!(unlisted.is_empty(), "src/telemetry/labels.rs, {metric} {label}: {unlisted:?}");
    }
    // Words at the place where something is counted.
    let calls = [
        ("stream_refused", "undertone.streams.refused", "reason"),
        ("clip_refused", "undertone.streams.refused", "reason"),
        ("connection_refused", "undertone.connections.refused", "reason"),
        ("handshake_failed", "undertone.tls.handshake.failures", "reason"),
        ("resume_asked", "undertone.streams.resumed", "outcome"),
        ("policy_reload", "undertone.policy.reloads", "outcome"),
    ];
    let (mut sources, mut given) = (vec![file("src")], BTreeMap::<&str, BTreeSet<String>>::new());
    let mut all = BTreeSet::new();
    while let Some(path) = sources.pop() {
        if path.is_dir() {
            sources.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        if path.extension().is_none_or(|ext| ext != "rs") || path.ends_with("telemetry/labels.rs") {
            continue;
        }
        let source = std::fs::read_to_string(&path).unwrap();
        for (method, ..) in calls {
            let marker = format!("metrics().{method}(");
            for (at, _) in source.match_indices(&marker) {
                let argument = source[at..].split(';').next().unwrap();
                given.entry(method).or_default().extend(quoted(argument));
            }
        }
        all.extend(quoted(&source));
    }
    for (method, metric, label) in calls {
        let unlisted: Vec<_> =
            given.entry(method).or_default().difference(&listed(metric, label)).cloned().collect();
        assert!(unlisted.is_empty(), "src/telemetry/labels.rs, {metric} {label}: {unlisted:?}");
    }
    // And no value is listed that nothing has.
    for known in labels::ALL {
        for value in known.values {
            assert!(all.contains(*value), "nothing has {} {value:?}", known.label);
        }
    }
}

#[test]
fn every_metric_and_alert_that_the_documentation_names_is_there() {
    let known = known_names();
    let histograms: BTreeSet<String> =
        described().filter(|m| m.kind.name() == "histogram").map(|m| m.on_page()).collect();
    let alerts: BTreeSet<String> =
        alerts().iter().map(|alert| alert["alert"].as_str().unwrap().to_owned()).collect();
    let mut pages: Vec<PathBuf> = std::fs::read_dir(file("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "md"))
        .collect();
    pages.extend(["README.md", "SECURITY.md", "benches/README.md"].map(file));
    let mut named = 0;
    for page in pages {
        let words = std::fs::read_to_string(&page).unwrap();
        for name in names_in(&words) {
            let there = known.contains(&name) || histograms.contains(&name);
            assert!(there, "{}: there is no metric {name}", page.display());
            named += 1;
        }
        for word in words.split(|c: char| !c.is_ascii_alphanumeric()) {
            let rest = word.strip_prefix("Undertone").unwrap_or_default();
            if rest.starts_with(char::is_uppercase) {
                assert!(alerts.contains(word), "{}: there is no alert {word}", page.display());
            }
        }
    }
    assert!(named > 40, "{named}: does the test still find names?");
}

#[test]
fn the_documentation_lists_every_value_of_a_label() {
    let documented = text("docs/telemetry.md");
    let missing: Vec<String> = labels::ALL
        .iter()
        .map(|known| {
            let values: Vec<String> =
                known.values.iter().map(|value| format!("`{value}`")).collect();
            format!("| `{}` of `{}` | {} |", known.label, known.metric, values.join(", "))
        })
        .filter(|row| !documented.lines().any(|line| line == row))
        .collect();
    assert!(missing.is_empty(), "put this in place:\n{}\n", missing.join("\n"));
}

#[test]
fn the_documentation_lists_every_metric_as_it_is() {
    let documented = text("docs/telemetry.md");
    let rows: Vec<&str> = documented
        .lines()
        .skip_while(|line| !line.starts_with("| metric |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    let expected: Vec<String> = described()
        .map(|known| {
            let labels: Vec<String> =
                known.labels.iter().map(|label| format!("`{label}`")).collect();
            format!(
                "| `{}` | `{}` | {} | `{}` | {} | {} |",
                known.name,
                known.on_page(),
                known.kind.name(),
                known.unit,
                labels.join(", "),
                known.what
            )
        })
        .collect();
    assert_eq!(rows, expected, "\nput this in place:\n{}\n", expected.join("\n"));
}
