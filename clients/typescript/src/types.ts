/**
 * What the server says, as plain data: times are seconds from the stream's first sample unless said otherwise, moments are
 * `Date`s, enums are lower-case words, and what is not set is absent.
 *
 * What a newer server says in words that this package does not know is absent, too.
 */

/** An emotion as acted and labelled in the corpora that the models are trained on. */
export type Emotion = "neutral" | "calm" | "happy" | "sad" | "angry" | "fear" | "disgust" | "surprise";

/** Why an estimate should not be acted on. */
export type AbstainReason = "too_little_speech" | "unsure" | "no_evidence";

/** How much an escalation asks of those who get it. */
export type Severity = "advisory" | "low" | "medium" | "high";

/** Where an escalation stands. */
export type EscalationState = "raised" | "acknowledged" | "cleared";

/** What happened to an escalation. */
export type EscalationKind = "raised" | "updated" | "acknowledged" | "cleared";

/** How samples are coded; what has several bytes is little-endian. */
export type Encoding = "linear16" | "float32" | "mulaw" | "alaw";

/** Whose voice a channel carries; only subjects are analysed. */
export type ChannelRole = "subject" | "agent" | "ignored";

/** What to do with several subject channels: analyse their mean, or each on its own. */
export type ChannelMode = "mix" | "separate";

/** The raw audio of a stream. */
export interface AudioFormat {
  /** How samples are coded. */
  encoding: Encoding;
  /** Samples per second and channel, 8000 to 48000. */
  sampleRateHz: number;
  /** Interleaved channels, 1 to 8; 1 if not given. */
  channelCount?: number;
  /** What each channel is, first channel first; all are subjects if not given. */
  channelRoles?: ChannelRole[];
  /** What to do with several subject channels; `"mix"` if not given. */
  channelMode?: ChannelMode;
}

/** Voice activity and utterances; what is not given is the server's default. */
export interface VoiceActivity {
  /** Probability of voice from which an utterance begins, 0 to 1. */
  onThreshold?: number;
  /** Probability of voice below which silence is counted, 0 to `onThreshold`. */
  offThreshold?: number;
  /** Seconds of voice needed before an utterance begins, 0 to 2. */
  minSpeech?: number;
  /** Seconds of silence after which an utterance ends, 0.1 to 10. */
  hangOver?: number;
}

/** The probability of one emotion. */
export interface EmotionScore {
  emotion: Emotion;
  /** Calibrated, 0 to 1. */
  probability: number;
}

/** What a stretch of speech sounded like. */
export interface Affect {
  /** One per emotion that the model knows, summing to 1; empty where a model gives valence and arousal only. */
  scores: EmotionScore[];
  /** The most probable emotion. */
  top?: Emotion;
  /** The calibrated probability of `top`, 0 to 1. */
  confidence: number;
  /** Pleasantness, -1 to 1. Weakly known from voice alone. */
  valence: number;
  /** Activation, -1 to 1. */
  arousal: number;
  /** How valence and arousal came about. */
  dimensionSource?: "derived_from_emotions" | "model";
  /** 0 to 1: the probability of sadness, anger and fear, and half that of disgust. */
  distress: number;
}

/** What somebody sounds like now. */
export interface Estimate {
  /** The lane's first input channel, 0-based. */
  channel: number;
  /** Where the evidence begins. */
  start: number;
  /** All audio before this moment has been analysed. */
  end: number;
  /** The last moment that the emotion rests on. */
  evidenceEnd: number;
  /** The numbers, if there are any. */
  affect?: Affect;
  /** True if the estimate should not be acted on. */
  abstains: boolean;
  /** Why it abstains. */
  abstainReason?: AbstainReason;
  /** Share of time with voice since the last estimate of this channel, 0 to 1. */
  speechRatio: number;
  /** Mean level since the last estimate of this channel, dB relative to a full-scale square wave, -100 at least. */
  levelDbfs: number;
  /** Seconds of speech in the current utterance. */
  speech: number;
  /** 0-based number of the utterance that the estimate rests on, per channel. */
  utterance: number;
  /** The highest severity of the escalations in force on this channel. */
  escalationSeverity?: Severity;
  /** The escalations in force on this channel. */
  escalationIds: string[];
}

/** One utterance that has ended. */
export interface Utterance {
  /** The lane's first input channel, 0-based. */
  channel: number;
  /** 0-based number of the utterance in this channel. */
  index: number;
  /** Where voice begins. */
  start: number;
  /** Where voice ends. */
  end: number;
  /** Seconds of voice within it. */
  speech: number;
  /** The final estimate over the whole utterance. */
  affect?: Affect;
  /** True if the estimate should not be acted on. */
  abstains: boolean;
  /** Why it abstains. */
  abstainReason?: AbstainReason;
}

