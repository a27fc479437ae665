/**
 * Undertone's client for browsers: streams over WebSocket, everything else over gRPC-Web.
 *
 * @module
 */

import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { authorization, BaseClient, type Token } from "./client.js";
import { InvalidRequestError } from "./errors.js";
import { webSocket } from "./websocket.js";

export * from "./index.js";
export { fromMediaStream, type LiveSource, microphone } from "./microphone.js";

/** Where the server is, and how to say who calls. */
export interface BrowserOptions {
  /** URL of the server's HTTP port, for streams; the page's own origin if not given. */
  http?: string;
  /** URL of the server's gRPC port, for everything else; the page's own origin if not given. */
  grpc?: string;
  /** Says who calls. Everybody who has the page can read it: give one that is the user's own and runs out. */
  token?: Token;
}

/** A client of one server, whose `allowed_origins` must name the page's origin if that is another one. */
export class Undertone extends BaseClient {
  constructor({ http, grpc, token }: BrowserOptions = {}) {
    const stream = parse("http", http, "v1/stream");
    stream.protocol = stream.protocol === "https:" ? "wss:" : "ws:";
    const baseUrl = parse("grpc", grpc, "");
    const interceptors = token === undefined ? [] : [authorization(token)];
    super(baseUrl.host, createGrpcWebTransport({ baseUrl: baseUrl.href, interceptors }), webSocket(stream.href, token));
  }
}

function parse(name: string, text = location.origin, path: string): URL {
  const base = text.endsWith("/") ? text : `${text}/`;
  if (!URL.canParse(base) || !/^https?:$/.test(new URL(base).protocol)) {
    throw InvalidRequestError.ofField(name, `is ${JSON.stringify(text)}; example: https://emotion.example:9464`);
  }
  return new URL(path, base);
}
