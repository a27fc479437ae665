import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  type AudioFormat,
  type EscalationUpdate,
  NotFoundError,
  ResumeRefusedError,
  type StreamEvent,
  type StreamOptions,
  TakenOverError,
  UnavailableError,
  Undertone,
} from "../src/node.js";
import { all, failure, folder, HELLO, QUIET, type Server, testServer, undertone } from "./server.js";

const LINEAR16: AudioFormat = { encoding: "linear16", sampleRateHz: 16_000 };
const wav = await readFile(HELLO);
/** The same sentence twice, with pauses around it. */
const pause = new Uint8Array(48_000);
const speech = Buffer.concat([pause, wav.subarray(44), pause, wav.subarray(44), pause]);
const CHUNK = 3_200;

/** Replicas that know each other's tokens and share a store, one after the other on the same ports. */
async function replicas() {
  const path = folder();
  const keys = join(path, "resume.keys");
  await writeFile(keys, undertone("resume-key"));
  const settings = ["--resume-keys", keys, "--escalation-store", `sqlite:${join(path, "undertone.db")}`];
  const first = await testServer(...settings);
  const next = () => testServer(...settings, "--grpc-address", first.grpc, "--http-address", first.http);
  return { first, next };
}

/** Says it all, with marks between, and calls `interrupt` once when what `due` says has come. */
async function talk(client: Undertone, options: StreamOptions, interrupt?: () => Promise<void>) {
  const stream = await client.open(LINEAR16, {
    policyYaml: QUIET,
    checkpointInterval: 1,
    labels: { ward: "7" },
    ...options,
  });
  let goOn = () => {};
  const interrupted = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  const say = async () => {
    for (let start = 0; start < speech.length; start += CHUNK) {
      if (interrupt && start === 100 * CHUNK) {
        await interrupted;
      }
      await stream.send(speech.subarray(start, start + CHUNK));
      if ((start / CHUNK) % 7 === 0) {
        stream.mark(`chunk ${start / CHUNK}`);
      }
    }
    stream.end();
  };
  const saying = say();
  // If it fails, so does the stream.
  saying.catch(() => {});
  const events: StreamEvent[] = [];
  for await (const event of stream) {
    events.push(event);
    if (interrupt && event.type === "estimate" && event.end > 6.2) {
      const once = interrupt;
      interrupt = undefined;
      await once();
      goOn();
    }
  }
  await saying;
  return events;
}

/** How many streams a server has gone on with from a token. */
async function resumed({ http }: Server): Promise<number> {
  const metrics = await (await fetch(`http://${http}/metrics`)).text();
  return [...metrics.matchAll(/^undertone_streams_resumed_total\S* (\d+)$/gm)].reduce(
    (sum, [, n]) => sum + Number(n),
    0,
  );
}

/** What was heard, without what differs from session to session and from connection to connection. */
function told(events: StreamEvent[]): unknown[] {
  return events
    .filter(({ type }) => !["started", "reconnected", "draining"].includes(type))
    .map((event) =>
      JSON.parse(
        JSON.stringify(event, (key, value) => {
          if (/^(id|sessionId|at|raisedAt|updatedAt|clearedAt|sessionEndedAt|policyVersion)$/.test(key)) {
            return undefined;
          }
          if (key === "escalationIds") {
            return value.length;
          }
          // Batches of another size may sum probabilities in another order.
          return typeof value === "number" ? Math.round(value * 1e3) / 1e3 : value;
        }),
      ),
    );
}

describe("a stream whose server", () => {
  for (const [what, signal] of [
    ["is killed", "SIGKILL"],
    ["is restarted", "SIGTERM"],
  ] as const) {
    test(`${what} goes on as if nothing had happened`, async () => {
      const { first, next } = await replicas();
      const client = new Undertone(first.grpc);
      const undisturbed = told(await talk(client, {}));
      const kinds = new Set(undisturbed.map((event) => (event as StreamEvent).type));
      expect([...kinds].sort()).toEqual(["escalation", "estimate", "finished", "mark", "utterance"]);

      const events = await talk(client, {}, async () => {
        const ended = first.stop(signal);
        // A server that drains waits for its streams, and they for another one.
        void ended.then(next);
        if (signal === "SIGKILL") {
          await ended;
        }
      });
      expect(told(events)).toEqual(undisturbed);
      const reconnected = events.filter((event) => event.type === "reconnected");
      expect(reconnected).toHaveLength(1);
      expect(reconnected[0]?.cause).toBeInstanceOf(UnavailableError);
      expect(events.filter(({ type }) => type === "started")).toHaveLength(1);
      await expect.poll(() => resumed(first), { timeout: 5_000 }).toBe(1);
      expect(events.some(({ type }) => type === "draining")).toBe(signal === "SIGTERM");
    });
  }

  test("breaks off before the first checkpoint is told everything again under its name", async () => {
    const { first, next } = await replicas();
    const client = new Undertone(first.grpc);
    const undisturbed = told(await talk(client, {}));
    const events = await talk(client, { checkpointInterval: 30 }, async () => {
      await first.stop("SIGKILL");
      void next();
    });
    expect(told(events)).toEqual(undisturbed);
    expect(events.filter(({ type }) => type === "reconnected")).toHaveLength(1);
    const ids = new Set(events.flatMap((event) => (event.type === "escalation" ? event.escalation.sessionId : [])));
    expect(ids.size).toBe(1);
    expect(await resumed(first)).toBe(0);
  });

  test("does not come back ends when patience does", async () => {
    const { first } = await replicas();
    const reconnect = { patience: 0.5, firstWait: 0.05 };
    const talking = talk(new Undertone(first.grpc), { reconnect }, async () => void (await first.stop("SIGKILL")));
    expect(await failure(talking)).toBeInstanceOf(UnavailableError);
  });

  test("has other keys now says that it cannot be gone on with", async () => {
    const first = await testServer("--escalation-store", `sqlite:${folder()}/a.db`);
    const talking = talk(new Undertone(first.grpc), {}, async () => {
      await first.stop("SIGKILL");
      const store = `sqlite:${folder()}/b.db`;
      void testServer("--grpc-address", first.grpc, "--http-address", first.http, "--escalation-store", store);
    });
    const error = await failure(talking);
    expect(error).toBeInstanceOf(ResumeRefusedError);
    expect(error).toMatchObject({ reason: "RESUME_KEY_UNKNOWN" });
  });

  test("is gone ends with it when it is not to be gone on with", async () => {
    const { first } = await replicas();
    const talking = talk(
      new Undertone(first.grpc),
      { reconnect: false },
      async () => void (await first.stop("SIGKILL")),
    );
    expect(await failure(talking)).toBeInstanceOf(UnavailableError);
  });

  test("gives no checkpoints is streamed to without", async () => {
    const server = await testServer("--resume-window", "0s");
    const stream = await new Undertone(server.grpc).open(LINEAR16);
    expect(stream.started.config.checkpointInterval).toBeUndefined();
    await stream.send(speech.subarray(0, CHUNK));
    stream.end();
    expect((await all(stream)).at(-1)).toMatchObject({ type: "finished", chunks: 1 });
  });
});

