/** Real servers, as a user would start them, and those who call them. */

import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** The repository. */
export const ROOT = fileURLToPath(new URL("../../", import.meta.url));
/** A sentence of 7 s, 16 kHz. */
export const HELLO = join(ROOT, "tests/data/hello.wav");
const LIBRARY = join(ROOT, ".onnxruntime/libonnxruntime.so");

/** A policy that raises something in each pause of a second, and clears it when somebody speaks. */
export const QUIET = `schema: undertone.policy/v1
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

function binary() {
  const path = process.env.UNDERTONE_BIN;
  if (!path) throw new Error("set UNDERTONE_BIN to the built binary, such as ../../target/debug/undertone");
  return resolve(path);
}

/** What goes away with the tests of a file, also where they did not get far. @type {(() => unknown)[]} */
const rest = [];

/** @param {() => unknown} end is called when the tests of a file are over */
export function atEnd(end) {
  rest.push(end);
}

/** For `after`: ends what was started, and removes what was written. */
export async function tidy() {
  while (rest.length > 0) await rest.pop()?.();
}

/** A folder that goes away. @returns {string} */
export function folder() {
  const path = mkdtempSync(join(tmpdir(), "undertone-console-"));
  atEnd(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Runs the program, and gives what it says. @param {...string} args */
export function undertone(...args) {
  const { stdout, stderr } = spawnSync(binary(), args, { encoding: "utf8" });
  return stdout + stderr;
}

/**
 * @typedef {object} Server
 * @property {string} grpc HOST:PORT
 * @property {string} http HOST:PORT
 * @property {string} console where its pages begin
 * @property {(signal?: NodeJS.Signals) => Promise<void>} stop waits until it has ended
 */

/**
 * Starts a server that takes audio at any speed, on ports of its own choice unless `settings` say otherwise.
 * @param {...string} settings flags and their values
 * @returns {Promise<Server>}
 */
export async function serve(...settings) {
  const cwd = folder();
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
    "--escalation-store": `sqlite:${join(cwd, "undertone.db")}`,
  };
  const args = [
    ...Object.entries(defaults)
      .filter(([name]) => !settings.includes(name))
      .flat(),
    ...settings,
  ];
  const onnx = !process.env.ORT_DYLIB_PATH && existsSync(LIBRARY) ? { ORT_DYLIB_PATH: LIBRARY } : {};
  const child = spawn(binary(), ["serve", ...args], { cwd, env: { ...process.env, ...onnx }, stdio: ["ignore", "ignore", "pipe"] });
  const stop = async (/** @type {NodeJS.Signals} */ signal = "SIGTERM") => {
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, "exit");
    child.kill(signal);
    await exited;
  };
  atEnd(() => stop("SIGKILL"));
  const missing = new Promise((_, reject) => child.on("error", reject));
  /** @type {string[]} */
  const log = [];
  const serving = new Promise((found, reject) => {
    createInterface({ input: child.stderr })
      .on("line", (line) => {
        log.push(line);
        const fields = line.startsWith("{") ? JSON.parse(line).fields : {};
        if (fields.message === "serving") found(fields);
      })
      .on("close", () => reject(new Error(`the server does not serve:\n${log.join("\n")}`)));
  });
  const { grpc, http } = await Promise.race([serving, missing]);
  return { grpc, http, console: `http://${http}/console/`, stop };
}

/**
 * A file of identities with one that may do `roles`, and its token.
 * @param {string} roles
 * @returns {{identities: string, token: string}}
 */
export function known(roles) {
  const made = undertone("identities", "token");
  const token = /ut_\S+/.exec(made)?.[0] ?? "";
  const hash = /sha256:[0-9a-f]{64}/.exec(made)?.[0] ?? "";
  const identities = join(folder(), "identities.yaml");
  writeFileSync(
    identities,
    `schema: undertone.identities/v1\nidentities:\n  - name: station\n    roles: [${roles}]\n    tokens:\n      - {hash: '${hash}'}\n`,
  );
  return { identities, token };
}

/** Asks the server, as a page does. @param {Server} server @param {string} method @param {object} [message] @returns {Promise<any>} */
export async function ask(server, method, message = {}) {
  const answer = await fetch(`http://${server.http}/undertone.v1.${method}`, {
    method: "POST",
    headers: { "content-type": "application/json", "connect-protocol-version": "1" },
    body: JSON.stringify(message),
  });
  const body = await answer.json();
  if (!answer.ok) throw new Error(`${method}: ${JSON.stringify(body)}`);
  return body;
}

