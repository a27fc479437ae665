//! The resources: what can be looked at under a name, as JSON.
//!
//! In: a URI. Out: the same JSON that the tools answer with, or an error of the protocol.

use std::collections::BTreeMap;

use rmcp::ErrorData;
use rmcp::model::{ReadResourceResult, Resource, ResourceContents, ResourceTemplate};
use serde::Serialize;
use url::Url;

use super::failure::Failure;
use super::tools::{Explained, History, Listed, history_request};
use super::view::emotion;
use super::way::Calls;
use super::words::LIMITS;
use crate::wire::v1;

const JSON: &str = "application/json";
const REMEDY: &str = "undertone://sessions, undertone://sessions/{id}{?tenant}, undertone://escalations/{id}, \
                      undertone://models and undertone://policies are there";

/// Those that are always there.
pub(super) fn all() -> Vec<Resource> {
    let resource = |uri: &str, name: &str, title: &str, description: &str| {
        Resource::new(uri, name)
            .with_title(title)
            .with_description(description)
            .with_mime_type(JSON)
    };
    vec![
        resource(
            "undertone://sessions",
            "sessions",
            "Live sessions",
            "Whom the server listens to now, as list_sessions tells it.",
        ),
        resource(
            "undertone://models",
            "models",
            "Models",
            "What the estimates come from: emotions, training data with licences, measured figures and how they were \
             measured. Read it before you rely on an estimate.",
        ),
        resource(
            "undertone://policies",
            "policies",
            "Policies",
            "What can raise escalations: each rule in words.",
        ),
    ]
}

/// Those that are one of many.
pub(super) fn templates() -> Vec<ResourceTemplate> {
    let template = |uri: &str, name: &str, title: &str, description: &str| {
        ResourceTemplate::new(uri, name)
            .with_title(title)
            .with_description(description)
            .with_mime_type(JSON)
    };
    vec![
        template(
            "undertone://sessions/{id}{?tenant}",
            "session",
            "A live session",
            "One live session and its last five minutes, as get_session_history tells it. The tenant is for those who \
             see more than one.",
        ),
        template(
            "undertone://escalations/{id}",
            "escalation",
            "An escalation",
            "One escalation, why it was raised and what happened to it, as explain_escalation tells it.",
        ),
    ]
}

/// What a URI names.
#[derive(Debug, PartialEq)]
enum Name {
    Sessions,
    Session { id: String, tenant: String },
    Escalation { id: String },
    Models,
    Policies,
}

fn parse(uri: &str) -> Option<Name> {
    let url: Url = uri.parse().ok()?;
    if url.scheme() != "undertone" {
        return None;
    }
    let id = url.path().trim_start_matches('/').to_owned();
    match (url.host_str()?, id.is_empty()) {
        ("sessions", true) => Some(Name::Sessions),
        ("models", true) => Some(Name::Models),
        ("policies", true) => Some(Name::Policies),
        ("sessions", false) => {
            let tenant = url.query_pairs().find(|(key, _)| key == "tenant");
            let tenant = tenant.map(|(_, value)| value.into_owned()).unwrap_or_default();
            Some(Name::Session { id, tenant })
        }
        ("escalations", false) => Some(Name::Escalation { id }),
        _ => None,
    }
}

/// Reads one.
pub(super) async fn read(uri: &str, calls: &Calls) -> Result<ReadResourceResult, ErrorData> {
    let Some(name) = parse(uri) else {
        let message = format!("there is no resource {uri:?}\nremedy: {REMEDY}");
        return Err(ErrorData::resource_not_found(message, None));
    };
    let text = look(name, calls).await.map_err(|failure| failure.into_protocol_error(uri))?;
    Ok(ReadResourceResult::new(vec![ResourceContents::text(text, uri).with_mime_type(JSON)]))
}

