/** The pages to try it on: microphone and recording. */

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { launch, open, says } from "./browser.js";
import { ask, folder, HELLO, QUIET, samples, serve, tidy, wav } from "./server.js";

/** @type {import("./server.js").Server} */
let server;
/** @type {import("./browser.js").Browser} */
let browser;

before(async () => {
  const policies = folder();
  writeFileSync(join(policies, "quiet.yaml"), QUIET);
  // Half a sentence and then silence, again and again.
  const microphone = wav("microphone.wav", Buffer.concat([samples(HELLO).subarray(0, 3 * 32_000), Buffer.alloc(2 * 32_000)]));
  server = await serve("--policies", policies);
  browser = await launch({ microphone });
});
after(tidy);

/** @param {import("node:test").TestContext} t */
async function tryPage(t) {
  const page = await open(t, browser, `${server.console}try.html`);
  // The lists of models and policies have come.
  await page.locator("#policy option[value=quiet]").waitFor({ state: "attached" });
  return page;
}

test("the microphone is not asked for before the person has agreed", async (t) => {
  const page = await tryPage(t);
  await page.evaluate(() => {
    navigator.mediaDevices.getUserMedia = () => Promise.reject(new Error("asked"));
  });
  await page.click("#listen");
  assert.equal(await page.$eval("#consent", (box) => /** @type {HTMLInputElement} */ (box).validity.valueMissing), true);
  assert.equal(await page.textContent("#listen"), "Start listening");
  assert.equal(await page.isVisible("#live"), false);
});

test("what the microphone hears is estimated live, and summed up when it stops", async (t) => {
  const page = await tryPage(t);
  await page.check("#consent");
  await page.click("#listen");
  await says(page.locator("#state"), /^Listening\. No policy/);
  assert.match(await page.title(), /Listening/);
  await says(page.locator("#now .sounds .value"), /^(neutral|calm|happy|sad|angry|fear|disgust|surprise) \d+ %$/);
  await says(page.locator("#now .voice .note"), /\u2212\d+ dBFS/);
  await page.locator("#device option").nth(1).waitFor({ state: "attached" });
  const session = (await ask(server, "SessionService/ListSessions")).sessions[0];
  assert.equal(session.ingress, "INGRESS_WEBSOCKET");
  assert.equal(session.labels.purpose, "tried out in the console");
  await page.locator("#live table tbody tr").first().waitFor();
  await page.click("#listen");
  await says(page.locator("#live"), /\d+:\d\d heard, \d+ estimates/);
  await says(page.locator("#state"), /The microphone is off/);
  assert.equal(await page.textContent("#listen"), "Start listening");
  await says(page.locator("#live caption"), /The whole/);
  assert.deepEqual((await ask(server, "SessionService/ListSessions")).sessions, []);
});

test("escalations of a policy are shown as they come, and can be taken on", async (t) => {
  const page = await tryPage(t);
  await page.evaluate(() => localStorage.setItem("undertone.name", "Florence"));
  await page.check("#consent");
  await page.selectOption("#policy", "quiet");
  await says(page.locator("#policy-note"), /What it raises here is real/);
  await page.click("#listen");
  await says(page.locator("#state"), /Its policy: quiet/);
  const told = page.locator("#live .told").filter({ hasText: "Nobody speaks" }).first();
  await told.waitFor();
  await says(page.locator("#live [role=alert]"), /Escalation, medium: Nobody speaks\. no voice for/);
  await told.getByRole("button", { name: "Acknowledge" }).click();
  await says(told.locator(".chip"), /taken on by Florence/);
  await page.click("#listen");
  await says(page.locator("#state"), /The microphone is off/);
  const { escalations } = await ask(server, "EscalationService/ListEscalations", {});
  assert.ok(escalations.some((/** @type {any} */ { acknowledgedBy }) => acknowledgedBy === "Florence"));
});

test("the browser's audio is closed once: Firefox takes a second time for an error", async (t) => {
  const page = await tryPage(t);
  await page.evaluate(() => {
    const close = AudioContext.prototype.close;
    Object.assign(window, { closes: 0 });
    // As long as it is being closed.
    Object.defineProperty(AudioContext.prototype, "state", { get: () => "running" });
    AudioContext.prototype.close = function () {
      /** @type {any} */ (window).closes += 1;
      return close.call(this);
    };
  });
  await page.check("#consent");
  await page.click("#listen");
  await says(page.locator("#state"), /^Listening/);
  await page.click("#listen");
  await says(page.locator("#state"), /The microphone is off/);
  assert.equal(await page.evaluate(() => /** @type {any} */ (window).closes), 1);
});

test("a page that is left lets go of the microphone and ends its stream", async (t) => {
  const page = await tryPage(t);
  await page.check("#consent");
  await page.click("#listen");
  await says(page.locator("#state"), /^Listening/);
  await page.goto(`${server.console}models.html`);
  for (;;) {
    const { sessions } = await ask(server, "SessionService/ListSessions");
    if (sessions.length === 0) break;
  }
});

test("a microphone that is taken away ends the stream with its summary, and why", async (t) => {
  const page = await tryPage(t);
  // Kept to be ended as if it were unplugged.
  await page.evaluate(() => {
    const media = navigator.mediaDevices;
    const asked = media.getUserMedia.bind(media);
    media.getUserMedia = async (constraints) => {
      const stream = await asked(constraints);
      Object.assign(window, { track: stream.getAudioTracks()[0] });
      return stream;
    };
  });
  await page.check("#consent");
  await page.click("#listen");
  await says(page.locator("#now .voice .note"), /dBFS/);
  await page.evaluate(() => /** @type {any} */ (window).track.dispatchEvent(new Event("ended")));
  await says(page.locator("#microphone-problem [role=alert]"), /The microphone is gone/);
  await says(page.locator("#live"), /heard/);
});

