import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import {
  type AudioFormat,
  ConnectionFailedError,
  InvalidRequestError,
  PermissionDeniedError,
  UnauthenticatedError,
  Undertone,
} from "../src/node.js";
import { all, failure, folder, known, testServer } from "./server.js";

const LINEAR16: AudioFormat = { encoding: "linear16", sampleRateHz: 16_000 };

/** A server with TLS whose callers are known, its certificate, and a token. */
async function secured(...settings: string[]) {
  const path = folder();
  const [certificate, key] = [join(path, "tls.crt"), join(path, "tls.key")];
  const extensions = ["basicConstraints=critical,CA:FALSE", "subjectAltName=DNS:localhost,DNS:emotion.example"];
  const request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
  const names = ["-subj", "/CN=undertone", ...extensions.flatMap((text) => ["-addext", text])];
  execFileSync("openssl", [...request, ...names, "-keyout", key, "-out", certificate], { stdio: "ignore" });
  const { identities, token } = known("stream");
  const tls = ["--tls-certificate", certificate, "--tls-key", key, "--identities", identities];
  const server = await testServer(...tls, ...settings);
  const port = server.grpc.split(":").at(-1);
  return { target: `https://localhost:${port}`, port, ca: readFileSync(certificate), token };
}

describe("over TLS", () => {
  test("whoever has the token may stream, and only what its role allows", async () => {
    const { target, ca, token } = await secured();
    let asked = 0;
    const fresh = async () => {
      asked += 1;
      return `${token}\n`;
    };
    for (const given of [token, fresh]) {
      const client = new Undertone(target, { ca, token: given });
      const stream = await client.open(LINEAR16);
      stream.end();
      expect((await all(stream)).at(-1)?.type).toBe("finished");
      const error = await failure(client.analyze(new Uint8Array(10)));
      expect(error).toBeInstanceOf(PermissionDeniedError);
      expect(error).toMatchObject({ reason: "ROLE_MISSING" });
      client.close();
    }
    expect(asked).toBe(2);
    for (const [options, reason] of [
      [{ ca }, "TOKEN_MISSING"],
      [{ ca, token: "ut_wrong" }, "TOKEN_UNKNOWN"],
    ] as const) {
      const error = await failure(new Undertone(target, options).open(LINEAR16));
      expect(error).toBeInstanceOf(UnauthenticatedError);
      expect(error).toMatchObject({ reason, remedy: "say who calls with the option `token`" });
      expect(String(error)).not.toContain("ut_wrong");
    }
  });

  test("a certificate must be of a known authority, and bear the name", async () => {
    const { target, port, ca, token } = await secured();
    const unknown = await failure(new Undertone(target, { token }).models());
    expect(unknown).toBeInstanceOf(ConnectionFailedError);
    expect(unknown).toMatchObject({ remedy: "name the authority of the server's certificate with `ca`" });
    const misnamed = await failure(new Undertone(`https://127.0.0.1:${port}`, { ca, token }).models());
    expect(misnamed).toMatchObject({ remedy: expect.stringContaining("`serverName`") });
    const named = new Undertone(`https://127.0.0.1:${port}`, { ca, token, serverName: "emotion.example" });
    expect(await named.models()).not.toEqual([]);
    const plain = await failure(new Undertone(`localhost:${port}`).models());
    expect(plain).toBeInstanceOf(ConnectionFailedError);
  });
});

test("a token goes where nobody reads it on the way, and is one word", async () => {
  expect(() => new Undertone("10.0.0.7:50051", { token: "ut_secret" })).toThrow(/token: could be read.*https:/);
  expect(() => new Undertone("localhost:50051", { ca: "x" })).toThrow(InvalidRequestError);
  expect(() => new Undertone("https://localhost", { clientKey: "x" })).toThrow(/clientKey: belongs to/);
  const error = await failure(new Undertone("localhost:1", { token: "two words" }).models());
  expect(error).toBeInstanceOf(InvalidRequestError);
  expect(String(error)).not.toContain("two words");
});

test("a server that has fallen silent is noticed within seconds", async () => {
  // The kernel takes the connection and what is sent; nobody ever answers, as after a power cut.
  const silent = createServer().listen(0, "127.0.0.1");
  await once(silent, "listening");
  onTestFinished(() => void silent.close());
  const client = new Undertone(`127.0.0.1:${(silent.address() as AddressInfo).port}`);
  const began = performance.now();
  const errors = await Promise.all([failure(client.models()), failure(client.open(LINEAR16))]);
  expect(errors).toEqual([expect.any(ConnectionFailedError), expect.any(ConnectionFailedError)]);
  expect(performance.now() - began).toBeLessThan(15_000);
});
