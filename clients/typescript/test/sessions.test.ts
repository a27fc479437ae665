import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { type AudioFormat, NotFoundError, type SessionEvent, Undertone } from "../src/node.js";
import { all, failure, HELLO, testServer } from "./server.js";

const LINEAR16: AudioFormat = { encoding: "linear16", sampleRateHz: 16_000 };

test("live sessions are listed, shown with their history and watched to their end", async () => {
  const server = await testServer();
  const client = new Undertone(server.grpc);
  const audio = (await readFile(HELLO)).subarray(44);
  const stream = await client.open(LINEAR16, { sessionId: "call-1", labels: { ward: "7" } });
  const other = await client.open(LINEAR16, { sessionId: "call-2" });
  await stream.send(audio);
  stream.mark("all heard");
  const watched: SessionEvent[] = [];
  for await (const event of stream) {
    if (event.type === "mark") {
      expect((await all(client.sessions())).map(({ id }) => id)).toEqual(["call-2", "call-1"]);
      const [listed, ...more] = await all(client.sessions({ labels: { ward: "7" } }));
      expect(more).toEqual([]);
      expect(listed).toMatchObject({ id: "call-1", ingress: "grpc", openedAt: expect.any(Date) });
      expect(listed?.audio).toBeCloseTo(audio.length / 32_000, 1);
      expect(listed?.latest[0]?.end).toBeGreaterThan(6);
      expect((await client.session("call-1")).history.estimates).toEqual([]);
      const { session, history } = await client.session("call-1", { history: 60 });
      expect(session.id).toBe("call-1");
      expect(history.estimates.length).toBeGreaterThan(5);
      for await (const seen of client.watchSession("call-1", { history: 60 })) {
        watched.push(seen);
        stream.end();
      }
    }
  }
  other.close();
  expect(watched[0]).toMatchObject({ type: "session", id: "call-1" });
  expect(watched.at(-1)).toEqual({ type: "ended" });
  expect(watched.some(({ type }) => type === "estimate")).toBe(true);
  expect(await all(client.sessions({ labels: { ward: "7" } }))).toEqual([]);
  const [over] = await all(client.sessions({ labels: { ward: "7" }, ended: true }));
  expect(over).toMatchObject({ id: "call-1", endedAt: expect.any(Date) });
  expect((await client.session("call-1", { history: 60 })).history.estimates.length).toBeGreaterThan(5);
  expect(await failure(client.session("nobody"))).toBeInstanceOf(NotFoundError);
});
