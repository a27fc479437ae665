/** The sessions that are live, what they sound like, and the escalations in force. */

import { call, CallError } from "../lib/api.js";
import { alarm, alarmChoices } from "../lib/alarm.js";
import { each, fill, h, say, set, the } from "../lib/dom.js";
import { byUrgency, Card, chips, followEscalations, inForce, sessionLink, unanswered } from "../lib/escalation.js";
import { bar, level, loudness, QUIET_S, speaks } from "../lib/gauge.js";
import { complain, shell } from "../lib/shell.js";
import { steady, whileVisible } from "../lib/steady.js";
import { abstains, ago, clock, emotion, kind, labels, percent, rank, seconds, severity, word } from "../lib/words.js";

/** How often the sessions are asked for. */
const EVERY_MS = 2000;
/** In one answer: the most that the service gives. */
const PAGE = 500;
/** Rows and cards at once. Whoever has more filters. */
const ROWS = 300;
const CARDS = 20;
/** What was acknowledged longer ago is nothing that anybody waits for. */
const ACKNOWLEDGED_MS = 24 * 3600 * 1000;

shell();
fill(
  /** @type {Element} */ (document.querySelector("main")),
  h("h1", null, "Sessions"),
  h("div", { id: "told", class: "unseen", role: "alert" }),
  h(
    "section",
    { class: "card", "aria-labelledby": "forces-title" },
    h("div", { class: "row" }, h("h2", { id: "forces-title", class: "grow" }, "Escalations in force"), alarmChoices()),
    h("div", { id: "forces-trouble" }),
    h("p", { id: "forces-none", class: "empty" }, "Looking ..."),
    h("ul", { id: "forces", class: "plain escalations in-force" }),
    h("p", { id: "forces-more", class: "note", hidden: true }),
  ),
  h(
    "section",
    { class: "card", "aria-labelledby": "live-title" },
    h(
      "div",
      { class: "row" },
      h("h2", { id: "live-title", class: "grow" }, "Live"),
      h("label", { class: "check" }, h("input", { id: "ended", type: "checkbox" }), " Also those that ended lately"),
      h("input", {
        id: "filter",
        type: "search",
        placeholder: "Filter: name, label, policy",
        "aria-label": "Filter sessions by name, label, policy, model or tenant",
        autocomplete: "off",
      }),
    ),
    h("div", { id: "trouble" }),
    h("div", { id: "none", hidden: true }),
    h(
      "table",
      { id: "table", class: "sessions", role: "table", "aria-labelledby": "live-title", hidden: true },
      h(
        "thead",
        { role: "rowgroup" },
        h(
          "tr",
          { role: "row" },
          ["Session", "Escalations", "Sounds", "Distress", "Voice", "Heard", "By"].map((text) =>
            h("th", { scope: "col", role: "columnheader" }, text),
          ),
        ),
      ),
      h("tbody", { id: "rows", role: "rowgroup" }),
    ),
    h("p", { id: "more", class: "note", hidden: true }),
  ),
);

/** @type {any[]} */
let sessions = [];
let asked = false;
let shut = false;
const keyOf = (/** @type {any} */ session) => `${session.tenant} ${session.id}`;
const rows = steady(the("rows"), keyOf);
const cards = steady(the("forces"), (/** @type {any} */ escalation) => escalation.id);

/** @param {any} session */
function text(session) {
  const { id, policy, model, tenant, identity, ingress } = session;
  return [id, labels(session.labels), policy, model, tenant, identity, word(ingress, "INGRESS_")].join(" ").toLowerCase();
}

/** The channel that somebody should look at: the one with the most in force, then the most distressed. @param {any} session */
function foremost({ latest }) {
  return [...latest].sort(
    (a, b) =>
      rank(b.escalationSeverity) - rank(a.escalationSeverity) ||
      Number(a.abstains) - Number(b.abstains) ||
      (b.affect?.distress ?? 0) - (a.affect?.distress ?? 0),
  )[0];
}

