/** Policies as readable text, and the test bench. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { launch, open, says } from "./browser.js";
import { ask, HELLO, QUIET, ROOT, samples, serve, tidy, wav } from "./server.js";

/** @type {import("./server.js").Server} */
let server;
/** @type {import("./browser.js").Browser} */
let browser;
/** A sentence, silence, a sentence. @type {string} */
let recording;

before(async () => {
  recording = wav("call.wav", Buffer.concat([samples(HELLO), Buffer.alloc(3 * 32_000), samples(HELLO)]));
  server = await serve("--default-policy", "care-call");
  browser = await launch();
});
after(tidy);

/** @param {import("node:test").TestContext} t @param {string} [text] what is put on the bench */
async function bench(t, text) {
  const page = await open(t, browser, `${server.console}policies.html`);
  await says(page.locator("#verdict"), /A good policy: my-policy/);
  if (text !== undefined) {
    await page.fill("#text", text);
    await says(page.locator("#verdict"), /./);
  }
  return page;
}

test("every policy can be read in words, and as it was written", async (t) => {
  const page = await open(t, browser, `${server.console}policies.html`);
  const card = page.locator("article").filter({ has: page.getByRole("heading", { name: "care-call" }) });
  await says(card, /Distress that lasts \(sustained-distress\): raises a HIGH escalation/);
  await says(card, /At most 6 escalations/);
  await says(card.locator(".chip"), /for streams that name none/);
  assert.equal(await page.locator("article").count(), 3);
  await card.locator("summary").click();
  await card.locator("pre").waitFor();
  assert.equal(await card.locator("pre").textContent(), readFileSync(join(ROOT, "policies/care-call.yaml"), "utf8"));
});

test("one of the server's policies can be taken to the bench, and is good there", async (t) => {
  const page = await bench(t);
  await page.getByRole("button", { name: "To the test bench with contact-centre" }).click();
  await says(page.locator("#verdict"), /A good policy: contact-centre 1\.1/);
  assert.match(await page.inputValue("#text"), /name: contact-centre/);
  assert.equal(await page.evaluate(() => document.activeElement?.id), "text");
});

test("a fault is shown with its line and what is wrong, and can be jumped to", async (t) => {
  const page = await bench(t, QUIET.replace("severity: medium", "severity: dreadful"));
  await says(page.locator("#verdict"), /Not a policy yet: line 9 is wrong/);
  await says(page.locator("#checked .faults"), /dreadful/);
  await says(page.locator("#gutter .fault"), /^9$/);
  await page.getByRole("button", { name: /^Line 9, column \d+$/ }).click();
  const selected = await page.$eval("#text", (area) => {
    const { value, selectionStart, selectionEnd } = /** @type {HTMLTextAreaElement} */ (area);
    return value.slice(selectionStart, selectionEnd);
  });
  assert.match(selected, /dreadful$/);
  await page.keyboard.type("severity: low");
  await page.fill("#text", QUIET);
  await says(page.locator("#verdict"), /A good policy: quiet 1/);
  assert.equal(await page.locator("#gutter .fault").count(), 0);
});

test("what is on the bench outlives a reload, and can be saved", async (t) => {
  const page = await bench(t, QUIET);
  await page.reload();
  await says(page.locator("#verdict"), /A good policy: quiet 1/);
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#download")]);
  assert.equal(download.suggestedFilename(), "quiet.yaml");
  assert.equal(readFileSync(await download.path(), "utf8"), QUIET);
});

test("a policy is tried on a recording, and nothing is raised by that", async (t) => {
  const page = await bench(t, QUIET);
  await page.setInputFiles("#choose input", recording);
  await page.click("#try");
  await says(
    page.locator("#trial-result .outcome"),
    /quiet 1\+\w+ would have raised (one escalation|\d escalations) in these 0:17: \d medium/,
  );
  const events = page.locator("#trial-result table").first().locator("tbody tr");
  await says(events.nth(0), /raised.*Nobody speaks.*no voice for/);
  await says(events.nth(1), /cleared/);
  assert.match(
    (await page.getAttribute("#trial-result .strip", "aria-label")) ?? "",
    /seconds without speech: highest [\d.]+ at 0:\d\d; on after 1 s, off when somebody speaks; in force from 0:\d\d to 0:\d\d/,
  );
  await page.locator(".condition summary").click();
  await page.locator(".condition tbody tr").nth(50).waitFor();
  const escalations = await ask(server, "EscalationService/ListEscalations");
  assert.deepEqual(escalations.escalations, []);
  assert.deepEqual((await ask(server, "SessionService/ListSessions", { includeEnded: true })).sessions, []);
});

test("one of the server's policies is tried by its name", async (t) => {
  const page = await bench(t, "no policy at all");
  await page.selectOption("#tried", "care-call");
  await page.setInputFiles("#choose input", recording);
  await page.click("#try");
  await says(page.locator("#trial-result .outcome"), /care-call 1\.1\+\w+ would have raised nothing in these 0:17/);
  assert.ok((await page.locator(".strip").count()) >= 5);
});

test("a text that is no policy is refused where it is tried, with its fault", async (t) => {
  const page = await open(t, browser, `${server.console}policies.html`, { expected: /status of 400/ });
  await page.fill("#text", "name: [");
  await page.setInputFiles("#choose input", recording);
  await page.click("#try");
  await says(page.locator("#trial-problem [role=alert]"), /policy_yaml/);
  assert.equal(await page.locator("#trial-result").textContent(), "");
});

test("a server without a store says that it has no policies, and the bench works", async (t) => {
  const bare = await serve("--escalation-store", "");
  const page = await open(t, browser, `${bare.console}policies.html`);
  await says(page.locator("#policies"), /This server has none: it was started without a store/);
  await page.fill("#text", QUIET);
  await page.setInputFiles("#choose input", recording);
  await page.click("#try");
  await says(page.locator("#trial-result .outcome"), /would have raised/);
});
