/** What a stream of one's own tells besides estimates: escalations, with a button to take each on, and warnings. */

import { call } from "./api.js";
import { each, h, say } from "./dom.js";
import { acknowledge, complain } from "./shell.js";
import { clock, kind, seconds, severity, state } from "./words.js";

export class Told {
  #list = h("div", { role: "group", "aria-label": "Escalations and warnings" });
  /** Read out at once to those who do not see it; the list itself is not, since it changes as it is told more. */
  #alert = h("p", { class: "unseen", role: "alert" });
  #timeline;
  #acknowledge;
  /**
   * By id, in the order in which they came.
   * @type {Map<string, {key: string, make: () => HTMLElement, update: (element: HTMLElement) => void}>}
   */
  #all = new Map();

  /**
   * @param {import("./timeline.js").Timeline} timeline
   * @param {(acknowledge: {escalationId: string, actor: string}) => boolean} acknowledge in the stream; false if it is over
   */
  constructor(timeline, acknowledge) {
    this.element = h("div", null, this.#alert, this.#list);
    this.#timeline = timeline;
    this.#acknowledge = acknowledge;
  }

  /** @param {any} warning a Warning */
  warning({ position, message }) {
    const key = `warning ${this.#all.size}`;
    const make = () => h("p", { class: "told" }, time(position), h("strong", null, "Warning: "), message);
    this.#all.set(key, { key, make, update: () => {} });
    say(this.#alert, `Warning: ${message}`);
    this.#show();
  }

  /** @param {any} event an EscalationEvent */
  escalation(event) {
    const { escalation } = event;
    const { id, onset, title, reason, evidence } = escalation;
    const end = kind(event.kind) === "cleared" ? seconds(evidence?.end) : null;
    this.#timeline.escalation({
      id,
      start: seconds(onset),
      end,
      severity: escalation.severity,
      title,
      reason,
      acknowledged: Boolean(escalation.acknowledgedAt),
    });
    if (kind(event.kind) === "raised") say(this.#alert, `Escalation, ${severity(escalation.severity)}: ${title}. ${reason}`);
    this.#all.set(id, { key: id, make: () => this.#item(escalation), update: (element) => this.#bring(element, event) });
    this.#show();
  }

  #show() {
    each(
      this.#list,
      [...this.#all.values()],
      ({ key }) => key,
      ({ make }) => make(),
      (element, { update }) => update(element),
    );
  }

  /** @param {any} escalation */
  #item({ id, onset, title, severity: of }) {
    return h(
      "div",
      { class: "told" },
      h(
        "p",
        null,
        time(onset),
        h("span", { class: `severity ${severity(of)}` }, severity(of)),
        " ",
        h("strong", null, title),
        " ",
        h("span", { class: "chip", dataset: { slot: "state" } }),
      ),
      h("p", { dataset: { slot: "reason" } }),
      h(
        "div",
        { class: "row" },
        h(
          "button",
          { class: "quiet", type: "button", onclick: () => this.#takeOn(id) },
          "Acknowledge",
          h("span", { class: "unseen" }, title),
        ),
        h("a", { href: `escalations.html?id=${encodeURIComponent(id)}` }, "In the list of escalations"),
        h("span", { class: "note", dataset: { slot: "durable" } }),
      ),
      h("div", { dataset: { slot: "problem" } }),
    );
  }

  /** @param {HTMLElement} element @param {any} event */
  #bring(element, { escalation, durable }) {
    const { acknowledgedBy } = escalation;
    say(slot(element, "state"), `${state(escalation.state)}${acknowledgedBy ? `, taken on by ${acknowledgedBy}` : ""}`);
    say(slot(element, "reason"), escalation.reason);
    say(slot(element, "durable"), durable ? "" : "Not recorded yet: the server's store is down.");
    /** @type {HTMLButtonElement} */ (element.querySelector("button")).disabled = Boolean(acknowledgedBy);
  }

  /** @param {string} id */
  async #takeOn(id) {
    const element = /** @type {HTMLElement} */ (
      [...this.#list.children].find((child) => /** @type {HTMLElement} */ (child).dataset.key === id)
    );
    try {
      await acknowledge(async (actor) => {
        // What a stream that is over has raised is in the server's store.
        if (!this.#acknowledge({ escalationId: id, actor }))
          this.#bring(element, { ...(await call("EscalationService/AcknowledgeEscalation", { id, actor })), durable: true });
      });
      complain(slot(element, "problem"), null);
    } catch (error) {
      complain(slot(element, "problem"), error);
    }
  }
}

/** @param {string} at */
function time(at) {
  return h("span", { class: "time soft" }, clock(seconds(at)), " ");
}

/** @param {HTMLElement} element @param {string} name @returns {HTMLElement} */
function slot(element, name) {
  return /** @type {HTMLElement} */ (element.querySelector(`[data-slot="${name}"]`));
}
