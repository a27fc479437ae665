//! The tools: a table of what there is, and what each does.
//!
//! In: a name and arguments. Out: an answer whose text says the same in words as its structured content, or a
//! [`Failure`]. Only an unknown name is an error of the protocol.

mod audio;
mod escalations;
mod sessions;

use std::sync::LazyLock;

use rmcp::model::{CallToolResult, ContentBlock, JsonObject, Tool, ToolAnnotations};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::failure::Failure;
use super::way::Calls;
pub use audio::Files;
pub(super) use audio::MAX_INLINE_BYTES;
pub(super) use escalations::Explained;
pub(super) use sessions::{History, Listed, Now, history_request};

/// What a tool has to say: the same in words and as JSON.
pub(super) trait Told: Serialize {
    /// In words, for a model that gets to see no more.
    fn words(&self) -> &str;
}

/// What looks and changes nothing.
fn looks() -> ToolAnnotations {
    ToolAnnotations::new().read_only(true).destructive(false).idempotent(true).open_world(false)
}

fn tool<In: JsonSchema + 'static, Out: JsonSchema + 'static>(
    name: &'static str,
    title: &str,
    description: &'static str,
    annotations: ToolAnnotations,
) -> Tool {
    Tool::new(name, description, JsonObject::new())
        .with_input_schema::<In>()
        .with_output_schema::<Out>()
        .with_title(title)
        .with_annotations(annotations)
}

/// The tools of a process that may read files of whoever started it.
static LOCAL: LazyLock<Vec<Tool>> = LazyLock::new(table::<audio::LocalArguments>);
/// The tools over HTTP: never a path of the server's.
static REMOTE: LazyLock<Vec<Tool>> = LazyLock::new(table::<audio::Arguments>);

fn table<Audio: JsonSchema + 'static>() -> Vec<Tool> {
    vec![
        tool::<Audio, audio::Analysis>(
            "analyze_audio",
            "Analyse a recording",
            "What a whole recording sounds like: for each utterance and channel the probability of each emotion, valence, \
             arousal and distress, with how much speech they rest on. An estimate that abstains must not be acted on. It \
             is about how speech sounds, not about what a person feels, and it says nothing of the words. Nothing of the \
             audio is kept.",
            looks(),
        ),
        tool::<sessions::ListArguments, Listed>(
            "list_sessions",
            "List live sessions",
            "The conversations that this server listens to now, newest first: on whose behalf (labels), how much audio, \
             which escalations are in force, and what each voice sounds like at the moment. A session that has ended is \
             not here any more; see list_escalations for what it raised.",
            looks(),
        ),
        tool::<sessions::NowArguments, Now>(
            "get_session_emotion",
            "What a person sounds like now",
            "The latest estimate of each voice of a live session: the probability of each emotion, distress (0 to 1), \
             valence and arousal (-1 to 1), whether it abstains and why, the stretch of audio and the seconds of speech \
             that it rests on, and how far it lags behind the audio. One estimate is little; see get_session_history for \
             the course.",
            looks(),
        ),
        tool::<sessions::HistoryArguments, History>(
            "get_session_history",
            "How a person has sounded over the last minutes",
            "The course of a live session over its last minutes, by the audio: for each voice a trend of distress, \
             valence and arousal (rising, falling, steady or unknown: the mean of the last third of the estimates against \
             that of the first, a tenth of the range or more), points thinned to a number of your choice, and the \
             utterances. Estimates that abstain are counted and go into no mean.",
            looks(),
        ),
        tool::<escalations::ListArguments, escalations::Listed>(
            "list_escalations",
            "List escalations",
            "What policies have raised, newest first, of all sessions that you may see, ended ones too: severity, why, in \
             words with the values, and whether somebody has taken it on. An escalation says that a rule over estimates \
             held, which is a reason to look and no proof of anything.",
            looks(),
        ),
        tool::<escalations::ExplainArguments, Explained>(
            "explain_escalation",
            "Why an escalation was raised",
            "One escalation: the rule in words, every condition with its value and thresholds and whether it held, the \
             means over the speech that it rests on, and everything that has happened to it since.",
            looks(),
        ),
        tool::<escalations::AcknowledgeArguments, escalations::Acknowledged>(
            "acknowledge_escalation",
            "Take an escalation on",
            "Says, for the audit trail and everybody who is told of escalations, that somebody has taken one on. Only for a \
             person who has really done so and is named as the actor: it stops others from looking. To say it again \
             changes nothing: the first one stands.",
            ToolAnnotations::new()
                .read_only(false)
                .destructive(false)
                .idempotent(true)
                .open_world(false),
        ),
    ]
}