/** @param {any} session @returns {HTMLElement} */
function make(session) {
  const parts = {
    link: h("a", { class: "break strong", href: sessionLink({ sessionId: session.id, tenant: session.tenant }) }, session.id),
    severity: h("span"),
    count: h("span", { class: "note" }),
    sounds: h("span", { class: "value" }),
    soundsBar: bar(),
    soundsNote: h("span", { class: "note" }),
    distress: h("span", { class: "value" }),
    distressBar: bar(),
    voice: h("span", { class: "value" }),
    voiceBar: bar(),
    heard: h("span", { class: "value" }),
    since: h("span", { class: "note" }),
  };
  const cell = (/** @type {string} */ name, /** @type {any[]} */ ...children) =>
    h("td", { role: "cell", class: name.toLowerCase(), "data-name": name }, children);
  const row = h(
    "tr",
    { role: "row" },
    h("th", { scope: "row", role: "rowheader", class: "session" }, parts.link, h("span", { class: "chips" }, chips(session.labels))),
    cell("Escalations", parts.severity, parts.count),
    cell("Sounds", parts.sounds, parts.soundsBar, parts.soundsNote),
    cell("Distress", parts.distress, parts.distressBar),
    cell("Voice", parts.voice, parts.voiceBar),
    cell("Heard", parts.heard, parts.since),
    cell(
      "By",
      h("span", null, session.policy || "no policy"),
      h(
        "span",
        { class: "note" },
        [
          session.model,
          word(session.ingress, "INGRESS_"),
          session.identity === "anonymous" ? null : session.identity,
          session.tenant && session.tenant !== "default" ? `tenant ${session.tenant}` : null,
        ]
          .filter(Boolean)
          .join(", "),
      ),
    ),
  );
  row.parts = parts;
  return row;
}

/** @param {any} row @param {any} session */
function update(row, session) {
  const { parts } = row;
  const ended = Boolean(session.endedAt);
  const estimate = foremost(session);
  const how = severity(session.escalationSeverity);
  row.classList.toggle("ended", ended);
  row.classList.toggle("several", session.latest.length > 1);
  say(parts.severity, how || "none");
  parts.severity.className = how ? `severity ${how}` : "soft";
  say(parts.count, session.escalationIds.length > 1 ? `${session.escalationIds.length} in force` : "");
  const top = emotion(estimate?.affect?.top);
  const why = estimate?.abstains ? abstains(estimate.abstainReason) || "not to be acted on" : "";
  const several = session.latest.length > 1 ? `channel ${estimate.channel}, one of ${session.latest.length}` : "";
  // Without voice no estimates come: how long ago the last one was tells it.
  const since = (/** @type {any} */ one) => seconds(session.audio) - seconds(one.end);
  const stale = estimate && !ended && since(estimate) > QUIET_S;
  say(parts.sounds, top ? `${top} ${percent(estimate.affect.confidence)}` : "\u2013");
  parts.sounds.classList.toggle("unsure", Boolean(why) || stale);
  say(
    parts.soundsNote,
    [stale ? `heard ${Math.round(since(estimate))} s ago` : why, several].filter(Boolean).join(", ") ||
      (estimate ? "" : "nothing heard yet"),
  );
  level(parts.soundsBar, estimate?.affect?.confidence ?? 0, { colour: ended ? "soft" : top || "soft", hatched: Boolean(why) || stale });
  const judged = (estimate?.affect?.scores?.length ?? 0) > 0;
  say(parts.distress, judged ? percent(estimate.affect.distress) : "\u2013");
  level(parts.distressBar, judged ? estimate.affect.distress : 0, { colour: ended ? "soft" : "bad", hatched: Boolean(why) || stale });
  const heard = session.latest.filter((/** @type {any} */ one) => since(one) <= QUIET_S);
  const loud = heard.reduce(
    (/** @type {any} */ most, /** @type {any} */ one) => (!most || one.levelDbfs > most.levelDbfs ? one : most),
    null,
  );
  say(parts.voice, ended || !estimate ? "\u2013" : heard.some(speaks) ? "speaking" : "silent");
  level(parts.voiceBar, ended || !loud ? 0 : loudness(loud.levelDbfs));
  say(parts.heard, clock(seconds(session.audio)));
  say(parts.since, ended ? `ended ${ago(session.endedAt)}` : `since ${ago(session.openedAt).replace(" ago", "")}`);
}

function draw() {
  const wanted = the("filter").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const fit = sessions.filter((session) => wanted.every((/** @type {string} */ part) => text(session).includes(part)));
  fit.sort(
    (a, b) =>
      Number(Boolean(a.endedAt)) - Number(Boolean(b.endedAt)) ||
      rank(b.escalationSeverity) - rank(a.escalationSeverity) ||
      (a.endedAt
        ? new Date(b.endedAt).getTime() - new Date(a.endedAt).getTime()
        : new Date(b.openedAt).getTime() - new Date(a.openedAt).getTime()),
  );
  const live = sessions.filter((session) => !session.endedAt).length;
  const over = sessions.length - live;
  if (asked) say(the("live-title"), `Live (${live})${over > 0 ? `, ended lately (${over})` : ""}`);
  the("table").hidden = fit.length === 0;
  the("none").hidden = fit.length > 0 || !asked;
  the("more").hidden = fit.length <= ROWS;
  say(the("more"), `The first ${ROWS} of ${fit.length}: filter to see others.`);
  each(the("rows"), rows(fit.slice(0, ROWS)), keyOf, make, update);
  if (!the("none").hidden) none(sessions.length > 0);
}

