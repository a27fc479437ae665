/**
 * The service, as a page calls it: the Connect protocol in JSON on the port that the page came from (docs/guides/http-json.md),
 * and audio over WebSocket (docs/websocket.md). Messages are those of `proto/undertone/v1` in protobuf's JSON: names in
 * lowerCamelCase, durations as "1.5s", times as RFC 3339, 64-bit integers as texts; fields with default values are there.
 */

/** Where the service is: two folders above this file, also behind a proxy that adds a path. */
const ROOT = new URL("../../", import.meta.url);
const TOKEN = "undertone.token";

/** An answer that is none: in Connect's words. */
export class CallError extends Error {
  /**
   * @param {string} code Connect's, such as "not_found"; "unavailable" where the server cannot be reached
   * @param {string} message
   * @param {{reason?: string, fields?: {field: string, description: string}[]}} [details]
   */
  constructor(code, message, { reason = "", fields = [] } = {}) {
    super(message);
    this.name = "CallError";
    this.code = code;
    /** The stable reason, such as "NO_ESCALATION_STORE"; empty if there is none. */
    this.reason = reason;
    /** What is wrong with which field of the request. */
    this.fields = fields;
  }
}

/** The token that the person gave, kept until the browser's tab is closed. @returns {string} */
export function token() {
  return sessionStorage.getItem(TOKEN) ?? "";
}

/** @param {string} text */
export function setToken(text) {
  if (text) sessionStorage.setItem(TOKEN, text);
  else sessionStorage.removeItem(TOKEN);
}

/** @param {any} body what Connect says of an error @returns {CallError} */
function refusal(body) {
  const details = Array.isArray(body?.details) ? body.details.map((/** @type {any} */ detail) => detail.debug ?? {}) : [];
  return new CallError(body?.code ?? "unknown", body?.message ?? "the server gave no reason", {
    reason: details.find((/** @type {any} */ detail) => detail.reason)?.reason,
    fields: details.flatMap((/** @type {any} */ detail) => detail.fieldViolations ?? []),
  });
}

/**
 * @param {string} method such as "SessionService/ListSessions"
 * @param {BodyInit} body
 * @param {string} type
 * @param {AbortSignal} [signal]
 */
async function post(method, body, type, signal) {
  /** @type {Record<string, string>} */
  const headers = { "content-type": type, "connect-protocol-version": "1" };
  if (token()) headers.authorization = `Bearer ${token()}`;
  let answer;
  try {
    answer = await fetch(new URL(`undertone.v1.${method}`, ROOT), { method: "POST", headers, body, signal, cache: "no-store" });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new CallError("unavailable", "the server cannot be reached");
  }
  if (answer.ok) return answer;
  const text = await answer.text();
  let error;
  try {
    error = refusal(JSON.parse(text));
  } catch {
    error = new CallError(answer.status === 403 ? "permission_denied" : "unknown", text.trim() || `HTTP ${answer.status}`);
  }
  if (error.code === "unauthenticated") dispatchEvent(new Event("undertone:unauthenticated"));
  throw error;
}

/**
 * One call.
 * @param {string} method such as "SessionService/ListSessions"
 * @param {object} [message]
 * @param {{signal?: AbortSignal}} [options]
 * @returns {Promise<any>}
 * @throws {CallError}
 */
export async function call(method, message = {}, { signal } = {}) {
  const answer = await post(method, JSON.stringify(message), "application/json", signal);
  return answer.json();
}

/** One message in its envelope: a byte of flags, four of length, JSON. @param {object} message */
function enveloped(message) {
  const json = new TextEncoder().encode(JSON.stringify(message));
  const envelope = new Uint8Array(5 + json.length);
  new DataView(envelope.buffer).setUint32(1, json.length);
  envelope.set(json, 5);
  return envelope;
}

/**
 * What a call that goes on says, message by message, until it ends well.
 * @param {string} method such as "SessionService/WatchSession"
 * @param {object} [message]
 * @param {{signal?: AbortSignal}} [options]
 * @returns {AsyncGenerator<any, void, void>}
 * @throws {CallError}
 */
