//! The house rules, held: data flows one way, third-party names stay in their rooms.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Third-party names and where each may stand: path prefixes below `src/`.
const ROOMS: &[(&[&str], &[&str])] = &[
    (
        &["prost", "prost_types"],
        &["wire/", "server/", "mcp/", "commands/client", "commands/stream"],
    ),
    (
        &["tonic", "tonic_types", "tonic_prost"],
        &[
            "wire/mod.rs",
            "wire/codec.rs",
            "wire/json.rs",
            "server/",
            "mcp/failure.rs",
            "mcp/way.rs",
            "commands/client",
            "commands/stream",
            "commands/bench",
        ],
    ),
    (&["tonic_health"], &["server/mod.rs", "commands/client.rs"]),
    (&["tonic_reflection", "tonic_web"], &["server/mod.rs"]),
    (&["ort"], &["model/runtime.rs"]),
    (&["symphonia"], &["audio/container.rs"]),
    (&["rubato"], &["audio/resample.rs"]),
    (&["rustfft", "pulp"], &["features/"]),
    (
        &["axum"],
        &[
            "server/http.rs",
            "server/ingress/",
            "server/inside.rs",
            "server/connect.rs",
            "server/console.rs",
            "server/mcp.rs",
        ],
    ),
    (&["futures_util"], &["server/ingress/", "server/connect.rs"]),
    (&["rust_embed"], &["server/console.rs"]),
    (&["tower_http"], &["server/http.rs", "server/mod.rs"]),
    (&["prost_reflect"], &["wire/json.rs"]),
    (&["sfv"], &["server/identity/telephony.rs"]),
    (&["rmcp"], &["mcp/"]),
    (&["clap", "clap_complete"], &["config.rs", "config/values.rs", "commands/", "main.rs"]),
    (
        &["tower"],
        &["server/calls.rs", "server/bounds.rs", "server/inside.rs", "server/mcp.rs", "mcp/way.rs"],
    ),
    (&["http_body"], &["server/calls.rs", "server/bounds.rs"]),
    (&["opentelemetry"], &["telemetry.rs", "telemetry/", "server/observe"]),
    (&["tracing_opentelemetry"], &["telemetry/trace.rs", "server/observe"]),
    (&["opentelemetry_sdk"], &["telemetry/trace.rs", "server/observe"]),
    (
        &[
            "opentelemetry_otlp",
            "opentelemetry_prometheus",
            "opentelemetry_appender_tracing",
            "prometheus",
            "tracing_subscriber",
        ],
        &["server/observe"],
    ),
    (&["dashmap"], &["session/registry.rs"]),
    (&["toml"], &["model/manifest.rs", "config.rs", "commands/"]),
    (&["anyhow"], &["commands/", "main.rs"]),
    (&["indicatif", "crossterm"], &["commands/"]),
    (&["fastrand"], &["commands/", "session/admission.rs", "server/mod.rs"]),
    (&["npyz", "zip"], &["corpus/"]),
    (&["csv"], &["corpus/", "evaluation/files.rs"]),
    (&["maud", "png"], &["report/"]),
    (
        &["base64"],
        &[
            "report/",
            "escalation/sinks/",
            "server/identity/",
            "server/ingress/twilio.rs",
            "server/connect.rs",
            "server/console.rs",
            "session/token.rs",
            "mcp/tools/audio.rs",
        ],
    ),
    (&["chacha20poly1305"], &["session/token.rs"]),
    (&["postcard"], &["session/"]),
    (&["async_nats", "hmac", "httpdate"], &["escalation/sinks/"]),
    (
        &["url"],
        &[
            "archive/",
            "escalation/sinks/",
            "server/identity/",
            "config/check.rs",
            "mcp/resources.rs",
        ],
    ),
    (&["reqwest"], &["escalation/sinks/", "server/identity/", "commands/bench"]),
    (
        &["rustls"],
        &[
            "archive/store.rs",
            "escalation/sinks/",
            "server/tls/",
            "server/identity/parse.rs",
            "commands/bench",
        ],
    ),
    (&["tokio_rustls"], &["server/tls/"]),
    (&["x509_parser"], &["server/tls/", "server/identity/certificate.rs"]),
    (&["jsonwebtoken"], &["server/identity/"]),
    (
        &["ring"],
        &[
            "server/identity/provider.rs",
            "server/identity/telephony.rs",
            "server/identity/token.rs",
        ],
    ),
    (&["tower_layer"], &["server/identity/layer.rs"]),
    (&["minijinja"], &["escalation/sinks/", "policy/"]),
    (&["serde_saphyr"], &["yaml.rs", "yaml/", "policy/"]),
    (&["schemars"], &["escalation/", "policy/", "secrets.rs", "server/identity/", "mcp/"]),
    (&["sqlx"], &["escalation/store/"]),
    (&["backon"], &["escalation/"]),
    (&["object_store", "parquet"], &["archive/"]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

struct File {
    /// Below `src/`.
    path: String,
    /// Without comments, string contents and unit tests.
    code: String,
}

impl File {
    /// The module of the layout that it belongs to.
    fn room(&self) -> &str {
        let first = self.path.split('/').next().unwrap();
        first.strip_suffix(".rs").unwrap_or(first)
    }
}

fn sources() -> Vec<File> {
    let src = root().join("src");
    let mut files = Vec::new();
    for entry in walkdir::WalkDir::new(&src).sort_by_file_name() {
        let entry = entry.unwrap();
        let path = entry.path().strip_prefix(&src).unwrap().to_str().unwrap().replace('\\', "/");
        let is_test = path.ends_with("/tests.rs") || path.contains("/tests/");
        if !path.ends_with(".rs") || is_test {
            continue;
        }
        let text = std::fs::read_to_string(entry.path()).unwrap();
        files.push(File { path, code: code_of(&text) });
    }
    assert!(files.len() > 40, "{}", files.len());
    files
}

/// What the compiler sees outside tests, roughly: comments and strings are blanked, unit tests (which
/// stand last in every file) cut off.
fn code_of(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]\n").next().unwrap();
    let mut code = String::with_capacity(text.len());
    for line in text.lines() {
        let mut in_string = false;
        let mut before = ' ';
        for (at, c) in line.char_indices() {
            if !in_string && line[at..].starts_with("//") {
                break;
            }
            if c == '"' && before != '\\' && before != '\'' {
                in_string = !in_string;
            }
            code.push(if in_string { ' ' } else { c });
            before = if before == '\\' { ' ' } else { c };
        }
        code.push('\n');
    }
    code
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The words that follow `prefix` wherever it stands by itself.
fn words_behind<'a>(code: &'a str, prefix: &str) -> Vec<&'a str> {
    code.match_indices(prefix)
        .filter(|(at, _)| !code[..*at].ends_with(is_word))
        .map(|(at, _)| &code[at + prefix.len()..])
        .map(|rest| &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())])
        .collect()
}

