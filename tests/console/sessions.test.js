/** Live sessions, one session, what it raised, and those who take it on. */

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { launch, open, says } from "./browser.js";
import { ask, Caller, folder, HELLO, line, QUIET, samples, serve, stereo, tidy } from "./server.js";

/** @type {import("./server.js").Server} */
let server;
/** @type {import("./browser.js").Browser} */
let browser;
const speech = samples(HELLO);

before(async () => {
  server = await serve();
  browser = await launch();
});
after(tidy);

/** @param {import("./browser.js").Page} page @param {string} session @returns {Promise<number>} how far its timeline is, in seconds */
async function reached(page, session) {
  const label = (await page.getAttribute("#channels canvas", "aria-label")) ?? "";
  const [, minutes, seconds] = /Last at (\d+):(\d\d)/.exec(label) ?? [];
  assert.ok(seconds, `${session}: ${label}`);
  return Number(minutes) * 60 + Number(seconds);
}

test("the list without sessions says how to start one", async (t) => {
  const page = await open(t, browser, server.console);
  await says(page.locator("main"), /undertone stream FILE --policy care-call/);
  await page
    .locator("main")
    .getByRole("link", { name: /try it/i })
    .waitFor();
});

test("the list shows a stream while it is live, on whose behalf, and what it sounds like", async (t) => {
  const page = await open(t, browser, server.console);
  const caller = new Caller(server, { id: "call-list", policy: QUIET, labels: ["patient=17"] });
  const row = page.locator("#rows tr").filter({ hasText: "call-list" });
  await row.waitFor();
  await says(row, /patient: 17/);
  await says(row, /quiet/);
  caller.say(speech);
  await says(row, /(neutral|calm|happy|sad|angry|fear|disgust|surprise) \d+ %/);
  await caller.hangUp();
  await row.waitFor({ state: "detached" });
  await page.check("#ended");
  await says(row, /ended/);
});

test("a timeline runs after what comes bit by bit, and not through what comes at once", async (t) => {
  const page = await open(t, browser, server.console);
  const heads = await page.evaluate(async () => {
    const { Timeline } = await import(new URL("lib/timeline.js", location.href).href);
    const timeline = new Timeline();
    const seen = [];
    for (const at of [14, 15]) {
      timeline.now(at);
      timeline.catchUp();
      seen.push(timeline.head);
    }
    timeline.close();
    return seen;
  });
  assert.deepEqual(heads, [14, 14]);
});

test("what a page and its timeline say last is the newest, as the list has it", async (t) => {
  const caller = new Caller(server, { id: "call-newest" });
  // 2.7 s: its newest estimate, at 2.5 s, is not one of those that are kept, one a second.
  caller.say(speech.subarray(0, 86_400));
  for (;;) {
    const { sessions } = await ask(server, "SessionService/ListSessions");
    if (sessions.find((/** @type {any} */ one) => one.id === "call-newest" && one.estimates === "5")) break;
  }
  const list = await open(t, browser, server.console);
  const said = await list.locator("#rows tr").filter({ hasText: "call-newest" }).textContent();
  const [told] = /(neutral|calm|happy|sad|angry|fear|disgust|surprise) \d+ %/.exec(said ?? "") ?? [""];
  assert.ok(told, said ?? "");
  const page = await open(t, browser, `${server.console}session.html?id=call-newest`);
  await says(page.locator("#channels .sounds .value"), new RegExp(`^${told}$`, "i"));
  await page.waitForFunction((told) => document.querySelector("#channels canvas")?.getAttribute("aria-label")?.includes(told), told);
  await caller.hangUp();
});

test("the list is filtered by what stands in it", async (t) => {
  const callers = [new Caller(server, { id: "one", labels: ["ward=3"] }), new Caller(server, { id: "other", labels: ["ward=7"] })];
  const page = await open(t, browser, server.console);
  await page.locator("#rows tr").nth(1).waitFor();
  await page.fill("#filter", "ward: 7");
  await page.locator("#rows tr").nth(1).waitFor({ state: "detached" });
  await says(page.locator("#rows tr"), /other/);
  await Promise.all(callers.map((caller) => caller.hangUp()));
});

