import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import {
  type AudioFormat,
  ConnectionFailedError,
  DataLossError,
  fromBytes,
  fromFile,
  fromIterable,
  fromWav,
  InvalidRequestError,
  NotFoundError,
  type Source,
  StreamClosedError,
  type StreamEvent,
  Undertone,
} from "../src/node.js";
import { all, failure, fileServer, folder, HELLO, ROOT, shortWav, testServer } from "./server.js";

const server = await fileServer();
const undertone = new Undertone(server.grpc);
const wav = await readFile(HELLO);
const LINEAR16: AudioFormat = { encoding: "linear16", sampleRateHz: 16_000 };

/** Nothing but what the audio gives. */
function heard(events: StreamEvent[]) {
  return events.filter(({ type }) => type === "estimate" || type === "utterance");
}

describe("a stream", () => {
  test("is started, estimated and finished", async () => {
    const labels = { "on-behalf-of": "a test" };
    const events = await all(undertone.stream(await fromFile(HELLO), { sessionId: "from-node", labels }));
    const [started, finished] = [events[0], events.at(-1)];
    if (started?.type !== "started" || finished?.type !== "finished") {
      throw new Error("the first must be `started`, the last `finished`");
    }
    expect(started).toMatchObject({ sessionId: "from-node", config: { labels, estimateInterval: 0.5 } });
    expect(started.config.audio).toMatchObject({ encoding: "linear16", sampleRateHz: 16_000, channelCount: 1 });
    expect(Object.keys(started.config)).not.toContain("resumeToken");
    expect(started.model.isDefault).toBe(true);
    expect(started.model.labels).toContain("angry");
    const estimates = events.filter((event) => event.type === "estimate");
    expect(finished).toMatchObject({ reason: "client", estimates: estimates.length });
    expect(finished.audio).toBeCloseTo(116_900 / 16_000, 6);
    const judged = estimates.filter(({ abstains }) => !abstains);
    expect(judged.length).toBeGreaterThan(5);
    for (const { affect, start, evidenceEnd, end } of judged) {
      expect(affect?.scores.reduce((sum, { probability }) => sum + probability, 0)).toBeCloseTo(1, 4);
      expect(started.model.labels).toContain(affect?.top);
      expect(start).toBeLessThan(evidenceEnd);
      expect(evidenceEnd).toBeLessThanOrEqual(end);
    }
    const silent = estimates.find(({ abstains }) => abstains);
    expect(silent?.abstainReason).toMatch(/^(no_evidence|too_little_speech|unsure)$/);
    expect(events.filter((event) => event.type === "utterance").map(({ index }) => index)).toEqual(
      [0, 1].slice(0, finished.channels[0]?.utterances),
    );
  });

  test("gives the same whatever its chunks are", async () => {
    const whole = heard(await all(undertone.stream(await fromWav(wav, { chunk: 60 }))));
    // 37 ms and an odd number of bytes, so that samples are split.
    const samples = wav.subarray(44);
    const odd = Array.from({ length: Math.ceil(samples.length / 1183) }, (_, n) =>
      samples.subarray(n * 1183, (n + 1) * 1183),
    );
    const split = heard(await all(undertone.stream(fromIterable(odd, LINEAR16))));
    expect(split.length).toBe(whole.length);
    for (const [index, event] of split.entries()) {
      expectNear(event, whole[index]);
    }
  });

  test("can be pushed to, labelled and told of turns", async () => {
    const stream = await undertone.open(LINEAR16, { estimateInterval: 0.25, minConfidence: 0 });
    expect(stream.sessionId).toBe(stream.started.sessionId);
    expect(stream.started.config.estimateInterval).toBe(0.25);
    stream.turnStart();
    const audio = wav.subarray(44, 44 + 3 * 32_000);
    await stream.send(audio);
    stream.turnEnd();
    stream.mark("half");
    expect(stream.trySend(audio.subarray(0, 320))).toBe(true);
    stream.mark("whole");
    stream.end();
    const events = await all(stream);
    const marks = events.filter((event) => event.type === "mark");
    expect(marks).toEqual([
      { type: "mark", name: "half", position: 3 },
      { type: "mark", name: "whole", position: 3.01 },
    ]);
    // The turn's end ended the utterance, before the silence that would have.
    expect(events.findIndex(({ type }) => type === "utterance")).toBeLessThan(events.indexOf(marks[0] as StreamEvent));
    expect(() => stream.mark("late")).toThrow(StreamClosedError);
    await expect(stream.send(audio)).rejects.toThrow(StreamClosedError);
  });

  test("takes chunks of any size", async () => {
    const small = await testServer("--max-chunk-bytes", "4096");
    const client = new Undertone(small.grpc);
    const events = await all(client.stream(await fromWav(wav, { chunk: 60 })));
    const chunks = Math.ceil((116_900 * 2) / 4096);
    expect(events.at(-1)).toMatchObject({ type: "finished", chunks });
  });

  test("waits with what it sends while the server does not listen, and loses nothing", async () => {
    const slow = await testServer();
    const stream = await new Undertone(slow.grpc).open(LINEAR16, { maxBufferedBytes: 64_000 });
    const events = all(stream);
    const second = wav.subarray(44, 32_044);
    slow.signal("SIGSTOP");
    let sent = 0;
    const sending = (async () => {
      for (; sent < 60; sent += 1) {
        await stream.send(second);
      }
    })();
    let before = -1;
    const standsStill = () => {
      const isSame = sent === before;
      before = sent;
      return isSame;
    };
    await expect.poll(standsStill, { interval: 250, timeout: 20_000 }).toBe(true);
    expect(sent).toBeLessThan(60);
    expect(stream.trySend(second)).toBe(false);
    slow.signal("SIGCONT");
    await sending;
    stream.end();
    expect((await events).at(-1)).toMatchObject({ type: "finished", audio: 60 });
  });

  test("keeps the order of what is sent without waiting", async () => {
    const small = await testServer("--max-chunk-bytes", "4096");
    const stream = await new Undertone(small.grpc).open(LINEAR16, { maxBufferedBytes: 8_192 });
    const samples = wav.subarray(44);
    for (let start = 0; start < samples.length; start += 16_000) {
      void stream.send(samples.subarray(start, start + 16_000));
      stream.mark(String(start + 16_000));
    }
    expect(stream.trySend(samples.subarray(0, 2))).toBe(false);
    stream.end();
    const events = await all(stream);
    const marks = events.filter((event) => event.type === "mark");
    expect(marks.map(({ name }) => Math.min(Number(name), samples.length) / 32_000)).toEqual(
      marks.map(({ position }) => position),
    );
    const whole = heard(await all(undertone.stream(await fromFile(HELLO))));
    expect(heard(events).length).toBe(whole.length);
    for (const [index, event] of heard(events).entries()) {
      expectNear(event, whole[index]);
    }
  });

  test("ends when its client is closed", async () => {
    const client = new Undertone(server.grpc);
    const stream = await client.open(LINEAR16);
    const ended = failure(all(stream));
    client.close();
    expect(await ended).toBeInstanceOf(StreamClosedError);
    await expect(stream.send(wav)).rejects.toThrow(StreamClosedError);
    expect(await failure(client.models())).toBeInstanceOf(StreamClosedError);
  });

  test("ends with its source's error", async () => {
    const broken: Source = {
      format: LINEAR16,
      async *[Symbol.asyncIterator]() {
        yield wav.subarray(44, 3_244);
        throw new Error("the cable is out");
      },
    };
    await expect(all(undertone.stream(broken))).rejects.toThrow("the cable is out");
  });

  test("leaves nothing open when it is aborted or not listened to any more", async () => {
    const lonely = await testServer();
    const client = new Undertone(lonely.grpc);
    const open = async () => {
      const metrics = await (await fetch(`http://${lonely.http}/metrics`)).text();
      return Number(/^undertone_streams_active\S* (\d+)$/m.exec(metrics)?.[1]);
    };
    let returned = 0;
    const endless = (): Source => ({
      format: LINEAR16,
      async *[Symbol.asyncIterator]() {
        try {
          for (;;) {
            yield wav.subarray(44, 3_244);
            await new Promise((resolve) => setImmediate(resolve));
          }
        } finally {
          returned += 1;
        }
      },
    });
    const abort = new AbortController();
    const reason = new Error("enough");
    const aborted = failure(
      (async () => {
        for await (const event of client.stream(endless(), { signal: abort.signal })) {
          if (event.type === "estimate") {
            await expect.poll(open, { timeout: 5_000 }).toBe(1);
            abort.abort(reason);
          }
        }
      })(),
    );
    expect(await aborted).toBe(reason);
    for await (const event of client.stream(endless())) {
      if (event.type === "estimate") {
        break;
      }
    }
    expect(await failure(client.open(LINEAR16, { signal: AbortSignal.abort(reason) }))).toBe(reason);
    await expect.poll(open, { timeout: 5_000 }).toBe(0);
    await expect.poll(() => returned, { timeout: 5_000 }).toBe(2);
    // With streams open it would wait for them to come to their end.
    expect(await lonely.stop("SIGTERM")).toBe(0);
  });
});

