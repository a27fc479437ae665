//! What stands in a policy's file: its shape and nothing else.
//!
//! These types are read by serde and written as JSON Schema, so that an editor offers and refuses what the
//! service does. Every value knows its line and column. Their documentation is what an editor shows.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use serde_saphyr::{MergeKeyPolicy, MessageFormatter as _, Spanned, UserMessageFormatter};

use super::decision::Severity;
use super::fault::{Fault, Problem};

/// The version of the format that is read.
pub(super) const SCHEMA: &str = "undertone.policy/v1";

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    pub(super) value: T,
    /// Counted from 1.
    pub(super) line: u32,
    /// In characters, counted from 1.
    pub(super) column: u32,
}

impl<T> At<T> {
    /// Something wrong with this value.
    pub(super) fn fault(&self, path: impl Into<String>, problem: Problem) -> Fault {
        let problem = Box::new(problem);
        Fault { line: self.line, column: self.column, path: path.into(), problem }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<T>::deserialize(deserializer)?;
        let (line, column) = position(spanned.referenced);
        Ok(Self { value: spanned.value, line, column })
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

fn position(location: serde_saphyr::Location) -> (u32, u32) {
    let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    (small(location.line()), small(location.column()))
}

/// When to escalate: rules over what a voice sounds like.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Undertone policy", rename = "Policy")]
pub(super) struct Document {
    /// The version of this format.
    #[schemars(schema_with = "version_of_the_format")]
    pub(super) schema: At<String>,
    /// The policy's name: small letters, digits and hyphens.
    #[schemars(regex(pattern = r"^[a-z0-9-]{1,63}$"))]
    pub(super) name: At<String>,
    /// The policy's own version; raise it with every change. In quotes, if it looks like a number.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,32}$"))]
    pub(super) version: At<String>,
    /// What it is for, and for whom.
    #[schemars(length(min = 1, max = 2000))]
    pub(super) description: At<String>,
    /// Names for sets of emotions, to be used as signals: their probabilities are added up.
    #[serde(default)]
    #[schemars(schema_with = "groups")]
    pub(super) groups: Option<BTreeMap<String, At<Vec<At<String>>>>>,
    /// Most escalations raised in one session, over all rules and channels. Default 10.
    #[schemars(range(min = 1, max = 1000), extend("default" = 10))]
    pub(super) budget: Option<At<u64>>,
    /// The rules. Of one moment, they are decided in this order.
    #[schemars(length(min = 1, max = 64))]
    pub(super) rules: At<Vec<At<RuleText>>>,
}

/// One reason to escalate.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Rule")]
pub(super) struct RuleText {
    /// Its name, unique in the policy: small letters, digits and hyphens.
    #[schemars(regex(pattern = r"^[a-z0-9-]{1,63}$"))]
    pub(super) name: At<String>,
    /// Its title, as people are shown it.
    #[schemars(length(min = 1, max = 100))]
    pub(super) title: At<String>,
    /// How much it asks of those who get it.
    pub(super) severity: At<Severity>,
    /// What must hold.
    pub(super) when: At<Condition>,
    /// How long it must hold before it is raised. Default 0s.
    #[schemars(extend("default" = "0s"))]
    pub(super) dwell: Option<At<String>>,
    /// How long it must have been off before it is cleared. Default 5s.
    #[schemars(extend("default" = "5s"))]
    pub(super) clear_after: Option<At<String>>,
    /// How long after clearing it may not be raised again on the same channel. Default 60s.
    #[schemars(extend("default" = "60s"))]
    pub(super) cooldown: Option<At<String>>,
    /// While it is in force, how often its values are told anew; 0s for never. Default 60s.
    #[schemars(extend("default" = "60s"))]
    pub(super) update_every: Option<At<String>>,
    /// The channels it looks at, counted from 0. Default: all whose voice is a subject's.
    #[schemars(length(min = 1, max = 8), inner(range(max = 7)))]
    pub(super) channels: Option<At<Vec<At<u32>>>>,
    /// What the end of the session does to it while it is in force. Default keep.
    #[schemars(extend("default" = "keep"))]
    pub(super) on_session_end: Option<SessionEnd>,
    /// Why, in words, with values in them: `Distress at {{ distress | percent }} for {{ seconds }} s.`
    #[schemars(length(min = 1, max = 2000))]
    pub(super) reason: At<String>,
}

/// What the end of the session does to an escalation in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum SessionEnd {
    /// Nothing: somebody still has to look.
    Keep,
    /// It is cleared.
    Clear,
}

/// Something that holds, does not hold, or cannot be said yet for want of speech.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Condition {
    /// All of these hold.
    All(At<Vec<At<Condition>>>),
    /// At least one of these holds.
    Any(At<Vec<At<Condition>>>),
    /// This does not hold.
    Not(Box<At<Condition>>),
    /// The mean of a signal over the last while.
    Level(At<MeanText>),
    /// How much the mean of a signal rose from the older to the newer half of the last while.
    Rise(At<MeanText>),
    /// The share of the speech of the last while in which a signal is beyond a bound.
    Share(At<ShareText>),
    /// Nobody speaks on the channel.
    Silence(At<SilenceText>),
}

