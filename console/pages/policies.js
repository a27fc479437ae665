/** The policies in words; the bench below them is bench.js. */

import { call } from "../lib/api.js";
import { fill, h, the } from "../lib/dom.js";
import { policyInWords } from "../lib/rehearsal.js";
import { complain, shell } from "../lib/shell.js";
import { knowModels, knowPolicies, take, textOf } from "./bench.js";

shell();

/** @param {any} policy */
function card(policy) {
  const id = `policy-${policy.name}`;
  const place = h("div");
  const yaml = h("details", null, h("summary", null, "Its text, YAML"), place);
  yaml.addEventListener("toggle", async () => {
    if (!yaml.open || place.querySelector("pre")) return;
    try {
      fill(place, h("pre", { tabindex: 0, role: "group", "aria-label": `The text of ${policy.name}` }, await textOf(policy.name)));
    } catch (error) {
      complain(place, error);
    }
  });
  return h(
    "article",
    { class: "card", "aria-labelledby": id },
    h(
      "div",
      { class: "row title" },
      h("h2", { id }, policy.name),
      h("span", { class: "chip" }, `version ${policy.version}`),
      policy.isDefault && h("span", { class: "chip strong" }, "for streams that name none"),
    ),
    policyInWords(policy),
    yaml,
    h(
      "p",
      null,
      h(
        "button",
        { class: "quiet", type: "button", onclick: () => void take(policy.name) },
        "To the test bench",
        h("span", { class: "unseen" }, `with ${policy.name}`),
      ),
    ),
  );
}

/** @param {any[]} policies */
function list(policies) {
  if (policies.length > 0) return policies.map(card);
  return h(
    "p",
    { class: "card empty" },
    "This server has none: it was started without a store for escalations (escalation_store), so that no stream can have a policy. ",
    "The test bench works all the same.",
  );
}

try {
  const { policies = [] } = /** @type {{policies?: any[]}} */ (await call("EmotionService/ListPolicies"));
  fill(the("policies"), list(policies));
  knowPolicies(policies);
} catch (error) {
  complain(the("problem"), error);
}
the("policies").removeAttribute("aria-busy");
// The place that a link points to has moved meanwhile.
if (location.hash.length > 1) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
// Without the list there is still the server's own choice.
knowModels((await call("EmotionService/ListModels").catch(() => ({}))).models ?? []);
