/** A server that wants to know who asks. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { DESK, launch, open, PHONE, says } from "./browser.js";
import { HELLO, known, serve, tidy } from "./server.js";

/** @type {import("./server.js").Server} */
let server;
/** @type {import("./browser.js").Browser} */
let browser;
let token = "";

/** What a browser says of an answer that is a refusal. */
const REFUSED = { expected: /status of 40[13]/ };

before(async () => {
  const { identities, token: made } = known("watch, acknowledge, stream, analyze");
  token = made;
  server = await serve("--identities", identities);
  browser = await launch({ microphone: HELLO });
});
after(tidy);

/** @param {import("./browser.js").Page} page @param {string} given */
async function give(page, given) {
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel(/^Token/).fill(given);
  await Promise.all([page.waitForNavigation(), dialog.getByRole("button", { name: "Go on" }).click()]);
}

test("whoever has no token is asked for one, a wrong one is told, and a right one works", async (t) => {
  const page = await open(t, browser, server.console, REFUSED);
  await says(page.getByRole("dialog"), /Who are you\?/);
  await give(page, "ut_wrong");
  await says(page.getByRole("dialog"), /token/);
  await says(page.locator("#trouble [role=alert]"), /does not take/);
  await give(page, token);
  await says(page.locator("main"), /Nobody is listened to now/);
  assert.equal(await page.getByRole("dialog").count(), 0);
});

test("a token stands neither in the address nor in what outlives the tab", async (t) => {
  const page = await open(t, browser, `${server.console}models.html`, REFUSED);
  await page.getByRole("dialog").waitFor();
  await give(page, token);
  await page.locator("article").first().waitFor();
  assert.ok(!page.url().includes(token));
  const kept = await page.evaluate(async () => ({
    local: JSON.stringify(localStorage),
    cookies: document.cookie,
    databases: await indexedDB.databases(),
    caches: await caches.keys(),
    session: sessionStorage.length,
  }));
  assert.ok(!kept.local.includes(token));
  assert.deepEqual([kept.cookies, kept.databases, kept.caches], ["", [], []]);
  assert.equal(kept.session, 1);
  const other = await page.context().newPage();
  await other.goto(`${server.console}models.html`);
  await other.getByRole("dialog").waitFor();
});

test("the dialog stands in the middle", async (t) => {
  for (const viewport of [DESK, PHONE]) {
    const page = await open(t, browser, `${server.console}models.html`, { ...REFUSED, context: { viewport } });
    await page.getByRole("dialog").waitFor();
    const box = await page.getByRole("dialog").boundingBox();
    assert.ok(box);
    for (const [middle, of] of [
      [box.x + box.width / 2, viewport.width / 2],
      [box.y + box.height / 2, viewport.height / 2],
    ])
      assert.ok(Math.abs(middle - of) <= 1, `${middle} of ${of}`);
  }
});

test("the dialog can be left with Escape, and opened again with the keyboard", async (t) => {
  const page = await open(t, browser, `${server.console}models.html`, REFUSED);
  await page.getByRole("dialog").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await says(page.locator("#problem [role=alert]"), /token/);
  const button = page.getByRole("button", { name: "Who are you?" });
  await button.focus();
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor();
});

test("the dialog can be opened again before the browser has told that it was closed", async (t) => {
  const page = await open(t, browser, `${server.console}models.html`, REFUSED);
  await page.getByRole("dialog").waitFor();
  await page.evaluate(() => {
    /** @type {HTMLDialogElement} */ (document.querySelector("dialog")).close();
    /** @type {HTMLElement} */ (document.querySelector(".head button")).click();
  });
  // The first one has gone, and has not taken the second one along.
  await page.waitForFunction(() => document.querySelectorAll("dialog").length === 1);
  await give(page, token);
  await page.locator("article").first().waitFor();
});

test("the microphone is heard in the name of the token", async (t) => {
  const page = await open(t, browser, `${server.console}try.html`, REFUSED);
  await page.getByRole("dialog").waitFor();
  await give(page, token);
  await page.locator("#policy option[value=care-call]").waitFor({ state: "attached" });
  await page.check("#consent");
  await page.click("#listen");
  await says(page.locator("#state"), /^Listening/);
  const list = await page.context().newPage();
  await list.addInitScript((secret) => sessionStorage.setItem("undertone.token", secret), token);
  await list.goto(server.console);
  await says(list.locator("#rows tr"), /station/);
  await page.click("#listen");
  await says(page.locator("#state"), /The microphone is off/);
});

test("what a token may not do is told with the role that it lacks", async (t) => {
  const { identities, token: watcher } = known("watch");
  const strict = await serve("--identities", identities);
  const page = await open(t, browser, `${strict.console}try.html`, REFUSED);
  await page.getByRole("dialog").waitFor();
  await give(page, watcher);
  await page.setInputFiles("#choose input", HELLO);
  await page.click("#analyse");
  await says(page.locator("#file-problem [role=alert]"), /analyze/);
  await page.check("#consent");
  await page.click("#listen");
  await says(page.locator("#microphone-problem [role=alert]"), /stream/);
});