/// A signal, a stretch of time, and where the condition turns on and off.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Mean")]
pub(super) struct MeanText {
    /// distress, valence, arousal, an emotion, or one of the policy's groups.
    pub(super) of: At<String>,
    /// How far back to look, such as 10s.
    pub(super) over: At<String>,
    /// The value at which it begins to hold.
    pub(super) on: At<f64>,
    /// The value beyond which it holds no more; less than `on` for what is high, more for what is low.
    pub(super) off: At<f64>,
    /// With less speech than this in that time, it stays as it was. Default: a quarter of `over`.
    pub(super) min_speech: Option<At<String>>,
}

/// A signal's bound, a stretch of time, and where the condition turns on and off.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Share")]
pub(super) struct ShareText {
    /// distress, valence, arousal, an emotion, or one of the policy's groups.
    pub(super) of: At<String>,
    /// Speech counts if the signal is at this or above.
    pub(super) at: Option<At<f64>>,
    /// Speech counts if the signal is at this or below. Instead of `at`.
    pub(super) below: Option<At<f64>>,
    /// How far back to look, such as 30s.
    pub(super) over: At<String>,
    /// The share, 0 to 1, at which it begins to hold.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(super) on: At<f64>,
    /// The share beyond which it holds no more; less than `on` for what is much, more for what is little.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(super) off: At<f64>,
    /// With less speech than this in that time, it stays as it was. Default: a quarter of `over`.
    pub(super) min_speech: Option<At<String>>,
}

/// How long nobody has spoken.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Silence")]
pub(super) struct SilenceText {
    /// It holds once nobody has spoken for so long, and no more as soon as somebody speaks.
    #[serde(rename = "for")]
    pub(super) length: At<String>,
}

fn version_of_the_format(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "const": SCHEMA })
}

fn groups(_: &mut SchemaGenerator) -> Schema {
    let emotions = crate::emotion::Emotion::ALL.map(crate::emotion::Emotion::name);
    json_schema!({
        "type": ["object", "null"],
        "propertyNames": { "pattern": "^[a-z][a-z0-9_]{0,31}$" },
        "additionalProperties": {
            "type": "array", "items": { "enum": emotions }, "minItems": 1, "uniqueItems": true
        }
    })
}

/// The JSON Schema of policies, as text that ends in a line break.
pub fn schema() -> String {
    let schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<Document>();
    format!("{:#}\n", schema.as_value())
}

/// Reads the shape of a policy.
pub(super) fn read(text: &str) -> Result<Document, Fault> {
    let mut options = serde_saphyr::Options::default();
    options.with_snippet = false;
    options.merge_keys = MergeKeyPolicy::Error;
    options.reject_unsupported_tags = true;
    options.strict_booleans = true;
    // A policy is read from top to bottom: a rule that is put together from others, far away in the file,
    // is not understood by its readers. This also leaves nothing that could grow.
    options.budget = serde_saphyr::budget! { max_aliases: 0, max_anchors: 0, max_documents: 1 };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let (line, column) = error.location().map_or((0, 0), position);
        let message = UserMessageFormatter.format_message(error.without_snippet());
        let message = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let problem = Box::new(Problem::Shape { message });
        Fault { line, column, path: String::new(), problem }
    })
}