test("a session's timeline moves with what is heard", async (t) => {
  const caller = new Caller(server, { id: "call-moves" });
  caller.say(speech.subarray(0, 3 * 32_000));
  await caller.heard("estimate");
  const page = await open(t, browser, `${server.console}session.html?id=call-moves`);
  await says(page.locator("#state"), /^live$/);
  await page.waitForFunction(() => /Last at 0:0[23]/.test(document.querySelector("#channels canvas")?.getAttribute("aria-label") ?? ""));
  const before = await reached(page, "call-moves");
  caller.say(speech.subarray(3 * 32_000));
  await page.waitForFunction(() => /Last at 0:0[67]/.test(document.querySelector("#channels canvas")?.getAttribute("aria-label") ?? ""));
  assert.ok((await reached(page, "call-moves")) > before);
  await caller.hangUp();
});

test("a moment of the timeline can be read with the keyboard, and in a table", async (t) => {
  const caller = new Caller(server, { id: "call-read" });
  caller.say(speech);
  const page = await open(t, browser, `${server.console}session.html?id=call-read`);
  await page.waitForFunction(() => /Last at 0:0[67]/.test(document.querySelector("#channels canvas")?.getAttribute("aria-label") ?? ""));
  const slider = page.getByRole("slider").first();
  await slider.focus();
  await page.keyboard.press("Home");
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowRight");
  assert.match((await slider.getAttribute("aria-valuetext")) ?? "", /^0:0[0-3]: .*\d+ %/);
  await says(page.locator(".timeline-readout .at dd"), /^0:0[0-3]$/);
  await page.locator(".timeline details summary").first().click();
  await page.locator(".timeline details table tbody tr").nth(5).waitFor();
  await caller.hangUp();
});

test("an escalation is announced with its reason on the list and on its session's page", async (t) => {
  const [list, page] = [
    await open(t, browser, server.console),
    await open(t, browser, `${server.console}session.html?id=call-raises`, { expected: /status of 404/ }),
  ];
  const caller = new Caller(server, { id: "call-raises", policy: QUIET });
  await caller.heard("started");
  await page.reload();
  await says(page.locator("#raised-none"), /^None so far/);
  caller.say(speech.subarray(0, 2 * 32_000));
  caller.silence(2);
  await says(page.locator("#raised li"), /medium.*Nobody speaks.*raised.*no voice for 1 s/);
  await says(page.getByRole("alert"), /medium: Nobody speaks\. no voice for 1 s/);
  await page.getByRole("img", { name: /In force: Nobody speaks \(medium\)/ }).waitFor();
  await says(list.getByRole("alert"), /medium: Nobody speaks/);
  const forces = list.locator("#forces li").filter({ hasText: "call-raises" });
  await says(forces, /no voice for 1 s/);
  assert.match(await list.title(), /^\(\d+\) Sessions/);
  await forces.getByRole("link", { name: "call-raises", exact: true }).click();
  await says(list.locator("#raised li"), /no voice for 1 s/);
  await caller.hangUp();
});

test("an escalation is acknowledged with the keyboard alone, in the person's name, and the server knows", async (t) => {
  const caller = new Caller(server, { id: "call-acknowledge", policy: QUIET });
  caller.silence(2);
  await caller.heard("escalation");
  const page = await open(t, browser, `${server.console}session.html?id=call-acknowledge`);
  await page.locator("#raised li").waitFor();
  const focused = () => page.evaluate(() => document.activeElement?.textContent);
  for (let presses = 0; (await focused()) !== "Acknowledge"; presses++) {
    assert.ok(presses < 60, "no button can be reached");
    await page.keyboard.press("Tab");
  }
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor();
  assert.equal(await page.evaluate(() => document.activeElement?.getAttribute("name")), "name");
  await page.keyboard.type("Mary Seacole");
  await page.keyboard.press("Enter");
  await says(page.locator("#raised li"), /acknowledged by Mary Seacole/);
  const { escalations } = await ask(server, "EscalationService/ListEscalations", { filter: { sessionId: "call-acknowledge" } });
  assert.equal(escalations[0].state, "ESCALATION_STATE_ACKNOWLEDGED");
  assert.equal(escalations[0].acknowledgedBy, "Mary Seacole");
  await caller.hangUp();
});

