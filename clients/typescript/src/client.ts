// What clients for Node and for browsers have in common.

import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { type CallOptions, type Client, createClient, type Interceptor, type Transport } from "@connectrpc/connect";
import {
  connectionFailed,
  InvalidRequestError,
  mayPass,
  ServerError,
  toUndertoneError,
  type UndertoneError,
} from "./errors.js";
import { EstimateSchema } from "./gen/undertone/v1/emotion_pb.js";
import {
  AnalyzeAudioResponseSchema,
  ChannelModeSchema,
  EmotionService,
  ModelSchema,
  PolicySchema,
  UtteranceSchema,
} from "./gen/undertone/v1/emotion_service_pb.js";
import {
  EscalationEventSchema,
  EscalationSchema,
  EscalationStateSchema,
  SeveritySchema,
} from "./gen/undertone/v1/escalation_pb.js";
import { type EscalationFilterSchema, EscalationService } from "./gen/undertone/v1/escalation_service_pb.js";
import { SessionHistorySchema, SessionSchema, SessionService } from "./gen/undertone/v1/session_service_pb.js";
import { duration, ordinal, plain } from "./plain.js";
import { type Reconnect, Retries, sleep } from "./reconnect.js";
import type { Source } from "./sources.js";
import { type Converse, Stream, type StreamOptions, voiceActivity } from "./stream.js";
import type {
  Analysis,
  AudioFormat,
  ChannelMode,
  Escalation,
  EscalationEvent,
  EscalationState,
  EscalationUpdate,
  Estimate,
  Model,
  Policy,
  Session,
  SessionEvent,
  SessionHistory,
  Severity,
  StreamEvent,
  Utterance,
  VoiceActivity,
} from "./types.js";

/** A token that says who calls, or what gives one: it is asked for each call, so that one that runs out can be replaced. */
export type Token = string | (() => string | Promise<string>);

/** What every call can be given. */
export interface CallSettings {
  /** Ends the call; what waits for it throws the signal's reason. There is no time-out but this: `AbortSignal.timeout(ms)`. */
  signal?: AbortSignal;
}

/** How a clip is analysed; what is not given is the server's default. */
export interface AnalyzeOptions extends CallSettings {
  /** The file's extension or MIME type, a hint only. */
  formatHint?: string;
  /** Name of the model. */
  model?: string;
  /** What to do with several channels. */
  channelMode?: ChannelMode;
  /** Seconds between two points of the time line, 0.1 to 10; no time line if not given. */
  estimateInterval?: number;
  /** Voice activity and utterances. */
  voiceActivity?: VoiceActivity;
}

/** Which escalations are wanted: all that is given must hold. */
export interface EscalationFilter {
  /** Any of these states; of a watch: after the event. */
  states?: EscalationState[];
  /** At least this severity. */
  minSeverity?: Severity;
  /** Any of these policies. */
  policies?: string[];
  sessionId?: string;
  /** With all of these labels. */
  labels?: Record<string, string>;
  /** Raised then or later. */
  raisedSince?: Date;
  /** Raised before that. */
  raisedBefore?: Date;
  /** For operators, who see those of all tenants. */
  tenant?: string;
}

/** What to watch. */
export interface WatchOptions extends EscalationFilter, CallSettings {
  /** Begin behind this cursor of an earlier watch; if not given, with what happens from now on. */
  cursor?: string;
  /** Begin with the oldest that is kept. Not together with `cursor`. */
  fromStart?: boolean;
  /** How a watch that broke off is gone on with; `false`: it ends there. */
  reconnect?: Reconnect | false;
}

/** Which session, and how much of its past. */
export interface SessionOptions extends CallSettings {
  /** For those who see several tenants'. */
  tenant?: string;
  /** Seconds of what was heard before, by the audio; none if not given. */
  history?: number;
}

/** Sets the header `authorization` on every call. */
export function authorization(token: Token): Interceptor {
  return (next) => async (request) => {
    request.header.set("authorization", `Bearer ${await current(token)}`);
    return next(request);
  };
}

/** The token as it is now. */
export async function current(token: Token): Promise<string> {
  const text = (typeof token === "string" ? token : await token()).trim();
  if (!/^[!-~]+$/.test(text)) {
    throw InvalidRequestError.ofField("token", "is not one word of printable ASCII");
  }
  return text;
}

/** A client of one server. */
export abstract class BaseClient {
  readonly #target: string;
  readonly #converse: Converse;
  readonly #emotion: Client<typeof EmotionService>;
  readonly #escalations: Client<typeof EscalationService>;
  readonly #sessions: Client<typeof SessionService>;

