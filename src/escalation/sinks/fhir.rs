//! HL7 FHIR R4 (4.0.1): a transaction with a Communication and, where there are new values, an
//! Observation.
//!
//! - Every resource is created on condition that none with its identifier exists (`ifNoneExist`), and
//!   identifiers follow from the occurrence: an attempt that is made twice leaves one resource.
//! - The first Communication is the alert. Updates, acknowledgement and clearing are further
//!   Communications in response to it. They refer to it by identifier and not by a conditional
//!   reference: that would make a server refuse the acknowledgement where the alert has not come (its
//!   delivery is still being tried, or the route leaves it out).
//! - The Observation holds the scores as components, no audio. No code system that FHIR names has
//!   "emotion estimated from voice", and a code that nearly fits would be read as a clinical finding.
//!   So codes are texts, with codes of Undertone's own system, whose URI is a setting.
//! - FHIR lets both resources be without a subject. An alert in no patient's record is seen by nobody,
//!   so without a patient label nothing is sent unless the sink says `without_patient: display`.

use serde_json::{Value, json};
use uuid::Uuid;

use super::file::{FhirEntry, WithoutPatient};
use super::http::{Draft, Http};
use super::payload;
use super::settings::{Common, HttpSettings};
use super::verdict::Verdict;
use crate::escalation::life::{Escalation, Kind, Occurrence, occurrence_id};
use crate::policy::Severity;
use crate::yaml::Fault;

/// Malformed, or against the server's rules, or matched by several resources: none gets better.
pub(super) const DEAD: &[u16] = &[400, 412, 422];
/// The system of identifiers that are URIs (FHIR R4, datatypes, "Identifier").
const URI_SYSTEM: &str = "urn:ietf:rfc:3986";
/// The Unified Code for Units of Measure.
const UCUM: &str = "http://unitsofmeasure.org";
/// Emotions that become components: the most probable ones.
const TOP_EMOTIONS: usize = 3;

#[derive(Debug)]
pub(super) struct Fhir {
    pub(super) http: Http,
    patient: Reference,
    encounter: Reference,
    without_patient: WithoutPatient,
    code_system: String,
}

/// How a session's label becomes a reference.
#[derive(Debug)]
struct Reference {
    resource: &'static str,
    label: String,
    system: Option<String>,
}

impl Reference {
    /// The reference by `escalation`'s label; `None` without the label.
    fn of(&self, escalation: &Escalation) -> Option<Result<Value, Verdict>> {
        let value = escalation.labels.get(&self.label)?.trim();
        if value.is_empty() {
            return None;
        }
        Some(self.to(value))
    }

    fn to(&self, value: &str) -> Result<Value, Verdict> {
        if let Some(system) = &self.system {
            let identifier = json!({"system": system, "value": value});
            return Ok(json!({"type": self.resource, "identifier": identifier}));
        }
        if value.starts_with("https://") || value.starts_with("http://") {
            return Ok(json!({"type": self.resource, "reference": value}));
        }
        let prefix = format!("{}/", self.resource);
        let id = value.strip_prefix(&prefix).unwrap_or(value);
        // The datatype `id` of FHIR R4.
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if id.len() > 64 || !id.chars().all(allowed) {
            return Err(Verdict::dead(format!(
                "the label {:?} holds no id of a FHIR {}; set {}_system if it holds an identifier",
                self.label,
                self.resource,
                self.resource.to_lowercase()
            )));
        }
        Ok(json!({"type": self.resource, "reference": format!("{prefix}{id}")}))
    }
}

fn priority(severity: Severity) -> &'static str {
    match severity {
        Severity::Advisory | Severity::Low => "routine",
        Severity::Medium => "urgent",
        Severity::High => "stat",
    }
}

/// The name of the Observation of an occurrence.
fn observation_id(occurrence: Uuid) -> Uuid {
    Uuid::new_v5(&occurrence, b"observation")
}

fn urn(id: Uuid) -> String {
    format!("urn:uuid:{id}")
}

fn identifier(id: Uuid) -> Value {
    json!({"system": URI_SYSTEM, "value": urn(id)})
}

/// Creates `resource` unless one with the identifier `id` exists.
fn create(id: Uuid, kind: &str, resource: &Value) -> Value {
    json!({
        "fullUrl": urn(id),
        "resource": resource,
        "request": {
            "method": "POST",
            "url": kind,
            "ifNoneExist": format!("identifier={URI_SYSTEM}|{}", urn(id)),
        },
    })
}