/** @param {boolean} filtered */
function none(filtered) {
  const place = the("none");
  const why = filtered ? "filter" : "empty";
  if (place.dataset.why === why) return;
  place.dataset.why = why;
  if (filtered) {
    fill(place, h("p", { class: "empty" }, "No session fits the filter."));
    return;
  }
  fill(
    place,
    h("p", null, "Nobody is listened to now. Start a session from a terminal:"),
    h("pre", { tabindex: 0, "aria-label": "Command" }, "undertone stream FILE --policy care-call"),
    h("p", { class: "note" }, "With --target http://HOST:PORT if the server's gRPC port is not 50051 on this machine."),
    h("p", null, "Or ", h("a", { href: "try.html" }, "try it here"), " with your microphone or a recording."),
  );
}

async function ask() {
  if (shut) return;
  try {
    /** @type {any[]} */
    const all = [];
    let pageToken = "";
    do {
      const page = await call("SessionService/ListSessions", { pageSize: PAGE, includeEnded: the("ended").checked, pageToken });
      all.push(...page.sessions);
      pageToken = page.nextPageToken;
    } while (pageToken);
    sessions = all;
    asked = true;
    complain(the("trouble"), null);
  } catch (error) {
    // Asked again and again, the person would be, too. With a token the page is loaded anew.
    shut = error instanceof CallError && error.code === "unauthenticated";
    complain(the("trouble"), error, true);
  }
  draw();
}

the("filter").addEventListener("input", draw);
the("ended").addEventListener("change", ask);
whileVisible(ask, EVERY_MS);

/** @type {any[]} */
let forces = [];
let listed = false;

function showForces() {
  forces.sort(byUrgency);
  const open = forces.filter(unanswered).length;
  const title = open > 0 ? `(${open}) Sessions - Undertone` : "Sessions - Undertone";
  if (document.title !== title) document.title = title;
  say(
    the("forces-title"),
    forces.length === 0
      ? "Escalations in force"
      : `Escalations in force (${forces.length}, ${open === 0 ? "all acknowledged" : `${open} to acknowledge`})`,
  );
  the("forces-none").hidden = forces.length > 0 || !listed;
  say(the("forces-none"), "None. When a session's policy raises one, it stands here until it is over.");
  const more = the("forces-more");
  more.hidden = forces.length <= CARDS;
  if (!more.hidden) {
    const count = `${forces.length - CARDS} more: `;
    if (more.firstChild?.textContent !== count) fill(more, count, h("a", { href: "escalations.html" }, "all escalations"), ".");
  }
  each(
    the("forces"),
    cards(forces).slice(0, CARDS),
    (escalation) => escalation.id,
    () => {
      const card = new Card();
      /** @type {any} */ (card.element).card = card;
      return card.element;
    },
    (element, escalation) => element.card.show(escalation),
  );
}

/** Those in force, and those whose session ended while nobody had acknowledged them. @param {Map<string, any>} known */
function change(known) {
  listed = true;
  for (const [id, escalation] of known)
    if (!inForce(escalation) || (!unanswered(escalation) && escalation.sessionEndedAt)) known.delete(id);
  // Where somebody is just writing a note, the card stays until they are done.
  const busy = the("forces").querySelector("li:focus-within input");
  const kept = busy && forces.find(({ id }) => id === busy.closest("li").dataset.key && !known.has(id));
  forces = [...known.values(), ...(kept ? [kept] : [])];
  showForces();
}

followEscalations({
  first: () => [
    { states: ["ESCALATION_STATE_RAISED"] },
    { states: ["ESCALATION_STATE_ACKNOWLEDGED"], raisedSince: new Date(Date.now() - ACKNOWLEDGED_MS).toISOString() },
  ],
  signal: new AbortController().signal,
  change,
  event: ({ kind: what, escalation }) => {
    if (kind(what) !== "raised") return;
    say(the("told"), `${severity(escalation.severity)}: ${escalation.title}, session ${escalation.sessionId}. ${escalation.reason}`);
    alarm(escalation);
  },
  trouble: (problem) => {
    const none = problem?.reason === "NO_ESCALATION_STORE";
    if (none) {
      // A choice of whoever runs it, and no fault.
      complain(the("forces-trouble"), null);
      /** @type {any} */ (document.querySelector(".choices")).hidden = true;
      the("forces-none").hidden = false;
      fill(
        the("forces-none"),
        "This server keeps no escalations, since it was started without a store (",
        h("code", null, "--escalation-store"),
        ").",
      );
      return;
    }
    complain(the("forces-trouble"), problem, true);
    if (problem && !listed) the("forces-none").hidden = true;
  },
});

// "2 min ago" goes on.
setInterval(() => {
  if (!document.hidden && forces.length > 0) showForces();
}, 5000);
set(the("filter"), { spellcheck: "false" });