export async function* watch(method, message = {}, { signal } = {}) {
  const answer = await post(method, enveloped(message), "application/connect+json", signal);
  if (!answer.body) throw new CallError("unknown", "the answer is empty");
  const reader = answer.body.getReader();
  let rest = new Uint8Array(0);
  try {
    for (;;) {
      while (rest.length >= 5) {
        const length = new DataView(rest.buffer, rest.byteOffset).getUint32(1);
        if (rest.length < 5 + length) break;
        const body = JSON.parse(new TextDecoder().decode(rest.subarray(5, 5 + length)));
        const last = (rest[0] & 2) !== 0;
        rest = rest.subarray(5 + length);
        if (!last) {
          yield body;
          continue;
        }
        if (body.error) throw refusal(body.error);
        return;
      }
      let read;
      try {
        read = await reader.read();
      } catch (error) {
        if (signal?.aborted) throw error;
        throw new CallError("unavailable", "the connection broke off");
      }
      if (read.done) throw new CallError("unavailable", "the connection broke off");
      const joined = new Uint8Array(rest.length + read.value.length);
      joined.set(rest);
      joined.set(read.value, rest.length);
      rest = joined;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/**
 * As `watch`, for as long as the page is open: begun anew, with growing pauses, when it breaks off, and with `pauses` when the
 * page has been hidden and is seen again. A browser has six connections to one server for all its tabs, and each watch takes one.
 * @param {string} method
 * @param {() => object} message what to ask for, each time anew
 * @param {{signal: AbortSignal, state?: (problem: CallError | null) => void, pauses?: boolean}} options `state` hears of each break,
 *     and `null` when messages come again
 * @returns {AsyncGenerator<any, void, void>}
 */
export async function* follow(method, message, { signal, state = () => {}, pauses = true }) {
  let pause = 500;
  while (!signal.aborted) {
    if (pauses) await seen(signal);
    const hidden = new AbortController();
    const hide = () => document.hidden && hidden.abort();
    if (pauses) document.addEventListener("visibilitychange", hide);
    try {
      for await (const said of watch(method, message(), { signal: AbortSignal.any([signal, hidden.signal]) })) {
        pause = 500;
        state(null);
        yield said;
      }
      return;
    } catch (error) {
      if (signal.aborted) return;
      if (hidden.signal.aborted) continue;
      if (!(error instanceof CallError)) throw error;
      state(error);
      if (!["unavailable", "resource_exhausted", "deadline_exceeded", "unknown"].includes(error.code)) return;
    } finally {
      document.removeEventListener("visibilitychange", hide);
    }
    await sleep(pause * (0.5 + Math.random()), signal);
    pause = Math.min(pause * 2, 15_000);
  }
}

/** Until the page is seen. @param {AbortSignal} signal @returns {Promise<void>} ends early, and well, when aborted */
function seen(signal) {
  return new Promise((resolve) => {
    if (!document.hidden || signal.aborted) return resolve();
    const look = () => {
      if (document.hidden && !signal.aborted) return;
      document.removeEventListener("visibilitychange", look);
      resolve();
    };
    document.addEventListener("visibilitychange", look);
    signal.addEventListener("abort", look, { once: true });
  });
}

/** @param {number} ms @param {AbortSignal} [signal] @returns {Promise<void>} ends early, and well, when aborted */
export function sleep(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

/**
 * A stream of one's own, over WebSocket.
 *
 * `events` gives what the server says ({started: ...}, {estimate: ...}, ...) up to `finished`. Whoever sends looks at `behind`
 * and waits while it is large.
 */
export class EmotionStream {
  /** @param {object} config a StreamConfig */
  constructor(config) {
    const url = new URL("v1/stream", ROOT);
    url.protocol = url.protocol.replace("http", "ws");
    const protocols = ["undertone.v1"];
    if (token()) protocols.push(`undertone.bearer.${token()}`);
    this.socket = new WebSocket(url, protocols);
    this.socket.binaryType = "arraybuffer";
    this.socket.addEventListener("open", () => this.#say({ config }));
    this.events = this.#events();
  }

  /** @param {object} message */
  #say(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  /** Bytes that are still to be sent. */
  get behind() {
    return this.socket.bufferedAmount;
  }

  /** @param {ArrayBuffer | Int16Array} samples as the configuration says */
  audio(samples) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(/** @type {ArrayBuffer} */ (samples));
  }

  /** @param {{escalationId: string, actor: string, note?: string}} acknowledge */
  acknowledge(acknowledge) {
    this.#say({ acknowledge });
  }

  /** That was all: the rest is analysed, and `finished` comes. */
  end() {
    this.#say({ end: {} });
  }

  /** Breaks off. */
  close() {
    this.socket.close(1000);
  }

  async *#events() {
    /** @type {(any | null)[]} */
    const waiting = [];
    let wake = () => {};
    let failure = /** @type {CallError | null} */ (null);
    let closed = false;
    this.socket.addEventListener("message", ({ data }) => {
      const said = JSON.parse(data);
      if (said.error) {
        const { code, message, reason, fields } = said.error;
        failure = new CallError(String(code).toLowerCase(), message, { reason, fields });
      } else {
        waiting.push(said);
      }
      wake();
    });
    this.socket.addEventListener("close", ({ code }) => {
      if (code !== 1000 && !failure) failure = new CallError("unavailable", "the connection broke off");
      closed = true;
      wake();
    });
    for (;;) {
      while (waiting.length > 0) yield waiting.shift();
      if (closed && failure) throw failure;
      if (closed) return;
      await new Promise((resolve) => {
        wake = () => resolve(undefined);
      });
    }
  }
}
