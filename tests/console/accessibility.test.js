/** Every page in its states, light and dark, on a desk and on a telephone: for those who do not see, or see otherwise, too. */

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { accessible, DESK, fits, launch, open, PHONE, says } from "./browser.js";
import { ask, Caller, folder, HELLO, known, QUIET, samples, serve, stereo, tidy } from "./server.js";

/** @typedef {import("./browser.js").Page} Page */

/** @type {import("./server.js").Server} */
let server;
/** @type {import("./browser.js").Browser} */
let browser;
/** Somebody with an escalation in force. @type {Caller} */
let caller;
let escalation = "";

before(async () => {
  const policies = folder();
  writeFileSync(join(policies, "quiet.yaml"), QUIET);
  server = await serve("--policies", policies, "--default-policy", "care-call", "--idle-timeout", "10m");
  browser = await launch({ microphone: HELLO });
  const over = new Caller(server, { id: "call-over", policy: QUIET, labels: ["patient=3"] });
  const speech = samples(HELLO);
  over.say(speech);
  over.silence(2);
  await over.hangUp();
  caller = new Caller(server, {
    id: "call-live",
    policy: QUIET,
    labels: ["patient=17", "ward=a ward with a name that is longer than most"],
    channels: 2,
  });
  caller.say(stereo(speech, Buffer.alloc(speech.length)));
  caller.silence(4);
  await caller.heard("escalation");
  escalation = (await ask(server, "EscalationService/ListEscalations", { filter: { sessionId: "call-over" } })).escalations[0].id;
});
after(tidy);

/**
 * Every state of every page: where it is, and how it comes to be.
 * @type {Record<string, {at: string, show: (page: Page) => Promise<unknown>, expected?: RegExp}>}
 */
const STATES = {
  "sessions, with one that is escalated and one that has ended": {
    at: "",
    async show(page) {
      await page.locator("#forces li").first().waitFor();
      await page.check("#ended");
      await says(page.locator("#rows tr"), /call-over/);
    },
  },
  "sessions, none of which fits": {
    at: "",
    async show(page) {
      await page.locator("#rows tr").first().waitFor();
      await page.fill("#filter", "nobody of this name");
      await says(page.locator("#none"), /No session fits/);
    },
  },
  "a live session of two channels": { at: "session.html?id=call-live", show: (page) => page.locator("#raised li").first().waitFor() },
  "a session that has ended, with the table of its timeline": {
    at: "session.html?id=call-over",
    async show(page) {
      await page.locator("#said-rows tr").first().waitFor();
      await page.locator(".timeline details summary").click();
      await page.locator(".timeline details tbody tr").first().waitFor();
      await page.getByRole("slider").focus();
      await page.keyboard.press("Home");
    },
  },
  "a session that is gone": {
    at: "session.html?id=nobody",
    show: (page) => says(page.locator("#state"), /gone/),
    expected: /status of 404/,
  },
  "the list of escalations": { at: "escalations.html", show: (page) => page.locator("#rows tr").first().waitFor() },
  "one escalation": { at: "escalations.html?id=", show: (page) => page.locator(".trail li").first().waitFor() },
  "the microphone, before, with a policy": {
    at: "try.html",
    async show(page) {
      await page.locator("#policy option[value=care-call]").waitFor({ state: "attached" });
      await page.selectOption("#policy", "care-call");
      await says(page.locator("#policy-note.warning"), /is real/);
    },
  },
  "the microphone, while it listens": {
    at: "try.html",
    async show(page) {
      await page.locator("#policy option[value=quiet]").waitFor({ state: "attached" });
      await page.check("#consent");
      await page.selectOption("#policy", "quiet");
      await page.click("#listen");
      await says(page.locator("#now .voice .note"), /dBFS/);
    },
  },
  "the microphone, after": {
    at: "try.html",
    async show(page) {
      await page.check("#consent");
      await page.click("#listen");
      await says(page.locator("#now .voice .note"), /dBFS/);
      await page.click("#listen");
      await says(page.locator("#live caption"), /The whole/);
    },
  },
  "a recording, analysed": {
    at: "try.html",
    async show(page) {
      await page.setInputFiles("#choose input", HELLO);
      await page.selectOption("#channels", { label: "Each on its own" });
      await page.click("#analyse");
      await page.locator("#file-result canvas").waitFor();
    },
  },
  "a recording, refused": {
    at: "try.html",
    async show(page) {
      await page.click("#analyse");
      await page.locator("#file-problem [role=alert]").waitFor();
    },
  },
  models: {
    at: "models.html",
    async show(page) {
      await page.locator("article").first().waitFor();
      for (const details of await page.locator("details").all()) await details.evaluate((element) => element.setAttribute("open", ""));
    },
  },
  "policies, with the text of one": {
    at: "policies.html",
    async show(page) {
      await page.locator("article summary").first().click();
      await page.locator("article pre").waitFor();
      await says(page.locator("#verdict"), /A good policy/);
    },
  },
  "a policy with a fault": {
    at: "policies.html",
    async show(page) {
      await page.fill("#text", "schema: undertone.policy/v1\nname: WRONG NAME\n");
      await page.locator(".faults button").click();
    },
  },
  "a policy, tried": {
    at: "policies.html",
    async show(page) {
      await page.locator("article").first().waitFor();
      await page.fill("#text", QUIET);
      await page.setInputFiles("#choose input", HELLO);
      await page.click("#try");
      await page.locator(".strip").first().waitFor();
      await page.locator(".condition summary").first().click();
    },
  },
  "responsible use": { at: "about.html", show: (page) => page.locator("#models li").first().waitFor() },
  "who are you?": {
    at: "about.html",
    async show(page) {
      await page.getByRole("button", { name: "Who are you?" }).click();
      await page.getByRole("dialog").waitFor();
    },
  },
};

