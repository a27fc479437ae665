// One stream over as many connections as it takes.

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  connectionFailed,
  InvalidRequestError,
  mayPass,
  ResumeRefusedError,
  StreamClosedError,
  toUndertoneError,
  type UndertoneError,
} from "./errors.js";
import { EstimateSchema } from "./gen/undertone/v1/emotion_pb.js";
import type * as v1 from "./gen/undertone/v1/emotion_service_pb.js";
import {
  AudioEncodingSchema,
  ChannelModeSchema,
  ChannelRoleSchema,
  type Checkpoint,
  FinishedSchema,
  FinishReason,
  MarkReachedSchema,
  StartedSchema,
  type StreamConfig,
  StreamConfigSchema,
  type StreamEmotionRequest,
  StreamEmotionRequestSchema,
  type StreamEmotionResponse,
  Turn_Boundary,
  UtteranceSchema,
  WarningSchema,
} from "./gen/undertone/v1/emotion_service_pb.js";
import { EscalationEventSchema } from "./gen/undertone/v1/escalation_pb.js";
import { Outbox } from "./outbox.js";
import { duration, ordinal, plain, seconds } from "./plain.js";
import { type Reconnect, Retries, sleep } from "./reconnect.js";
import { Told } from "./told.js";
import type {
  AudioFormat,
  EscalationEvent,
  Estimate,
  Finished,
  Mark,
  Reconnected,
  Started,
  StreamEvent,
  Utterance,
  VoiceActivity,
  Warning,
} from "./types.js";

/** What a stream can be asked for; what is not given is the server's default. */
export interface StreamOptions {
  /** Names the session in logs and listings; the server makes a name if not given. */
  sessionId?: string;
  /** Name of the model. */
  model?: string;
  /** Name of the server's policy that raises escalations. */
  policy?: string;
  /** A policy of one's own, the text of a policy file, where the server allows it. */
  policyYaml?: string;
  /** No policy, also where the server has a default one: nothing is raised. */
  noPolicy?: boolean;
  /** On whose behalf it is listened, and other notes for the audit trail. */
  labels?: Record<string, string>;
  /** Seconds between two estimates of a channel, 0.1 to 10. */
  estimateInterval?: number;
  /** Seconds of speech needed in an utterance before an estimate stops abstaining, 0 to 10. */
  minSpeech?: number;
  /** Confidence under which an estimate abstains, 0 to 1. */
  minConfidence?: number;
  /** Voice activity and utterances. */
  voiceActivity?: VoiceActivity;
  /** Which events are wanted; all if not given. */
  events?: { utterances?: boolean; warnings?: boolean; escalationUpdates?: boolean };
  /** How a stream that broke off is gone on with; `false`: it ends there. */
  reconnect?: Reconnect | false;
  /** Seconds of audio between two checkpoints, 1 to 600: what is sent again after a break at most. 5 if not given. */
  checkpointInterval?: number;
  /** Bytes of audio that wait for the server at most; then `send` waits. 262,144 if not given: 8 s of 16 kHz mono. */
  maxBufferedBytes?: number;
  /** Ends the stream at once; what waits for it throws the signal's reason. */
  signal?: AbortSignal;
}

/** One connection of a stream: takes requests, gives responses, ends when `signal` says so. */
export type Converse = (
  requests: AsyncIterable<StreamEmotionRequest>,
  signal: AbortSignal,
) => AsyncIterable<StreamEmotionResponse>;

/** Longest wait, in ms, for a server's first word on a connection. */
const ANSWER_TIMEOUT_MS = 15_000;
const CHECKPOINT_INTERVAL_S = 5;
const BUFFERED_BYTES = 256 << 10;