/** One condition of a rule when the policy decided. */
export interface ConditionValue {
  /** What was measured, in words. */
  what: string;
  /** Its value, if enough speech was heard. */
  value?: number;
  /** Where the condition turns on. */
  on: number;
  /** Where it turns off. */
  off: number;
  /** Whether it held. */
  holds: boolean;
}

/** What a decision rests on. No audio. */
export interface Evidence {
  /** Start of the longest window looked at. */
  start: number;
  /** Its end. */
  end: number;
  /** Seconds of speech that counted within it. */
  speech: number;
  /** Mean probability of each emotion over that speech. */
  emotions: Record<string, number>;
  /** Mean distress, 0 to 1. */
  distress?: number;
  /** Mean valence, -1 to 1. */
  valence?: number;
  /** Mean arousal, -1 to 1. */
  arousal?: number;
  /** Every condition of the rule. */
  conditions: ConditionValue[];
}

/** An escalation as it stands. */
export interface Escalation {
  /** A UUID that the same audio gives again. */
  id: string;
  sessionId: string;
  /** The lane's first input channel, 0-based. */
  channel: number;
  /** The session's labels. */
  labels: Record<string, string>;
  policy: string;
  policyVersion: string;
  rule: string;
  /** The rule's title, for people. */
  title: string;
  severity: Severity;
  state: EscalationState;
  /** Why, in words with the values in them. */
  reason: string;
  model: string;
  modelVersion: string;
  /** Where its condition began to hold. */
  onset: number;
  /** What the last decision rests on. */
  evidence: Evidence;
  raisedAt: Date;
  /** When anything last happened to it. */
  updatedAt: Date;
  acknowledgedAt?: Date;
  acknowledgedBy: string;
  clearedAt?: Date;
  /** When the stream ended, if that was while it was in force. */
  sessionEndedAt?: Date;
  /** The tenant of the identity that opened the stream. */
  tenant: string;
}

/** One thing that happened to an escalation. */
export interface EscalationEvent {
  /** The same over retries, restarts and replays; empty while the event is not durable. */
  id: string;
  kind: EscalationKind;
  at: Date;
  /** Who did it, for an acknowledgement: what they call themselves. */
  actor: string;
  /** What they said, or why it was updated or cleared. */
  note: string;
  /** The escalation after it. */
  escalation: Escalation;
  /** Whether the server's store has it. If not, the event comes again, durable, when the store is back. */
  durable: boolean;
  /** The identity that the actor had to the server. */
  identity: string;
}

/** An {@link EscalationEvent} of a watch. */
export interface EscalationUpdate extends EscalationEvent {
  /** A later watch that begins behind this misses nothing. */
  cursor: string;
}

/** The echo of a mark. */
export interface Mark {
  name: string;
  /** The audio received before it. */
  position: number;
}

/** Something to know; the stream goes on. */
export interface Warning {
  reason:
    | "sequence_gap"
    | "clipping"
    | "no_speech"
    | "trailing_bytes"
    | "escalations_not_durable"
    | "escalations_durable"
    | "escalation_lost"
    | "budget_spent"
    | "not_acknowledged";
  /** In words, with the numbers. */
  message: string;
  position: number;
  /** The lane's first input channel, where it is about one. */
  channel?: number;
}

/** A corpus that a model was trained on. */
export interface TrainingData {
  corpus: string;
  licence: string;
  /** False if the licence excludes commercial use. */
  commercialUse: boolean;
}

/** A model that the server has loaded. */
export interface Model {
  name: string;
  version: string;
  kind: "streaming_mfcc" | "window_mfcc" | "window_waveform";
  description: string;
  /** The emotions that it tells apart; empty for a model of valence and arousal. */
  labels: Emotion[];
  trainingData: TrainingData[];
  /** Measured figures as its manifest gives them. */
  figures: Record<string, number>;
  /** How they were measured. */
  protocol: string;
  /** Of the ONNX file, lower-case hex. */
  sha256: string;
  /** True for the model that a session gets if it names none. */
  isDefault: boolean;
}

/** What raises escalations. */
export interface Policy {
  name: string;
  version: string;
  description: string;
  /** Each rule in words. */
  rules: string[];
  /** Escalations of one session at most. */
  budget: number;
  /** True for the policy of streams that name none. */
  isDefault: boolean;
}