/**
 * A line to the server that can be cut.
 * @param {Server} server
 * @returns {Promise<{console: string, cut: () => void, mend: () => void}>} `cut`: those who are connected lose it, and nobody gets
 *     through before `mend`
 */
export async function line(server) {
  const [host, port] = server.http.split(":");
  /** @type {Set<import("node:net").Socket>} */
  const open = new Set();
  let isCut = false;
  const listener = createServer((near) => {
    if (isCut) {
      near.destroy();
      return;
    }
    const far = connect(Number(port), host);
    for (const [one, other] of [
      [near, far],
      [far, near],
    ]) {
      open.add(one);
      one.pipe(other);
      one.on("error", () => {});
      one.on("close", () => {
        open.delete(one);
        other.destroy();
      });
    }
  });
  listener.listen(0, "127.0.0.1");
  await once(listener, "listening");
  const cut = () => {
    isCut = true;
    for (const socket of open) socket.destroy();
  };
  atEnd(() => {
    cut();
    listener.close();
  });
  const { port: own } = /** @type {import("node:net").AddressInfo} */ (listener.address());
  return {
    console: `http://127.0.0.1:${own}/console/`,
    cut,
    mend() {
      isCut = false;
    },
  };
}

/** Somebody who is heard: raw audio, as it comes. */
export class Caller {
  /**
   * @param {Server} server
   * @param {{id: string, policy?: string, labels?: string[], channels?: number, rate?: number}} options `policy`: the text of one, or
   *     the name of one of the server's
   */
  constructor(server, { id, policy = "", labels = [], channels = 1, rate = 16_000 }) {
    this.rate = rate;
    const args = [
      "stream",
      "-",
      "--format",
      "json",
      "--target",
      server.grpc,
      "--session-id",
      id,
      "--rate",
      String(rate),
      ...labels.flatMap((label) => ["--label", label]),
    ];
    if (policy.includes("\n")) {
      const file = join(folder(), "policy.yaml");
      writeFileSync(file, policy);
      args.push("--policy-file", file);
    } else if (policy) {
      args.push("--policy", policy);
    }
    if (channels > 1) args.push("--channels", String(channels), "--separate-channels");
    this.child = spawn(binary(), args, { stdio: ["pipe", "pipe", "inherit"] });
    // A server that ends is no fault of the caller's.
    this.child.stdin.on("error", () => {});
    this.exited = once(this.child, "exit");
    /** What the server has said. @type {any[]} */
    this.events = [];
    createInterface({ input: this.child.stdout }).on("line", (line) => {
      this.events.push(JSON.parse(line));
      this.child.emit("told");
    });
    atEnd(() => this.child.kill("SIGKILL"));
  }

  /** @param {string} event such as "estimate" @returns {Promise<any>} the first of these */
  async heard(event) {
    for (;;) {
      const found = this.events.find((one) => one.event === event);
      if (found) return found;
      await once(this.child, "told");
    }
  }

  /** @param {Buffer} samples 16-bit */
  say(samples) {
    this.child.stdin.write(samples);
  }

  /** @param {number} seconds */
  silence(seconds) {
    this.say(Buffer.alloc(seconds * this.rate * 2));
  }

  async hangUp() {
    this.child.stdin.end();
    await this.exited;
  }
}

/** The samples of a 16-bit WAV file whose header has the usual 44 bytes. @param {string} path @returns {Buffer} */
export function samples(path) {
  return readFileSync(path).subarray(44);
}

/** Two voices of one length, a channel each. @param {Buffer} left @param {Buffer} right @returns {Buffer} */
export function stereo(left, right) {
  const both = Buffer.alloc(2 * left.length);
  for (let at = 0; at < left.length; at += 2) {
    left.copy(both, 2 * at, at, at + 2);
    right.copy(both, 2 * at + 2, at, at + 2);
  }
  return both;
}

/** A WAV file of one channel. @param {string} name @param {Buffer} pcm @param {number} [rate] @returns {string} its path */
export function wav(name, pcm, rate = 16_000) {
  const head = Buffer.alloc(44);
  head.write("RIFF", 0);
  head.writeUInt32LE(36 + pcm.length, 4);
  head.write("WAVEfmt ", 8);
  head.writeUInt32LE(16, 16);
  head.writeUInt16LE(1, 20);
  head.writeUInt16LE(1, 22);
  head.writeUInt32LE(rate, 24);
  head.writeUInt32LE(rate * 2, 28);
  head.writeUInt16LE(2, 32);
  head.writeUInt16LE(16, 34);
  head.write("data", 36);
  head.writeUInt32LE(pcm.length, 40);
  const path = join(folder(), name);
  writeFileSync(path, Buffer.concat([head, pcm]));
  return path;
}