  /** Errors call the server `target`. */
  protected constructor(target: string, transport: Transport, converse?: Converse) {
    this.#target = target;
    this.#emotion = createClient(EmotionService, transport);
    this.#escalations = createClient(EscalationService, transport);
    this.#sessions = createClient(SessionService, transport);
    this.#converse = converse ?? ((requests, signal) => this.#emotion.streamEmotion(requests, { signal }));
  }

  /** Streams `source` to its end and gives what comes back. To stop listening ends the stream and the source. */
  async *stream(source: Source, options: StreamOptions = {}): AsyncGenerator<StreamEvent, void> {
    const audio = source[Symbol.asyncIterator]();
    try {
      const stream = await this.open(source.format, options);
      void pump(audio, stream);
      yield* stream;
    } finally {
      // Not waited for: a source may be in the middle of waiting for audio.
      void Promise.resolve(audio.return?.()).catch(() => {});
    }
  }

  /**
   * Opens a stream to be fed by {@link Stream.send}. Waits until the server has taken it, and throws if it does not: only what
   * has begun is tried again.
   */
  open(format: AudioFormat, options: StreamOptions = {}): Promise<Stream> {
    return Stream.open(this.#converse, this.#target, format, options);
  }

  /** Analyses a whole clip, the bytes of a file: wav, flac, ogg (Vorbis), mp3, m4a (AAC, ALAC), aiff or mkv. */
  async analyze(content: Uint8Array, options: AnalyzeOptions = {}): Promise<Analysis> {
    const { formatHint, model, channelMode, estimateInterval, voiceActivity: voice } = options;
    const request = {
      content,
      formatHint,
      model,
      channelMode: channelMode && ordinal("channelMode", ChannelModeSchema, channelMode),
      estimateInterval: duration("estimateInterval", estimateInterval),
      voiceActivity: voice && voiceActivity(voice),
    };
    return plain(
      AnalyzeAudioResponseSchema,
      await this.#call(options, (call) => this.#emotion.analyzeAudio(request, call)),
    );
  }

  /** The models that the server has loaded, the default first. */
  async models(settings: CallSettings = {}): Promise<Model[]> {
    const { models } = await this.#call(settings, (call) => this.#emotion.listModels({}, call));
    return models.map((model) => plain(ModelSchema, model));
  }

  /** The policies that a stream can name. */
  async policies(settings: CallSettings = {}): Promise<Policy[]> {
    const { policies } = await this.#call(settings, (call) => this.#emotion.listPolicies({}, call));
    return policies.map((policy) => plain(PolicySchema, policy));
  }

  /** Escalations, newest first; further pages are fetched as they are wanted. */
  async *escalations(options: EscalationFilter & CallSettings = {}): AsyncGenerator<Escalation, void> {
    const filter = toFilter(options);
    for (let pageToken = ""; ; ) {
      const request = { filter, pageToken };
      const page = await this.#call(options, (call) => this.#escalations.listEscalations(request, call));
      for (const escalation of page.escalations) {
        yield plain(EscalationSchema, escalation);
      }
      pageToken = page.nextPageToken;
      if (!pageToken) {
        return;
      }
    }
  }

  /** One escalation, and everything that happened to it, in order. */
  async escalation(
    id: string,
    settings: CallSettings = {},
  ): Promise<{ escalation: Escalation; history: EscalationEvent[] }> {
    const answer = await this.#call(settings, (call) => this.#escalations.getEscalation({ id }, call));
    return {
      escalation: present("escalation", answer.escalation, (it) => plain(EscalationSchema, it)),
      history: answer.history.map((event) => plain(EscalationEventSchema, event)),
    };
  }

  /** `actor` takes an escalation on. `already` is true if somebody had before: then the first one stands. */
  async acknowledge(
    id: string,
    actor: string,
    { note, ...settings }: { note?: string } & CallSettings = {},
  ): Promise<{ escalation: Escalation; already: boolean }> {
    const request = { id, actor, note };
    const answer = await this.#call(settings, (call) => this.#escalations.acknowledgeEscalation(request, call));
    return {
      escalation: present("escalation", answer.escalation, (it) => plain(EscalationSchema, it)),
      already: answer.already,
    };
  }

  /**
   * Everything that happens to escalations, in order, each with the cursor to go on behind. A watch that breaks off goes on by
   * itself, and misses nothing.
   */
  async *watchEscalations(options: WatchOptions = {}): AsyncGenerator<EscalationUpdate, void> {
    const { signal = new AbortController().signal, reconnect = {} } = options;
    const retries = new Retries(reconnect || {});
    const filter = toFilter(options);
    let cursor = options.cursor ?? "";
    // Begin at the beginning until a cursor says where that was.
    let fromStart = options.fromStart ?? false;
    for (;;) {
      let begun: number | undefined;
      let cause: UndertoneError = connectionFailed(this.#target, "the watch ended");
      try {
        for await (const response of this.#escalations.watchEscalations({ filter, cursor, fromStart }, { signal })) {
          begun ??= performance.now();
          cursor = response.cursor;
          fromStart = false;
          if (response.event) {
            yield { ...plain<EscalationEvent>(EscalationEventSchema, response.event), cursor };
          }
        }
      } catch (error) {
        signal.throwIfAborted();
        cause = toUndertoneError(error, this.#target);
      }
      retries.ended(begun);
      const pause = cursor && reconnect && mayPass(cause) ? retries.pause(cause.retryAfter) : undefined;
      if (pause === undefined) {
        throw cause;
      }
      await sleep(pause, signal);
    }
  }

  /**
   * The live sessions of the replica that answers, newest first, and with `ended` behind them those that have ended lately
   * (`endedAt`); further pages are fetched as they are wanted.
   */
  async *sessions(
    options: { tenant?: string; labels?: Record<string, string>; ended?: boolean } & CallSettings = {},
  ): AsyncGenerator<Session, void> {
    const { tenant, labels, ended } = options;
    for (let pageToken = ""; ; ) {
      const request = { tenant, labels, pageToken, includeEnded: ended };
      const page = await this.#call(options, (call) => this.#sessions.listSessions(request, call));
      for (const session of page.sessions) {
        yield plain(SessionSchema, session);
      }
      pageToken = page.nextPageToken;
      if (!pageToken) {
        return;
      }
    }
  }

  /** One session, live or ended lately, and what was heard in its last seconds (`history`). */
  async session(id: string, options: SessionOptions = {}): Promise<{ session: Session; history: SessionHistory }> {
    const request = sessionRequest(id, options);
    const answer = await this.#call(options, (call) => this.#sessions.getSession(request, call));
    return {
      session: present("session", answer.session, (it) => plain(SessionSchema, it)),
      history: answer.history ? plain(SessionHistorySchema, answer.history) : { estimates: [], utterances: [] },
    };
  }

  /** What is heard in one session, as it is heard. Ends when the session does; one that breaks off is not gone on with. */
  async *watchSession(id: string, options: SessionOptions = {}): AsyncGenerator<SessionEvent, void> {
    try {
      const { signal } = options;
      for await (const { message } of this.#sessions.watchSession(sessionRequest(id, options), { signal })) {
        switch (message.case) {
          case "session":
            yield { type: "session", ...plain<Session>(SessionSchema, message.value) };
            break;
          case "estimate":
            yield { type: "estimate", ...plain<Estimate>(EstimateSchema, message.value) };
            break;
          case "utterance":
            yield { type: "utterance", ...plain<Utterance>(UtteranceSchema, message.value) };
            break;
          case "ended":
            yield { type: "ended" };
            return;
        }
      }
    } catch (error) {
      options.signal?.throwIfAborted();
      throw toUndertoneError(error, this.#target);
    }
  }

  /** One call with one answer; its errors are ours. */
  async #call<T>({ signal }: CallSettings, call: (options: CallOptions) => Promise<T>): Promise<T> {
    try {
      return await call({ signal });
    } catch (error) {
      signal?.throwIfAborted();
      throw toUndertoneError(error, this.#target);
    }
  }
}

/** Sends what comes from `audio`; what goes wrong with it ends the stream. */
async function pump(audio: AsyncIterator<Uint8Array>, stream: Stream): Promise<void> {
  try {
    for (let next = await audio.next(); !next.done; next = await audio.next()) {
      await stream.send(next.value);
    }
    stream.end();
  } catch (error) {
    // Does nothing if the stream has ended already, which is then why sending failed.
    stream.abort(error);
  }
}

function toFilter(filter: EscalationFilter): MessageInitShape<typeof EscalationFilterSchema> {
  return {
    states: filter.states?.map((state) => ordinal("states", EscalationStateSchema, state)),
    minSeverity: filter.minSeverity && ordinal("minSeverity", SeveritySchema, filter.minSeverity),
    policies: filter.policies,
    sessionId: filter.sessionId,
    labels: filter.labels,
    raisedSince: filter.raisedSince && timestampFromDate(filter.raisedSince),
    raisedBefore: filter.raisedBefore && timestampFromDate(filter.raisedBefore),
    tenant: filter.tenant,
  };
}

function sessionRequest(id: string, { tenant, history }: SessionOptions) {
  return { id, tenant, history: duration("history", history) };
}

/** What an answer must have. */
function present<T, R>(name: string, value: T | undefined, then: (value: T) => R): R {
  if (value === undefined) {
    throw new ServerError(`the server answered without ${name}`);
  }
  return then(value);
}
