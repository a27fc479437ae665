/** One session: what is heard, as it is heard, and what was raised. */

import { call, CallError, follow } from "../lib/api.js";
import { each, fill, h, say, set, the } from "../lib/dom.js";
import { byUrgency, Card, chips, followEscalations, inForce } from "../lib/escalation.js";
import { Now, QUIET_S } from "../lib/gauge.js";
import { complain, shell } from "../lib/shell.js";
import { whileVisible } from "../lib/steady.js";
import { Timeline } from "../lib/timeline.js";
import { abstains, ago, clock, emotion, moment, percent, seconds, severity, word } from "../lib/words.js";

/** What the server keeps of what was heard, at most. */
const HISTORY = "300s";
/** Utterances in the table at most. */
const UTTERANCES = 200;
/** Escalations at once at most. */
const CARDS = 20;
/** Escalations that were raised longer before this stream began are of another one with the same name. */
const BEFORE_MS = 60_000;

const asked = new URLSearchParams(location.search);
const id = asked.get("id") ?? "";
const tenant = asked.get("tenant") ?? "";

shell("./");
fill(
  /** @type {Element} */ (document.querySelector("main")),
  h("p", { class: "note" }, h("a", { href: "./" }, "Sessions"), " / session"),
  h(
    "div",
    { class: "row title" },
    h("h1", { class: "break" }, id || "No session"),
    h("span", { id: "state", class: "chip state", role: "status" }, "looking ..."),
  ),
  h("div", { id: "announced", class: "unseen", role: "alert" }),
  h("div", { id: "trouble" }),
  h("dl", { id: "facts", class: "strip", hidden: true }),
  h(
    "div",
    { id: "beside", class: "beside" },
    h(
      "section",
      { class: "card side", "aria-labelledby": "raised-title" },
      h("h2", { id: "raised-title" }, "Escalations"),
      h("div", { id: "raised-trouble" }),
      h("p", { id: "raised-none", class: "soft" }, "Looking ..."),
      h("ul", { id: "raised", class: "plain escalations" }),
      h(
        "p",
        { id: "raised-more", class: "note", hidden: true },
        `The first ${CARDS}; `,
        h("a", { href: `escalations.html?${new URLSearchParams({ session: id })}` }, "all of them"),
        ".",
      ),
    ),
    h(
      "div",
      { class: "main" },
      h("div", { id: "channels" }),
      h("p", { id: "quiet", class: "card empty", hidden: true }, "Nothing has been heard yet. The first estimate comes when audio does."),
      h(
        "section",
        { id: "said", class: "card", "aria-labelledby": "said-title", hidden: true },
        h("h2", { id: "said-title" }, "Utterances"),
        h(
          "div",
          { class: "wide tall", tabindex: 0, role: "group", "aria-label": "Table of utterances" },
          h("table", null, h("thead", null, h("tr", { id: "said-head" })), h("tbody", { id: "said-rows" })),
        ),
        h("p", { id: "said-more", class: "note", hidden: true }, `The last ${UTTERANCES}.`),
      ),
    ),
  ),
);

/** @type {any} */
let session = null;
let ended = false;
let lost = false;
const stop = new AbortController();

/** @typedef {{channel: number, card: any, now: Now, timeline: Timeline, end: number}} Channel `end`: of its last estimate */
/** @type {Map<number, Channel>} */
const channels = new Map();
/** @type {string[] | null} */
let labels = null;
/** @type {any[]} newest first */
const utterances = [];
/** @type {Map<string, any>} */
let raised = new Map();
/** How far it is heard, in seconds. */
let heard = 0;

/** @param {number} number @returns {Channel} */
function channel(number) {
  const there = channels.get(number);
  if (there) return there;
  const timeline = new Timeline({ seconds: matchMedia("(max-width: 600px)").matches ? 30 : 60, name: `channel ${number}` });
  if (labels) timeline.labels(labels);
  const now = new Now();
  const card = h(
    "section",
    { class: "card", "aria-label": `Channel ${number}` },
    h("h2", null, `Channel ${number}`),
    now.element,
    timeline.element,
  );
  const made = { channel: number, now, timeline, card, end: 0 };
  channels.set(number, made);
  each(
    the("channels"),
    [...channels.values()].sort((a, b) => a.channel - b.channel),
    ({ channel }) => String(channel),
    ({ card }) => card,
  );
  the("quiet").hidden = true;
  for (const escalation of raised.values()) draw(escalation);
  if (channels.size === 2) tabulate(true);
  return made;
}