/// Single precision has no more than this to say: 0.81 and not 0.8100000023841858.
fn rounded(value: f32) -> f64 {
    (f64::from(value) * 1e4).round() / 1e4
}

impl Fhir {
    pub(super) fn new(entry: &FhirEntry, common: &Common<'_>) -> Result<Self, Fault> {
        let uris = [
            ("code_system", Some(&entry.code_system)),
            ("patient_system", entry.patient_system.as_ref()),
            ("encounter_system", entry.encounter_system.as_ref()),
        ];
        for (name, uri) in uris {
            if uri.is_some_and(|uri| uri.is_empty() || uri.contains(char::is_whitespace)) {
                let field = format!("{}.{name}", common.field);
                let remedy = "write one such as urn:oid:2.16.840.1.113883.2.9";
                return Err(Fault::new(field, "this is no URI", remedy));
            }
        }
        let settings = HttpSettings {
            url: &entry.url,
            allow_private: entry.allow_private,
            allow_http: entry.allow_http,
            ca: entry.ca.as_deref(),
            token: entry.token.as_ref(),
            headers: Some(&entry.headers),
        };
        Ok(Self {
            http: Http::new(&settings, "", common)?,
            patient: Reference {
                resource: "Patient",
                label: entry.patient_label.clone(),
                system: entry.patient_system.clone(),
            },
            encounter: Reference {
                resource: "Encounter",
                label: entry.encounter_label.clone(),
                system: entry.encounter_system.clone(),
            },
            without_patient: entry.without_patient,
            code_system: entry.code_system.clone(),
        })
    }

    pub(super) fn draft(&self, occurrence: &Occurrence, text: &str) -> Result<Draft, Verdict> {
        let bundle = self.bundle(occurrence, text)?;
        let body = serde_json::to_vec(&bundle).map_err(payload::unwritable)?;
        let content_type = "application/fhir+json";
        Ok(Draft { content_type, headers: Vec::new(), body })
    }

    fn bundle(&self, occurrence: &Occurrence, text: &str) -> Result<Value, Verdict> {
        let context = self.context(&occurrence.escalation)?;
        let communication = with(self.communication(occurrence, text), &context);
        let mut entries = vec![create(occurrence.id, "Communication", &communication)];
        if has_values(occurrence.kind) {
            let observation = with(self.observation(occurrence), &context);
            entries.push(create(observation_id(occurrence.id), "Observation", &observation));
        }
        Ok(json!({"resourceType": "Bundle", "type": "transaction", "entry": entries}))
    }

    /// Subject and encounter, the same for both resources.
    fn context(&self, escalation: &Escalation) -> Result<Vec<(&'static str, Value)>, Verdict> {
        let subject = match (self.patient.of(escalation), self.without_patient) {
            (Some(subject), _) => subject?,
            (None, WithoutPatient::Display) => {
                let display = format!("Unknown patient, session {}", escalation.session_id);
                json!({"type": "Patient", "display": display})
            }
            (None, WithoutPatient::Refuse) => {
                return Err(Verdict::dead(format!(
                    "the session has no label {:?}, so there is no patient; let the agent set it, \
                     or set without_patient: display",
                    self.patient.label
                )));
            }
        };
        let mut context = vec![("subject", subject)];
        if let Some(encounter) = self.encounter.of(escalation) {
            context.push(("encounter", encounter?));
        }
        Ok(context)
    }

    fn code(&self, code: &str, text: &str) -> Value {
        json!({"coding": [{"system": self.code_system, "code": code, "display": text}], "text": text})
    }

