/** What a policy would have done in a recording: in words, in a table, and what each of its conditions measured, drawn. */

import { h } from "./dom.js";
import { spans } from "./result.js";
import { strip } from "./strip.js";
import { clock, kind, seconds, severity } from "./words.js";

/** How a rule in words begins: its title, and its name. */
const RULE = /^(.+? \([a-z0-9-]+\)): (.+)$/s;

/** What it does, for people. @param {any} policy as the server shows it @returns {HTMLElement[]} */
export function policyInWords({ description, rules = [] }) {
  const items = [];
  const notes = [];
  for (const text of rules) {
    const [, name, does] = RULE.exec(text) ?? [];
    // What is said of the policy as a whole stands behind the rules, as one of them.
    if (does) items.push(h("li", null, h("strong", null, name), `: ${does}`));
    else notes.push(h("p", { class: "note" }, text));
  }
  return [h("p", null, description), h("ul", { class: "rules" }, items), ...notes];
}

/** What came out, in one sentence. @param {any} answer an AnalyzeAudioResponse @returns {string} */
export function outcome(answer) {
  const raised = (answer.escalations ?? []).filter((/** @type {any} */ event) => kind(event.kind) === "raised");
  const { name, version } = answer.policy;
  const length = clock(seconds(answer.audio));
  if (raised.length === 0) return `${name} ${version} would have raised nothing in these ${length}.`;
  const count = (/** @type {string} */ of) =>
    raised.filter((/** @type {any} */ { escalation }) => severity(escalation.severity) === of).length;
  const by = ["high", "medium", "low", "advisory"].filter(count).map((of) => `${count(of)} ${of}`);
  const many = raised.length === 1 ? "one escalation" : `${raised.length} escalations`;
  return `${name} ${version} would have raised ${many} in these ${length}: ${by.join(", ")}.`;
}

/** @param {any} answer an AnalyzeAudioResponse @param {(at: number) => void} play @returns {HTMLElement | null} */
export function events(answer, play) {
  const all = answer.escalations ?? [];
  if (all.length === 0) return null;
  const several = (answer.channels ?? []).length > 1;
  return h(
    "div",
    { class: "wide", tabindex: 0, role: "group", "aria-label": "What would have happened" },
    h(
      "table",
      null,
      h("caption", null, "What would have happened"),
      h(
        "thead",
        null,
        h(
          "tr",
          null,
          ["When", "What", several ? "Channel" : "", "Severity", "Rule", "Reason"]
            .filter(Boolean)
            .map((name) => h("th", { scope: "col" }, name)),
        ),
      ),
      h(
        "tbody",
        null,
        all.map((/** @type {any} */ { at, kind: happened, escalation }) =>
          h(
            "tr",
            null,
            h(
              "th",
              { scope: "row", class: "time" },
              h(
                "button",
                { class: "quiet small", type: "button", title: "Play from where it began", onclick: () => play(seconds(escalation.onset)) },
                h("span", { "aria-hidden": "true" }, "\u25B6 "),
                h("span", { class: "unseen" }, "Play "),
                clock(seconds(at)),
              ),
            ),
            h("td", null, kind(happened)),
            several && h("td", null, escalation.channel ?? 0),
            h("td", null, h("span", { class: `severity ${severity(escalation.severity)}` }, severity(escalation.severity))),
            h("td", null, escalation.title, " ", h("span", { class: "soft mono" }, escalation.rule)),
            h("td", { class: "reason" }, escalation.reason),
          ),
        ),
      ),
    ),
  );
}

/** What each condition measured, rule by rule. @param {any} answer an AnalyzeAudioResponse with `conditionCourses` */
export function courses(answer) {
  const audio = seconds(answer.audio);
  const inForce = spans(answer);
  const several = (answer.channels ?? []).length > 1;
  /** @type {Map<string, any[]>} */
  const byRule = new Map();
  for (const course of answer.conditionCourses ?? []) {
    const name = `${course.rule}${several ? `, channel ${course.channel ?? 0}` : ""}`;
    byRule.set(name, [...(byRule.get(name) ?? []), course]);
  }
  return [...byRule].map(([name, of]) =>
    h(
      "section",
      { class: "rule" },
      h("h4", null, h("span", { class: "mono" }, name)),
      of.map((course) =>
        strip(
          course,
          audio,
          inForce.filter(({ rule, channel }) => rule === course.rule && channel === (course.channel ?? 0)),
        ),
      ),
    ),
  );
}