/// The tools, for a process that has `files` or for everybody else.
pub(super) fn all(files: Option<&Files>) -> &'static [Tool] {
    if files.is_some() { &LOCAL } else { &REMOTE }
}

/// Does what tool `name` does; `None` if there is no such tool.
pub(super) async fn call(
    name: &str,
    arguments: Option<JsonObject>,
    calls: &Calls,
    files: Option<&Files>,
) -> Option<Result<CallToolResult, Failure>> {
    Some(match name {
        "analyze_audio" => done(audio::analyze(arguments, calls, files).await),
        "list_sessions" => done(sessions::list(arguments, calls).await),
        "get_session_emotion" => done(sessions::now(arguments, calls).await),
        "get_session_history" => done(sessions::history(arguments, calls).await),
        "list_escalations" => done(escalations::list(arguments, calls).await),
        "explain_escalation" => done(escalations::explain(arguments, calls).await),
        "acknowledge_escalation" => done(escalations::acknowledge(arguments, calls).await),
        _ => return None,
    })
}

fn done(told: Result<impl Told, Failure>) -> Result<CallToolResult, Failure> {
    let told = told?;
    let mut result = CallToolResult::success(vec![ContentBlock::text(told.words())]);
    result.structured_content = serde_json::to_value(&told).ok();
    Ok(result)
}

/// Arguments as the tool wants them.
fn parse<T: DeserializeOwned>(arguments: Option<JsonObject>) -> Result<T, Failure> {
    let arguments = Value::Object(arguments.unwrap_or_default());
    serde_json::from_value(arguments).map_err(|error| Failure::arguments(&error))
}

/// A number between two others, both included.
fn within<T: PartialOrd + Copy + std::fmt::Display>(
    name: &str,
    value: T,
    min: T,
    max: T,
) -> Result<T, Failure> {
    if value >= min && value <= max {
        return Ok(value);
    }
    Err(Failure::argument(name, format!("is {value}"), &format!("give {min} to {max}")))
}

/// The input schema of one, where clients' headers are held to it.
pub(super) fn find(name: &str, files: Option<&Files>) -> Option<Tool> {
    all(files).iter().find(|tool| tool.name == name).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_has_schemas_whose_every_property_is_described() {
        for table in [&*LOCAL, &*REMOTE] {
            assert_eq!(table.len(), 7);
            for tool in table {
                let output = tool.output_schema.as_ref().unwrap();
                for schema in [&tool.input_schema, output] {
                    let mut open = vec![Value::Object(schema.as_ref().clone())];
                    while let Some(value) = open.pop() {
                        let properties = value.get("properties").and_then(Value::as_object);
                        for (name, property) in properties.into_iter().flatten() {
                            let described = property.get("description").is_some();
                            assert!(described, "{}: {name}", tool.name);
                        }
                        match value {
                            Value::Object(object) => open.extend(object.into_values()),
                            Value::Array(values) => open.extend(values),
                            _ => {}
                        }
                    }
                }
                let only_looks = tool.annotations.as_ref().unwrap().read_only_hint == Some(true);
                assert_eq!(only_looks, tool.name != "acknowledge_escalation");
            }
        }
    }

    #[test]
    fn a_path_is_an_argument_where_files_are_the_callers_own_and_nowhere_else() {
        let has_path = |tool: &Tool| tool.input_schema["properties"].get("path").is_some();
        assert!(has_path(&LOCAL[0]) && !has_path(&REMOTE[0]));
        assert!(LOCAL.iter().skip(1).chain(REMOTE.iter()).all(|tool| !has_path(tool)));
    }
}
