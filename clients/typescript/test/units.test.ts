import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { StreamEmotionRequestSchema } from "../src/gen/undertone/v1/emotion_service_pb.js";
import { Outbox } from "../src/outbox.js";
import { duration, seconds } from "../src/plain.js";
import { Retries } from "../src/reconnect.js";

type Message = MessageInitShape<typeof StreamEmotionRequestSchema>["message"];
const audio = (bytes: number) => request({ case: "audio", value: { data: new Uint8Array(bytes) } });
const mark = () => request({ case: "mark", value: { name: "m" } });
const request = (message: Message) => create(StreamEmotionRequestSchema, { message });

describe("what is sent", () => {
  test("is kept until a checkpoint covers it, and then sent again on another connection", () => {
    const outbox = new Outbox();
    const requests = [audio(100), mark(), audio(200), audio(300)];
    for (const request of requests) {
      outbox.add(request);
    }
    expect([outbox.next(), outbox.next(), outbox.next()]).toEqual(requests.slice(0, 3));
    expect(outbox.unsentBytes).toBe(300);
    outbox.cover(2);
    expect(outbox.marksBefore).toBe(1);
    expect(outbox.next()).toBe(requests[3]);
    outbox.rewind();
    expect(outbox.unsentBytes).toBe(500);
    expect([outbox.next(), outbox.next(), outbox.next()]).toEqual([requests[2], requests[3], undefined]);
    // A server that goes on behind what this connection has sent.
    outbox.rewind();
    outbox.cover(3);
    expect([outbox.unsentBytes, outbox.next(), outbox.next()]).toEqual([300, requests[3], undefined]);
    expect(outbox.hasGap).toBe(false);
  });

  test("is not kept without end", () => {
    const outbox = new Outbox();
    const megabytes = (count: number) => {
      for (let n = 0; n < count; n += 1) {
        outbox.add(audio(1 << 20));
        outbox.next();
      }
    };
    megabytes(40);
    expect(outbox.hasGap).toBe(false);
    megabytes(1);
    expect(outbox.hasGap).toBe(true);
    outbox.cover(1);
    expect(outbox.hasGap).toBe(false);
    outbox.rewind();
    expect(outbox.unsentBytes).toBe(40 << 20);
  });
});

describe("another attempt", () => {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ["performance"] });
  });
  afterEach(() => {
    vi.useRealTimers();
    vi.restoreAllMocks();
  });

  test("waits twice as long each time at most, and anything less", () => {
    const retries = new Retries({ firstWait: 1, longestWait: 10 });
    retries.ended(undefined);
    const random = vi.spyOn(Math, "random").mockReturnValue(1);
    expect([1, 2, 3, 4, 5].map(() => retries.pause())).toEqual([1, 2, 4, 8, 10]);
    random.mockReturnValue(0);
    expect(retries.pause()).toBe(0);
    // On top of what the server asks for.
    expect(retries.pause(3)).toBe(3);
  });

  test("is made until patience ends, which a connection that goes well gives back", () => {
    vi.spyOn(Math, "random").mockReturnValue(0.5);
    const retries = new Retries({ patience: 10, firstWait: 1, longestWait: 1 });
    retries.ended(undefined);
    vi.advanceTimersByTime(9_000);
    retries.ended(undefined);
    expect(retries.pause()).toBe(0.5);
    expect(retries.pause(1)).toBe(undefined);
    const begun = performance.now();
    vi.advanceTimersByTime(3_000);
    retries.ended(begun);
    expect([retries.attempts, retries.downtime]).toEqual([0, 0]);
    expect(retries.pause(9)).toBe(9.5);
  });
});

test("times come back as they were", () => {
  for (const time of [0, 0.001, 0.512, 4.512, 7.30625, 3_599.999999999]) {
    expect(seconds(duration("time", time))).toBe(time);
  }
});
