// What can go wrong, as classes. The message names the fields, the stable reason and the remedy; the properties hold them
// for programs.

import { durationMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";

/** A field that cannot be used. */
export interface FieldViolation {
  /** Its path in the request, such as `config.audio.sample_rate_hz`. */
  field: string;
  /** What is wrong about it. */
  description: string;
}

/** What an error says besides its text. */
export interface ErrorDetails {
  /** The gRPC code, such as `"INVALID_ARGUMENT"`; empty for what this package itself refuses. */
  code?: string;
  /** The server's stable reason, such as `"SERVER_FULL"`. */
  reason?: string | undefined;
  /** Fields that cannot be used. */
  fields?: readonly FieldViolation[];
  /** What to do about it, if that is known. */
  remedy?: string | undefined;
  /** Seconds to wait before another attempt, if the server named a time. */
  retryAfter?: number | undefined;
  /** What is behind it on this side. */
  cause?: unknown;
}

/** Something did not work: the base of all errors of this package. */
export class UndertoneError extends Error {
  readonly code: string;
  readonly reason: string | undefined;
  readonly fields: readonly FieldViolation[];
  readonly remedy: string | undefined;
  readonly retryAfter: number | undefined;

  constructor(text: string, { code = "", reason, fields = [], remedy, retryAfter, cause }: ErrorDetails = {}) {
    const lines = [code ? `${code}: ${text}` : text];
    lines.push(...fields.map(({ field, description }) => `field   ${field}: ${description}`));
    if (reason) {
      lines.push(`reason  ${reason}`);
    }
    if (remedy) {
      lines.push(`remedy  ${remedy}`);
    }
    super(lines.join("\n  "), { cause });
    this.name = new.target.name;
    this.code = code;
    this.reason = reason;
    this.fields = fields;
    this.remedy = remedy;
    this.retryAfter = retryAfter;
  }
}

/** What was asked for cannot be done: a bad argument, or a wrong order. `fields` says which. */
export class InvalidRequestError extends UndertoneError {
  /** This package refuses an argument. */
  static ofField(field: string, description: string): InvalidRequestError {
    return new InvalidRequestError("the request cannot be used", { fields: [{ field, description }] });
  }
}

/** The server does not know who calls. */
export class UnauthenticatedError extends UndertoneError {}

/** It knows, and that does not suffice. */
export class PermissionDeniedError extends UndertoneError {}

/** There is no such model, policy, escalation or session. */
export class NotFoundError extends UndertoneError {}

/** A live session has that name already. */
export class AlreadyExistsError extends UndertoneError {}

/** The server, or a quota of the caller's, has no room now. `retryAfter` says when to come again. */
export class OverloadedError extends UndertoneError {}

/** The server cannot answer now, or the connection broke. */
export class UnavailableError extends UndertoneError {}

/** No server answers at the target, or not one that this client can talk to. */
export class ConnectionFailedError extends UnavailableError {}

/** A stream that broke off cannot be gone on with, now or ever. Open another one. */
export class ResumeRefusedError extends UndertoneError {}

/** The session goes on in another stream. */
export class TakenOverError extends UndertoneError {}

/** Something did not come within its time. */
export class TimedOutError extends UndertoneError {}

/** The audio cannot be decoded. */
export class DataLossError extends UndertoneError {}

/** A defect of the server, or of what stands between. */
export class ServerError extends UndertoneError {}

/** The stream, or the client, has ended or was ended; nothing more can be sent. */
export class StreamClosedError extends UndertoneError {}

const CLASSES: Record<string, typeof UndertoneError> = {
  INVALID_ARGUMENT: InvalidRequestError,
  FAILED_PRECONDITION: InvalidRequestError,
  OUT_OF_RANGE: InvalidRequestError,
  UNAUTHENTICATED: UnauthenticatedError,
  PERMISSION_DENIED: PermissionDeniedError,
  NOT_FOUND: NotFoundError,
  ALREADY_EXISTS: AlreadyExistsError,
  RESOURCE_EXHAUSTED: OverloadedError,
  UNAVAILABLE: UnavailableError,
  CANCELLED: UnavailableError,
  ABORTED: TakenOverError,
  DEADLINE_EXCEEDED: TimedOutError,
  DATA_LOSS: DataLossError,
};

/** The error for what a server refused. */
export function refusal(text: string, details: ErrorDetails & { code: string }): UndertoneError {
  const { code, reason, retryAfter } = details;
  const refusesResume = reason?.startsWith("RESUME_") || reason === "NO_CHECKPOINTS";
  const kind = refusesResume ? ResumeRefusedError : (CLASSES[code] ?? ServerError);
  let remedy: string | undefined;
  if (retryAfter !== undefined) {
    remedy = retryAfter > 0 ? `try again in ${retryAfter} s` : "try again at once, elsewhere if you can";
  } else if (kind === UnauthenticatedError) {
    remedy = "say who calls with the option `token`";
  } else if (refusesResume) {
    remedy = "open another stream";
  } else if (code === "UNIMPLEMENTED") {
    remedy = "this is no Undertone server, or one of another version";
  }
  return new kind(text, { ...details, remedy });
}

/** Codes that come from this side or from what stands between, if they have no reason: the server gives one. */
const FROM_BETWEEN = new Set([Code.Unavailable, Code.Canceled, Code.Unknown, Code.Internal, Code.Aborted]);

/** The error for whatever a call to `target` ended with. */
export function toUndertoneError(error: unknown, target: string): UndertoneError {
  if (error instanceof UndertoneError) {
    return error;
  }
  const status = ConnectError.from(error);
  if (status.cause instanceof UndertoneError) {
    return status.cause;
  }
  const info = status.findDetails(ErrorInfoSchema)[0];
  if (status.cause !== undefined || (!info && FROM_BETWEEN.has(status.code))) {
    return connectionFailed(target, status.cause ?? status.rawMessage);
  }
  const retry = status.findDetails(RetryInfoSchema)[0];
  return refusal(status.rawMessage, {
    code: codeName(status.code),
    reason: info?.reason,
    fields: status.findDetails(BadRequestSchema).flatMap((bad) => bad.fieldViolations.map(toViolation)),
    retryAfter: retry?.retryDelay && durationMs(retry.retryDelay) / 1e3,
  });
}

function toViolation({ field, description }: FieldViolation): FieldViolation {
  return { field, description };
}

/** As gRPC writes it: Code.InvalidArgument is INVALID_ARGUMENT. */
function codeName(code: Code): string {
  const name = Code[code] ?? "Unknown";
  return name === "Canceled" ? "CANCELLED" : name.replace(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase();
}

// What TLS says, and what to do about it.
const REMEDIES: readonly [RegExp, string][] = [
  [/self[- ]signed|unable to verify|unable to get/i, "name the authority of the server's certificate with `ca`"],
  [/altnames|ERR_TLS_CERT_ALTNAME/i, "say with `serverName` what the certificate bears, or call it by that"],
  [/certificate required/i, "the server wants to know who calls: `clientCertificate` and `clientKey`"],
  [/wrong version number|packet length too long/i, "the server speaks no TLS: write http://"],
];

/** Nobody answered at `target`, or not for long. */
export function connectionFailed(target: string, cause: unknown, remedy?: string): ConnectionFailedError {
  const why =
    cause instanceof Error ? cause.message || String((cause as { code?: string }).code ?? cause) : String(cause);
  const known = REMEDIES.find(([sign]) => sign.test(why))?.[1];
  return new ConnectionFailedError(`no answer from ${target}: ${why}`, {
    code: "UNAVAILABLE",
    remedy: remedy ?? known ?? "is a server running there? `undertone serve` starts one; one with TLS is https://",
    cause,
  });
}

/** Whether another attempt at what had begun, here or elsewhere, may go better. */
export function mayPass(error: UndertoneError): boolean {
  switch (error.code) {
    case "UNAVAILABLE":
    case "UNKNOWN":
    case "INTERNAL":
    case "CANCELLED":
      return true;
    case "RESOURCE_EXHAUSTED":
      return error.retryAfter !== undefined;
    default:
      // The server has not noticed yet that the stream broke off; another token may be there soon.
      return error.reason === "SESSION_ID_TAKEN" || error.reason === "TOKEN_EXPIRED";
  }
}
