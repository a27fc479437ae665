/** Escalations for people: followed as they come, shown as cards, acknowledged. */

import { call, CallError, follow, sleep } from "./api.js";
import { fill, h, say, set } from "./dom.js";
import { bar, level } from "./gauge.js";
import { acknowledge, complain } from "./shell.js";
import { ago, clock, EMOTIONS, kind, moment, percent, rank, seconds, severity, signed, state } from "./words.js";

/** In one answer. */
const PAGE = 200;
/** Escalations that are looked at once, at most: whoever has more outstanding has another problem than this page's speed. */
const MOST = 1000;

/**
 * Lists escalations over all pages, up to a bound.
 * @param {object} filter an EscalationFilter
 * @param {AbortSignal} [signal]
 * @returns {Promise<any[]>}
 */
export async function list(filter, signal) {
  /** @type {any[]} */
  const all = [];
  let pageToken = "";
  do {
    const page = await call("EscalationService/ListEscalations", { filter, pageSize: PAGE, pageToken }, { signal });
    all.push(...page.escalations);
    pageToken = page.nextPageToken;
  } while (pageToken && all.length < MOST);
  return all;
}

/**
 * Knows escalations and what becomes of them, for as long as the page is open. What is listed first may be older than what is
 * told meanwhile, hence the times are compared.
 * @param {object} options
 * @param {object} [options.filter] which events
 * @param {() => object[]} options.first which are listed first: filters, any of which will do
 * @param {AbortSignal} options.signal
 * @param {(all: Map<string, any>) => void} options.change is called with all that are known whenever one is another
 * @param {(event: any) => void} [options.event] hears of what happens from now on
 * @param {(problem: CallError | null) => void} options.trouble
 */
export async function followEscalations({ filter = {}, first, signal, change, event = () => {}, trouble }) {
  /** @type {Map<string, any>} */
  const known = new Map();
  let cursor = "";
  let listed = false;
  const put = (/** @type {any} */ escalation) => {
    const there = known.get(escalation.id);
    if (!there || new Date(there.updatedAt) <= new Date(escalation.updatedAt)) known.set(escalation.id, escalation);
  };
  for (;;) {
    let last = /** @type {CallError | null} */ (null);
    const heard = (/** @type {CallError | null} */ problem) => {
      last = problem;
      trouble(problem);
    };
    for await (const said of follow("EscalationService/WatchEscalations", () => ({ filter, cursor }), { signal, state: heard })) {
      cursor = said.cursor || cursor;
      // The watch stands before the list is asked for: nothing falls between them.
      while (!listed && !signal.aborted) {
        try {
          for (const which of first()) for (const escalation of await list(which, signal)) put(escalation);
          listed = true;
          trouble(null);
          change(known);
        } catch (error) {
          if (signal.aborted) return;
          if (!(error instanceof CallError)) throw error;
          trouble(error);
          await sleep(3000, signal);
        }
      }
      if (!said.event?.escalation) continue;
      put(said.event.escalation);
      change(known);
      event(said.event);
    }
    // It ends well only when the server goes; otherwise it has been said why it cannot go on.
    if (signal.aborted || last) return;
    await sleep(2000, signal);
  }
}

/** @param {any} escalation */
export function inForce(escalation) {
  return state(escalation.state) !== "cleared";
}

/** Raised, and nobody has acknowledged it. @param {any} escalation */
export function unanswered(escalation) {
  return state(escalation.state) === "raised";
}

/** Those that want somebody first, then the severest, then the oldest. @param {any} a @param {any} b */
export function byUrgency(a, b) {
  return (
    Number(unanswered(b)) - Number(unanswered(a)) ||
    rank(b.severity) - rank(a.severity) ||
    new Date(a.raisedAt).getTime() - new Date(b.raisedAt).getTime()
  );
}

/** A severity with its mark. @param {string} value @returns {any} */
export function mark(value) {
  return h("span", { class: `severity ${severity(value)}` }, severity(value));
}

/** @param {any} escalation */
export function sessionLink({ sessionId, tenant }) {
  return `session.html?${new URLSearchParams({ id: sessionId, ...(tenant && { tenant }) })}`;
}

