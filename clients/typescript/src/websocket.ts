// A stream over WebSocket, for browsers, which cannot stream a request's body while they read the answer.

import { fromJson, type JsonObject, type JsonValue, toJson } from "@bufbuild/protobuf";
import { type Duration, DurationSchema } from "@bufbuild/protobuf/wkt";
import { current, type Token } from "./client.js";
import { connectionFailed, type FieldViolation, InvalidRequestError, refusal, type UndertoneError } from "./errors.js";
import {
  type StreamEmotionRequest,
  StreamEmotionRequestSchema,
  type StreamEmotionResponse,
  StreamEmotionResponseSchema,
} from "./gen/undertone/v1/emotion_service_pb.js";
import { seconds } from "./plain.js";
import type { Converse } from "./stream.js";

const PROTOCOL = "undertone.v1";
/** Nothing more is sent while so many bytes wait in the socket: what waits there only grows old. */
const MOST_WAITING_BYTES = 64 << 10;
/** Nor while so many answers are unread: a browser takes what comes, so that answers are bounded by what is sent. */
const MOST_UNREAD = 256;
/** Time between two looks whether there is room, since a socket does not say. */
const LOOK_MS = 10;

/** Streams to `url`, such as `wss://emotion.example:9464/v1/stream`. */
export function webSocket(url: string, token: Token | undefined): Converse {
  return async function* (requests, signal) {
    const protocols = [PROTOCOL];
    if (token !== undefined) {
      // A browser can set no headers.
      protocols.push(`undertone.bearer.${await current(token)}`);
    }
    signal.throwIfAborted();
    const conversation = new Conversation(url, protocols);
    const stop = () => conversation.fail(signal.reason);
    signal.addEventListener("abort", stop, { once: true });
    try {
      void conversation.say(requests);
      yield* conversation.hear();
    } finally {
      signal.removeEventListener("abort", stop);
      conversation.close();
    }
  };
}

/** One socket. */
class Conversation {
  readonly #url: string;
  readonly #socket: WebSocket;
  readonly #unread: StreamEmotionResponse[] = [];
  readonly #opened: Promise<void>;
  #end: { error?: unknown } | undefined;
  #wake = () => {};

  constructor(url: string, protocols: string[]) {
    this.#url = url;
    this.#socket = open(url, protocols);
    this.#socket.binaryType = "arraybuffer";
    this.#opened = new Promise((resolve) => this.#socket.addEventListener("open", () => resolve(), { once: true }));
    this.#socket.addEventListener("message", ({ data }) => this.#heed(data));
    // It says nothing; `close` follows.
    this.#socket.addEventListener("error", () => {});
    this.#socket.addEventListener("close", ({ code, reason }) => {
      const why = code === 1006 ? "the connection broke, or was not made" : `it closed with ${code} ${reason}`.trim();
      this.fail(
        connectionFailed(url, why, "is a server there, and does its `allowed_origins` name this page's origin?"),
      );
    });
  }

  /** Sends `requests` as there is room for them, and then that these were all. */
  async say(requests: AsyncIterable<StreamEmotionRequest>): Promise<void> {
    await this.#opened;
    for await (const request of requests) {
      while (this.#isFull()) {
        await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
      }
      if (this.#end) {
        return;
      }
      const { message } = request;
      // A chunk without a number goes as it is.
      const isBare = message.case === "audio" && message.value.sequence === undefined;
      this.#socket.send(
        isBare
          ? (message.value.data as Uint8Array<ArrayBuffer>)
          : JSON.stringify(toJson(StreamEmotionRequestSchema, request)),
      );
    }
    if (!this.#end) {
      this.#socket.send(JSON.stringify({ end: {} }));
    }
  }

  async *hear(): AsyncGenerator<StreamEmotionResponse, void> {
    for (;;) {
      const response = this.#unread.shift();
      if (response) {
        yield response;
      } else if (this.#end) {
        if (this.#end.error !== undefined) {
          throw this.#end.error;
        }
        return;
      } else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }

  /** Nothing more comes, because of `error`; the first reason counts. */
  fail(error: unknown): void {
    this.#end ??= { error };
    this.#wake();
  }

  close(): void {
    this.#end ??= {};
    this.#socket.close();
  }

  #isFull(): boolean {
    return !this.#end && (this.#socket.bufferedAmount > MOST_WAITING_BYTES || this.#unread.length > MOST_UNREAD);
  }

  #heed(data: unknown): void {
    try {
      const frame = JSON.parse(String(data)) as JsonObject;
      if (frame.error !== undefined) {
        this.fail(refused(frame.error as unknown as ErrorFrame));
        return;
      }
      const response = fromJson(StreamEmotionResponseSchema, frame, { ignoreUnknownFields: true });
      this.#unread.push(response);
      if (response.message.case === "finished") {
        this.#end ??= {};
      }
      this.#wake();
    } catch (error) {
      this.fail(connectionFailed(this.#url, error, "this is no Undertone server, or one of another version"));
    }
  }
}

/** What the server says last, if it does not end well. */
interface ErrorFrame {
  code: string;
  message: string;
  reason?: string;
  fields?: FieldViolation[];
  /** A duration in JSON. */
  retryAfter?: JsonValue;
}

function refused({ code, message, reason, fields, retryAfter }: ErrorFrame): UndertoneError {
  const retry = retryAfter === undefined ? undefined : seconds(fromJson(DurationSchema, retryAfter) as Duration);
  return refusal(message, { code, reason, fields, retryAfter: retry });
}

function open(url: string, protocols: string[]): WebSocket {
  try {
    return new WebSocket(url, protocols);
  } catch (error) {
    const description = `cannot be used in ${url}: ${error instanceof Error ? error.message : error}`;
    throw InvalidRequestError.ofField(protocols.length > 1 ? "http or token" : "http", description);
  }
}
