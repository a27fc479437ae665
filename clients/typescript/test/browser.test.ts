// The example's page in a real browser, with a microphone that plays a file, against a real server.

import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { type Browser, chromium, type Page } from "playwright-core";
import { beforeAll, expect, onTestFinished, test } from "vitest";
import type { Stream, StreamEvent, Undertone, UndertoneError } from "../src/browser.js";
import { fromFile, fromIterable, Undertone as NodeUndertone, type Source } from "../src/node.js";
import { all, folder, HELLO, known, QUIET, type Server, serve, testServer, undertone } from "./server.js";

const EXAMPLE = fileURLToPath(new URL("../examples/browser/", import.meta.url));

declare global {
  interface Window {
    undertone: typeof import("../src/browser.js");
    client: Undertone;
    stream: Stream;
    events: StreamEvent[];
  }
}

let browser: Browser;
let origin: string;
let server: Server;

function chromiumPath(): string {
  for (const name of [process.env.CHROMIUM, "chromium", "chromium-browser", "google-chrome"]) {
    const { stdout } = spawnSync("which", [name ?? ""], { encoding: "utf8" });
    if (stdout) {
      return stdout.trim();
    }
  }
  throw new Error("Chromium is missing: apt-get install chromium, or set CHROMIUM to one");
}

/** As a page's own bundler would make it. */
async function bundle(contents: string): Promise<string> {
  const stdin = { contents, resolveDir: EXAMPLE };
  const { outputFiles } = await build({ stdin, bundle: true, format: "esm", write: false, logLevel: "error" });
  return outputFiles[0]?.text ?? "";
}

beforeAll(async () => {
  const files: Record<string, [type: string, content: string | Buffer]> = {
    "/hello.wav": ["audio/wav", readFileSync(HELLO)],
    "/": ["text/html", readFileSync(`${EXAMPLE}index.html`, "utf8")],
    "/main.bundle.js": ["text/javascript", await bundle(readFileSync(`${EXAMPLE}main.js`, "utf8"))],
    "/blank": ["text/html", '<!doctype html><title>t</title><script type="module" src="client.js"></script>'],
    "/client.js": [
      "text/javascript",
      await bundle(`import * as undertone from "@undertone/client/browser"; window.undertone = undertone;`),
    ],
  };
  const pages = createServer((request, response) => {
    const [type, content] = files[new URL(request.url ?? "/", "http://page").pathname] ?? ["text/plain", ""];
    response.writeHead(200, { "content-type": type }).end(content);
  });
  pages.listen(0);
  await once(pages, "listening");
  origin = `http://127.0.0.1:${(pages.address() as AddressInfo).port}`;
  server = await serve("--allowed-origins", origin);
  browser = await chromium.launch({
    executablePath: chromiumPath(),
    args: [
      "--no-sandbox",
      "--use-fake-ui-for-media-stream",
      "--use-fake-device-for-media-stream",
      `--use-file-for-fake-audio-capture=${HELLO}`,
    ],
  });
  return async () => {
    await browser.close();
    pages.close();
    await server.stop("SIGKILL");
  };
}, 60_000);

async function open(url: string): Promise<Page> {
  const page = await browser.newPage();
  onTestFinished(() => page.close());
  page.on("pageerror", (error) => {
    throw error;
  });
  await page.goto(url);
  return page;
}

/** A page of `from` with a client of `to`. */
async function openClient(from = origin, to = server): Promise<Page> {
  const page = await open(`${from}/blank`);
  await page.waitForFunction(() => window.undertone);
  await page.evaluate(
    ([http, grpc]) => {
      window.client = new window.undertone.Undertone({ http, grpc });
    },
    [`http://${to.http}`, `http://${to.grpc}`],
  );
  return page;
}

/** Where the estimates of `source` end when Node streams it. */
async function overGrpc(source: Source): Promise<number[]> {
  const events = await all(new NodeUndertone(server.grpc).stream(source));
  return events.filter((event) => event.type === "estimate").map(({ end }) => end);
}

