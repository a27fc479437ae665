//! What a session tells its client, in our own types: positions on the 16 kHz line, hops, judgements.

use crate::policy::Reading;
use crate::tracking::{Affect, Judgement};
use crate::units::SamplePos;

/// The way a session's audio comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ingress {
    /// gRPC.
    Grpc,
    /// The service's own protocol over WebSocket.
    WebSocket,
    /// Twilio Media Streams.
    Twilio,
    /// Genesys `AudioHook`.
    AudioHook,
}

/// A rolling estimate.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// The lane's first input channel.
    pub channel: u32,
    /// Start of the utterance, with its lead-in.
    pub start: SamplePos,
    /// All audio before it has been analysed.
    pub end: SamplePos,
    /// End of the last model step.
    pub evidence_end: SamplePos,
    /// The verdict.
    pub judgement: Judgement,
    /// Share of hops with voice since the last estimate.
    pub speech_ratio: f32,
    /// Mean level since the last estimate, dBFS.
    pub level_dbfs: f32,
    /// Hops of voice in the utterance.
    pub speech_hops: u64,
    /// Number of the utterance.
    pub utterance: u32,
}

/// The end of an utterance.
#[derive(Debug, Clone, PartialEq)]
pub struct Utterance {
    /// The lane's first input channel.
    pub channel: u32,
    /// Number of the utterance.
    pub index: u32,
    /// Where voice begins.
    pub start: SamplePos,
    /// Where voice ends.
    pub end: SamplePos,
    /// Hops of voice.
    pub speech_hops: u64,
    /// The verdict.
    pub judgement: Judgement,
}

/// What a warning is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WarningReason {
    /// A chunk's sequence number did not go up by one.
    SequenceGap,
    /// Samples at full scale in a row.
    Clipping,
    /// No voice for long.
    NoSpeech,
    /// The stream ended inside a sample.
    TrailingBytes,
    /// The store is down.
    EscalationsNotDurable,
    /// The store is back.
    EscalationsDurable,
    /// An escalation could not even be kept for later.
    EscalationLost,
    /// The policy's budget is used up.
    BudgetSpent,
    /// An acknowledgement could not be done.
    NotAcknowledged,
}

impl WarningReason {
    /// Its name as a metric's label.
    pub fn name(self) -> &'static str {
        match self {
            Self::SequenceGap => "sequence_gap",
            Self::Clipping => "clipping",
            Self::NoSpeech => "no_speech",
            Self::TrailingBytes => "trailing_bytes",
            Self::EscalationsNotDurable => "escalations_not_durable",
            Self::EscalationsDurable => "escalations_durable",
            Self::EscalationLost => "escalation_lost",
            Self::BudgetSpent => "budget_spent",
            Self::NotAcknowledged => "not_acknowledged",
        }
    }
}

/// Something the client should know.
#[derive(Debug, Clone, PartialEq)]
pub struct Warning {
    /// What it is about.
    pub reason: WarningReason,
    /// In words.
    pub message: String,
    /// Where.
    pub position: SamplePos,
    /// The lane's first input channel, where it is about one.
    pub channel: Option<u32>,
}

/// The echo of a mark.
#[derive(Debug, Clone, PartialEq)]
pub struct MarkReached {
    /// The client's name for it.
    pub name: String,
    /// The audio received before it.
    pub position: SamplePos,
}

/// One lane's summary.
#[derive(Debug, Clone, PartialEq)]
pub struct ChannelSummary {
    /// The lane's first input channel.
    pub channel: u32,
    /// Hops of voice in utterances.
    pub speech_hops: u64,
    /// Utterances ended.
    pub utterances: u32,
    /// Mean over them.
    pub affect: Option<Affect>,
    /// Samples in runs at full scale.
    pub clipped: u64,
}

/// Anything that happens while audio is analysed.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A rolling estimate.
    Estimate(Estimate),
    /// The end of an utterance.
    Utterance(Utterance),
    /// Something the client should know.
    Warning(Warning),
    /// What a policy looks at.
    Reading(Reading),
}