/** The facts, in slots that are made once. @type {Map<string, any>} */
const slots = new Map();

/** @param {string} name @param {string | any[]} value */
function fact(name, value) {
  let slot = slots.get(name);
  if (!slot) {
    slot = h("dd");
    slots.set(name, slot);
    the("facts").append(h("div", null, h("dt", null, name), slot));
  }
  if (typeof value === "string") say(slot, value);
  else fill(slot, value);
}

function facts() {
  if (!session) return;
  the("facts").hidden = false;
  if (!slots.has("On behalf of"))
    fact(
      "On behalf of",
      Object.keys(session.labels).length > 0
        ? [h("span", { class: "chips" }, chips(session.labels))]
        : "not said: the session has no labels",
    );
  fact("Heard", clock(Math.max(heard, seconds(session.audio))));
  fact("Opened", `${moment(session.openedAt)}, ${ago(session.openedAt)}`);
  if (session.endedAt) fact("Ended", `${moment(session.endedAt)}, ${ago(session.endedAt)}`);
  fact("Policy", session.policy || "none: nothing is raised");
  fact("Model", session.model);
  fact("Comes in by", word(session.ingress, "INGRESS_"));
  fact(
    "Opened by",
    [session.identity || "nobody in particular", session.tenant && session.tenant !== "default" ? `tenant ${session.tenant}` : ""]
      .filter(Boolean)
      .join(", "),
  );
}

/** @param {string} text @param {string} [how] */
function stands(text, how = "") {
  say(the("state"), text);
  the("state").className = `chip state ${how}`;
}

/** @param {string} model */
async function learn(model) {
  try {
    const answer = await call("EmotionService/GetModel", { name: model });
    labels = answer.model.labels.map(emotion);
    for (const { timeline } of channels.values()) if (labels) timeline.labels(labels);
  } catch {
    // The first estimate tells them as well.
  }
}

/** @param {any} said a WatchSessionResponse */
function hear(said) {
  if (said.session) {
    if (!session) {
      document.title = `${said.session.id} - Undertone`;
      learn(said.session.model);
      the("quiet").hidden = said.session.latest.length > 0;
    }
    const anew = session && session.openedAt !== said.session.openedAt;
    session = said.session;
    // The same name, opened anew: what is shown was another stream, unless that one goes on.
    if (anew && seconds(session.audio) < heard - 5) restart();
    // The timeline gets its estimates from the history, which comes after this and ends with the latest.
    for (const estimate of session.latest) {
      const its = channel(estimate.channel);
      if (its.end === 0) its.now.estimate(estimate);
      its.end = Math.max(its.end, seconds(estimate.end));
    }
    stands(session.endedAt ? `ended ${ago(session.endedAt)}` : "live", session.endedAt ? "over" : "live");
    facts();
    for (const escalation of raised.values()) draw(escalation);
  } else if (said.estimate) {
    const its = channel(said.estimate.channel);
    its.timeline.estimate(said.estimate);
    its.end = Math.max(its.end, seconds(said.estimate.end));
    heard = Math.max(heard, its.end);
    told = performance.now();
    latest.set(said.estimate.channel, said.estimate);
    if (!later) later = requestAnimationFrame(refresh);
  } else if (said.utterance) {
    channel(said.utterance.channel).timeline.utterance(said.utterance);
    utter(said.utterance);
  } else if (said.ended) {
    ended = true;
  }
}

/** When an estimate came last. */
let told = Number.NEGATIVE_INFINITY;