test("a microphone that is refused is told, with the remedy", async (t) => {
  const strict = await launch({ microphone: HELLO, allowed: false });
  const page = await open(t, strict, `${server.console}try.html`, { context: { permissions: [] } });
  await page.check("#consent");
  await page.click("#listen");
  await says(page.locator("#microphone-problem [role=alert]"), /was not allowed to use the microphone\. Allow it/);
  assert.equal(await page.textContent("#listen"), "Start listening");
  assert.equal(await page.isVisible("#live"), false);
});

test("a browser whose audio does not start lets go of the microphone, and says why", async (t) => {
  const page = await tryPage(t);
  await page.clock.install();
  await page.evaluate(() => {
    AudioContext.prototype.resume = () => {
      document.body.dataset.asked = "";
      return new Promise(() => {});
    };
  });
  await page.check("#consent");
  await page.click("#listen");
  await page.locator("body[data-asked]").waitFor();
  await page.clock.fastForward(10_000);
  await says(page.locator("#microphone-problem [role=alert]"), /its audio does not start.*choose an output/);
  assert.equal(await page.textContent("#listen"), "Start listening");
  assert.equal(await page.isVisible("#live"), false);
});

test("the server's default policy raises nothing for a microphone, unless it is chosen", async (t) => {
  const strict = await serve("--default-policy", "care-call");
  const page = await open(t, browser, `${strict.console}try.html`);
  // An option is never visible by itself.
  await page.locator("#policy option[value=care-call]").waitFor({ state: "attached" });
  assert.equal(await page.textContent("#policy option[value=care-call]"), "care-call (the server's default)");
  await page.check("#consent");
  for (const [chosen, told] of /** @type {const} */ ([
    ["", /^Listening\. No policy/],
    ["care-call", /^Listening\. Its policy: care-call/],
  ])) {
    await page.selectOption("#policy", chosen);
    await page.click("#listen");
    await says(page.locator("#state"), told);
    await page.click("#listen");
    await says(page.locator("#state"), /The microphone is off/);
  }
  await strict.stop();
});

test("what the server refuses is told in its words", async (t) => {
  const full = await serve("--max-streams", "1");
  const page = await open(t, browser, `${full.console}try.html`);
  const other = await open(t, browser, `${full.console}try.html`);
  for (const one of [other, page]) {
    await one.check("#consent");
    await one.click("#listen");
    if (one === other) await says(one.locator("#state"), /^Listening/);
  }
  await says(page.locator("#microphone-problem [role=alert]"), /streams/);
  await full.stop();
});

test("a server that ends finishes the stream, and the page says so", async (t) => {
  const brief = await serve();
  const page = await open(t, browser, `${brief.console}try.html`);
  await page.check("#consent");
  await page.click("#listen");
  await says(page.locator("#now .voice .note"), /dBFS/);
  await brief.stop();
  await says(page.locator("#live"), /The server is ending and has finished the stream/);
  await says(page.locator("#state"), /The microphone is off/);
});

test("a recording gives its timeline, its utterances and a summary", async (t) => {
  const page = await tryPage(t);
  await page.setInputFiles("#choose input", HELLO);
  await says(page.locator("#choose [role=status]"), /hello\.wav, \d+ KiB/);
  await page.click("#analyse");
  await says(page.locator("#file-state"), /0:07 of audio, analysed by undertone-four within [\d.]+ s/);
  const [whole, utterances] = [page.locator("#file-result table").nth(0), page.locator("#file-result table").nth(1)];
  await says(whole.locator("caption"), /The whole/);
  assert.equal(await whole.locator("tbody tr").count(), 1);
  assert.ok((await utterances.locator("tbody tr").count()) > 0);
  assert.match((await page.getAttribute("#file-result canvas", "aria-label")) ?? "", /Timeline from 0:00 to 0:0[67]/);
  await utterances
    .getByRole("button", { name: /Play 0:0\d to 0:0\d/ })
    .first()
    .click();
  await says(page.locator("#file-result .timeline-readout .at dd"), /^0:0\d$/);
});

test("each channel of a recording can be looked at on its own", async (t) => {
  const page = await tryPage(t);
  await page.setInputFiles("#choose input", join(HELLO, "../tone_44k_stereo.ogg"));
  await page.selectOption("#channels", { label: "Each on its own" });
  await page.click("#analyse");
  await says(page.locator("#file-result h3").nth(1), /Channel 0/);
  await says(page.locator("#file-result h3").nth(2), /Channel 1/);
  assert.equal(await page.locator("#file-result table").first().locator("tbody tr").count(), 2);
});

test("a recording can be dropped, and one that is none is told", async (t) => {
  const page = await open(t, browser, `${server.console}try.html`, { expected: /status of 4\d\d/ });
  const dropped = await page.evaluateHandle(() => {
    const data = new DataTransfer();
    data.items.add(new File(["no sound at all, but words"], "letter.wav"));
    return data;
  });
  await page.dispatchEvent(".drop", "drop", { dataTransfer: dropped });
  await says(page.locator("#choose [role=status]"), /letter\.wav/);
  await page.click("#analyse");
  await says(page.locator("#file-problem [role=alert]"), /format|decode|recognis/);
  assert.equal(await page.textContent("#analyse"), "Analyse");
});

test("nothing is sent as long as no recording is chosen", async (t) => {
  const page = await tryPage(t);
  await page.click("#analyse");
  await says(page.locator("#file-problem [role=alert]"), /Choose a recording first/);
});
