/**
 * Undertone's client for Node: gRPC over HTTP/2.
 *
 * @module
 */

import { open as openFile } from "node:fs/promises";
import type { SecureClientSessionOptions } from "node:http2";
import { isMessage, type Message } from "@bufbuild/protobuf";
import type { Transport } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { authorization, BaseClient, type Token } from "./client.js";
import { InvalidRequestError, StreamClosedError, toUndertoneError, UnavailableError } from "./errors.js";
import { StreamEmotionResponseSchema } from "./gen/undertone/v1/emotion_service_pb.js";
import { type ReadOptions, readWav, type Source } from "./sources.js";

export * from "./index.js";

/** Whom to trust, and how to say who calls. */
export interface NodeOptions {
  /** Says who calls. Sent over TLS and to this machine only. */
  token?: Token;
  /** PEM with the authorities that the server's certificate may be of; the system's if not given. */
  ca?: string | Uint8Array;
  /** PEM with a certificate that says who calls, and its private key. */
  clientCertificate?: string | Uint8Array;
  clientKey?: string | Uint8Array;
  /** Name that the server's certificate must bear, where it is not the target's, as behind a tunnel. */
  serverName?: string;
}

const DEFAULT_PORT = 50051;
/**
 * Time between two pings on a connection in use, and the longest wait for an answer: a machine that dies or a network that
 * changes says nothing, and TCP alone would notice when no stream can be gone on with any more.
 */
const KEEP_ALIVE_MS = 5_000;
/** How long a connection that nothing is open on stays. */
const IDLE_MS = 60_000;

/** A client of the server at `localhost:50051` or `https://emotion.example:50051`. Its calls share a connection. */
export class Undertone extends BaseClient {
  readonly #connections: Connections;

  constructor(target = "localhost", options: NodeOptions = {}) {
    const url = parseTarget(target);
    const tls = tlsOptions(url, options);
    const connections = new Connections(url, tls, options.token);
    super(url.host, connections);
    this.#connections = connections;
  }

  /** Closes the connection; what is open ends with an error. A process ends without it, too, when nothing is open. */
  close(): void {
    this.#connections.close();
  }
}

/** A wav file, read as it is wanted. Other containers are for {@link Undertone.analyze}. */
export function fromFile(path: string, options: ReadOptions = {}): Promise<Source> {
  return readWav(async (start, end) => {
    const file = await openFile(path);
    try {
      const { bytesRead, buffer } = await file.read(new Uint8Array(end - start), 0, end - start, start);
      return buffer.subarray(0, bytesRead);
    } finally {
      await file.close();
    }
  }, options);
}

/** `localhost`, `localhost:50051`, `https://10.0.0.7:50051`. */
function parseTarget(text: string): URL {
  const [, scheme = "http", host, port = DEFAULT_PORT] =
    /^(?:(https?):\/\/)?([^/:\s]+|\[[\da-f:.]+\])(?::(\d+))?\/?$/i.exec(text) ?? [];
  const url = `${scheme}://${host}:${port}`;
  if (!host || !URL.canParse(url)) {
    throw InvalidRequestError.ofField(
      "target",
      `is ${JSON.stringify(text)}; examples: localhost:50051, https://10.0.0.7:50051`,
    );
  }
  return new URL(url);
}

function tlsOptions(url: URL, options: NodeOptions): SecureClientSessionOptions {
  const { token, ca, clientCertificate, clientKey, serverName } = options;
  const isSecure = url.protocol === "https:";
  for (const [name, value] of Object.entries({ ca, clientCertificate, clientKey, serverName })) {
    if (!isSecure && value !== undefined) {
      throw InvalidRequestError.ofField(name, `is for https:// targets; the target is ${url.origin}`);
    }
  }
  if ((clientCertificate === undefined) !== (clientKey === undefined)) {
    throw InvalidRequestError.ofField("clientKey", "belongs to clientCertificate; give both or neither");
  }
  if (token !== undefined && !isSecure && !/^(localhost|127(\.\d+){3}|\[::1\])$/.test(url.hostname)) {
    throw InvalidRequestError.ofField("token", `could be read on the way to ${url.origin}; use https://`);
  }
  const pem = (value: string | Uint8Array | undefined) => (typeof value === "object" ? Buffer.from(value) : value);
  return { ca: pem(ca), cert: pem(clientCertificate), key: pem(clientKey), servername: serverName };
}

/** One connection, and a fresh transport on it. */
interface Link {
  readonly manager: Http2SessionManager;
  readonly transport: Transport;
  /** Calls that are open on it. */
  calls: number;
}

/**
 * The connection that calls share. Calls that begin after it broke, or its server said that it drains, get another one: behind
 * a balancer of connections that is how they come out at another replica. The one before closes by itself when it is idle.
 */
class Connections implements Transport {
  readonly #open: () => Link;
  readonly #links = new Set<Link>();
  #current: Link;
  #isClosed = false;

  constructor(url: URL, tls: SecureClientSessionOptions, token: Token | undefined) {
    this.#open = () => {
      const times = { pingIntervalMs: KEEP_ALIVE_MS, pingTimeoutMs: KEEP_ALIVE_MS, idleConnectionTimeoutMs: IDLE_MS };
      const manager = new Http2SessionManager(url, times, tls);
      const interceptors = token === undefined ? [] : [authorization(token)];
      const transport = createGrpcTransport({ baseUrl: url.origin, sessionManager: manager, interceptors });
      const link = { manager, transport, calls: 0 };
      this.#links.add(link);
      return link;
    };
    this.#current = this.#open();
  }

  unary: Transport["unary"] = async (...call) => {
    const link = this.#begin();
    try {
      return await link.transport.unary(...call);
    } catch (error) {
      this.#leave(link, error);
      throw error;
    } finally {
      this.#end(link);
    }
  };

  stream: Transport["stream"] = async (...call) => {
    const link = this.#begin();
    try {
      const response = await link.transport.stream(...call);
      return { ...response, message: this.#heed(link, response.message) };
    } catch (error) {
      this.#leave(link, error);
      this.#end(link);
      throw error;
    }
  };

  close(): void {
    this.#isClosed = true;
    for (const { manager } of this.#links) {
      manager.abort();
    }
  }

  async *#heed<T extends Message>(link: Link, messages: AsyncIterable<T>): AsyncGenerator<T, void> {
    try {
      for await (const message of messages) {
        if (isMessage(message, StreamEmotionResponseSchema) && message.message.case === "draining") {
          this.#leave(link);
        }
        yield message;
      }
    } catch (error) {
      this.#leave(link, error);
      throw error;
    } finally {
      this.#end(link);
    }
  }

  #begin(): Link {
    if (this.#isClosed) {
      throw new StreamClosedError("the client was closed");
    }
    this.#current.calls += 1;
    return this.#current;
  }

  /** Calls that begin from now on get another connection, unless `error` is a refusal that another one would not change. */
  #leave(link: Link, error?: unknown): void {
    const isOver = error === undefined || toUndertoneError(error, "") instanceof UnavailableError;
    if (isOver && link === this.#current) {
      this.#current = this.#open();
    }
  }

  #end(link: Link): void {
    link.calls -= 1;
    if (link.calls === 0 && link !== this.#current) {
      // Not aborted: that would take away the listener of an error that is on its way, and the process would end with it.
      this.#links.delete(link);
    }
  }
}
