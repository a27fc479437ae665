/** Models with their licences and figures, and the page on responsible use. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { launch, open, says } from "./browser.js";
import { ask, ROOT, serve, tidy } from "./server.js";

/** @type {import("./server.js").Server} */
let server;
/** @type {import("./browser.js").Browser} */
let browser;

before(async () => {
  server = await serve("--model", join(ROOT, "models/undertone-open"));
  browser = await launch();
});
after(tidy);

test("every model stands there with what it is, what it learnt from and whether it may be used commercially", async (t) => {
  const page = await open(t, browser, `${server.console}models.html`);
  const { models } = await ask(server, "EmotionService/ListModels");
  await page.locator("article").first().waitFor();
  assert.equal(await page.locator("article").count(), models.length);
  for (const model of models) {
    const card = page.locator("article").filter({ has: page.getByRole("heading", { name: model.name, exact: true }) });
    for (const text of [
      model.version,
      model.description,
      model.sha256,
      ...model.trainingData.map((/** @type {any} */ { licence }) => licence),
    ]) {
      assert.ok((await card.textContent())?.includes(text), `${model.name}: ${text}`);
    }
    assert.equal(await card.getByText("the default", { exact: true }).count(), model.isDefault ? 1 : 0);
    const forbidden = model.trainingData.some((/** @type {any} */ { commercialUse }) => !commercialUse);
    await says(
      card,
      forbidden ? /Commercial use: not allowed\. It has learnt from .*, whose licences exclude it/ : /Commercial use: allowed/,
    );
  }
});

test("figures stand in tables, one row for each corpus, and every one of them is shown", async (t) => {
  const page = await open(t, browser, `${server.console}models.html`);
  const { models } = await ask(server, "EmotionService/ListModels");
  const model = models.find((/** @type {any} */ { name }) => name === "undertone-four");
  const card = page.locator("article").filter({ has: page.getByRole("heading", { name: "undertone-four" }) });
  const row = card
    .locator("table.figures")
    .first()
    .getByRole("row", { name: /^CREMA-D/ });
  await says(row, new RegExp(`${(model.figures.ua_crema_d * 100).toFixed(1)} %`));
  for (const details of await card.locator("details").all()) await details.evaluate((element) => element.setAttribute("open", ""));
  const shown = (await card.locator("table.figures td, dd.mono").allTextContents()).filter((text) => /\d/.test(text));
  // Clean balanced accuracy stands in both tables; the SHA-256 is no figure.
  const corpora = Object.keys(model.figures).filter((key) => key.startsWith("wa_")).length;
  assert.equal(shown.length - 1, Object.keys(model.figures).length + corpora);
  await says(card, /How it was measured: unseen speakers/);
});

test("what no model can do can be linked to", async (t) => {
  const page = await open(t, browser, `${server.console}models.html#limits`);
  await page.locator("article").first().waitFor();
  await page.waitForFunction(() => {
    const { top } = /** @type {Element} */ (document.querySelector("#limits")).getBoundingClientRect();
    return top >= 0 && top < innerHeight;
  });
});

test("the page on responsible use tells whom it listens to, what it keeps, what the law says, and what models cannot do", async (t) => {
  const page = await open(t, browser, `${server.console}about.html`);
  for (const name of [
    "Whom it listens to",
    "What it keeps",
    "What the law says",
    "What it cannot do",
    "Before you use it",
    "How somebody can object",
  ]) {
    assert.ok(await page.getByRole("heading", { name, exact: true }).isVisible(), name);
  }
  await says(page.locator("main"), /Art\. 5\(1\)\(f\)/);
  await says(page.locator("#models li"), /undertone-four.*right in [\d.]+ % to [\d.]+ %.*Not for commercial use/);
});

test("every page leads to responsible use", async (t) => {
  const page = await open(t, browser, `${server.console}models.html`);
  await page.locator(".foot").getByRole("link", { name: "Responsible use" }).click();
  await page.getByRole("heading", { name: "Responsible use", level: 1 }).waitFor();
});