/** The first message of a stream. */
function config(format: AudioFormat, options: StreamOptions): StreamConfig {
  if (options.policy !== undefined && options.policyYaml !== undefined) {
    throw InvalidRequestError.ofField("policyYaml", "is given together with policy; give one of them");
  }
  if (options.noPolicy && (options.policy ?? options.policyYaml) !== undefined) {
    throw InvalidRequestError.ofField("noPolicy", "is true, and a policy is given; give one of them");
  }
  const { voiceActivity: voice, events } = options;
  const policy = options.policy ?? options.policyYaml;
  return create(StreamConfigSchema, {
    sessionId: options.sessionId,
    audio: {
      encoding: ordinal("format.encoding", AudioEncodingSchema, format.encoding),
      sampleRateHz: format.sampleRateHz,
      channelCount: format.channelCount,
      channelRoles: format.channelRoles?.map((role) => ordinal("format.channelRoles", ChannelRoleSchema, role)),
      channelMode: format.channelMode && ordinal("format.channelMode", ChannelModeSchema, format.channelMode),
    },
    estimateInterval: duration("estimateInterval", options.estimateInterval),
    model: options.model,
    labels: options.labels,
    voiceActivity: voice && voiceActivity(voice),
    events: events && {
      noUtterances: events.utterances === false,
      noWarnings: events.warnings === false,
      noEscalationUpdates: events.escalationUpdates === false,
    },
    minSpeech: duration("minSpeech", options.minSpeech),
    minConfidence: options.minConfidence,
    policy:
      policy === undefined
        ? undefined
        : { case: options.policy === undefined ? "policyYaml" : "policyName", value: policy },
    noPolicy: options.noPolicy,
    checkpointInterval:
      options.reconnect === false
        ? undefined
        : duration("checkpointInterval", options.checkpointInterval ?? CHECKPOINT_INTERVAL_S),
  });
}

/** For the protocol. */
export function voiceActivity(voice: VoiceActivity) {
  return {
    onThreshold: voice.onThreshold,
    offThreshold: voice.offThreshold,
    minSpeech: duration("voiceActivity.minSpeech", voice.minSpeech),
    hangOver: duration("voiceActivity.hangOver", voice.hangOver),
  };
}

/**
 * A live stream. Audio goes in with {@link send}; what comes back is iterated over, once, while audio is sent: a server whose
 * answers nobody takes stops listening.
 *
 * When the connection breaks or the server drains, it goes on from the last checkpoint on another one. What was not yet safe
 * is sent again, and every event comes once, in order.
 */
export class Stream implements AsyncIterable<StreamEvent> {
  readonly #converse: Converse;
  readonly #target: string;
  readonly #config: StreamConfig;
  readonly #reconnect: Reconnect | false;
  readonly #maxBufferedBytes: number;
  readonly #outbox = new Outbox();
  readonly #told = new Told();
  readonly #closing = new AbortController();
  /** Why it ends, if it was closed. */
  readonly #closed = new StreamClosedError("the stream was closed", { remedy: "open another one" });
  readonly #detach: () => void;
  readonly #events: AsyncGenerator<StreamEvent>;
  #token: Uint8Array = new Uint8Array();
  #started: Started | undefined;
  /** No more is to be sent. */
  #isEnded = false;
  /** No more comes. */
  #isOver = false;
  /** What is to be sent and has no room yet, until it has. */
  #waiting: Promise<void> | undefined;

  private constructor(converse: Converse, target: string, format: AudioFormat, options: StreamOptions) {
    this.#converse = converse;
    this.#target = target;
    this.#config = config(format, options);
    this.#reconnect = options.reconnect ?? {};
    this.#maxBufferedBytes = options.maxBufferedBytes ?? BUFFERED_BYTES;
    const { signal } = options;
    const stop = () => this.abort(signal?.reason);
    signal?.addEventListener("abort", stop, { once: true });
    this.#detach = () => signal?.removeEventListener("abort", stop);
    this.#events = this.#run();
  }

