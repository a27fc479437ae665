//! Theirs to ours: a stream's configuration, checked, defaults filled in.

mod escalations;
mod sessions;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::v1;
use crate::audio::{AudioFormat, Encoding, Lane};
use crate::tracking::{SegmenterSettings, TrackerSettings};
use crate::units::{ChannelCount, SampleRate, duration_to_hops};

pub use escalations::{
    Acknowledgement, PageStart, acknowledgement, cursor, filter, one_escalation, page,
};
pub use sessions::{ENDED, Place, SessionAsked, SessionsAsked, session, sessions};

/// Shortest time between two estimates.
pub const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// Longest time between two estimates.
pub const MAX_INTERVAL: Duration = Duration::from_secs(10);
/// Shortest audio between two checkpoints: a client sends a few seconds anew without anybody noticing.
pub const MIN_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);
/// Longest audio between two checkpoints, which a client has to keep.
pub const MAX_CHECKPOINT_INTERVAL: Duration = Duration::from_mins(10);
/// Most labels of a session.
const MAX_LABELS: usize = 32;

/// What a server gives a session that does not say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Defaults {
    /// Time between two estimates.
    pub estimate_interval: Duration,
    /// Probability of voice that begins an utterance.
    pub voice_on: f32,
    /// Probability of voice under which silence is counted.
    pub voice_off: f32,
    /// Voice before an utterance begins.
    pub voice_min_speech: Duration,
    /// Silence before an utterance ends.
    pub voice_hang_over: Duration,
    /// Audio before an utterance's onset that the model hears too.
    pub voice_lead_in: Duration,
    /// Speech before an estimate stops abstaining.
    pub min_speech: Duration,
    /// Confidence under which an estimate abstains.
    pub min_confidence: f32,
    /// See [`TrackerSettings::carry`].
    pub carry: f32,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            estimate_interval: Duration::from_millis(500),
            voice_on: 0.6,
            voice_off: 0.35,
            voice_min_speech: Duration::from_millis(96),
            voice_hang_over: Duration::from_millis(600),
            voice_lead_in: Duration::from_millis(480),
            min_speech: Duration::from_millis(500),
            min_confidence: 0.3,
            carry: 0.5,
        }
    }
}

/// A field with a value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field's path from the message, such as `config.audio.sample_rate_hz`.
    pub field: &'static str,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// How a stream or a clip is analysed, all values filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnalysisSettings {
    /// Time between two estimates; `None` for no rolling estimates.
    pub estimate_interval: Option<Duration>,
    /// When utterances begin and end.
    pub segmenter: SegmenterSettings,
    /// Hops before an onset that the model hears too.
    pub lead_in_hops: u64,
    /// How estimates are made.
    pub tracker: TrackerSettings,
    /// Whether there is a reading for a policy every step.
    pub readings: bool,
}

/// What raises escalations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyChoice {
    /// The server's default policy, if it has one.
    Default,
    /// None, also where the server has a default.
    None,
    /// One of the server's.
    Named(String),
    /// The text of one of the client's own.
    Inline(String),
}

/// A stream's configuration, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamSettings {
    /// The name that the client gave, if any.
    pub session_id: Option<String>,
    /// The audio that follows.
    pub format: AudioFormat,
    /// What is analysed.
    pub lanes: Vec<Lane>,
    /// How it is analysed.
    pub analysis: AnalysisSettings,
    /// The model's name; empty for the default.
    pub model: String,
    /// For the audit trail.
    pub labels: BTreeMap<String, String>,
    /// Whether utterances are reported.
    pub wants_utterances: bool,
    /// Whether warnings are reported.
    pub wants_warnings: bool,
    /// Whether updates of escalations are reported.
    pub wants_escalation_updates: bool,
    /// What raises escalations.
    pub policy: PolicyChoice,
    /// Audio between two checkpoints; `None` for none.
    pub checkpoint_interval: Option<Duration>,
}

/// Collects violations, so that a client learns all of them at once.
#[derive(Default)]
struct Check(Vec<Violation>);

impl Check {
    /// `value`, unless something was refused.
    fn pass<T>(self, value: T) -> Result<T, Vec<Violation>> {
        if self.0.is_empty() { Ok(value) } else { Err(self.0) }
    }