/// The modules in the order of the table in `lib.rs`.
fn layout() -> Vec<String> {
    let lib = std::fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let rows = lib.lines().filter_map(|line| line.strip_prefix("//! | [`"));
    rows.map(|row| row.split('`').next().unwrap().to_owned()).collect()
}

#[test]
fn a_module_uses_only_what_stands_above_it_in_the_layout() {
    let layout = layout();
    let place = |module: &str| layout.iter().position(|name| name == module);
    let mut wrong = Vec::new();
    for file in sources() {
        if matches!(file.room(), "main" | "lib") {
            continue;
        }
        let own = place(file.room())
            .unwrap_or_else(|| panic!("{} is not in the table of lib.rs", file.path));
        assert!(!file.code.contains("crate::{"), "{}: one `use crate::` per module", file.path);
        for used in words_behind(&file.code, "crate::") {
            match place(used) {
                Some(at) if at <= own => {}
                _ => wrong.push(format!("{} uses crate::{used}", file.path)),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_layout_names_every_module_and_nothing_else() {
    let lib = std::fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let declared: BTreeSet<String> = lib
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod "))
        .map(|rest| rest.trim_end_matches(';').to_owned())
        .collect();
    assert_eq!(declared, layout().into_iter().collect());
    assert_eq!(declared.len(), layout().len());
}

#[test]
fn third_party_names_stay_in_their_rooms() {
    let mut wrong = Vec::new();
    let mut found = BTreeSet::new();
    for file in sources() {
        for (names, rooms) in ROOMS {
            for name in *names {
                let uses = file.code.match_indices(&format!("{name}::")).any(|(at, _)| {
                    let before = &file.code[..at];
                    // `report::` and `foo::ort::` are other names.
                    !before.ends_with(is_word) && !before.ends_with("::")
                });
                if !uses {
                    continue;
                }
                found.insert(*name);
                if !rooms.iter().any(|room| file.path.starts_with(room)) {
                    wrong.push(format!("{} uses {name}, which belongs to {rooms:?}", file.path));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for name in
        ["tonic", "ort", "symphonia", "rubato", "rustfft", "axum", "rmcp", "clap", "opentelemetry"]
    {
        assert!(found.contains(name), "{name} was not seen: does the test still look?");
    }
}

#[test]
fn only_the_configuration_reads_the_environment() {
    for file in sources() {
        for word in words_behind(&file.code, "env::") {
            let reads = matches!(word, "var" | "var_os" | "vars" | "vars_os");
            assert!(!reads || file.path == "config.rs", "{} reads the environment", file.path);
        }
    }
}

/// The text files of the repository, without what git does not keep.
fn repository_files() -> Vec<PathBuf> {
    let ignored = std::fs::read_to_string(root().join(".gitignore")).unwrap();
    let ignored: Vec<PathBuf> = ignored
        .lines()
        .filter_map(|line| line.strip_prefix('/')?.strip_suffix('/'))
        .map(|folder| root().join(folder))
        .collect();
    let kept = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        !(ignored.iter().any(|folder| path == folder)
            || name.starts_with(".venv")
            || matches!(
                &*name,
                ".git"
                    | "__pycache__"
                    | ".pytest_cache"
                    | ".hypothesis"
                    | ".mypy_cache"
                    | ".ruff_cache"
                    | "_generated"
                    | "dist"
                    | "node_modules"
                    | "target"
            ))
    };
    walkdir::WalkDir::new(root())
        .into_iter()
        .filter_entry(|entry| kept(entry.path()))
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().is_file())
        .map(walkdir::DirEntry::into_path)
        .collect()
}

#[test]
fn no_file_names_a_place_on_somebodys_machine() {
    // Put together here, so that this file does not name them.
    let places = ["home", "root", "work", "Users"].map(|folder| format!("/{folder}/"));
    let mut wrong = Vec::new();
    for path in repository_files() {
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            for place in &places {
                // A path begins after a quote, a blank or the like; `https://x/work/` is none.
                let goes_on = |c: char| is_word(c) || "./})-~$*".contains(c);
                let absolute = line
                    .match_indices(place.as_str())
                    .any(|(at, _)| !line[..at].ends_with(goes_on));
                if absolute {
                    wrong.push(format!("{}:{}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