  /**
   * Opens a stream: waits until the server has taken it. `target` names it in errors.
   *
   * @internal
   */
  static async open(converse: Converse, target: string, format: AudioFormat, options: StreamOptions): Promise<Stream> {
    options.signal?.throwIfAborted();
    const stream = new Stream(converse, target, format, options);
    // It begins with `started`, or throws.
    await stream.#events.next();
    return stream;
  }

  /** What the server said when it took the stream. */
  get started(): Started {
    if (!this.#started) {
      throw new StreamClosedError("the stream was ended before it began");
    }
    return this.#started;
  }

  /** The session's name. */
  get sessionId(): string {
    return this.started.sessionId;
  }

  /**
   * Sends raw samples, as many as there are. Waits while as much audio as may wait does (`maxBufferedBytes`), such as while
   * the server is slower than the audio or away. `data` is copied.
   */
  async send(data: Uint8Array): Promise<void> {
    this.#checkOpen();
    await this.#put(this.#chunks(data));
  }

  /** Sends raw samples if there is room for them now. Otherwise it is false and nothing is sent: for real-time callbacks. */
  trySend(data: Uint8Array): boolean {
    this.#checkOpen();
    const hasRoom = !this.#waiting && this.#outbox.unsentBytes + data.length <= this.#maxBufferedBytes;
    if (hasRoom) {
      void this.#put(this.#chunks(data));
    }
    return hasRoom;
  }

  /** Labels this moment of the audio, at most 255 bytes; a `mark` event comes when all audio before it has been analysed. */
  mark(name: string): void {
    this.#add({ case: "mark", value: { name } });
  }

  /** The subject's turn starts here: an utterance that is still open ends. */
  turnStart(): void {
    this.#add({ case: "turn", value: { boundary: Turn_Boundary.START } });
  }

  /** The subject's turn ends here: the open utterance ends now. */
  turnEnd(): void {
    this.#add({ case: "turn", value: { boundary: Turn_Boundary.END } });
  }

  /** `actor` takes on an escalation of this stream; an `escalation` event follows. */
  acknowledge(escalationId: string, actor: string, note = ""): void {
    this.#add({ case: "acknowledge", value: { escalationId, actor, note } });
  }

  /** No more audio: the server analyses what it has, and events go on until `finished`. */
  end(): void {
    this.#isEnded = true;
    const end = () => {
      this.#outbox.ended = true;
      this.#outbox.ring();
    };
    // What was sent before and still waits comes first.
    void (this.#waiting ? this.#waiting.then(end) : end());
  }

  /** Ends the stream at once, without a summary: no more events come. */
  close(): void {
    this.abort(this.#closed);
  }

  /** Ends the stream at once; what waits for it throws `reason`. */
  abort(reason: unknown): void {
    if (!this.#isOver) {
      this.#over();
      this.#closing.abort(reason);
    }
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<StreamEvent, void> {
    try {
      yield { type: "started", ...this.started };
      yield* this.#events;
    } catch (error) {
      if (error !== this.#closed) {
        throw error;
      }
    } finally {
      this.close();
    }
  }

  #add(message: Message): void {
    this.#checkOpen();
    // If it cannot be sent, the events say why.
    this.#put([request(message)]).catch(() => {});
  }

  /** `data` in chunks that the server takes. */
  #chunks(data: Uint8Array): StreamEmotionRequest[] {
    const most = this.started.limits.maxChunkBytes || data.length;
    return Array.from({ length: Math.ceil(data.length / most) }, (_, index) => {
      const chunk = new Uint8Array(data.subarray(index * most, (index + 1) * most));
      return request({ case: "audio", value: { data: chunk } });
    });
  }

  /** Adds `requests` in their turn: at once if nothing waits and there is room. */
  #put(requests: StreamEmotionRequest[]): Promise<void> {
    while (!this.#waiting && requests[0] && this.#hasRoom(requests[0])) {
      this.#outbox.add(requests[0]);
      requests.shift();
    }
    if (requests.length === 0) {
      return Promise.resolve();
    }
    const added = (this.#waiting ?? Promise.resolve()).then(() => this.#putLater(requests));
    const waiting = added
      .catch(() => {})
      .then(() => {
        if (this.#waiting === waiting) {
          this.#waiting = undefined;
        }
      });
    this.#waiting = waiting;
    return added;
  }

  async #putLater(requests: StreamEmotionRequest[]): Promise<void> {
    for (const request of requests) {
      while (!this.#isOver && !this.#hasRoom(request)) {
        await this.#outbox.change();
      }
      this.#checkAlive();
      this.#outbox.add(request);
    }
  }

