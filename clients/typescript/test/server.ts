// Real servers, as a user would start them.

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterAll, onTestFinished } from "vitest";

/** The repository. */
export const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
export const HELLO = join(ROOT, "tests/data/hello.wav");

/** Runs the server's program, such as `resume-key`. Gives what it says. */
export function undertone(...args: string[]): string {
  const { stdout, stderr } = spawnSync(binary(), args, { encoding: "utf8" });
  return stdout + stderr;
}

function binary(): string {
  const path = process.env.UNDERTONE_BIN;
  if (!path) {
    throw new Error("set UNDERTONE_BIN to the built binary, such as ../../target/debug/undertone");
  }
  return resolve(path);
}

const library = join(ROOT, ".onnxruntime/libonnxruntime.so");

export interface Server {
  /** HOST:PORT. */
  grpc: string;
  http: string;
  signal(signal: NodeJS.Signals): void;
  /** Sends `signal`, and waits until it has ended. Gives its exit code. */
  stop(signal?: NodeJS.Signals): Promise<number | null>;
}

/** Starts a server that takes audio at any speed, on ports of its own choice unless `settings` say otherwise. */
export async function serve(...settings: string[]): Promise<Server> {
  const given = new Set(settings.filter((_, index) => index % 2 === 0));
  const defaults = {
    "--grpc-address": "127.0.0.1:0",
    "--http-address": "127.0.0.1:0",
    "--log-format": "json",
    "--max-realtime-factor": "0",
    // Nothing depends on how busy the machine and its disk are.
    "--max-load": "0",
    "--max-engine-lag": "0s",
    "--max-worker-delay": "0s",
    "--store-timeout": "20s",
    "--escalation-store": "",
  };
  const args = Object.entries(defaults).filter(([name]) => !given.has(name));
  const onnx = !process.env.ORT_DYLIB_PATH && existsSync(library) ? { ORT_DYLIB_PATH: library } : {};
  const child = spawn(binary(), ["serve", ...args.flat(), ...settings], {
    cwd: ROOT,
    env: { ...process.env, ...onnx },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const log: string[] = [];
  const serving = new Promise<{ grpc: string; http: string }>((found, reject) => {
    createInterface({ input: child.stderr })
      .on("line", (line) => {
        log.push(line);
        const fields = line.startsWith("{") ? JSON.parse(line).fields : {};
        if (fields.message === "serving") {
          found(fields);
        }
      })
      .on("close", () => reject(new Error(`the server does not serve:\n${log.join("\n")}`)));
  });
  const { grpc, http } = await serving.catch((error) => {
    child.kill("SIGKILL");
    throw error;
  });
  return {
    grpc,
    http,
    signal: (signal) => void child.kill(signal),
    stop: (signal = "SIGTERM") => stop(child, signal),
  };
}

async function stop(child: ChildProcess, signal: NodeJS.Signals): Promise<number | null> {
  if (child.exitCode === null && child.signalCode === null) {
    const exited = once(child, "exit");
    child.kill(signal);
    await exited;
  }
  return child.exitCode;
}

/** A server for one test. */
export async function testServer(...settings: string[]): Promise<Server> {
  const server = await serve(...settings);
  onTestFinished(async () => void (await server.stop("SIGKILL")));
  return server;
}

/** A server for all tests of a file. */
export async function fileServer(...settings: string[]): Promise<Server> {
  const server = await serve(...settings);
  afterAll(() => server.stop("SIGKILL"));
  return server;
}

/** A folder that goes away with the test. */
export function folder(): string {
  const path = mkdtempSync(join(tmpdir(), "undertone-client-"));
  onTestFinished(() => rmSync(path, { recursive: true }));
  return path;
}

/** A file of identities with one that may do `roles`, and its token. */
export function known(roles: string): { identities: string; token: string } {
  const made = undertone("identities", "token");
  const [token = "", hash = ""] = [/ut_\S+/.exec(made)?.[0], /sha256:[0-9a-f]{64}/.exec(made)?.[0]];
  const identities = join(folder(), "identities.yaml");
  const app = `  - name: app\n    roles: [${roles}]\n    tokens:\n      - {hash: '${hash}'}\n`;
  writeFileSync(identities, `schema: undertone.identities/v1\nidentities:\n${app}`);
  return { identities, token };
}

/** A policy that raises and clears something at each pause of a second. */
export const QUIET = `
schema: undertone.policy/v1
name: quiet
version: '1'
description: For tests.
budget: 100
rules:
  - name: quiet
    title: Nobody speaks
    severity: medium
    when: {silence: {for: 1s}}
    clear_after: 0s
    cooldown: 0s
    reason: 'no voice for {{ silence }} s'
`;

/** A wav file of the first 3 seconds, for what takes as long as its sound. */
export function shortWav(): string {
  const path = join(folder(), "short.wav");
  // Its header says that there is more, as that of a recording that was cut off.
  writeFileSync(path, readFileSync(HELLO).subarray(0, 44 + 3 * 32_000));
  return path;
}

/** Everything that comes. */
export async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const item of items) {
    list.push(item);
  }
  return list;
}

/** What `promise` fails with. */
export async function failure(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => {
      throw new Error("it did not fail");
    },
    (error) => error,
  );
}