describe("an error", () => {
  test("names the field, the reason and the remedy", async () => {
    const error = await failure(undertone.open({ encoding: "alaw", sampleRateHz: 96_000 }));
    expect(error).toBeInstanceOf(InvalidRequestError);
    expect(error).toMatchObject({ code: "INVALID_ARGUMENT", reason: "INVALID_REQUEST" });
    expect((error as InvalidRequestError).fields.map(({ field }) => field)).toEqual(["config.audio.sample_rate_hz"]);
    expect((error as Error).message).toContain("config.audio.sample_rate_hz: ");
    const unknown = await failure(undertone.open(LINEAR16, { model: "none" }));
    expect(unknown).toBeInstanceOf(NotFoundError);
    expect(unknown).toMatchObject({ reason: "MODEL_NOT_FOUND" });
  });

  test("comes before anything is sent where the argument cannot be right", async () => {
    for (const [options, field] of [
      [{ estimateInterval: Number.NaN }, "estimateInterval"],
      [{ minSpeech: -1 }, "minSpeech"],
      [{ policy: "care-call", policyYaml: "x" }, "policyYaml"],
      [{ policy: "care-call", noPolicy: true }, "noPolicy"],
    ] as const) {
      const error = await failure(undertone.open(LINEAR16, options));
      expect(error, field).toMatchObject({ code: "", fields: [{ field }] });
    }
    const encoding = "opus" as "linear16";
    const error = await failure(undertone.open({ encoding, sampleRateHz: 48_000 }));
    expect(String(error)).toContain('format.encoding: is "opus"; give one of linear16, float32, mulaw, alaw');
  });

  test("says that nobody is there, and what to do", async () => {
    const error = await failure(new Undertone("localhost:1").open(LINEAR16));
    expect(error).toBeInstanceOf(ConnectionFailedError);
    expect(String(error)).toMatch(/localhost:1.*ECONNREFUSED.*\n {2}remedy {2}is a server running there/);
  });

  test("says which target, file or sample cannot be used", async () => {
    for (const target of ["", "ftp://localhost", "http://", "two words"]) {
      expect(() => new Undertone(target), target).toThrow(InvalidRequestError);
    }
    const adpcm = await failure(fromFile(`${ROOT}tests/data/tone_16k_adpcm.wav`));
    expect(adpcm).toBeInstanceOf(DataLossError);
    expect(String(adpcm)).toContain("4 bits");
    await expect(fromFile(`${ROOT}tests/data/opus.ogg`)).rejects.toThrow("no wav file");
    await expect(fromWav(wav.subarray(0, 40))).rejects.toThrow("no audio");
  });
});

