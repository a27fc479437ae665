//! Policies for those who write them: shown, checked, tried on a clip.

use std::collections::HashMap;
use std::sync::Arc;

use tonic::Status;

use super::status;
use crate::model::Model;
use crate::policy::{Action, Policy};
use crate::session::clip::ClipReport;
use crate::session::rehearsal::{Moment, rehearse};
use crate::session::{Context, SessionError};
use crate::wire::parse::Violation;
use crate::wire::v1::analyze_audio_request::Policy as Tried;
use crate::wire::{render, v1};

/// All of them, by name.
pub(super) fn list(context: &Context) -> Vec<v1::Policy> {
    let Some(escalating) = &context.escalating else {
        return Vec::new();
    };
    escalating.library.list().iter().map(|policy| shown(context, policy)).collect()
}

fn shown(context: &Context, policy: &Policy) -> v1::Policy {
    let default = context.escalating.as_ref().map(|escalating| escalating.default_policy.as_str());
    render::policy(policy, default == Some(policy.name()))
}

#[allow(clippy::result_large_err, reason = "tonic's own type")]
fn named(context: &Context, name: &str, field: &str) -> Result<Arc<Policy>, Status> {
    let Some(escalating) = &context.escalating else {
        return Err(status::no_store());
    };
    let library = &escalating.library;
    library.get(name).ok_or_else(|| {
        let error = SessionError::NoPolicy { name: name.to_owned(), known: library.names() };
        status::no_policy(&error, field)
    })
}

fn invalid(field: &'static str, problem: impl Into<String>) -> Status {
    status::invalid(&[Violation { field, problem: problem.into() }])
}

/// One of them, with its text.
#[allow(clippy::result_large_err, reason = "tonic's own type")]
pub(super) fn get(context: &Context, name: &str) -> Result<v1::GetPolicyResponse, Status> {
    if name.is_empty() {
        return Err(invalid("name", "is missing; ListPolicies gives the names"));
    }
    let policy = named(context, name, "name")?;
    let yaml = policy.text().to_owned();
    Ok(v1::GetPolicyResponse { policy: Some(shown(context, &policy)), yaml })
}

/// Is it one?
#[allow(clippy::result_large_err, reason = "tonic's own type")]
pub(super) fn check(yaml: &str) -> Result<v1::CheckPolicyResponse, Status> {
    if yaml.is_empty() {
        return Err(invalid("yaml", "is missing: the text of a policy file"));
    }
    Ok(match Policy::parse(yaml) {
        Ok(policy) => v1::CheckPolicyResponse {
            policy: Some(render::policy(&policy, false)),
            faults: Vec::new(),
        },
        Err(error) => {
            let (line, column) = (error.line.max(1), error.column.max(1));
            let fault = v1::PolicyFault { line, column, message: error.message() };
            v1::CheckPolicyResponse { policy: None, faults: vec![fault] }
        }
    })
}

/// The policy to try on a clip that `model` hears, if there is one.
#[allow(clippy::result_large_err, reason = "tonic's own type")]
pub(super) fn to_try(
    context: &Context,
    tried: Option<&Tried>,
    model: &Model,
) -> Result<Option<Arc<Policy>>, Status> {
    let (policy, field) = match tried {
        None => return Ok(None),
        Some(Tried::PolicyName(name)) => (named(context, name, "policy_name")?, "policy_name"),
        Some(Tried::PolicyYaml(yaml)) => {
            let policy = Policy::parse(yaml);
            let policy = policy.map_err(|error| invalid("policy_yaml", error.to_string()))?;
            (Arc::new(policy), "policy_yaml")
        }
    };
    if policy.needs_emotions() && model.manifest.labels().is_empty() {
        let model = &model.manifest.name;
        let problem = format!("looks at emotions, which the model {model} does not tell");
        return Err(invalid(field, problem));
    }
    Ok(Some(policy))
}

/// Adds to `response` what `policy` would have done.
pub(super) fn try_on(
    context: &Context,
    (policy, model): (&Arc<Policy>, &Model),
    report: &ClipReport,
    with_courses: bool,
    response: &mut v1::AnalyzeAudioResponse,
) {
    let rehearsal = rehearse(policy.clone(), report, with_courses);
    // Of one that is over, what it was raised for says more than what holds then: as in the store.
    let mut reasons = HashMap::new();
    for decision in &rehearsal.decisions {
        let mut escalation = render::decision(decision, policy, &model.manifest);
        let reason = reasons.entry((decision.channel, &decision.rule)).or_insert("");
        let kind = match decision.action {
            Action::Raise => v1::EscalationEventKind::Raised,
            Action::Update => v1::EscalationEventKind::Updated,
            Action::Clear => {
                (*reason).clone_into(&mut escalation.reason);
                v1::EscalationEventKind::Cleared
            }
        };
        *reason = &decision.reason;
        response.escalations.push(v1::RehearsedEvent {
            at: Some(render::duration(decision.at.duration())),
            kind: kind.into(),
            escalation: Some(escalation),
        });
    }
    response.policy = Some(shown(context, policy));
    response.budget_spent = rehearsal.suppressed > 0;
    response.condition_courses = courses(policy, &rehearsal.moments);
}

/// What each condition measured on each channel.
fn courses(policy: &Policy, moments: &[Moment]) -> Vec<v1::ConditionCourse> {
    let mut channels: Vec<u32> = moments.iter().map(|moment| moment.channel).collect();
    channels.sort_unstable();
    channels.dedup();
    let mut all = Vec::new();
    for channel in channels {
        let first = all.len();
        for moment in moments.iter().filter(|moment| moment.channel == channel) {
            // The conditions of all rules, in the same order at every moment.
            for (index, (rule, measured)) in moment.measurements.iter().enumerate() {
                let point = v1::ConditionPoint {
                    at: Some(render::duration(moment.at.duration())),
                    value: measured.value,
                };
                if let Some(course) = all.get_mut(first + index) {
                    let course: &mut v1::ConditionCourse = course;
                    course.points.push(point);
                } else {
                    all.push(v1::ConditionCourse {
                        channel,
                        rule: policy.rules().get(*rule).map_or("", |rule| rule.name()).to_owned(),
                        what: measured.what.clone(),
                        on: measured.on,
                        off: measured.off,
                        points: vec![point],
                    });
                }
            }
        }
    }
    all
}