/** @param {Page} page @param {string} state */
async function inEveryWay(page, state) {
  for (const [where, viewport] of Object.entries({ desk: DESK, phone: PHONE })) {
    await page.setViewportSize(viewport);
    for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
      await page.emulateMedia({ colorScheme });
      await accessible(page, `${state}, ${where}, ${colorScheme}`);
    }
    await fits(page, `${state}, ${where}`);
  }
}

for (const [state, { at, show, expected }] of Object.entries(STATES)) {
  test(`everybody can use it: ${state}`, async (t) => {
    const page = await open(t, browser, `${server.console}${at}${at.endsWith("?id=") ? escalation : ""}`, { expected });
    await show(page);
    await inEveryWay(page, state);
  });
}

test("everybody can use it: a server that wants a token, and one without a store", async (t) => {
  const { identities } = known("watch");
  const guarded = await serve("--identities", identities);
  const asked = await open(t, browser, guarded.console, { expected: /status of 401/ });
  await asked.getByRole("dialog").waitFor();
  await inEveryWay(asked, "a token is asked for");
  const bare = await serve("--escalation-store", "");
  const empty = await open(t, browser, bare.console, { expected: /status of (400|412|501)/ });
  await says(empty.locator("main"), /keeps no escalations/);
  await inEveryWay(empty, "without a store");
});

const PAGES = ["", "session.html?id=call-live", "escalations.html", "try.html", "models.html", "policies.html", "about.html"];

test("every page has one first heading, a title of its own, and says where one is", async (t) => {
  const titles = new Set();
  const page = await open(t, browser, server.console);
  for (const at of PAGES) {
    await page.goto(`${server.console}${at}`);
    await page.locator("h1").waitFor();
    assert.equal(await page.locator("h1").count(), 1, at);
    assert.equal(await page.locator("nav [aria-current=page]").count(), 1, at);
    titles.add(await page.title());
  }
  assert.equal(titles.size, PAGES.length);
});

/** Where the focus is, and whether it can be seen. In the page. */
function focus() {
  const element = /** @type {HTMLElement} */ (document.activeElement);
  const seen = (/** @type {Element | null} */ of) => {
    if (!of) return false;
    const { outlineStyle, outlineWidth, boxShadow } = getComputedStyle(of);
    return (outlineStyle !== "none" && outlineWidth !== "0px") || boxShadow !== "none";
  };
  return {
    text: element.textContent ?? "",
    what: element.outerHTML.slice(0, 120),
    last: element.matches(".foot a"),
    seen: seen(element) || seen(element.closest(".editor")),
  };
}

test("every page can be walked through with the keyboard, past its head or not, and is no trap", async (t) => {
  const page = await open(t, browser, server.console);
  for (const at of PAGES) {
    await page.goto(`${server.console}${at}`);
    await page.locator("main h1").waitFor();
    await page.keyboard.press("Tab");
    assert.equal((await page.evaluate(focus)).text, "Skip to content", at);
    let presses = 0;
    for (let now = await page.evaluate(focus); !now.last; now = await page.evaluate(focus)) {
      assert.ok(now.seen, `${at}: the focus is not seen on ${now.what}`);
      assert.ok(presses++ < 150, at);
      await page.keyboard.press("Tab");
    }
  }
  await page.reload();
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement?.id), "main");
});

test("on a telephone the link of the page where one is stands in sight", async (t) => {
  const page = await open(t, browser, `${server.console}about.html`, { context: { viewport: PHONE } });
  const right = await page.$eval("nav [aria-current=page]", (link) => link.getBoundingClientRect().right);
  assert.ok(right > 0 && right <= PHONE.width, String(right));
  await page.goto(server.console);
  assert.ok((await page.$eval("nav [aria-current=page]", (link) => link.getBoundingClientRect().left)) >= 0);
});

test("the colours that are chosen stay, on every page", async (t) => {
  const page = await open(t, browser, `${server.console}about.html`);
  await page.selectOption("#theme", "dark");
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const dark = await ground();
  await page.goto(`${server.console}models.html`);
  assert.equal(await ground(), dark);
  await page.selectOption("#theme", "light");
  assert.notEqual(await ground(), dark);
});