/** How it stands, in words. @param {any} escalation */
export function standing(escalation) {
  const by = escalation.acknowledgedBy ? `acknowledged by ${escalation.acknowledgedBy} ${ago(escalation.acknowledgedAt)}` : "";
  const end = escalation.clearedAt
    ? `cleared ${ago(escalation.clearedAt)}`
    : escalation.sessionEndedAt
      ? `its session ended ${ago(escalation.sessionEndedAt)}`
      : "";
  return [`raised ${ago(escalation.raisedAt)}`, by, end].filter(Boolean).join(", ");
}

/** Whose it is: labels as chips. @param {Record<string, string>} labels @returns {any[]} */
export function chips(labels) {
  // In an order of their own: a map's is another with every answer.
  const sorted = Object.entries(labels ?? {}).sort(([a], [b]) => (a < b ? -1 : 1));
  return sorted.map(([name, value]) => h("span", { class: "chip" }, `${name}: ${value}`));
}

/** Acknowledges one escalation, with a note if there is something to say. */
export class Acknowledgement {
  /** @param {(escalation: any) => void} [done] gets the escalation as it stands after it */
  constructor(done = () => {}) {
    this.id = "";
    this.busy = false;
    this.button = h("button", { type: "submit" }, "Acknowledge");
    this.note = h("input", {
      maxlength: 250,
      autocomplete: "off",
      placeholder: "Note (optional)",
      "aria-label": "Note for the audit trail, optional",
    });
    this.trouble = h("div", { class: "grow-all" });
    this.form = h("form", { class: "row acknowledge" }, this.button, this.note, this.trouble);
    this.form.addEventListener("submit", async (/** @type {Event} */ event) => {
      event.preventDefault();
      // Not disabled meanwhile: a button that is loses the focus.
      if (this.busy) return;
      this.busy = true;
      try {
        await acknowledge(async (actor) => {
          const { escalation } = await call("EscalationService/AcknowledgeEscalation", {
            id: this.id,
            actor,
            note: this.note.value.trim(),
          });
          this.show(escalation);
          done(escalation);
        });
        complain(this.trouble, null);
      } catch (error) {
        complain(this.trouble, error);
      }
      this.busy = false;
    });
    this.element = h("div", { class: "acts" }, this.form);
  }

  /** @param {any} escalation */
  show(escalation) {
    if (this.id === "") {
      const what = `${escalation.title}, session ${escalation.sessionId}`;
      set(this.button, { "aria-label": `Acknowledge: ${what}` });
      set(this.note, { "aria-label": `Note for the audit trail, optional: ${what}` });
    }
    this.id = escalation.id;
    const open = !escalation.acknowledgedAt;
    this.button.classList.toggle("quiet", !inForce(escalation));
    if (this.form.hidden === !open) return;
    // Whoever has just pressed the button must not lose their place.
    const card = this.form.contains(document.activeElement) ? this.form.closest("[tabindex]") : null;
    this.form.hidden = !open;
    card?.focus({ preventScroll: true });
  }
}

/** An escalation in a list. */
export class Card {
  /** @param {{session?: boolean}} [options] `session`: with its session's link and labels */
  constructor({ session = true } = {}) {
    this.mark = h("span", { class: "severity" });
    this.title = h("h3", null);
    this.state = h("span", { class: "state chip" });
    this.reason = h("p", { class: "reason" });
    this.standing = h("span", null);
    this.link = session ? h("a", { class: "break" }) : null;
    this.where = h("span", null);
    this.chips = h("span", { class: "chips" });
    this.details = h("a", null, "Details");
    this.form = new Acknowledgement();
    this.labelled = false;
    this.element = h(
      "li",
      { class: "escalation", tabindex: -1 },
      h("div", { class: "row" }, this.mark, this.title, this.state),
      this.reason,
      h(
        "p",
        { class: "note" },
        this.standing,
        ". ",
        ...(this.link ? ["Session ", this.link, ", "] : []),
        this.where,
        ". ",
        this.details,
        ".",
      ),
      this.chips,
      this.form.element,
    );
  }