describe("escalations", () => {
  test("are listed, shown, acknowledged and told to the stream", async () => {
    const { first } = await replicas();
    const client = new Undertone(first.grpc);
    const acknowledged: string[] = [];
    const stream = await client.open(LINEAR16, { policyYaml: QUIET, sessionId: "call-1", labels: { ward: "7" } });
    await stream.send(new Uint8Array(2 * 32_000));
    for await (const event of stream) {
      if (event.type === "escalation" && event.kind === "raised") {
        expect(event.escalation).toMatchObject({ severity: "medium", state: "raised", labels: { ward: "7" } });
        expect(event.escalation.raisedAt).toBeInstanceOf(Date);
        stream.acknowledge(event.escalation.id, "nurse on ward 7", "called back");
      } else if (event.type === "escalation" && event.kind === "acknowledged") {
        acknowledged.push(event.actor);
        stream.end();
      }
    }
    expect(acknowledged).toEqual(["nurse on ward 7"]);

    const filter = { states: ["acknowledged"], labels: { ward: "7" }, raisedSince: new Date(0) } as const;
    const [listed, ...more] = await all(client.escalations({ ...filter, states: ["acknowledged"] }));
    expect(more).toEqual([]);
    expect(listed).toMatchObject({ sessionId: "call-1", acknowledgedBy: "nurse on ward 7" });
    expect(await all(client.escalations({ minSeverity: "high" }))).toEqual([]);
    const { escalation, history } = await client.escalation(listed?.id ?? "");
    expect(escalation).toEqual(listed);
    expect(history.map(({ kind }) => kind).slice(0, 2)).toEqual(["raised", "acknowledged"]);
    expect(await client.acknowledge(escalation.id, "somebody else")).toMatchObject({ already: true });
    expect(await failure(client.escalation("00000000-0000-0000-0000-000000000000"))).toBeInstanceOf(NotFoundError);
  });

  test("are watched across a restart without a gap", async () => {
    const { first, next } = await replicas();
    const client = new Undertone(first.grpc);
    const abort = new AbortController();
    const seen: EscalationUpdate[] = [];
    const watch = async (until: number) => {
      for await (const update of client.watchEscalations({ fromStart: true, signal: abort.signal })) {
        seen.push(update);
        if (seen.length === until) {
          return;
        }
      }
    };
    const events = (call: StreamEvent[]) =>
      call.flatMap((event) => (event.type === "escalation" ? `${event.id} ${event.kind}` : []));
    const before = events(await talk(client, {}));
    const watching = watch(2 * before.length);
    await expect.poll(() => seen.length, { timeout: 20_000 }).toBe(before.length);
    const stopped = first.stop("SIGKILL");
    await stopped;
    await next();
    const after = events(await talk(client, {}));
    await watching;
    expect(seen.map(({ id, kind }) => `${id} ${kind}`)).toEqual([...before, ...after]);

    // A later watch goes on behind a cursor.
    const cursor = seen.at(-2)?.cursor ?? "";
    for await (const update of client.watchEscalations({ cursor })) {
      expect(update).toEqual(seen.at(-1));
      break;
    }
    const reason = new Error("enough");
    const aborted = failure(all(client.watchEscalations({ signal: abort.signal })));
    abort.abort(reason);
    expect(await aborted).toBe(reason);
  });
});

test("a stream that another one takes over says so", async () => {
  const server: Server = await testServer();
  const client = new Undertone(server.grpc);
  const stream = await client.open(LINEAR16, { sessionId: "twice" });
  const error = await failure(client.open(LINEAR16, { sessionId: "twice" }));
  expect(error).toMatchObject({ name: "AlreadyExistsError", reason: "SESSION_ID_TAKEN" });
  expect(error).not.toBeInstanceOf(TakenOverError);
  stream.close();
});
