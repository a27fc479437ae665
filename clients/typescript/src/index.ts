/**
 * What the clients for Node and for browsers share: events, errors, sources of audio. The clients themselves are in
 * `@undertone/client/node` and `@undertone/client/browser`.
 *
 * @module
 */

export type {
  AnalyzeOptions,
  CallSettings,
  EscalationFilter,
  SessionOptions,
  Token,
  WatchOptions,
} from "./client.js";
export {
  AlreadyExistsError,
  ConnectionFailedError,
  DataLossError,
  type FieldViolation,
  InvalidRequestError,
  NotFoundError,
  OverloadedError,
  PermissionDeniedError,
  ResumeRefusedError,
  ServerError,
  StreamClosedError,
  TakenOverError,
  TimedOutError,
  UnauthenticatedError,
  UnavailableError,
  UndertoneError,
} from "./errors.js";
export type { Reconnect } from "./reconnect.js";
export { fromBytes, fromIterable, fromWav, type ReadOptions, type Source } from "./sources.js";
export type { Stream, StreamOptions } from "./stream.js";
export type * from "./types.js";