    fn refuse(&mut self, field: &'static str, problem: impl Into<String>) {
        self.0.push(Violation { field, problem: problem.into() });
    }

    fn take<T, E: ToString>(&mut self, field: &'static str, value: Result<T, E>) -> Option<T> {
        value.map_err(|error| self.refuse(field, error.to_string())).ok()
    }

    /// A duration within bounds, or the default if unset.
    fn duration(
        &mut self,
        field: &'static str,
        value: Option<prost_types::Duration>,
        default: Duration,
        (min, max): (Duration, Duration),
    ) -> Duration {
        let Some(value) = value else {
            return default;
        };
        match Duration::try_from(value) {
            Ok(duration) if (min..=max).contains(&duration) => duration,
            Ok(duration) => {
                self.refuse(field, format!("must be {min:?} to {max:?}, not {duration:?}"));
                default
            }
            Err(_) => {
                self.refuse(field, format!("must be {min:?} to {max:?}, not negative"));
                default
            }
        }
    }

    /// A probability, or the default if 0.
    fn threshold(&mut self, field: &'static str, value: f32, default: f32, max: f32) -> f32 {
        if value == 0.0 {
            return default;
        }
        if value > 0.0 && value <= max && value < 1.0 {
            return value;
        }
        self.refuse(field, format!("must be above 0, at most {max} and below 1, not {value}"));
        default
    }
}

/// Checks a stream's first message.
///
/// # Errors
/// Every violation found.
pub fn stream_config(
    config: &v1::StreamConfig,
    defaults: &Defaults,
) -> Result<StreamSettings, Vec<Violation>> {
    let mut check = Check::default();
    let session_id = check_session_id(&mut check, &config.session_id);
    let audio = if let Some(audio) = &config.audio {
        audio_format(&mut check, audio)
    } else {
        check.refuse(
            "config.audio",
            "is required: encoding, sample_rate_hz and, unless mono, channel_count",
        );
        None
    };
    let interval = check.duration(
        "config.estimate_interval",
        config.estimate_interval,
        defaults.estimate_interval,
        (MIN_INTERVAL, MAX_INTERVAL),
    );
    let mut analysis = voice_activity(&mut check, config.voice_activity.as_ref(), defaults);
    analysis.estimate_interval = Some(interval);
    let min_speech = check.duration(
        "config.min_speech",
        config.min_speech,
        defaults.min_speech,
        (Duration::ZERO, Duration::from_secs(10)),
    );
    analysis.tracker.min_speech_hops = duration_to_hops(min_speech);
    match config.min_confidence {
        Some(confidence) if (0.0..=1.0).contains(&confidence) => {
            analysis.tracker.min_confidence = confidence;
        }
        Some(confidence) => {
            check.refuse("config.min_confidence", format!("must be 0 to 1, not {confidence}"));
        }
        None => {}
    }
    let checkpoint_interval = config.checkpoint_interval.map(|interval| {
        let bounds = (MIN_CHECKPOINT_INTERVAL, MAX_CHECKPOINT_INTERVAL);
        check.duration("config.checkpoint_interval", Some(interval), bounds.0, bounds)
    });
    let labels = check_labels(&mut check, config);
    let events = config.events.unwrap_or_default();
    let policy = match &config.policy {
        Some(_) if config.no_policy => {
            check.refuse(
                "config.no_policy",
                "is true, and a policy is given; leave one of them unset",
            );
            PolicyChoice::None
        }
        None if config.no_policy => PolicyChoice::None,
        None => PolicyChoice::Default,
        Some(v1::stream_config::Policy::PolicyName(name)) if name.is_empty() => {
            check.refuse("config.policy_name", "is empty; leave `policy` unset for the default");
            PolicyChoice::Default
        }
        Some(v1::stream_config::Policy::PolicyName(name)) => PolicyChoice::Named(name.clone()),
        Some(v1::stream_config::Policy::PolicyYaml(text)) => PolicyChoice::Inline(text.clone()),
    };
    match audio {
        Some((format, lanes)) if check.0.is_empty() => Ok(StreamSettings {
            session_id,
            format,
            lanes,
            analysis,
            model: config.model.clone(),
            labels,
            wants_utterances: !events.no_utterances,
            wants_warnings: !events.no_warnings,
            wants_escalation_updates: !events.no_escalation_updates,
            policy,
            checkpoint_interval,
        }),
        _ => Err(check.0),
    }
}

