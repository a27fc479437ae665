// Checked by the compiler alone: the interfaces of `types.ts` have the fields of the protocol's messages, under the same
// names and of the types that `plain.ts` makes of them.

import type { Message } from "@bufbuild/protobuf";
import type { Duration, Timestamp } from "@bufbuild/protobuf/wkt";
import type * as emotion from "../src/gen/undertone/v1/emotion_pb.js";
import type * as service from "../src/gen/undertone/v1/emotion_service_pb.js";
import type * as escalation from "../src/gen/undertone/v1/escalation_pb.js";
import type * as session from "../src/gen/undertone/v1/session_service_pb.js";
import type * as t from "../src/types.js";

type Enums = [
  typeof emotion.Emotion,
  typeof emotion.DimensionSource,
  typeof emotion.AbstainReason,
  typeof service.AudioEncoding,
  typeof service.ChannelRole,
  typeof service.ChannelMode,
  typeof service.FinishReason,
  typeof service.ModelKind,
  typeof service.Warning_Reason,
  typeof escalation.Severity,
  typeof escalation.EscalationState,
  typeof escalation.EscalationEventKind,
  typeof session.Ingress,
];

/** The words of the enum whose values `V` are; `never` if it is none. */
type Words<V, Enum = Enums[number]> = Enum extends unknown
  ? V extends Enum[keyof Enum]
    ? Lowercase<Exclude<keyof Enum, "UNSPECIFIED"> & string>
    : never
  : never;

/** Whether it is just any number: that could be assigned to an enum. */
type IsNumber<V> = V extends number ? (`${number}` extends `${V}` ? true : false) : false;

type Plain<V> =
  IsNumber<V> extends true
    ? number
    : V extends number
      ? Words<V>
      : V extends Duration | bigint
        ? number
        : V extends Timestamp
          ? Date
          : V extends (infer Item)[]
            ? Plain<Item>[]
            : V extends Message
              ? // Compared by a line of its own below.
                object
              : V;

/** A message's fields as plain data; oneofs lie flat. */
type Fields<M> = { [K in Exclude<keyof M, keyof Message | "policy">]-?: Plain<NonNullable<M[K]>> };
type StreamConfig = Fields<Omit<service.StreamConfig, "policy">> & { policyName: string; policyYaml: string };

/** What stands on one side only, or does not fit. `never` if both have the same. */
type Difference<Ours, Theirs> =
  | Exclude<keyof Ours, keyof Theirs>
  | Exclude<keyof Theirs, keyof Ours>
  | {
      [K in keyof Ours & keyof Theirs]: NonNullable<Ours[K]> extends Theirs[K]
        ? Theirs[K] extends object | object[]
          ? never
          : Theirs[K] extends NonNullable<Ours[K]>
            ? never
            : K
        : K;
    }[keyof Ours & keyof Theirs];

type Same<Ours, M, Left extends keyof M = never> = Difference<Ours, Fields<Omit<M, Left>>>;
const same = <_ extends never>() => {};

same<Same<t.AudioFormat, service.AudioFormat>>();
same<Same<t.VoiceActivity, service.VoiceActivityConfig>>();
same<Same<t.EmotionScore, emotion.EmotionScore>>();
same<Same<t.Affect, emotion.Affect>>();
same<Same<t.Estimate, emotion.Estimate>>();
same<Same<t.Utterance, service.Utterance>>();
same<Same<t.ConditionValue, escalation.ConditionValue>>();
same<Same<t.Evidence, escalation.Evidence>>();
same<Same<Omit<t.Escalation, "policy">, escalation.Escalation>>();
same<Same<t.EscalationEvent, escalation.EscalationEvent>>();
same<Same<t.Mark, service.MarkReached>>();
same<Same<t.Warning, service.Warning>>();
same<Same<t.TrainingData, service.TrainingData>>();
same<Same<t.Model, service.Model>>();
same<Same<t.Policy, service.Policy>>();
same<Same<t.StreamLimits, service.StreamLimits>>();
same<Same<NonNullable<t.StreamConfig["events"]>, service.EventSelection>>();
same<Difference<t.StreamConfig, Omit<StreamConfig, "resumeToken">>>();
same<Same<Omit<t.Started, "policy">, service.Started, "resumedFrom">>();
same<Same<t.ChannelSummary, service.ChannelSummary>>();
same<Same<t.Finished, service.Finished, "lastCapturedAtUs">>();
// Policies are tried with the command line and in the console.
type Trial = "escalations" | "policy" | "budgetSpent" | "conditionCourses";
same<Same<t.Analysis, service.AnalyzeAudioResponse, Trial>>();
same<Same<Omit<t.Session, "policy">, session.Session>>();
same<Same<t.SessionHistory, session.SessionHistory>>();

// It would notice.
// @ts-expect-error
same<Same<Omit<t.Mark, "position">, service.MarkReached>>();
// @ts-expect-error
same<Same<t.Mark & { more: number }, service.MarkReached>>();
// @ts-expect-error
same<Same<Omit<t.Affect, "top"> & { top: "neutral" }, emotion.Affect>>();