test("an escalation stands with everything that happened to it, and its note", async (t) => {
  const caller = new Caller(server, { id: "call-history", policy: QUIET, labels: ["patient=4"] });
  caller.silence(2);
  await caller.heard("escalation");
  const page = await open(t, browser, `${server.console}escalations.html?session=call-history`);
  const row = page.locator("#rows tr");
  await says(row, /Nobody speaks.*patient: 4/);
  await row.getByRole("link", { name: "Nobody speaks" }).click();
  await says(page.locator("main"), /seconds without speech/);
  await page.evaluate(() => localStorage.setItem("undertone.name", "Cicely"));
  await page.getByRole("textbox", { name: /note/i }).fill("called back");
  await page.getByRole("button", { name: "Acknowledge" }).click();
  await says(page.locator(".trail li").filter({ hasText: "acknowledged" }), /Cicely.*called back/);
  await says(page.locator(".trail li").first(), /raised/);
  await caller.hangUp();
  await says(page.locator(".trail"), /session/);
});

test("escalations that are cleared while they are looked at are shown as cleared", async (t) => {
  const caller = new Caller(server, { id: "call-clears", policy: QUIET });
  caller.silence(2);
  await caller.heard("escalation");
  const page = await open(t, browser, `${server.console}session.html?id=call-clears`);
  await says(page.locator("#raised li .state"), /raised/);
  caller.say(speech);
  await says(page.locator("#raised li .state"), /cleared/);
  await caller.hangUp();
});

test("a session that has ended can be looked at, with what was heard", async (t) => {
  const caller = new Caller(server, { id: "call-over", policy: QUIET, labels: ["patient=9"] });
  caller.say(speech);
  caller.silence(2);
  await caller.hangUp();
  const page = await open(t, browser, `${server.console}session.html?id=call-over`);
  await says(page.locator("#state"), /^ended/);
  await page.waitForFunction(() => /Last at 0:0[6-9]/.test(document.querySelector("#channels canvas")?.getAttribute("aria-label") ?? ""));
  await says(page.locator("#facts"), /patient: 9/);
  await page.locator("#said-rows tr").first().waitFor();
  await says(page.locator("#raised li"), /Nobody speaks/);
});

test("a session that ends while it is looked at stays on the page", async (t) => {
  const caller = new Caller(server, { id: "call-ends" });
  caller.say(speech);
  const page = await open(t, browser, `${server.console}session.html?id=call-ends`);
  await says(page.locator("#state"), /^live$/);
  await page.locator("#channels canvas").waitFor();
  await caller.hangUp();
  await says(page.locator("#state"), /^ended/);
  assert.ok(await page.locator("#channels canvas").isVisible());
});

test("a session that the server does not know is told, and what it raised is still there", async (t) => {
  const brief = await serve("--ended-sessions", "0s");
  const caller = new Caller(brief, { id: "call-gone", policy: QUIET });
  caller.silence(2);
  await caller.heard("escalation");
  await caller.hangUp();
  const page = await open(t, browser, `${brief.console}session.html?id=call-gone`, { expected: /status of 404/ });
  await says(page.locator("#state"), /^gone$/);
  await says(page.locator("#raised li"), /Nobody speaks/);
});

test("each channel of a session has its own timeline", async (t) => {
  const caller = new Caller(server, { id: "call-stereo", channels: 2 });
  caller.say(stereo(speech, speech));
  const page = await open(t, browser, `${server.console}session.html?id=call-stereo`);
  await page.locator("#channels canvas").nth(1).waitFor();
  await caller.hangUp();
});

