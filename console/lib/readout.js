/** What a timeline says of one moment, in fixed slots. */

import { h, say } from "./dom.js";
import { decibels } from "./gauge.js";
import { clock, percent, signed } from "./words.js";

const NAMES = { at: "At", sounds: "Sounds", valence: "Valence", arousal: "Arousal", distress: "Distress", voice: "Voice", level: "Level" };

/** @param {number | undefined} value @param {(value: number) => string} how */
function known(value, how) {
  return value === undefined || Number.isNaN(value) ? "\u2013" : how(value);
}

export class Readout {
  constructor() {
    this.slots = Object.fromEntries(Object.keys(NAMES).map((slot) => [slot, h("dd", null, "\u2013")]));
    this.note = h("p", { class: "timeline-note" });
    this.element = h(
      "div",
      { class: "timeline-readout" },
      h(
        "dl",
        null,
        Object.entries(NAMES).map(([slot, text]) => h("div", { class: `slot ${slot}` }, h("dt", null, text), this.slots[slot])),
      ),
      this.note,
      h("p", { class: "timeline-hint note" }, "Point at a moment to read it, or choose one with the arrow keys."),
    );
  }

  /**
   * @param {import("./series.js").Series} series
   * @param {import("./layout.js").Span[]} spans
   * @param {number | null} at seconds; `null`: nowhere
   */
  show(series, spans, at) {
    this.element.classList.toggle("chosen", at !== null);
    if (at === null) return;
    const moment = series.at(at);
    const top = series.labels[moment?.top ?? -1];
    const { slots } = this;
    say(slots.at, clock(at));
    say(slots.sounds, moment && top ? `${top} ${percent(moment.confidence)}` : "\u2013");
    slots.sounds.classList.toggle("abstains", Boolean(moment?.abstains));
    say(slots.valence, known(moment?.valence, signed));
    say(slots.arousal, known(moment?.arousal, signed));
    say(slots.distress, known(moment?.distress, percent));
    say(slots.voice, known(moment?.speech, percent));
    say(slots.level, known(moment?.level, decibels));
    const why = moment ? moment.abstains && `Abstains: ${moment.abstains}.` : "No estimate: nobody was heard.";
    const raised = spans
      .filter(({ start, end }) => start <= at && at <= (end ?? Number.POSITIVE_INFINITY))
      .map(({ severity, title, reason }) => `${title} (${severity})${reason ? `: ${reason.replace(/\.$/, "")}` : ""}.`);
    say(this.note, [why, ...raised].filter(Boolean).join(" "));
  }
}