  #hasRoom({ message }: StreamEmotionRequest): boolean {
    return message.case !== "audio" || this.#outbox.unsentBytes < this.#maxBufferedBytes;
  }

  #checkOpen(): void {
    this.#checkAlive();
    if (this.#isEnded) {
      throw new StreamClosedError("the stream was ended", { remedy: "open another one" });
    }
  }

  #checkAlive(): void {
    this.#closing.signal.throwIfAborted();
    if (this.#isOver) {
      throw new StreamClosedError("the stream has finished", { remedy: "open another one" });
    }
  }

  /** Nothing more comes. */
  #over(): void {
    this.#isOver = true;
    this.#detach();
    this.#outbox.ring();
  }

  /** Everything that comes, from `started` on. */
  async *#run(): AsyncGenerator<StreamEvent, void> {
    const retries = new Retries(this.#reconnect || {});
    const { signal } = this.#closing;
    try {
      for (let cause: UndertoneError | undefined; ; ) {
        const connection = new Connection(signal);
        try {
          for await (const { message } of this.#converse(this.#requests(connection), connection.signal)) {
            if (message.case === "started") {
              connection.begin();
              yield this.#begin(message.value, retries, cause);
              continue;
            }
            this.#heed(message);
            if (message.case === "finished") {
              if (message.value.reason === FinishReason.DRAINING && this.#config.checkpointInterval) {
                break;
              }
              yield { type: "finished", ...plain<Finished>(FinishedSchema, message.value) };
              return;
            }
            const event = this.#told.isNews(message) ? toEvent(message) : undefined;
            if (event) {
              yield event;
            }
          }
          cause = connectionFailed(this.#target, "the stream ended without a summary");
        } catch (error) {
          signal.throwIfAborted();
          cause = toUndertoneError(connection.signal.aborted ? connection.signal.reason : error, this.#target);
        } finally {
          connection.close();
          this.#outbox.ring();
        }
        retries.ended(connection.begun);
        await this.#pause(cause, retries);
      }
    } catch (error) {
      // What is sent from now on fails for the same reason.
      this.#closing.abort(error);
      throw error;
    } finally {
      this.#over();
    }
  }

  /** Waits before another connection; throws `cause` if there is to be none. */
  async #pause(cause: UndertoneError, retries: Retries): Promise<void> {
    if (cause.reason === "NO_CHECKPOINTS" && !this.#started && this.#config.checkpointInterval) {
      // Such a server's streams cannot be gone on with; they can be had.
      this.#config.checkpointInterval = undefined;
      return;
    }
    const mayGoOn = this.#started && this.#config.checkpointInterval && !this.#outbox.hasGap;
    const pause = mayGoOn && mayPass(cause) ? retries.pause(cause.retryAfter) : undefined;
    if (pause === undefined) {
      throw cause;
    }
    await sleep(pause, this.#closing.signal);
  }

  /** A server has taken the stream, or goes on with it after what broke it off: `cause`. */
  #begin(message: v1.Started, retries: Retries, cause: UndertoneError | undefined): StreamEvent {
    this.#outbox.cover(Number(message.resumedFrom?.requests ?? 0n));
    if (this.#outbox.hasGap) {
      throw new ResumeRefusedError("the server goes on from a place that is not kept any more");
    }
    this.#told.goesOn(this.#outbox.marksBefore);
    // What waits for the server to take the stream may be sent now.
    this.#outbox.ring();
    // If it breaks off before the first checkpoint, it is told again under its name.
    this.#config.sessionId = message.sessionId;
    if (!this.#started || !cause) {
      this.#started = toStarted(message);
      return { type: "started", ...this.#started };
    }
    const reconnected: Reconnected = { attempts: retries.attempts, downtime: retries.downtime, cause };
    return { type: "reconnected", ...reconnected };
  }

  /** Keeps the checkpoint that is in `message`, if there is one. */
  #heed({ case: kind, value }: StreamEmotionResponse["message"]): void {
    const checkpoint: Checkpoint | undefined =
      kind === "checkpoint" ? value : kind === "draining" ? value.checkpoint : undefined;
    if (checkpoint?.point) {
      this.#token = checkpoint.resumeToken;
      this.#outbox.cover(Number(checkpoint.point.requests));
    }
  }

  /** What is said on one connection. */
  async *#requests(connection: Connection): AsyncGenerator<StreamEmotionRequest, void> {
    const outbox = this.#outbox;
    outbox.rewind();
    yield request({ case: "config", value: { ...this.#config, resumeToken: this.#token } });
    while (!connection.signal.aborted) {
      const next = connection.begun === undefined ? undefined : outbox.next();
      if (next) {
        if (!this.#config.checkpointInterval) {
          outbox.coverSent();
        }
        yield next;
      } else if (connection.begun !== undefined && outbox.ended) {
        return;
      } else {
        await outbox.change();
      }
    }
  }
}

/** The life of one connection. */
class Connection {
  /** When the server took the stream on it, as `performance.now()` says. */
  begun: number | undefined;
  readonly #controller = new AbortController();
  readonly #stream: AbortSignal;
  readonly #stop = () => this.#controller.abort(this.#stream.reason);
  readonly #timer = setTimeout(() => {
    this.#controller.abort(new Error(`it has said nothing for ${ANSWER_TIMEOUT_MS / 1e3} s`));
  }, ANSWER_TIMEOUT_MS);

  /** It ends with `stream` at the latest. */
  constructor(stream: AbortSignal) {
    this.#stream = stream;
    stream.addEventListener("abort", this.#stop, { once: true });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  begin(): void {
    this.begun = performance.now();
    clearTimeout(this.#timer);
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#stream.removeEventListener("abort", this.#stop);
    this.#controller.abort();
  }
}

type Message = NonNullable<MessageInitShape<typeof StreamEmotionRequestSchema>["message"]>;

function request(message: Message): StreamEmotionRequest {
  return create(StreamEmotionRequestSchema, { message });
}

/** What users see of it: how it is gone on with is ours. */
function toStarted(message: v1.Started): Started {
  const { resumedFrom: _, ...started } = plain<Started & { resumedFrom?: unknown }>(StartedSchema, message);
  const { resumeToken: __, ...config } = started.config as Started["config"] & { resumeToken?: unknown };
  return { ...started, config };
}

/** What users see of `message`. */
function toEvent({ case: kind, value }: StreamEmotionResponse["message"]): StreamEvent | undefined {
  switch (kind) {
    case "estimate":
      return { type: kind, ...plain<Estimate>(EstimateSchema, value) };
    case "utterance":
      return { type: kind, ...plain<Utterance>(UtteranceSchema, value) };
    case "escalation":
      return { type: kind, ...plain<EscalationEvent>(EscalationEventSchema, value) };
    case "mark":
      return { type: kind, ...plain<Mark>(MarkReachedSchema, value) };
    case "warning":
      return { type: kind, ...plain<Warning>(WarningSchema, value) };
    case "draining":
      return { type: kind, deadline: seconds(value.deadline) };
    default:
      // Checkpoints are ours; the rest is of a newer server.
      return undefined;
  }
}
