/** Escalations in a list to filter, newest first. */

import { call, CallError } from "../lib/api.js";
import { each, fill, h, say, set, the } from "../lib/dom.js";
import { chips, followEscalations, inForce, mark, sessionLink } from "../lib/escalation.js";
import { complain, problem } from "../lib/shell.js";
import { ago, moment, state } from "../lib/words.js";

/** In one page. */
const PAGE = 50;
/** @type {Record<string, string[]>} */
const STATES = { force: ["RAISED", "ACKNOWLEDGED"], raised: ["RAISED"], acknowledged: ["ACKNOWLEDGED"], cleared: ["CLEARED"] };
/** @type {Record<string, number>} */
const HOURS = { hour: 1, day: 24, week: 7 * 24, month: 30 * 24 };

const main = /** @type {Element} */ (document.querySelector("main"));
const asked = new URLSearchParams(location.search);

export function all() {
  const option = (/** @type {string} */ name, /** @type {string} */ value, /** @type {string} */ text) =>
    h("option", { value, selected: (asked.get(name) ?? "") === value }, text);
  const select = (/** @type {string} */ name, /** @type {string} */ text, /** @type {[string, string][]} */ options) =>
    h(
      "label",
      null,
      text,
      h(
        "select",
        { name },
        options.map(([value, of]) => option(name, value, of)),
      ),
    );
  const input = (/** @type {string} */ name, /** @type {string} */ text, /** @type {object} */ more) =>
    h("label", null, text, h("input", { name, value: asked.get(name) ?? "", autocomplete: "off", spellcheck: "false", ...more }));
  const policies = h("datalist", { id: "policies" });
  const form = h(
    "form",
    { class: "filters", role: "search", "aria-label": "Escalations" },
    select("state", "State", [
      ["", "all"],
      ["force", "in force"],
      ["raised", "raised, not acknowledged"],
      ["acknowledged", "acknowledged"],
      ["cleared", "cleared"],
    ]),
    select("severity", "Severity", [
      ["", "all"],
      ["low", "low and above"],
      ["medium", "medium and above"],
      ["high", "high"],
    ]),
    select("since", "Raised", [
      ["", "at any time"],
      ["hour", "in the last hour"],
      ["day", "in the last day"],
      ["week", "in the last week"],
      ["month", "in the last 30 days"],
    ]),
    input("policy", "Policy", { list: "policies", placeholder: "all" }),
    input("session", "Session", { placeholder: "all" }),
    input("label", "Label", { placeholder: "name=value" }),
    h("div", { class: "row end" }, h("button", null, "Show"), h("a", { href: "escalations.html" }, "Show all")),
    policies,
  );
  fill(
    main,
    h("h1", null, "Escalations"),
    h("div", { class: "card" }, form),
    h(
      "section",
      { class: "card", "aria-label": "Those that fit" },
      h("div", { id: "trouble" }),
      h("div", { id: "news", role: "status" }),
      h("p", { id: "none", class: "empty" }, "Looking ..."),
      h(
        "table",
        { id: "table", class: "list", role: "table", hidden: true },
        h("caption", { class: "unseen" }, "Escalations, newest first"),
        h(
          "thead",
          { role: "rowgroup" },
          h(
            "tr",
            { role: "row" },
            ["Severity", "What", "State", "Session", "Raised"].map((text) => h("th", { scope: "col", role: "columnheader" }, text)),
          ),
        ),
        h("tbody", { id: "rows", role: "rowgroup" }),
      ),
      h(
        "p",
        { class: "row" },
        h("button", { id: "more", type: "button", class: "quiet", hidden: true }, "More"),
        h("span", { id: "count", class: "note", role: "status" }),
      ),
    ),
  );
  call("EmotionService/ListPolicies", {})
    .then(({ policies: known }) =>
      fill(
        policies,
        known.map((/** @type {any} */ { name }) => h("option", { value: name })),
      ),
    )
    .catch(() => {});

  /** @type {any[]} */
  let shown = [];
  let next = "";
  let turn = 0;
  /** @type {Set<string>} */
  const news = new Set();

  /** What the form says, as an EscalationFilter. */
  function filter() {
    const said = new FormData(form);
    const of = (/** @type {string} */ name) => String(said.get(name) ?? "").trim();
    const label = of("label");
    const at = label.indexOf("=");
    const hours = HOURS[of("since")];
    return {
      states: (STATES[of("state")] ?? []).map((name) => `ESCALATION_STATE_${name}`),
      ...(of("severity") && { minSeverity: `SEVERITY_${of("severity").toUpperCase()}` }),
      ...(of("policy") && { policies: [of("policy")] }),
      ...(of("session") && { sessionId: of("session") }),
      ...(at > 0 && { labels: { [label.slice(0, at).trim()]: label.slice(at + 1).trim() } }),
      ...(hours && { raisedSince: new Date(Date.now() - hours * 3600_000).toISOString() }),
    };
  }

  function draw() {
    the("table").hidden = shown.length === 0;
    the("more").hidden = next === "";
    each(
      the("rows"),
      shown,
      ({ id }) => id,
      (escalation) => {
        const parts = {
          state: h("span"),
          by: h("span", { class: "note" }),
          reason: h("span", { class: "soft" }),
          raised: h("span", { class: "note" }),
        };
        const cell = (/** @type {string} */ name, /** @type {any[]} */ ...children) => h("td", { role: "cell", class: name }, children);
        const row = h(
          "tr",
          { role: "row" },
          cell("severity-cell", mark(escalation.severity)),
          h(
            "th",
            { scope: "row", role: "rowheader", class: "what" },
            h("a", { class: "strong", href: `escalations.html?${new URLSearchParams({ id: escalation.id })}` }, escalation.title),
            parts.reason,
          ),
          cell("state-cell", parts.state, parts.by),
          cell(
            "session-cell",
            h("a", { class: "break", href: sessionLink(escalation) }, escalation.sessionId),
            h("span", { class: "chips" }, chips(escalation.labels)),
            h("span", { class: "note" }, escalation.policy),
          ),
          cell("raised-cell", h("time", { datetime: escalation.raisedAt }, moment(escalation.raisedAt)), parts.raised),
        );
        row.parts = parts;
        return row;
      },
      (row, escalation) => {
        const { parts } = row;
        say(parts.state, state(escalation.state));
        parts.state.className = `chip state${state(escalation.state) === "raised" ? " open" : ""}`;
        say(parts.reason, escalation.reason);
        say(
          parts.by,
          [
            escalation.acknowledgedBy && `by ${escalation.acknowledgedBy}`,
            escalation.sessionEndedAt && inForce(escalation) && "its session ended",
          ]
            .filter(Boolean)
            .join(", "),
        );
        say(parts.raised, ago(escalation.raisedAt));
      },
    );
  }

  /** @param {boolean} on whether to go on behind what is there */
  async function load(on) {
    const mine = ++turn;
    the("more").disabled = true;
    try {
      const wanted = filter();
      const label = String(new FormData(form).get("label") ?? "").trim();
      set(form.elements.namedItem("label"), { "aria-invalid": label && !wanted.labels ? "true" : null });
      if (label && !wanted.labels) throw new Error("A label is given as name=value, such as ward=7.");
      const page = await call("EscalationService/ListEscalations", { filter: wanted, pageSize: PAGE, pageToken: on ? next : "" });
      if (mine !== turn) return;
      if (!on) {
        shown = [];
        news.clear();
        fill(the("news"));
      }
      const there = new Set(shown.map(({ id }) => id));
      shown.push(...page.escalations.filter((/** @type {any} */ { id }) => !there.has(id)));
      next = page.nextPageToken;
      complain(the("trouble"), null);
      the("none").hidden = shown.length > 0;
      say(
        the("none"),
        [...new FormData(form).values()].some(Boolean)
          ? "None fits the filter."
          : "Nothing has been raised yet. Sessions with a policy raise escalations: see Policies.",
      );
      say(the("count"), shown.length > 0 ? `${shown.length}${next ? " of more" : ""}` : "");
      draw();
    } catch (error) {
      if (mine !== turn) return;
      // A choice of whoever runs it, and no fault.
      const none = error instanceof CallError && error.reason === "NO_ESCALATION_STORE";
      the("none").hidden = !none;
      if (none) say(the("none"), problem(error));
      complain(the("trouble"), none ? null : error);
    }
    the("more").disabled = false;
  }

  form.addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    keep();
    load(false);
  });
  form.addEventListener("change", (/** @type {Event} */ event) => {
    if (!(event.target instanceof HTMLSelectElement)) return;
    keep();
    load(false);
  });
  the("more").addEventListener("click", () => load(true));

  /** The address says what is shown, so that it can be sent to somebody. */
  function keep() {
    const said = [...new FormData(form)].filter(([, value]) => value !== "");
    history.replaceState(
      null,
      "",
      `escalations.html${said.length > 0 ? `?${new URLSearchParams(/** @type {[string, string][]} */ (said))}` : ""}`,
    );
  }

  load(false);
  followEscalations({
    first: () => [],
    signal: new AbortController().signal,
    change: (known) => {
      let other = false;
      shown = shown.map((escalation) => {
        const now = known.get(escalation.id);
        if (!now || now === escalation) return escalation;
        other = true;
        return now;
      });
      if (other) draw();
    },
    // New ones are told of, and put in when they are wanted: a list that somebody reads stays where it is.
    event: ({ kind, escalation }) => {
      if (kind !== "ESCALATION_EVENT_KIND_RAISED" || shown.some(({ id }) => id === escalation.id)) return;
      news.add(escalation.id);
      fill(
        the("news"),
        h(
          "p",
          { class: "row" },
          `${news.size} raised since. `,
          h("button", { type: "button", class: "quiet small", onclick: () => load(false) }, "Bring the list up to date"),
        ),
      );
    },
    // Without it the list is as good as it was; what is wrong is told where the list is asked for.
    trouble: () => {},
  });
}
