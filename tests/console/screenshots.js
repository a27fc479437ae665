/**
 * Pictures of every page, light, dark and on a telephone, for people to look at: `node screenshots.js [FOLDER]`. The conversations are
 * synthesised; nobody was recorded.
 */

import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { DESK, launch, PHONE, says } from "./browser.js";
import { ask, Caller, folder, HELLO, ROOT, samples, serve, tidy, wav } from "./server.js";

const CALM = `Hello. I slept quite well, thank you. The nurse came at eight and brought me some tea. I read the paper and looked out
  of the window for a while. My daughter is coming on Sunday.`;
const UPSET = `No! Leave me alone! I have told you three times already! Nobody ever listens to me! What do you want from me? Go away,
  all of you! I will not do it! Stop it, stop it now!`;

/** @param {string} text @param {...string} how @returns {{pcm: Buffer, rate: number}} */
function speak(text, ...how) {
  const path = join(folder(), "speech.wav");
  const { error } = spawnSync("espeak-ng", ["-v", "en-us", ...how, "-w", path, text]);
  // Not installed: the one sentence that there is.
  if (error) return { pcm: samples(HELLO), rate: 16_000 };
  return { pcm: samples(path), rate: readFileSync(path).readUInt32LE(24) };
}

const out = resolve(process.argv[2] ?? join(ROOT, "target/console"));
mkdirSync(out, { recursive: true });
const calm = speak(CALM, "-s", "150");
const upset = speak(UPSET, "-s", "200", "-p", "90", "-a", "200");
const { rate } = calm;
const pause = Buffer.alloc(4 * rate);
const whole = Buffer.concat([calm.pcm, pause, calm.pcm, pause, upset.pcm, upset.pcm, pause, upset.pcm, pause, calm.pcm]);
const recording = wav("call.wav", whole, rate);

const server = await serve(
  "--model",
  join(ROOT, "models/undertone-four"),
  "--model",
  join(ROOT, "models/undertone-open"),
  "--idle-timeout",
  "10m",
);
const callers = [
  new Caller(server, { id: "call-4711", policy: "care-call", labels: ["patient=17", "ward=3b"], rate }),
  new Caller(server, { id: "call-4712", policy: "care-call", labels: ["patient=4", "ward=3b"], rate }),
  new Caller(server, { id: "line-12", policy: "contact-centre", labels: ["case=88-1204"], rate }),
  new Caller(server, { id: "tutor-3", policy: "classroom-tutor", labels: ["lesson=fractions"], rate }),
];
const over = new Caller(server, { id: "call-4709", policy: "care-call", labels: ["patient=9", "ward=3b"], rate });
over.say(calm.pcm);
await over.hangUp();
const [foremost, ...others] = /** @type {[Caller, ...Caller[]]} */ (callers);
for (const caller of others) caller.say(Buffer.concat([calm.pcm, pause]));
foremost.say(whole);
await foremost.heard("escalation");
const { escalations } = await ask(server, "EscalationService/ListEscalations");

/** @type {Record<string, {at: string, show: (page: import("./browser.js").Page) => Promise<unknown>}>} */
const PAGES = {
  sessions: { at: "", show: (page) => page.locator("#forces li").first().waitFor() },
  session: { at: "session.html?id=call-4711", show: (page) => page.locator("#raised li").first().waitFor() },
  escalations: { at: "escalations.html", show: (page) => page.locator("#rows tr").first().waitFor() },
  escalation: { at: `escalations.html?id=${escalations[0].id}`, show: (page) => page.locator(".trail li").first().waitFor() },
  "try-microphone": {
    at: "try.html",
    async show(page) {
      await page.check("#consent");
      await page.click("#listen");
      await says(page.locator("#live table tbody tr").first(), /./);
    },
  },
  "try-recording": {
    at: "try.html",
    async show(page) {
      await page.setInputFiles("#choose input", recording);
      await page.click("#analyse");
      await page.locator("#file-result canvas").waitFor({ timeout: 60_000 });
    },
  },
  models: { at: "models.html", show: (page) => page.locator("article").first().waitFor() },
  policies: { at: "policies.html", show: (page) => says(page.locator("#verdict"), /A good policy/) },
  "policies-fault": {
    at: "policies.html",
    async show(page) {
      await page.locator("article").first().waitFor();
      await page.fill("#text", (await page.inputValue("#text")).replace("of: angry", "of: anger"));
      await page.locator(".faults button").click();
    },
  },
  "policies-tried": {
    at: "policies.html",
    async show(page) {
      await page.locator("#tried option[value=care-call]").waitFor({ state: "attached" });
      await page.selectOption("#tried", "care-call");
      await page.setInputFiles("#choose input", recording);
      await page.click("#try");
      await page.locator(".strip").first().waitFor({ timeout: 60_000 });
    },
  },
  who: {
    at: "escalations.html",
    async show(page) {
      await page.locator("#rows tr").first().waitFor();
      await page.getByRole("button", { name: "Who are you?" }).click();
    },
  },
  about: { at: "about.html", show: (page) => page.locator("#models li").first().waitFor() },
};

const browser = await launch({ microphone: recording });
for (const [way, context] of Object.entries({
  light: { viewport: DESK, colorScheme: /** @type {const} */ ("light") },
  dark: { viewport: DESK, colorScheme: /** @type {const} */ ("dark") },
  phone: { viewport: PHONE, colorScheme: /** @type {const} */ ("light"), deviceScaleFactor: 2, isMobile: true, hasTouch: true },
})) {
  for (const [name, { at, show }] of Object.entries(PAGES)) {
    const page = await browser.newPage({ ...context, locale: "en-GB" });
    await page.goto(`${server.console}${at}`);
    await show(page);
    // What is not in sight is not drawn, so that all of it is brought into sight.
    await page.setViewportSize({ width: context.viewport.width, height: await page.evaluate(() => document.documentElement.scrollHeight) });
    await page.evaluate(() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(drawn, 300)))));
    await page.screenshot({ path: join(out, `${name}-${way}.png`), fullPage: true });
    await page.close();
  }
}
await tidy();
console.log(`${Object.keys(PAGES).length * 3} pictures in ${out}`);