/// What [`super::render::config_bytes`] has made bytes of.
pub fn config_of(bytes: &[u8]) -> Option<v1::StreamConfig> {
    prost::Message::decode(bytes).ok()
}

/// A clip's settings, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipSettings {
    /// How it is analysed.
    pub analysis: AnalysisSettings,
    /// Whether each channel is analysed on its own.
    pub separate_channels: bool,
}

/// Checks a request for a clip, all but its content.
///
/// # Errors
/// Every violation found.
pub fn analyze_request(
    request: &v1::AnalyzeAudioRequest,
    defaults: &Defaults,
) -> Result<ClipSettings, Vec<Violation>> {
    let mut check = Check::default();
    if request.content.is_empty() {
        check.refuse("content", "is required: the bytes of an audio file");
    }
    let mode = channel_mode(&mut check, "channel_mode", request.channel_mode);
    let mut analysis = voice_activity(&mut check, request.voice_activity.as_ref(), defaults);
    analysis.estimate_interval = request.estimate_interval.map(|interval| {
        let bounds = (MIN_INTERVAL, MAX_INTERVAL);
        check.duration("estimate_interval", Some(interval), defaults.estimate_interval, bounds)
    });
    if check.0.is_empty() {
        Ok(ClipSettings { analysis, separate_channels: mode == v1::ChannelMode::Separate })
    } else {
        // What both requests have is called by its path in a stream's.
        let field = |field: &'static str| field.strip_prefix("config.").unwrap_or(field);
        Err(check.0.into_iter().map(|v| Violation { field: field(v.field), ..v }).collect())
    }
}

/// The analysis that a server's defaults give.
pub fn default_analysis(defaults: &Defaults) -> AnalysisSettings {
    voice_activity(&mut Check::default(), None, defaults)
}