/** While nobody speaks no estimates come, and how far the stream is has to be asked for. */
async function listen() {
  if (!session || session.endedAt || ended || lost || performance.now() - told < 1500) return;
  try {
    const { session: now } = await call("SessionService/GetSession", { id, tenant });
    if (now.endedAt || now.openedAt !== session.openedAt) return;
    session = now;
    const at = seconds(now.audio);
    heard = Math.max(heard, at);
    for (const { now: gauge, timeline, end } of channels.values()) {
      timeline.now(at);
      if (end > 0 && at - end > QUIET_S) gauge.quiet(at - end);
    }
    facts();
  } catch {
    // The watch tells what is wrong.
  }
}

/** A history comes all at once: the numbers are written when the last of it is there. @type {Map<number, any>} */
const latest = new Map();
let later = 0;

function refresh() {
  later = 0;
  for (const [number, estimate] of latest) {
    const { now, timeline } = channel(number);
    now.estimate(estimate);
    timeline.catchUp();
  }
  latest.clear();
  tabulate();
  facts();
}

function restart() {
  heard = 0;
  utterances.length = 0;
  for (const its of channels.values()) {
    its.timeline.clear();
    its.end = 0;
  }
}

let tabled = "";

/** @param {any} utterance */
function utter(utterance) {
  const key = (/** @type {any} */ one) => `${one.channel} ${one.index}`;
  if (utterances.some((one) => key(one) === key(utterance))) return;
  utterances.push(utterance);
  utterances.sort((a, b) => seconds(b.start) - seconds(a.start));
  if (utterances.length > UTTERANCES) {
    utterances.length = UTTERANCES;
    the("said-more").hidden = false;
  }
  if (!later) later = requestAnimationFrame(refresh);
}

/** @param {boolean} [anew] with other columns */
function tabulate(anew = false) {
  const several = channels.size > 1;
  if (anew) {
    fill(the("said-rows"));
    tabled = "";
  }
  const state = `${utterances.length} ${utterances[0]?.start} ${utterances.at(-1)?.start}`;
  if (tabled === state) return;
  tabled = state;
  the("said").hidden = utterances.length === 0;
  const column = (/** @type {string} */ text, number = false) => h("th", { scope: "col", class: number ? "number" : null }, text);
  if (the("said-head").childElementCount !== (several ? 7 : 6)) {
    fill(
      the("said-head"),
      column("From"),
      several && column("Channel", true),
      column("Length", true),
      column("Sounds"),
      column("Confidence", true),
      column("Distress", true),
      column("Abstains"),
    );
  }
  each(
    the("said-rows"),
    utterances,
    (one) => `${one.channel} ${one.index}`,
    (one) => {
      const { affect } = one;
      const judged = (affect?.scores?.length ?? 0) > 0;
      const number = (/** @type {string} */ text) => h("td", { class: "number" }, text);
      return h(
        "tr",
        null,
        h("th", { scope: "row" }, clock(seconds(one.start))),
        several && number(String(one.channel)),
        number(`${(seconds(one.end) - seconds(one.start)).toFixed(1)} s`),
        h("td", { class: one.abstains ? "unsure" : null }, emotion(affect?.top) || "\u2013"),
        number(judged ? percent(affect.confidence) : "\u2013"),
        number(judged ? percent(affect.distress) : "\u2013"),
        h("td", null, one.abstains ? abstains(one.abstainReason) || "not to be acted on" : "no"),
      );
    },
  );
}

/** Whether it is of this stream and not of an earlier one of the same name. @param {any} escalation */
function ofThis(escalation) {
  if (!session) return false;
  const until = session.endedAt ? new Date(session.endedAt).getTime() : Date.now();
  // One that is gone on with began before it was opened here.
  const began = Math.min(new Date(session.openedAt).getTime(), until - Math.max(heard, seconds(session.audio)) * 1000);
  return new Date(escalation.raisedAt).getTime() >= began - BEFORE_MS;
}

/** Onto its channel's timeline. @param {any} escalation */
function draw(escalation) {
  if (!ofThis(escalation)) return;
  channels.get(escalation.channel)?.timeline.escalation({
    id: escalation.id,
    start: seconds(escalation.onset),
    end: inForce(escalation) ? null : seconds(escalation.evidence?.end),
    severity: escalation.severity,
    title: escalation.title,
    reason: escalation.reason,
    acknowledged: Boolean(escalation.acknowledgedAt),
  });
}