    fn communication(&self, occurrence: &Occurrence, text: &str) -> Value {
        let escalation = &occurrence.escalation;
        let first = occurrence_id(escalation.id, Kind::Raised, None);
        let (category, category_text) = match occurrence.kind {
            Kind::Raised => ("alert", "Alert"),
            Kind::Updated | Kind::Acknowledged | Kind::Cleared => ("notification", "Notification"),
        };
        let (topic, topic_text) = match occurrence.kind {
            Kind::Raised => ("escalation-raised", "Escalation raised"),
            Kind::Updated => ("escalation-updated", "Escalation updated"),
            Kind::Acknowledged => ("escalation-acknowledged", "Escalation acknowledged"),
            Kind::Cleared => ("escalation-cleared", "Escalation cleared"),
        };
        let observation = if has_values(occurrence.kind) {
            json!({"reference": urn(observation_id(occurrence.id))})
        } else {
            json!({"type": "Observation", "identifier": identifier(observation_id(first))})
        };
        let mut communication = json!({
            "resourceType": "Communication",
            "identifier": [identifier(occurrence.id)],
            "status": "completed",
            "category": [{
                "coding": [{
                    "system": "http://terminology.hl7.org/CodeSystem/communication-category",
                    "code": category,
                    "display": category_text,
                }],
                "text": category_text,
            }],
            "priority": priority(escalation.severity),
            "topic": self.code(topic, topic_text),
            "about": [observation],
            "sent": occurrence.at,
            "sender": sender(occurrence),
            "payload": [{"contentString": text}],
        });
        let mut further = Vec::new();
        if occurrence.kind != Kind::Raised {
            let response = json!({"type": "Communication", "identifier": identifier(first)});
            further.push(("inResponseTo", json!([response])));
        }
        if let Some(note) = occurrence.note.as_deref().filter(|note| !note.trim().is_empty()) {
            further.push(("note", json!([{"text": note, "time": occurrence.at}])));
        }
        communication = with(communication, &further);
        communication
    }

    fn observation(&self, occurrence: &Occurrence) -> Value {
        let escalation = &occurrence.escalation;
        let text = "Emotional state estimated from voice";
        json!({
            "resourceType": "Observation",
            "identifier": [identifier(observation_id(occurrence.id))],
            "status": "final",
            "code": self.code("voice-emotion", text),
            "effectiveDateTime": occurrence.at,
            "issued": occurrence.at,
            "device": {"display": format!(
                "Undertone, model {} {}", escalation.model, escalation.model_version
            )},
            "method": self.code(
                "speech-emotion-recognition",
                "Automatic estimate by a speech emotion model; not a clinical assessment",
            ),
            "note": [{"text": format!(
                "{} (policy {} {}, rule {})",
                escalation.reason, escalation.policy, escalation.policy_version, escalation.rule
            )}],
            "component": self.components(escalation),
        })
    }

    /// Every signal that has a value, then the most probable emotions, then the speech they rest on.
    fn components(&self, escalation: &Escalation) -> Vec<Value> {
        let evidence = &escalation.evidence;
        let signals = [
            ("distress", "Distress, 0 to 1", evidence.distress),
            ("valence", "Valence, -1 to 1", evidence.valence),
            ("arousal", "Arousal, -1 to 1", evidence.arousal),
        ];
        let mut components: Vec<Value> = signals
            .into_iter()
            .filter_map(|(code, text, value)| Some((code, text, value?)))
            .map(|(code, text, value)| self.component(code, text, rounded(value), "1"))
            .collect();
        let mut emotions: Vec<(&String, f32)> =
            evidence.emotions.iter().map(|(name, score)| (name, *score)).collect();
        emotions.sort_by(|a, b| b.1.total_cmp(&a.1));
        for (name, score) in emotions.into_iter().take(TOP_EMOTIONS) {
            let (code, text) = (format!("emotion-{name}"), format!("Probability of {name}"));
            components.push(self.component(&code, &text, rounded(score), "1"));
        }
        let speech = (evidence.speech_s * 1e3).round() / 1e3;
        components.push(self.component("speech", "Speech that it rests on", speech, "s"));
        components
    }

    fn component(&self, code: &str, text: &str, value: f64, unit: &str) -> Value {
        json!({
            "code": self.code(code, text),
            "valueQuantity": {"value": value, "unit": unit, "system": UCUM, "code": unit},
        })
    }
}

/// An acknowledgement comes with no new values.
fn has_values(kind: Kind) -> bool {
    kind != Kind::Acknowledged
}

/// Who says it: the person who acknowledged, else the service.
fn sender(occurrence: &Occurrence) -> Value {
    match occurrence.actor.as_deref().filter(|actor| !actor.trim().is_empty()) {
        Some(actor) => json!({"display": actor}),
        None => json!({"type": "Device", "display": "Undertone"}),
    }
}

/// `resource` with further fields.
fn with(mut resource: Value, fields: &[(&'static str, Value)]) -> Value {
    if let Some(object) = resource.as_object_mut() {
        for (name, value) in fields {
            object.insert((*name).to_owned(), value.clone());
        }
    }
    resource
}