test("two hundred sessions are shown without a pause that is felt", async (t) => {
  const page = await open(t, browser, server.console);
  await page.route("**/undertone.v1.SessionService/ListSessions", async (route) => {
    const affect = {
      scores: [{ emotion: "EMOTION_SAD", probability: 1 }],
      top: "EMOTION_SAD",
      confidence: Math.random(),
      valence: 0,
      arousal: 0,
      distress: Math.random(),
    };
    const latest = [{ channel: 0, end: `${Math.random() * 60}s`, affect, abstains: false, speechRatio: Math.random(), levelDbfs: -30 }];
    const sessions = Array.from({ length: 200 }, (_, id) => ({
      id: `session-${id}`,
      tenant: "default",
      identity: "",
      labels: { ward: String(id % 9) },
      model: "undertone-four",
      policy: "care-call",
      ingress: "INGRESS_GRPC",
      openedAt: new Date().toISOString(),
      audio: "9s",
      latest,
      escalationIds: [],
    }));
    await route.fulfill({ json: { sessions, nextPageToken: "" } });
  });
  await page.locator("#rows tr").nth(199).waitFor();
  const longest = await page.evaluate(async () => {
    let longest = 0;
    new PerformanceObserver((list) => list.getEntries().forEach(({ duration }) => (longest = Math.max(longest, duration)))).observe({
      type: "longtask",
    });
    const row = /** @type {Element} */ (document.querySelector("#rows tr"));
    await new Promise((changed) => {
      new MutationObserver(changed).observe(row, { subtree: true, childList: true, characterData: true, attributes: true });
    });
    // What that took is told in a task of its own.
    await new Promise((rested) => requestIdleCallback(rested));
    return longest;
  });
  // Cores are few here, and shared.
  assert.ok(longest < 400, `${longest} ms`);
});

test("a server without a store says so, and sessions are shown all the same", async (t) => {
  const bare = await serve("--escalation-store", "");
  const caller = new Caller(bare, { id: "call-bare" });
  const page = await open(t, browser, bare.console, { expected: /status of (400|412|501)/ });
  await says(page.locator("#rows tr"), /call-bare/);
  await says(page.locator("main"), /keeps no escalations/);
  await caller.hangUp();
});

test("when the server is gone the pages say so, and go on when it is back", async (t) => {
  const place = folder();
  const store = `sqlite:${join(place, "undertone.db")}`;
  const first = await serve("--escalation-store", store);
  const lost = { expected: /ERR_|status of 404/ };
  const [list, page] = [
    await open(t, browser, first.console, lost),
    await open(t, browser, `${first.console}session.html?id=call-on`, lost),
  ];
  await says(list.locator("main"), /Nobody is listened to now/);
  await first.stop("SIGKILL");
  await says(list.locator("#trouble [role=alert]"), /cannot be reached/);
  const second = await serve("--escalation-store", store, "--grpc-address", first.grpc, "--http-address", first.http);
  const caller = new Caller(second, { id: "call-on", policy: QUIET });
  await says(list.locator("#rows tr"), /call-on/);
  assert.equal(await list.locator("#trouble [role=alert]").count(), 0);
  caller.silence(2);
  await says(list.locator("#forces li"), /Nobody speaks/);
  await page.reload();
  await says(page.locator("#raised li"), /Nobody speaks/);
  await caller.hangUp();
});

test("a session's page loses nothing of its escalations when the connection breaks", async (t) => {
  const caller = new Caller(server, { id: "call-breaks", policy: QUIET });
  caller.say(speech);
  await caller.heard("estimate");
  const wire = await line(server);
  const page = await open(t, browser, `${wire.console}session.html?id=call-breaks`, { expected: /ERR_/ });
  await says(page.locator("#raised-none"), /^None so far/);
  await says(page.locator("#state"), /^live$/);
  wire.cut();
  await says(page.locator("#state"), /connection lost/);
  caller.silence(2);
  await caller.heard("escalation");
  wire.mend();
  await says(page.locator("#state"), /^live$/);
  await says(page.locator("#raised li"), /Nobody speaks/);
  await caller.hangUp();
});

test("what comes from outside is shown as text, never as markup", async (t) => {
  const policies = folder();
  const title = "<img src=x onerror=alert(1)>";
  writeFileSync(
    join(policies, "evil.yaml"),
    QUIET.replace("name: quiet\n", "name: evil\n").replace("title: Nobody speaks", `title: '${title}'`),
  );
  const evil = await serve("--policies", policies);
  const page = await open(t, browser, evil.console);
  const caller = new Caller(evil, {
    id: "call-evil",
    policy: QUIET.replace("title: Nobody speaks", `title: '${title}'`),
    labels: [`note=${title}`],
  });
  caller.silence(2);
  await says(page.locator("#forces li"), /<img src=x/);
  await says(page.locator("#rows tr"), /note: <img src=x/);
  await page.goto(`${evil.console}policies.html`);
  await says(page.locator("article").filter({ hasText: "evil" }), /<img src=x/);
  assert.equal(await page.locator("img[src=x]").count(), 0);
  await caller.hangUp();
});
