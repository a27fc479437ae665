// The WebSocket protocol against a server of the test's own, which does what a real one would do only now and then.

import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { beforeAll, describe, expect, onTestFinished, test, vi } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import { ConnectionFailedError, InvalidRequestError, OverloadedError, Undertone } from "../src/browser.js";
import type { AudioFormat } from "../src/index.js";
import { all, failure } from "./server.js";

const LINEAR16: AudioFormat = { encoding: "linear16", sampleRateHz: 16_000 };

beforeAll(() => {
  vi.stubGlobal("WebSocket", WebSocket);
});

/** One connection, as its server sees it. */
interface Peer {
  socket: WebSocket;
  protocols: string[];
  /** The next frame: JSON, or the length of a binary one. `undefined` when it has closed. */
  next(): Promise<unknown>;
  say(frame: unknown): void;
}

/** A server that does with each connection in turn what `scripts` say. */
async function fake(...scripts: ((peer: Peer) => Promise<void>)[]): Promise<Undertone> {
  let protocols: string[] = [];
  const server = new WebSocketServer({
    port: 0,
    host: "127.0.0.1",
    path: "/v1/stream",
    handleProtocols: (offered) => {
      protocols = [...offered];
      return "undertone.v1";
    },
  });
  await once(server, "listening");
  onTestFinished(() => {
    for (const socket of server.clients) {
      socket.terminate();
    }
    server.close();
  });
  server.on("connection", (socket) => {
    const frames: unknown[] = [];
    let wake = () => {};
    socket.on("message", (data, isBinary) => {
      frames.push(isBinary ? (data as Buffer).length : JSON.parse(String(data)));
      wake();
    });
    socket.on("close", () => {
      frames.push(undefined);
      wake();
    });
    const next = async () => {
      while (frames.length === 0) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      return frames.shift();
    };
    const say = (frame: unknown) => socket.send(JSON.stringify(frame));
    const script = scripts.shift();
    void (script ? script({ socket, protocols, next, say }) : socket.close(1013));
  });
  const { port } = server.address() as AddressInfo;
  return new Undertone({ http: `http://127.0.0.1:${port}`, grpc: "http://127.0.0.1:1", token: "ut_secret" });
}

const started = (more = {}) => ({
  started: {
    sessionId: "call-7",
    config: { checkpointInterval: "5s" },
    limits: { maxChunkBytes: 1 << 20 },
    newerField: true,
    ...more,
  },
});
const checkpoint = (resumeToken: string, requests: number) => ({
  checkpoint: { resumeToken, point: { requests: String(requests), audioBytes: "0", position: "1s" }, validFor: "120s" },
});
const estimate = (end: string) => ({
  estimate: { channel: 0, end, abstains: true, abstainReason: "ABSTAIN_REASON_UNSURE" },
});
const finished = { finished: { reason: "FINISH_REASON_CLIENT", chunks: "2", audio: "1.500s" } };

