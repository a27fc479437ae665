// Messages of the protocol as plain data, and times the other way round.

import { create, type DescEnum, type DescField, type DescMessage, isFieldSet, type Message } from "@bufbuild/protobuf";
import type { Duration, Timestamp } from "@bufbuild/protobuf/wkt";
import { DurationSchema, TimestampSchema, timestampDate } from "@bufbuild/protobuf/wkt";
import { InvalidRequestError } from "./errors.js";

/** `message` as `T`, its interface in `types.ts`. That both have the same fields is checked by `test/types.test.ts`. */
export function plain<T>(schema: DescMessage, message: Message): T {
  const data: Record<string, unknown> = {};
  for (const field of schema.fields) {
    const value = isFieldSet(message, field) || zeroMeansZero(field) ? read(field, message) : undefined;
    if (value !== undefined) {
      data[field.localName] = value;
    }
  }
  return data as T;
}

/** Whether a zero is a value, rather than nothing. */
function zeroMeansZero(field: DescField): boolean {
  const isOptional = field.oneof !== undefined || field.proto.proto3Optional;
  return field.fieldKind === "list" || field.fieldKind === "map" || (field.fieldKind === "scalar" && !isOptional);
}

function read(field: DescField, message: Message): unknown {
  const holder = message as unknown as Record<string, unknown>;
  const value = field.oneof
    ? (holder[field.oneof.localName] as { value: unknown }).value
    : (holder[field.localName] as unknown);
  switch (field.fieldKind) {
    case "list":
      return (value as unknown[]).map((item) => single(field, item)).filter((item) => item !== undefined);
    case "map":
      return { ...(value as object) };
    default:
      return single(field, value);
  }
}

function single(field: { enum?: DescEnum | undefined; message?: DescMessage | undefined }, value: unknown): unknown {
  if (field.enum) {
    const name = field.enum.value[value as number]?.localName.toLowerCase();
    return name === "unspecified" ? undefined : name;
  }
  switch (field.message?.typeName) {
    case undefined:
      return typeof value === "bigint" ? Number(value) : value;
    case DurationSchema.typeName:
      return seconds(value as Duration);
    case TimestampSchema.typeName:
      return timestampDate(value as Timestamp);
    default:
      return plain(field.message as DescMessage, value as Message);
  }
}

/** A time of the protocol in seconds; what is missing is 0. */
export function seconds(time: Duration | undefined): number {
  // In one division: 4 + 0.512 is 4.5120000000000005.
  return time ? (Number(time.seconds) * 1e9 + time.nanos) / 1e9 : 0;
}

/** `value` seconds for the protocol; `name` is whose fault it is if that is no time. */
export function duration(name: string, value: number | undefined): Duration | undefined {
  if (value === undefined) {
    return undefined;
  }
  if (!(value >= 0 && value < 1e9)) {
    throw InvalidRequestError.ofField(name, `is ${value}; give seconds, 0 or more`);
  }
  const whole = Math.floor(value);
  const nanos = Math.round((value - whole) * 1e9);
  return create(DurationSchema, { seconds: BigInt(whole + Math.floor(nanos / 1e9)), nanos: nanos % 1e9 });
}

/** The number of an enum's `word`, such as "angry"; `name` is whose fault it is if there is none. */
export function ordinal(name: string, type: DescEnum, word: string): number {
  const value = type.values.find((value) => value.number !== 0 && value.localName.toLowerCase() === word);
  if (!value) {
    const words = type.values.filter((value) => value.number !== 0).map((value) => value.localName.toLowerCase());
    throw InvalidRequestError.ofField(name, `is ${JSON.stringify(word)}; give one of ${words.join(", ")}`);
  }
  return value.number;
}
