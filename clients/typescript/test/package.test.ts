// What is published: its files, its types, and its README's code, used as a user would.

import { execFile, execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { folder, shortWav, testServer } from "./server.js";

const run = promisify(execFile);
const PACKAGE = fileURLToPath(new URL("../", import.meta.url));
const TSC = join(PACKAGE, "node_modules/typescript/bin/tsc");

/** A project that has installed what would be published. */
function project(): string {
  const path = folder();
  const modules = join(path, "node_modules");
  mkdirSync(join(modules, "@undertone"), { recursive: true });
  execFileSync("npm", ["pack", "--ignore-scripts", "--silent", "--pack-destination", path], { cwd: PACKAGE });
  const tarball = readdirSync(path).find((name) => name.endsWith(".tgz")) ?? "";
  execFileSync("tar", ["-xzf", tarball], { cwd: path });
  renameSync(join(path, "package"), join(modules, "@undertone/client"));
  for (const name of ["@bufbuild", "@connectrpc", "@types", "undici-types"]) {
    symlinkSync(join(PACKAGE, "node_modules", name), join(modules, name));
  }
  writeFileSync(join(path, "package.json"), JSON.stringify({ type: "module" }));
  return path;
}

/** Checks `files` as strictly as it can be, the package's own declarations too. */
function compile(path: string, types: string[], files: string[]): string {
  const lib = ["--lib", "ES2023,DOM,DOM.Iterable,DOM.AsyncIterable", "--target", "ES2022", "--module", "NodeNext"];
  const strict = ["--strict", "--noUncheckedIndexedAccess", "--exactOptionalPropertyTypes", "--pretty", "false"];
  try {
    execFileSync("node", [TSC, "--noEmit", ...strict, ...lib, ...types, ...files], {
      cwd: path,
      encoding: "utf8",
    });
    return "";
  } catch (error) {
    return (error as { stdout: string }).stdout;
  }
}

test("the package is what it needs and no more, and its README is right", async () => {
  const path = project();
  const published = readdirSync(join(path, "node_modules/@undertone/client"), { recursive: true, encoding: "utf8" });
  const outside = published.filter((name) => !name.startsWith("dist")).sort();
  expect(outside).toEqual(["CHANGELOG.md", "LICENSE", "README.md", "package.json"]);
  expect(published).toContain("dist/gen/undertone/v1/emotion_service_pb.js");
  expect(published.filter((name) => /\.(ts|js)$/.test(name) && !name.startsWith("dist"))).toEqual([]);

  // Its declarations need no types of Node's.
  writeFileSync(
    join(path, "entries.ts"),
    ["", "/node", "/browser"]
      .map((entry, n) => `import * as m${n} from "@undertone/client${entry}"; export { m${n} };`)
      .join("\n"),
  );
  expect(compile(path, ["--typeRoots", join(path, "none"), "--skipDefaultLibCheck"], ["entries.ts"])).toBe("");

  const readme = readFileSync(join(PACKAGE, "README.md"), "utf8");
  const blocks = [...readme.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code]) => code ?? "");
  expect(blocks.length).toBeGreaterThan(5);
  const names = blocks.map((code, index) => {
    writeFileSync(join(path, `block${index}.ts`), code);
    return `block${index}.ts`;
  });
  expect(compile(path, ["--types", "node", "--skipLibCheck"], names)).toBe("");

  const server = await testServer("--escalation-store", `sqlite:${join(path, "undertone.db")}`);
  copyFileSync(shortWav(), join(path, "speech.wav"));
  writeFileSync(join(path, "first.mjs"), blocks[0]?.replace("localhost:50051", server.grpc) ?? "");
  const { stdout } = await run("node", ["first.mjs"], { cwd: path });
  expect(stdout).toMatch(/^\d(\.\d+)? [a-z]+ 0\.\d+$/m);
});