/** Limits in force for a stream. */
export interface StreamLimits {
  maxChunkBytes: number;
  /** Seconds of the longest stream, by its audio. */
  maxAudio: number;
  /** Longest time without a message from the client, seconds. */
  idleTimeout: number;
  /** How many times faster than real time audio may come after the first `burst`; 0: no limit. */
  maxRealtimeFactor: number;
  /** Seconds of audio that may come at any speed. */
  burst: number;
  /** Seconds for which a stream can be gone on with after a checkpoint; absent where there are none. */
  resumeWindow?: number;
}

/** The configuration in force, every default filled in. */
export interface StreamConfig {
  sessionId: string;
  audio: AudioFormat;
  estimateInterval: number;
  model: string;
  labels: Record<string, string>;
  voiceActivity: VoiceActivity;
  /** What was not wanted. */
  events?: { noUtterances: boolean; noWarnings: boolean; noEscalationUpdates: boolean };
  minSpeech: number;
  minConfidence?: number;
  policyName?: string;
  policyYaml?: string;
  noPolicy: boolean;
  /** Absent: no checkpoints, and the stream cannot be gone on with. */
  checkpointInterval?: number;
}

/** The server has taken the stream. */
export interface Started {
  sessionId: string;
  config: StreamConfig;
  model: Model;
  limits: StreamLimits;
  /** Absent if there is none. */
  policy?: Policy;
}

/** One channel's summary. */
export interface ChannelSummary {
  /** The lane's first input channel, 0-based. */
  channel: number;
  /** Seconds of voice. */
  speech: number;
  utterances: number;
  /** Mean over the utterances, weighted by their speech. */
  affect?: Affect;
  /** Samples in runs at full scale. */
  clippedSamples: number;
}

/** The summary of a stream. */
export interface Finished {
  /** Whether the client ended it, or the server is ending. */
  reason: "client" | "draining";
  /** Seconds of audio received. */
  audio: number;
  /** Chunks received. */
  chunks: number;
  /** Estimates sent. */
  estimates: number;
  /** One per analysed channel. */
  channels: ChannelSummary[];
}

/** What a clip sounds like. */
export interface Analysis {
  /** Seconds. */
  audio: number;
  /** One per analysed channel. */
  channels: ChannelSummary[];
  /** In order of their end. */
  utterances: Utterance[];
  /** The time line, if asked for. */
  estimates: Estimate[];
  model: string;
  /** Packets of the file that could not be decoded and were passed over. */
  undecodablePackets: number;
}

/** A live session as it stands. */
export interface Session {
  id: string;
  tenant: string;
  /** The identity that opened it. */
  identity: string;
  labels: Record<string, string>;
  model: string;
  /** Empty if it has none. */
  policy: string;
  /** The way its audio comes in. */
  ingress: "grpc" | "websocket" | "twilio" | "audiohook";
  openedAt: Date;
  /** When it ended, here; undefined while it is live. */
  endedAt?: Date;
  /** Seconds of audio received. */
  audio: number;
  /** Estimates sent. */
  estimates: number;
  /** The last estimate of each analysed channel that has one, with what was in force then. */
  latest: Estimate[];
  /** The highest severity of the escalations in force now. */
  escalationSeverity?: Severity;
  /** The escalations in force now, in the order in which they were raised. */
  escalationIds: string[];
}

/** What was heard of a session. */
export interface SessionHistory {
  /** One a second and channel at most, and the newest of each channel. */
  estimates: Estimate[];
  utterances: Utterance[];
}

/** What is seen of a session while it is watched. `session` is first, and comes again when it changes; `ended` is last. */
export type SessionEvent =
  | ({ type: "session" } & Session)
  | ({ type: "estimate" } & Estimate)
  | ({ type: "utterance" } & Utterance)
  | { type: "ended" };

/** A stream that had broken off goes on. Nothing is lost and nothing comes twice. */
export interface Reconnected {
  /** Attempts that it took. */
  attempts: number;
  /** Seconds from the break until now. */
  downtime: number;
  /** What broke it. */
  cause: Error;
}

/** What comes back on a stream, told apart by `type`. `started` is first, `finished` is last. */
export type StreamEvent =
  | ({ type: "started" } & Started)
  | ({ type: "estimate" } & Estimate)
  | ({ type: "utterance" } & Utterance)
  | ({ type: "escalation" } & EscalationEvent)
  | ({ type: "mark" } & Mark)
  | ({ type: "warning" } & Warning)
  /** The server will end the stream within `deadline` seconds; one with checkpoints is gone on with by itself. */
  | { type: "draining"; deadline: number }
  | ({ type: "reconnected" } & Reconnected)
  | ({ type: "finished" } & Finished);