describe("over WebSocket", () => {
  test("a stream begins with its configuration, has audio as it is, and ends with its summary", async () => {
    const heard: unknown[] = [];
    const client = await fake(async ({ socket, protocols, next, say }) => {
      heard.push(protocols, await next());
      say(started());
      heard.push(await next(), await next(), await next());
      say(estimate("1.500s"));
      say({ somethingNew: {} });
      say(finished);
      socket.close(1000);
    });
    const stream = await client.open(LINEAR16, { estimateInterval: 0.25, labels: { ward: "7" } });
    await stream.send(new Uint8Array(640));
    stream.mark("here");
    stream.end();
    const events = await all(stream);
    expect(heard).toEqual([
      ["undertone.v1", "undertone.bearer.ut_secret"],
      {
        config: {
          audio: { encoding: "AUDIO_ENCODING_LINEAR16", sampleRateHz: 16_000 },
          estimateInterval: "0.250s",
          labels: { ward: "7" },
          checkpointInterval: "5s",
        },
      },
      640,
      { mark: { name: "here" } },
      { end: {} },
    ]);
    expect(events.map(({ type }) => type)).toEqual(["started", "estimate", "finished"]);
    expect(events[1]).toMatchObject({ end: 1.5, abstains: true, abstainReason: "unsure" });
    expect(events[2]).toMatchObject({ reason: "client", chunks: 2, audio: 1.5 });
  });

  test("a refusal is an error with its fields and the time to come back", async () => {
    const error = {
      code: "INVALID_ARGUMENT",
      message: "the request cannot be used",
      reason: "INVALID_REQUEST",
      fields: [{ field: "config.audio", description: "is missing" }],
    };
    const full = {
      code: "RESOURCE_EXHAUSTED",
      message: "the server is full",
      reason: "SERVER_FULL",
      retryAfter: "1.500s",
    };
    const client = await fake(
      async ({ socket, say }) => {
        say({ error });
        socket.close(4003, "INVALID_REQUEST");
      },
      async ({ socket, say }) => {
        say({ error: full });
        socket.close(4008, "SERVER_FULL");
      },
    );
    const refused = await failure(client.open(LINEAR16));
    expect(refused).toBeInstanceOf(InvalidRequestError);
    expect(refused).toMatchObject({ code: error.code, reason: error.reason, fields: error.fields });
    const overloaded = await failure(client.open(LINEAR16));
    expect(overloaded).toBeInstanceOf(OverloadedError);
    expect(overloaded).toMatchObject({ retryAfter: 1.5 });
  });

  test("a stream that breaks off goes on behind its last checkpoint, and tells nothing twice", async () => {
    const again: unknown[] = [];
    const client = await fake(
      async ({ socket, next, say }) => {
        await next();
        say(started());
        await next();
        say({ mark: { name: "a", position: "0s" } });
        say(estimate("1s"));
        await next();
        say(checkpoint("AQID", 2));
        await next();
        say({ mark: { name: "b", position: "0.020s" } });
        say(estimate("1.500s"));
        socket.terminate();
      },
      async ({ socket, next, say }) => {
        again.push(await next());
        say(started({ resumedFrom: { requests: "2" } }));
        again.push(await next());
        say({ mark: { name: "b", position: "0.020s" } });
        say(estimate("1.500s"));
        say(estimate("2s"));
        again.push(await next(), await next(), await next());
        say({ mark: { name: "b", position: "0.020s" } });
        say(finished);
        socket.close(1000);
      },
    );
    const stream = await client.open(LINEAR16, { reconnect: { firstWait: 0.01 } });
    stream.mark("a");
    await stream.send(new Uint8Array(640));
    stream.mark("b");
    const events = [];
    for await (const event of stream) {
      events.push(event);
      if (event.type === "reconnected") {
        await stream.send(new Uint8Array(320));
        stream.mark("b");
        stream.end();
      }
    }
    expect(again).toMatchObject([
      { config: { sessionId: "call-7", resumeToken: "AQID" } },
      { mark: { name: "b" } },
      320,
      { mark: { name: "b" } },
      { end: {} },
    ]);
    const told = events.map((event) =>
      event.type === "estimate" ? event.end : event.type === "mark" ? event.name : event.type,
    );
    expect(told).toEqual(["started", "a", 1, "b", 1.5, "reconnected", 2, "b", "finished"]);
    expect(events.find((event) => event.type === "reconnected")).toMatchObject({ attempts: 1 });
  });

  test("a stream goes on however long it is, if checkpoints cover what is not kept any more", async () => {
    const chunks = 41;
    for (const isCovered of [true, false]) {
      const client = await fake(
        async ({ socket, next, say }) => {
          await next();
          say(started());
          for (let n = 0; n < chunks; n += 1) {
            await next();
          }
          if (isCovered) {
            say(checkpoint("AQID", chunks));
          }
          say(estimate("1s"));
          await next();
          socket.terminate();
        },
        async ({ socket, next, say }) => {
          await next();
          say(started({ resumedFrom: { requests: String(chunks) } }));
          say(finished);
          socket.close(1000);
        },
      );
      const stream = await client.open(LINEAR16, { reconnect: { firstWait: 0.01 } });
      const sending = (async () => {
        for (let n = 0; n < chunks; n += 1) {
          await stream.send(new Uint8Array(1 << 20));
        }
      })();
      const types: string[] = [];
      const heard = (async () => {
        for await (const { type } of stream) {
          types.push(type);
          if (type === "estimate") {
            stream.mark("break off");
          }
        }
      })();
      await sending;
      await (isCovered ? heard : expect(heard).rejects.toThrow(ConnectionFailedError));
      expect(types).toEqual(["started", "estimate", ...(isCovered ? ["reconnected", "finished"] : [])]);
    }
  });

  test("what is sent waits for a server that does not listen", async () => {
    let listen = () => {};
    let bytes = 0;
    const client = await fake(async ({ socket, next, say }) => {
      await next();
      say(started());
      socket.pause();
      listen = () => socket.resume();
      for (let frame = await next(); typeof frame === "number"; frame = await next()) {
        bytes += frame;
      }
      say(finished);
    });
    const stream = await client.open(LINEAR16, { maxBufferedBytes: 64_000 });
    const events = all(stream);
    const second = new Uint8Array(32_000);
    let sent = 0;
    const sending = (async () => {
      for (; sent < 1_000; sent += 1) {
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
    expect(sent).toBeLessThan(1_000);
    listen();
    await sending;
    stream.end();
    expect((await events).at(-1)?.type).toBe("finished");
    expect(bytes).toBe(1_000 * second.length);
  });

  test("nothing more is sent while answers are not read, so that they cannot pile up", async () => {
    let chunks = 0;
    const client = await fake(async ({ next, say }) => {
      await next();
      say(started());
      for (let frame = await next(); typeof frame === "number"; frame = await next()) {
        chunks += 1;
        say(estimate(`${chunks}s`));
      }
      say(finished);
    });
    const stream = await client.open(LINEAR16, { maxBufferedBytes: 640 });
    const sending = (async () => {
      for (let n = 0; n < 2_000; n += 1) {
        await stream.send(new Uint8Array(320));
        await new Promise((resolve) => setImmediate(resolve));
      }
      stream.end();
    })();
    let before = -1;
    const standsStill = () => {
      const isSame = chunks === before;
      before = chunks;
      return isSame;
    };
    await expect.poll(standsStill, { interval: 250, timeout: 20_000 }).toBe(true);
    expect(chunks).toBeLessThan(1_000);
    const events = await all(stream);
    await sending;
    expect(events.filter(({ type }) => type === "estimate")).toHaveLength(2_000);
  });

  test("what is no such server is said so", async () => {
    const nobody = await failure(
      new Undertone({ http: "http://127.0.0.1:1", grpc: "http://127.0.0.1:1" }).open(LINEAR16),
    );
    expect(nobody).toBeInstanceOf(ConnectionFailedError);
    expect(String(nobody)).toMatch(/ws:\/\/127\.0\.0\.1:1\/v1\/stream.*\n.*allowed_origins/);
    const client = await fake(async ({ socket }) => socket.send("hello"));
    expect(String(await failure(client.open(LINEAR16)))).toContain("this is no Undertone server");
    expect(() => new Undertone({ http: "emotion.example", grpc: "http://127.0.0.1:1" })).toThrow(/http: is "emotion/);
    const client2 = new Undertone({ http: "http://127.0.0.1:1", grpc: "http://127.0.0.1:1", token: "a b" });
    expect(await failure(client2.open(LINEAR16))).toBeInstanceOf(InvalidRequestError);
  });

  test("a stream that is aborted closes its socket", async () => {
    let closed: unknown = "not yet";
    const client = await fake(async ({ next, say }) => {
      await next();
      say(started());
      closed = await next();
    });
    const abort = new AbortController();
    const stream = await client.open(LINEAR16, { signal: abort.signal });
    const reason = new Error("enough");
    abort.abort(reason);
    expect(await failure(all(stream))).toBe(reason);
    await expect.poll(() => closed, { timeout: 5_000 }).toBe(undefined);
  });
});
