/** Real Chromium, and what every page of the console keeps to. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";
import { atEnd } from "./server.js";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
/** A telephone held upright. */
export const PHONE = { width: 390, height: 844 };
export const DESK = { width: 1280, height: 900 };

function path() {
  for (const name of [process.env.CHROMIUM, "chromium", "chromium-browser", "google-chrome"]) {
    const { stdout } = spawnSync("which", [name ?? ""], { encoding: "utf8" });
    if (stdout) return stdout.trim();
  }
  throw new Error("Chromium is missing: apt-get install chromium, or set CHROMIUM to a browser like it");
}

/**
 * @param {{microphone?: string, allowed?: boolean}} [options] `microphone`: the WAV file that it plays; `allowed`: whether pages may
 *     have it
 */
export async function launch({ microphone, allowed = true } = {}) {
  const args = ["--no-sandbox"];
  if (microphone) args.push("--use-fake-device-for-media-stream", `--use-file-for-fake-audio-capture=${microphone}`);
  if (microphone && allowed) args.push("--use-fake-ui-for-media-stream");
  const browser = await chromium.launch({ executablePath: path(), args });
  atEnd(() => browser.close());
  return browser;
}

/**
 * @typedef {import("playwright-core").Page} Page
 * @typedef {import("playwright-core").Browser} Browser
 */

/**
 * A page that fails its test where it says an error, breaks the policy of its contents, or throws; closed when the test ends.
 * @param {import("node:test").TestContext} t
 * @param {Browser} browser
 * @param {string} url
 * @param {{expected?: RegExp, context?: import("playwright-core").BrowserContextOptions}} [options] `expected`: errors that the
 *     test brings about
 * @returns {Promise<Page>}
 */
export async function open(t, browser, url, { expected = /^$/, context = {} } = {}) {
  const window = await browser.newContext({ viewport: DESK, locale: "en-GB", ...context });
  /** @type {string[]} */
  const wrong = [];
  const page = await window.newPage();
  page.on("console", (message) => message.type() === "error" && wrong.push(`${message.text()} (${message.location().url})`));
  page.on("pageerror", (error) => wrong.push(String(error.stack)));
  // The browser says so on the console as well, but for what is only reported.
  await page.addInitScript(() =>
    addEventListener("securitypolicyviolation", (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`)),
  );
  page.setDefaultTimeout(30_000);
  t.after(async () => {
    await window.close();
    assert.deepEqual(
      wrong.filter((text) => !expected.test(text)),
      [],
    );
  });
  await page.goto(url);
  return page;
}

/** Waits until `element` has a text like this. @param {import("playwright-core").Locator} element @param {RegExp} text */
export async function says(element, text) {
  await element.filter({ hasText: text }).first().waitFor();
}

/**
 * What axe is asked: all of its rules but one on trial, which takes a table that scrolls for no fit place of the focus, where another rule
 * demands that it is one.
 */
const RULES = {
  resultTypes: ["violations"],
  runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice", "experimental"],
  rules: { "focus-order-semantics": { enabled: false } },
};

/** No rule of axe is broken. @param {Page} page @param {string} state what the page shows */
export async function accessible(page, state) {
  await page.evaluate(AXE);
  const violations = await page.evaluate(async (rules) => {
    const { violations } = await /** @type {any} */ (window).axe.run(document, rules);
    return violations.map(
      (/** @type {any} */ { id, nodes }) =>
        `${id}: ${nodes.map((/** @type {any} */ { target, failureSummary }) => `${target.join(" ")} ${failureSummary}`).join("; ")}`,
    );
  }, RULES);
  assert.deepEqual(violations, [], state);
}

/** The page itself does not scroll sideways. @param {Page} page @param {string} state */
export async function fits(page, state) {
  const beyond = await page.evaluate(() => {
    const { scrollWidth, clientWidth } = document.documentElement;
    if (scrollWidth <= clientWidth) return [];
    return [...document.querySelectorAll("main *")]
      .filter((element) => element.getBoundingClientRect().right > clientWidth + 1)
      .map((element) => `${element.tagName} ${element.className}`);
  });
  assert.deepEqual(beyond, [], state);
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= document.documentElement.clientWidth), state);
}