test("a browser whose audio does not start is told, and the microphone let go", async () => {
  const page = await openClient();
  await page.clock.install();
  const [said, state] = await Promise.all([
    page.evaluate(async () => {
      const tracks: MediaStreamTrack[] = [];
      const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      navigator.mediaDevices.getUserMedia = async (constraints) => {
        const media = await ask(constraints);
        tracks.push(...media.getTracks());
        return media;
      };
      AudioContext.prototype.resume = () => {
        document.body.dataset.asked = "";
        return new Promise(() => {});
      };
      const said = await window.undertone.microphone().catch(String);
      return [said, tracks.map(({ readyState }) => readyState).join()];
    }),
    page.waitForSelector("body[data-asked]", { state: "attached" }).then(() => page.clock.fastForward(10_000)),
  ]).then(([told]) => told);
  expect(said).toMatch(/^TimedOutError: the browser's audio did not start within 10 s/);
  expect(said).toContain("remedy");
  expect(state).toBe("ended");
}, 30_000);

test("the microphone is heard while it is spoken into, to its summary", async () => {
  const page = await open(`${origin}/?http=http://${server.http}&grpc=http://${server.grpc}`);
  await page.click("#talk");
  await page.waitForFunction(() => /^[3-9]\.\d s: [a-z]+\.$/.test(document.querySelector("#state")?.textContent ?? ""));
  const values = await page.$$eval("progress", (bars) => bars.map((bar) => bar.value));
  expect(values.length).toBeGreaterThan(3);
  expect(values.reduce((sum, value) => sum + value, 0)).toBeCloseTo(1, 3);
  await page.click("#talk");
  await page.waitForFunction(() => document.querySelector("#state")?.textContent?.includes("heard"));
  const [, seconds, estimates] =
    /^(\d+\.\d) s heard, (\d+) estimates\.$/.exec((await page.textContent("#state")) ?? "") ?? [];
  expect(Number(seconds)).toBeGreaterThan(3);
  expect(Number(estimates)).toBeGreaterThan(5);
  expect(await page.textContent("#talk")).toBe("Listen");
});

test("a microphone's audio is 16-bit samples at its own rate, and stops when it is told to", async () => {
  const page = await openClient();
  const recorded = await page.evaluate(async () => {
    const source = await window.undertone.microphone();
    let [bytes, loudest] = [0, 0];
    for await (const chunk of source) {
      bytes += chunk.length;
      loudest = Math.max(loudest, ...new Int16Array(chunk.buffer));
      if (bytes >= source.format.sampleRateHz * 4) {
        source.stop();
      }
    }
    return { bytes, loudest, format: source.format };
  });
  expect(recorded.format).toMatchObject({ encoding: "linear16" });
  expect(recorded.bytes / recorded.format.sampleRateHz / 2).toBeCloseTo(2, 0);
  expect(recorded.loudest).toBeGreaterThan(1_000);
});

test("a file gives what it gives over gRPC, and models are listed", async () => {
  const page = await openClient();
  const { types, models, ends } = await page.evaluate(async () => {
    const source = await window.undertone.fromWav(await (await fetch("/hello.wav")).blob());
    const [types, ends]: [string[], number[]] = [[], []];
    for await (const event of window.client.stream(source)) {
      types.push(event.type);
      if (event.type === "estimate") {
        ends.push(event.end);
      }
    }
    return { types, ends, models: (await window.client.models()).map(({ name }) => name) };
  });
  expect(types[0]).toBe("started");
  expect(types.at(-1)).toBe("finished");
  expect(ends).toEqual(await overGrpc(await fromFile(HELLO)));
  expect(models.length).toBeGreaterThan(0);
});

test("a refusal can be read", async () => {
  const page = await openClient();
  const refused = await page.evaluate(async () => {
    const told = ({ name, code, reason, fields }: UndertoneError) => ({ name, code, reason, fields });
    return [
      await window.client.open({ encoding: "alaw", sampleRateHz: 96_000 }).catch(told),
      await window.client.analyze(new Uint8Array(100)).catch(told),
    ];
  });
  expect(refused[0]).toMatchObject({ reason: "INVALID_REQUEST", fields: [{ field: "config.audio.sample_rate_hz" }] });
  expect(refused[1]).toMatchObject({ code: "INVALID_ARGUMENT", reason: "AUDIO_FORMAT" });
});

test("whoever has the token may stream and watch, and nobody else", async () => {
  const { identities, token } = known("stream, watch");
  const store = `sqlite:${join(folder(), "undertone.db")}`;
  const guarded = await testServer(
    "--allowed-origins",
    origin,
    "--identities",
    identities,
    "--escalation-store",
    store,
  );
  const page = await openClient(origin, guarded);
  const told = await page.evaluate(
    async ([http = "", grpc = "", token = "", policyYaml = ""]) => {
      const format = { encoding: "linear16", sampleRateHz: 16_000 } as const;
      const { Undertone } = window.undertone;
      const stranger = new Undertone({ http, grpc, token: "ut_wrong" });
      const refused = [stranger.open(format), stranger.escalations().next()].map((call) =>
        call.catch((error) => error.reason),
      );
      const client = new Undertone({ http, grpc, token: async () => token });
      const stream = await client.open(format, { policyYaml });
      await stream.send(new Uint8Array(2 * 32_000));
      for await (const update of client.watchEscalations({ fromStart: true })) {
        stream.close();
        return { refused: await Promise.all(refused), title: update.escalation.title, cursor: update.cursor };
      }
    },
    [`http://${guarded.http}`, `http://${guarded.grpc}`, token, QUIET],
  );
  expect(told).toEqual({
    refused: ["TOKEN_UNKNOWN", "TOKEN_UNKNOWN"],
    title: "Nobody speaks",
    cursor: expect.stringMatching(/./),
  });
});

test("a page of an origin that is not allowed is turned away, and told why", async () => {
  const page = await openClient(origin.replace("127.0.0.1", "localhost"));
  const refused = await page.evaluate(() =>
    window.client.open({ encoding: "linear16", sampleRateHz: 16_000 }).catch(({ name, remedy }) => ({ name, remedy })),
  );
  expect(refused).toMatchObject({ name: "ConnectionFailedError", remedy: expect.stringContaining("allowed_origins") });
  expect(await page.evaluate(() => window.client.models().catch((error) => error.name))).toBe("ConnectionFailedError");
});

test("a stream goes on when its server is killed and another one takes its place", async () => {
  const keys = join(folder(), "resume.keys");
  writeFileSync(keys, undertone("resume-key"));
  const settings = ["--allowed-origins", origin, "--resume-keys", keys];
  const first = await testServer(...settings);
  const page = await openClient(origin, first);
  await page.evaluate(async () => {
    const stream = await window.client.open({ encoding: "linear16", sampleRateHz: 16_000 }, { checkpointInterval: 1 });
    window.stream = stream;
    window.events = [];
    void (async () => {
      for await (const event of stream) {
        window.events.push(event);
      }
    })();
    const wav = await (await fetch("/hello.wav")).arrayBuffer();
    await stream.send(new Uint8Array(wav, 44));
  });
  await page.waitForFunction(() => window.events.some((event) => event.type === "estimate" && event.end > 6));
  await first.stop("SIGKILL");
  await testServer(...settings, "--grpc-address", first.grpc, "--http-address", first.http);
  await page.waitForFunction(() => window.events.some(({ type }) => type === "reconnected"));
  const events = await page.evaluate(async () => {
    await window.stream.send(new Uint8Array(64_000));
    window.stream.end();
    while (window.events.at(-1)?.type !== "finished") {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return window.events;
  });
  const ends = events.filter((event) => event.type === "estimate").map(({ end }) => end);
  const whole = [readFileSync(HELLO).subarray(44), new Uint8Array(64_000)];
  expect(ends).toEqual(await overGrpc(fromIterable(whole, { encoding: "linear16", sampleRateHz: 16_000 })));
  expect(events.at(-1)).toMatchObject({ type: "finished", estimates: ends.length });
});