  /** @param {any} escalation */
  show(escalation) {
    const word = severity(escalation.severity);
    if (this.mark.textContent !== word) {
      say(this.mark, word);
      this.mark.className = `severity ${word}`;
    }
    say(this.title, escalation.title);
    say(this.state, state(escalation.state));
    this.element.classList.toggle("unanswered", unanswered(escalation));
    this.element.classList.toggle("over", !inForce(escalation));
    say(this.reason, escalation.reason);
    const text = standing(escalation);
    say(this.standing, text.charAt(0).toUpperCase() + text.slice(1));
    if (this.link) {
      say(this.link, escalation.sessionId);
      set(this.link, { href: sessionLink(escalation) });
    }
    say(
      this.where,
      `${this.link ? "channel" : "Channel"} ${escalation.channel}, from ${clock(seconds(escalation.onset))}, policy ${escalation.policy}`,
    );
    set(this.details, {
      href: `escalations.html?${new URLSearchParams({ id: escalation.id })}`,
      "aria-label": `Details of ${escalation.title}, session ${escalation.sessionId}`,
    });
    // They never change.
    if (this.link && !this.labelled) fill(this.chips, chips(escalation.labels));
    this.labelled = true;
    this.form.show(escalation);
  }
}

/** The conditions that a decision rests on. @param {any} evidence @returns {any} */
export function conditions(evidence) {
  if (!evidence?.conditions?.length) return h("p", { class: "soft" }, "It has no conditions to show.");
  const number = (/** @type {number | null | undefined} */ v) =>
    v === undefined || v === null ? "\u2013" : String(Math.round(v * 1000) / 1000).replace("-", "\u2212");
  return h(
    "div",
    { class: "wide", tabindex: 0, role: "group", "aria-label": "Table of conditions" },
    h(
      "table",
      null,
      h(
        "thead",
        null,
        h(
          "tr",
          null,
          h("th", { scope: "col" }, "Condition"),
          ["Value", "On at", "Off at"].map((text) => h("th", { scope: "col", class: "number" }, text)),
          h("th", { scope: "col" }, "Holds"),
        ),
      ),
      h(
        "tbody",
        null,
        evidence.conditions.map((/** @type {any} */ { what, value, on, off, holds }) =>
          h(
            "tr",
            null,
            h("td", null, what),
            h("td", { class: "number" }, value === undefined || value === null ? "too little speech" : number(value)),
            h("td", { class: "number" }, number(on)),
            h("td", { class: "number" }, number(off)),
            h("td", null, holds ? "yes" : "no"),
          ),
        ),
      ),
    ),
  );
}

/** The mean emotions and dimensions that a decision rests on. @param {any} evidence @returns {any} */
export function means(evidence) {
  const emotions = Object.entries(evidence?.emotions ?? {}).sort(([a], [b]) => EMOTIONS.indexOf(a) - EMOTIONS.indexOf(b));
  const row = (/** @type {string} */ name, /** @type {number} */ value, both = false, colour = name) => {
    const gauge = bar(both ? "both" : "");
    level(gauge, value, { colour });
    return h(
      "tr",
      null,
      h("th", { scope: "row" }, name),
      h("td", { class: "number" }, both ? signed(value) : percent(value)),
      h("td", { class: "fill" }, gauge),
    );
  };
  const rows = emotions.map(([name, value]) => row(name, Number(value)));
  for (const [name, colour] of [
    ["distress", "bad"],
    ["valence", "text"],
    ["arousal", "link"],
  ]) {
    const value = evidence?.[/** @type {string} */ (name)];
    if (value !== undefined && value !== null)
      rows.push(row(name === "valence" ? "valence (weakly known)" : String(name), value, name !== "distress", colour));
  }
  if (rows.length === 0) return h("p", { class: "soft" }, "No speech counted.");
  return h(
    "table",
    { class: "means" },
    h("thead", null, h("tr", null, h("th", { scope: "col" }, "Mean of"), h("th", { scope: "col", class: "number" }, "Value"), h("td"))),
    h("tbody", null, rows),
  );
}

/** Everything that happened to an escalation. @param {any[]} history events @returns {any} */
export function trail(history) {
  return h(
    "ol",
    { class: "trail" },
    history.map((event) =>
      h(
        "li",
        null,
        h("strong", null, kind(event.kind)),
        " ",
        h("time", { datetime: event.at }, moment(event.at)),
        event.actor && [" by ", h("strong", null, event.actor), event.identity && ` (identity ${event.identity})`],
        event.note && h("p", { class: "said" }, event.note),
        ["raised", "updated"].includes(kind(event.kind)) && event.escalation?.reason && h("p", { class: "soft" }, event.escalation.reason),
      ),
    ),
  );
}