fn check_session_id(check: &mut Check, id: &str) -> Option<String> {
    if id.is_empty() {
        return None;
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-');
    if id.len() > 128 || !id.chars().all(fits) {
        check.refuse("config.session_id", "must be 1 to 128 characters of A-Z a-z 0-9 . _ : -");
    }
    Some(id.to_owned())
}

fn check_labels(check: &mut Check, config: &v1::StreamConfig) -> BTreeMap<String, String> {
    if config.labels.len() > MAX_LABELS {
        let count = config.labels.len();
        check.refuse(
            "config.labels",
            format!("must have at most {MAX_LABELS} entries, not {count}"),
        );
    }
    for (key, value) in &config.labels {
        // Control characters have no place in a label, and PostgreSQL takes no NUL.
        let plain = |text: &str| !text.contains(char::is_control);
        if key.is_empty() || key.len() > 63 || value.len() > 255 || !plain(key) || !plain(value) {
            check.refuse(
                "config.labels",
                "must have keys of 1 to 63 bytes and values of at most 255 bytes, without control \
                 characters",
            );
            break;
        }
    }
    config.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn channel_mode(check: &mut Check, field: &'static str, mode: i32) -> v1::ChannelMode {
    let Ok(mode) = v1::ChannelMode::try_from(mode) else {
        check.refuse(field, format!("is {mode}, which is no ChannelMode"));
        return v1::ChannelMode::Mix;
    };
    match mode {
        v1::ChannelMode::Unspecified | v1::ChannelMode::Mix => v1::ChannelMode::Mix,
        v1::ChannelMode::Separate => v1::ChannelMode::Separate,
    }
}

fn audio_format(check: &mut Check, audio: &v1::AudioFormat) -> Option<(AudioFormat, Vec<Lane>)> {
    let encoding = match v1::AudioEncoding::try_from(audio.encoding) {
        Ok(v1::AudioEncoding::Linear16) => Some(Encoding::Linear16),
        Ok(v1::AudioEncoding::Float32) => Some(Encoding::Float32),
        Ok(v1::AudioEncoding::Mulaw) => Some(Encoding::MuLaw),
        Ok(v1::AudioEncoding::Alaw) => Some(Encoding::ALaw),
        Ok(v1::AudioEncoding::Unspecified) | Err(_) => {
            let problem = "must be AUDIO_ENCODING_LINEAR16, _FLOAT32, _MULAW or _ALAW";
            check.refuse("config.audio.encoding", problem);
            None
        }
    };
    let rate = check.take("config.audio.sample_rate_hz", SampleRate::new(audio.sample_rate_hz));
    let channels =
        check.take("config.audio.channel_count", ChannelCount::new(audio.channel_count.max(1)));
    let mode = channel_mode(check, "config.audio.channel_mode", audio.channel_mode);
    let subjects = subject_channels(check, audio, channels?)?;
    let lanes = match mode {
        v1::ChannelMode::Separate => subjects.into_iter().map(Lane::channel).collect(),
        v1::ChannelMode::Mix | v1::ChannelMode::Unspecified => {
            vec![Lane::of(&subjects)]
        }
    };
    Some((AudioFormat { encoding: encoding?, rate: rate?, channels: channels? }, lanes))
}

/// The channels to analyse.
fn subject_channels(
    check: &mut Check,
    audio: &v1::AudioFormat,
    channels: ChannelCount,
) -> Option<Vec<usize>> {
    if audio.channel_roles.is_empty() {
        return Some((0..channels.get()).collect());
    }
    let field = "config.audio.channel_roles";
    if audio.channel_roles.len() != channels.get() {
        let (roles, channels) = (audio.channel_roles.len(), channels.get());
        check.refuse(field, format!("has {roles} roles for {channels} channels; give one each"));
        return None;
    }
    let mut subjects = Vec::new();
    for (index, role) in audio.channel_roles.iter().enumerate() {
        match v1::ChannelRole::try_from(*role) {
            Ok(v1::ChannelRole::Unspecified | v1::ChannelRole::Subject) => subjects.push(index),
            Ok(v1::ChannelRole::Agent | v1::ChannelRole::Ignored) => {}
            Err(_) => {
                check.refuse(field, format!("has {role} for channel {index}, which is no role"));
                return None;
            }
        }
    }
    if subjects.is_empty() {
        check.refuse(field, "must name at least one subject: nothing would be analysed");
        return None;
    }
    Some(subjects)
}

fn voice_activity(
    check: &mut Check,
    config: Option<&v1::VoiceActivityConfig>,
    defaults: &Defaults,
) -> AnalysisSettings {
    let config = config.copied().unwrap_or_default();
    let on = check.threshold(
        "config.voice_activity.on_threshold",
        config.on_threshold,
        defaults.voice_on,
        1.0,
    );
    let off = check.threshold(
        "config.voice_activity.off_threshold",
        config.off_threshold,
        defaults.voice_off.min(on),
        on,
    );
    let min_speech = check.duration(
        "config.voice_activity.min_speech",
        config.min_speech,
        defaults.voice_min_speech,
        (Duration::ZERO, Duration::from_secs(2)),
    );
    let hang_over = check.duration(
        "config.voice_activity.hang_over",
        config.hang_over,
        defaults.voice_hang_over,
        (Duration::from_millis(100), Duration::from_secs(10)),
    );
    AnalysisSettings {
        estimate_interval: None,
        segmenter: SegmenterSettings {
            on,
            off,
            min_speech_hops: duration_to_hops(min_speech).max(1),
            hang_over_hops: duration_to_hops(hang_over).max(1),
        },
        lead_in_hops: duration_to_hops(defaults.voice_lead_in),
        tracker: TrackerSettings {
            min_speech_hops: duration_to_hops(defaults.min_speech),
            min_confidence: defaults.min_confidence,
            carry: defaults.carry,
        },
        readings: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> v1::StreamConfig {
        v1::StreamConfig {
            audio: Some(v1::AudioFormat {
                encoding: v1::AudioEncoding::Linear16.into(),
                sample_rate_hz: 16_000,
                ..v1::AudioFormat::default()
            }),
            ..v1::StreamConfig::default()
        }
    }

    fn with_audio(change: impl FnOnce(&mut v1::AudioFormat)) -> v1::StreamConfig {
        let mut config = good();
        change(config.audio.as_mut().unwrap());
        config
    }

    #[test]
    fn a_minimal_config_gets_the_defaults() {
        let settings = stream_config(&good(), &Defaults::default()).unwrap();
        assert_eq!(settings.format.channels, ChannelCount::MONO);
        assert_eq!(settings.lanes, [Lane::channel(0)]);
        assert_eq!(settings.analysis.estimate_interval, Some(Duration::from_millis(500)));
        assert_eq!(settings.analysis.segmenter.min_speech_hops, 6);
    }

    #[test]
    fn the_agents_channel_is_not_analysed() {
        let roles = [v1::ChannelRole::Agent, v1::ChannelRole::Subject, v1::ChannelRole::Subject];
        let mut config = with_audio(|audio| {
            audio.channel_count = 3;
            audio.channel_roles = roles.map(i32::from).to_vec();
        });
        let lanes = |c: &v1::StreamConfig| stream_config(c, &Defaults::default()).unwrap().lanes;
        assert_eq!(lanes(&config), [Lane::of(&[1, 2])]);
        config.audio.as_mut().unwrap().channel_mode = v1::ChannelMode::Separate.into();
        assert_eq!(lanes(&config), [Lane::channel(1), Lane::channel(2)]);
    }

    #[test]
    fn each_violation_names_its_field() {
        let negative = Some(prost_types::Duration { seconds: -1, nanos: 0 });
        let long = Some(prost_types::Duration { seconds: 11, nanos: 0 });
        let voice = |change: fn(&mut v1::VoiceActivityConfig)| {
            let mut voice = v1::VoiceActivityConfig::default();
            change(&mut voice);
            v1::StreamConfig { voice_activity: Some(voice), ..good() }
        };
        let cases = [
            ("config.audio", v1::StreamConfig { audio: None, ..good() }),
            ("config.audio.encoding", with_audio(|a| a.encoding = 0)),
            ("config.audio.encoding", with_audio(|a| a.encoding = 99)),
            ("config.audio.sample_rate_hz", with_audio(|a| a.sample_rate_hz = 0)),
            ("config.audio.sample_rate_hz", with_audio(|a| a.sample_rate_hz = 96_000)),
            ("config.audio.channel_count", with_audio(|a| a.channel_count = 9)),
            ("config.audio.channel_roles", with_audio(|a| a.channel_roles = vec![1, 2])),
            ("config.audio.channel_roles", with_audio(|a| a.channel_roles = vec![2])),
            ("config.audio.channel_roles", with_audio(|a| a.channel_roles = vec![7])),
            ("config.audio.channel_mode", with_audio(|a| a.channel_mode = 7)),
            ("config.session_id", v1::StreamConfig { session_id: "a b".into(), ..good() }),
            ("config.session_id", v1::StreamConfig { session_id: "x".repeat(129), ..good() }),
            (
                "config.estimate_interval",
                v1::StreamConfig { estimate_interval: negative, ..good() },
            ),
            ("config.estimate_interval", v1::StreamConfig { estimate_interval: long, ..good() }),
            ("config.min_speech", v1::StreamConfig { min_speech: long, ..good() }),
            ("config.min_confidence", v1::StreamConfig { min_confidence: Some(1.5), ..good() }),
            (
                "config.min_confidence",
                v1::StreamConfig { min_confidence: Some(f32::NAN), ..good() },
            ),
            ("config.voice_activity.on_threshold", voice(|v| v.on_threshold = 1.0)),
            ("config.voice_activity.on_threshold", voice(|v| v.on_threshold = f32::NAN)),
            ("config.voice_activity.off_threshold", voice(|v| v.off_threshold = 0.9)),
            (
                "config.voice_activity.hang_over",
                voice(|v| v.hang_over = Some(prost_types::Duration::default())),
            ),
            (
                "config.labels",
                v1::StreamConfig { labels: [(String::new(), String::new())].into(), ..good() },
            ),
            (
                "config.labels",
                v1::StreamConfig { labels: [("a".into(), "\0".into())].into(), ..good() },
            ),
        ];
        for (field, config) in cases {
            let violations = stream_config(&config, &Defaults::default()).unwrap_err();
            assert!(violations.iter().any(|v| v.field == field), "{field}: {violations:?}");
        }
    }

    #[test]
    fn all_violations_are_told_at_once() {
        let mut config = with_audio(|a| {
            a.encoding = 0;
            a.sample_rate_hz = 1;
        });
        config.session_id = "?".into();
        assert_eq!(stream_config(&config, &Defaults::default()).unwrap_err().len(), 3);
    }
}