describe("a source", () => {
  test("is a wav file of any kind that a stream takes", async () => {
    for (const [name, format, bytes] of [
      ["tone_8k_float_stereo.wav", { encoding: "float32", sampleRateHz: 8_000, channelCount: 2 }, 2_000 * 8],
      ["tone_8k_mulaw.wav", { encoding: "mulaw", sampleRateHz: 8_000, channelCount: 1 }, 8_000],
      ["no_samples.wav", { encoding: "linear16", sampleRateHz: 16_000, channelCount: 1 }, 0],
    ] as const) {
      const path = `${ROOT}tests/data/${name}`;
      for (const source of [await fromFile(path), await fromWav(new Blob([await readFile(path)]))]) {
        expect(source.format, name).toEqual(format);
        const chunks = await all(source);
        expect(
          chunks.reduce((sum, { length }) => sum + length, 0),
          name,
        ).toBe(bytes);
      }
    }
  });

  test("comes at the pace of its sound if wanted", async () => {
    const began = performance.now();
    await all(fromBytes(new Uint8Array(6_400), LINEAR16, { chunk: 0.05, realtime: true }));
    expect(performance.now() - began).toBeGreaterThan(195);
  });
});

describe("without a stream", () => {
  test("models and policies are listed", async () => {
    const models = await undertone.models();
    expect(models[0]).toMatchObject({ isDefault: true });
    expect(models[0]?.trainingData[0]).toMatchObject({ commercialUse: expect.any(Boolean) });
    const withStore = await testServer("--escalation-store", `sqlite:${folder()}/undertone.db`);
    const policies = await new Undertone(withStore.grpc).policies();
    expect(policies.map(({ name }) => name)).toContain("care-call");
    expect(policies[0]?.rules[0]).toMatch(/\w+/);
  });

  test("a clip gives what its stream gives", async () => {
    const analysis = await undertone.analyze(wav, { formatHint: "wav", estimateInterval: 0.5 });
    const events = await all(undertone.stream(await fromFile(HELLO)));
    const utterances = events.filter((event) => event.type === "utterance");
    expect(analysis.utterances.length).toBe(utterances.length);
    for (const [index, utterance] of analysis.utterances.entries()) {
      expectNear({ type: "utterance", ...utterance }, utterances[index]);
    }
    expect(analysis.estimates.length).toBeGreaterThan(10);
    expect(await failure(undertone.analyze(new Uint8Array(100)))).toBeInstanceOf(InvalidRequestError);
  });
});

test("the example runs as it is", async () => {
  const example = fileURLToPath(new URL("../examples/stream.mjs", import.meta.url));
  const { stdout } = await promisify(execFile)("node", [example, shortWav(), server.grpc]);
  expect(stdout).toMatch(/^\d\.\d s {2}[a-z]+ 0\.\d\d$/m);
});

/** The same but for probabilities, which batches of another size may sum in another order. */
function expectNear(actual: unknown, expected: unknown): void {
  if (typeof expected === "number") {
    expect(Math.abs((actual as number) - expected)).toBeLessThan(1e-4);
  } else if (typeof expected === "object" && expected !== null) {
    expect(Object.keys(actual as object)).toEqual(Object.keys(expected));
    for (const [key, value] of Object.entries(expected)) {
      expectNear((actual as Record<string, unknown>)[key], value);
    }
  } else {
    expect(actual).toEqual(expected);
  }
}