async fn look(name: Name, calls: &Calls) -> Result<String, Failure> {
    Ok(match name {
        Name::Sessions => json(&Listed::new(&calls.list_sessions(Listed::request()).await?)),
        Name::Session { id, tenant } => {
            let request = history_request(id, tenant, History::MINUTES);
            json(&History::new(&calls.session(request).await?, History::POINTS))
        }
        Name::Escalation { id } => json(&Explained::new(&calls.escalation(id).await?)),
        Name::Models => json(&Models::new(&calls.models().await?)),
        Name::Policies => json(&Policies::new(&calls.policies().await?)),
    })
}

fn json(value: &impl Serialize) -> String {
    // Maps have names for keys and numbers are finite: nothing here has no JSON.
    serde_json::to_string_pretty(value).unwrap_or_default()
}

#[derive(Serialize)]
struct Models {
    limits: &'static str,
    models: Vec<Model>,
}

#[derive(Serialize)]
struct Model {
    name: String,
    version: String,
    is_default: bool,
    description: String,
    emotions: Vec<String>,
    training_data: Vec<TrainingData>,
    figures: BTreeMap<String, f64>,
    how_measured: String,
    sha256: String,
}

#[derive(Serialize)]
struct TrainingData {
    corpus: String,
    licence: String,
    commercial_use: bool,
}

#[derive(Serialize)]
struct Policies {
    policies: Vec<Policy>,
}

#[derive(Serialize)]
struct Policy {
    name: String,
    version: String,
    is_default: bool,
    description: String,
    rules: Vec<String>,
    /// Escalations of one session at most.
    budget: u32,
}

impl Models {
    fn new(response: &v1::ListModelsResponse) -> Self {
        let data = |data: &v1::TrainingData| TrainingData {
            corpus: data.corpus.clone(),
            licence: data.licence.clone(),
            commercial_use: data.commercial_use,
        };
        let model = |model: &v1::Model| Model {
            name: model.name.clone(),
            version: model.version.clone(),
            is_default: model.is_default,
            description: model.description.clone(),
            emotions: model.labels().map(emotion).collect(),
            training_data: model.training_data.iter().map(data).collect(),
            figures: model.figures.clone().into_iter().collect(),
            how_measured: model.protocol.clone(),
            sha256: model.sha256.clone(),
        };
        Self { limits: LIMITS, models: response.models.iter().map(model).collect() }
    }
}

impl Policies {
    fn new(response: &v1::ListPoliciesResponse) -> Self {
        let policy = |policy: &v1::Policy| Policy {
            name: policy.name.clone(),
            version: policy.version.clone(),
            is_default: policy.is_default,
            description: policy.description.clone(),
            rules: policy.rules.clone(),
            budget: policy.budget,
        };
        Self { policies: response.policies.iter().map(policy).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_one_thing_or_nothing() {
        let session = |id: &str, tenant: &str| {
            Some(Name::Session { id: id.to_owned(), tenant: tenant.to_owned() })
        };
        for (uri, name) in [
            ("undertone://sessions", Some(Name::Sessions)),
            ("undertone://sessions/", Some(Name::Sessions)),
            ("undertone://models", Some(Name::Models)),
            ("undertone://policies", Some(Name::Policies)),
            ("undertone://sessions/a.b_c:d-1", session("a.b_c:d-1", "")),
            ("undertone://sessions/a?tenant=ward%207", session("a", "ward 7")),
            ("undertone://escalations/x", Some(Name::Escalation { id: "x".to_owned() })),
            ("undertone://escalations", None),
            ("undertone://audio/x", None),
            ("undertone:sessions", None),
            ("file:///etc/passwd", None),
            ("", None),
        ] {
            assert_eq!(parse(uri), name, "{uri}");
        }
    }

    #[test]
    fn every_resource_and_template_that_is_listed_can_be_parsed() {
        for resource in all() {
            assert!(parse(&resource.uri).is_some(), "{}", resource.uri);
            assert!(REMEDY.contains(&resource.uri));
        }
        for template in templates() {
            assert!(REMEDY.contains(&template.uri_template));
            let uri = template.uri_template.replace("{id}", "a").replace("{?tenant}", "?tenant=b");
            assert!(parse(&uri).is_some(), "{uri}");
        }
    }
}
