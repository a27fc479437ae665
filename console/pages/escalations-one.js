/** One escalation: why, on what evidence, and all that happened to it. */

import { call } from "../lib/api.js";
import { fill, h, say, the } from "../lib/dom.js";
import { Acknowledgement, chips, conditions, followEscalations, means, sessionLink, trail } from "../lib/escalation.js";
import { complain } from "../lib/shell.js";
import { clock, moment, seconds, severity, state } from "../lib/words.js";

const main = /** @type {Element} */ (document.querySelector("main"));

/** @param {string} id */
export function one(id) {
  const form = new Acknowledgement(() => look());
  const state_ = h("span", { class: "chip state", role: "status" });
  const title = h("h1", null, "Escalation");
  const severe = h("span");
  const reason = h("p", { class: "reason" });
  const facts = h("dl", { class: "facts" });
  const [told, meant, happened] = [h("div"), h("div", { class: "wide" }), h("div")];
  fill(
    main,
    h("p", { class: "note" }, h("a", { href: "escalations.html" }, "Escalations"), " / one"),
    h("div", { class: "row title" }, title, severe, state_),
    h("div", { id: "trouble" }),
    h(
      "div",
      { id: "detail", hidden: true },
      h("div", { class: "card", tabindex: -1 }, reason, form.element),
      h(
        "div",
        { class: "columns" },
        h("section", { class: "card", "aria-labelledby": "about" }, h("h2", { id: "about" }, "About"), facts),
        h("section", { class: "card", "aria-labelledby": "history" }, h("h2", { id: "history" }, "What happened"), happened),
      ),
      h(
        "section",
        { class: "card", "aria-labelledby": "evidence" },
        h("h2", { id: "evidence" }, "Evidence"),
        h(
          "p",
          { class: "note" },
          "What the last decision rests on: figures of the voice over a while. No audio is kept. ",
          "They say how it sounded, not what was felt.",
        ),
        h("div", { class: "columns" }, told, meant),
      ),
    ),
  );

  let written = "";

  /** @param {any} answer a GetEscalationResponse */
  function show({ escalation, history }) {
    // Written anew only when something has happened: whoever reads or selects is left alone.
    const now = `${escalation.updatedAt} ${history.length}`;
    if (now === written) return;
    written = now;
    the("detail").hidden = false;
    document.title = `${escalation.title} - Undertone`;
    say(title, escalation.title);
    say(severe, severity(escalation.severity));
    severe.className = `severity ${severity(escalation.severity)}`;
    say(state_, state(escalation.state));
    state_.classList.toggle("open", state(escalation.state) === "raised");
    say(reason, escalation.reason);
    form.show(escalation);
    const { evidence } = escalation;
    const fact = (/** @type {string} */ name, /** @type {any[]} */ ...value) => [h("dt", null, name), h("dd", null, value)];
    fill(
      facts,
      fact("Session", h("a", { href: sessionLink(escalation) }, escalation.sessionId), `, channel ${escalation.channel}`),
      fact(
        "On behalf of",
        Object.keys(escalation.labels).length > 0 ? h("span", { class: "chips" }, chips(escalation.labels)) : "not said",
      ),
      fact("Raised", moment(escalation.raisedAt)),
      fact(
        "Acknowledged",
        escalation.acknowledgedAt ? `${moment(escalation.acknowledgedAt)} by ${escalation.acknowledgedBy}` : "by nobody yet",
      ),
      fact("Cleared", escalation.clearedAt ? moment(escalation.clearedAt) : "no"),
      escalation.sessionEndedAt ? fact("Session ended", moment(escalation.sessionEndedAt)) : [],
      fact("Holds since", `${clock(seconds(escalation.onset))} of the session`),
      fact(
        "Window",
        evidence
          ? `${clock(seconds(evidence.start))} to ${clock(seconds(evidence.end))}, ${seconds(evidence.speech).toFixed(1)} s of speech`
          : "none",
      ),
      fact("Rule", `${escalation.rule} of ${escalation.policy}, version ${escalation.policyVersion}`),
      fact("Model", `${escalation.model}, version ${escalation.modelVersion}`),
      escalation.tenant && escalation.tenant !== "default" ? fact("Tenant", escalation.tenant) : [],
      fact("Id", h("code", null, escalation.id)),
    );
    fill(told, conditions(evidence));
    fill(meant, means(evidence));
    fill(happened, trail(history));
  }

  async function look() {
    try {
      const answer = await call("EscalationService/GetEscalation", { id });
      show(answer);
      complain(the("trouble"), null);
      return answer.escalation;
    } catch (error) {
      complain(the("trouble"), error);
      return null;
    }
  }

  look().then((escalation) => {
    if (!escalation) return;
    followEscalations({
      filter: { sessionId: escalation.sessionId },
      first: () => [],
      signal: new AbortController().signal,
      change: () => {},
      event: (event) => {
        if (event.escalation.id === id) look();
      },
      trouble: (problem) => {
        complain(the("trouble"), problem);
        // What happened while nothing could be heard is in the history.
        if (!problem) look();
      },
    });
  });
}