function cards() {
  const every = [...raised.values()].sort(
    (a, b) =>
      Number(inForce(b)) - Number(inForce(a)) ||
      (inForce(a) ? byUrgency(a, b) : new Date(b.raisedAt).getTime() - new Date(a.raisedAt).getTime()),
  );
  const all = every.slice(0, CARDS);
  the("raised-none").hidden = all.length > 0;
  the("raised-more").hidden = every.length <= CARDS;
  each(
    the("raised"),
    all,
    (escalation) => escalation.id,
    () => {
      const card = new Card({ session: false });
      /** @type {any} */ (card.element).card = card;
      return card.element;
    },
    (element, escalation) => element.card.show(escalation),
  );
}

async function watching() {
  const signal = stop.signal;
  let last = /** @type {CallError | null} */ (null);
  const state = (/** @type {CallError | null} */ problem) => {
    last = problem;
    lost = problem !== null;
    // That it is gone is told below, and is none of the reader's faults.
    complain(the("trouble"), problem?.code === "not_found" ? null : problem, true);
    if (problem && problem.code !== "not_found") stands("connection lost, trying again", "lost");
    else if (session) stands("live", "live");
  };
  for await (const said of follow("SessionService/WatchSession", () => ({ id, tenant, history: HISTORY }), { signal, state })) hear(said);
  const problem = /** @type {CallError | null} */ (last);
  if (problem && problem.code !== "not_found") {
    stands("not shown", "lost");
    return;
  }
  if (problem && !session) {
    stands("gone", "over");
    the("beside").classList.add("alone");
    say(the("raised-none"), the("raised-none").textContent.replace(" so far", ""));
    complain(the("trouble"), null);
    fill(
      the("trouble"),
      h(
        "p",
        null,
        "The server knows no such session: it ended some time ago (15 minutes, unless set otherwise), or lives in another replica. ",
        "What it raised is kept for longer, below.",
      ),
    );
    return;
  }
  // How it ended, and when.
  try {
    ({ session } = await call("SessionService/GetSession", { id, tenant }));
  } catch {
    // It is shown as it was last known.
  }
  stands(session?.endedAt ? `ended ${ago(session.endedAt)}` : ended ? "ended" : "gone", "over");
  if (later) {
    cancelAnimationFrame(later);
    refresh();
  }
  for (const { now, timeline } of channels.values()) {
    now.ended();
    timeline.now(seconds(session?.audio));
    timeline.ended();
  }
  facts();
}

if (id) {
  watching();
  followEscalations({
    filter: { sessionId: id, ...(tenant && { tenant }) },
    first: () => [{ sessionId: id, ...(tenant && { tenant }) }],
    signal: stop.signal,
    change: (known) => {
      raised = known;
      say(the("raised-none"), the("beside").classList.contains("alone") ? "None." : "None so far.");
      cards();
      for (const escalation of known.values()) draw(escalation);
    },
    event: ({ kind, escalation }) => {
      if (kind === "ESCALATION_EVENT_KIND_RAISED")
        say(the("announced"), `${severity(escalation.severity)}: ${escalation.title}. ${escalation.reason}`);
    },
    trouble: (problem) => {
      const none = problem?.reason === "NO_ESCALATION_STORE";
      complain(the("raised-trouble"), none ? null : problem, true);
      if (none) say(the("raised-none"), "This server keeps no escalations: it was started without a store.");
      the("raised-none").hidden = raised.size > 0 || Boolean(problem && !none);
    },
  });
  whileVisible(listen, 2000);
  setInterval(() => {
    if (document.hidden) return;
    facts();
    cards();
    if (session?.endedAt) stands(`ended ${ago(session.endedAt)}`, "over");
  }, 5000);
} else {
  stands("none", "over");
  fill(the("trouble"), h("p", null, "The address names no session. ", h("a", { href: "./" }, "Choose one"), "."));
  the("raised-none").hidden = true;
}
set(the("facts"), { "aria-label": "About the session" });
