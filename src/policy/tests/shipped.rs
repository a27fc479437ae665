//! Claims about the policies that come with the service.

use std::path::Path;

use super::*;
use crate::policy::{embedded, schema};

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("policies")
}

#[test]
fn the_schema_in_the_repository_is_current() {
    let file = folder().join("policy.schema.json");
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        kept == schema(),
        "run `cargo run --bin undertone -- policy schema > policies/policy.schema.json`"
    );
}

#[test]
fn every_shipped_policy_is_embedded_and_names_the_schema() {
    let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|f| f.extension().is_some_and(|e| e == "yaml")).collect();
    files.sort();
    let names: Vec<_> = files.iter().map(|f| f.file_stem().unwrap().to_str().unwrap()).collect();
    let known: Vec<_> = embedded().iter().map(|(name, _)| *name).collect();
    assert_eq!(names, known);
    for (name, text) in embedded() {
        assert!(text.starts_with("# yaml-language-server: $schema=policy.schema.json\n"), "{name}");
        let policy = Policy::parse(text).unwrap_or_else(|e| panic!("{name}: {e}\n{}", e.excerpt()));
        assert_eq!(policy.name(), *name);
        assert!(policy.explain().contains("escalations are raised"));
    }
}

#[test]
fn the_schema_offers_what_is_read() {
    let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
    let rule = &schema["definitions"]["Rule"]["properties"];
    assert_eq!(rule["dwell"]["default"], "0s", "{schema:#}");
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["properties"]["schema"]["const"], "undertone.policy/v1");
    let conditions = schema["definitions"]["Condition"]["oneOf"].as_array().unwrap();
    assert_eq!(conditions.len(), 7);
}
