/** What is heard now, in numbers and bars. */

import { h, say } from "./dom.js";
import { abstains, emotion, percent, seconds, signed } from "./words.js";

/** The level that an empty bar stands for, in dBFS: below it a room is quiet. */
const QUIET_DBFS = -70;

/** A bar that says again what a number beside it says. @param {string} [kind] "both": from the middle to either side @returns {any} */
export function bar(kind = "") {
  return h("span", { class: `bar ${kind}`, "aria-hidden": "true" }, h("span"));
}

/**
 * @param {any} element a `bar`
 * @param {number} share 0 to 1; -1 to 1 if it goes to both sides
 * @param {{colour?: string, hatched?: boolean}} [how] `colour`: a name of the style sheet's
 */
export function level(element, share, { colour = "soft", hatched = false } = {}) {
  const both = element.classList.contains("both");
  const part = Math.min(1, Math.abs(share)) * (both ? 50 : 100);
  const { style } = element.firstElementChild;
  style.width = `${part.toFixed(1)}%`;
  if (both) style.marginLeft = `${(share < 0 ? 50 - part : 50).toFixed(1)}%`;
  style.setProperty("--bar", `var(--${colour})`);
  element.classList.toggle("hatched", hatched);
}

/** How loud, 0 to 1. @param {number} dbfs */
export function loudness(dbfs) {
  return Math.min(1, Math.max(0, 1 - dbfs / QUIET_DBFS));
}

/** @param {number} dbfs */
export function decibels(dbfs) {
  return `${Math.round(dbfs)} dBFS`.replace("-", "\u2212");
}

/** Estimates come while somebody speaks, and a little longer: without one for so long, in seconds, it is silent. */
export const QUIET_S = 2;

/** Whether somebody speaks, as far as the last estimate knows. @param {any} estimate */
export function speaks(estimate) {
  return (estimate?.speechRatio ?? 0) >= 0.3;
}

/** The last estimate of a channel in fixed slots. */
export class Now {
  constructor() {
    const slot = (
      /** @type {string} */ name,
      /** @type {string} */ text,
      /** @type {any} */ value,
      /** @type {any} */ gauge,
      /** @type {any} */ note = null,
    ) => h("div", { class: `slot ${name}` }, h("dt", null, text), h("dd", null, value, gauge, note));
    const value = () => h("span", { class: "value" }, "\u2013");
    this.sounds = { value: value(), bar: bar(), note: h("span", { class: "note" }, "nothing heard yet") };
    this.distress = { value: value(), bar: bar() };
    this.valence = { value: value(), bar: bar("both") };
    this.arousal = { value: value(), bar: bar("both") };
    this.voice = { value: value(), bar: bar(), note: h("span", { class: "note" }, "\u2013") };
    this.element = h(
      "dl",
      { class: "now" },
      slot("sounds", "Sounds", this.sounds.value, this.sounds.bar, this.sounds.note),
      slot("distress", "Distress", this.distress.value, this.distress.bar),
      slot("valence", "Valence (weakly known)", this.valence.value, this.valence.bar),
      slot("arousal", "Arousal", this.arousal.value, this.arousal.bar),
      slot("voice", "Voice", this.voice.value, this.voice.bar, this.voice.note),
    );
  }

  /** Nobody has spoken since the last estimate, for so long. @param {number} s */
  quiet(s) {
    this.element.classList.add("stale");
    say(this.sounds.note, `as last heard, ${Math.round(s)} s ago`);
    say(this.voice.value, "silent");
    level(this.voice.bar, 0);
    say(this.voice.note, `no voice for ${Math.round(s)} s`);
  }

  /** Nothing more comes: what stands here is of the end. */
  ended() {
    this.element.classList.add("stale");
    if (!this.element.classList.contains("abstains")) say(this.sounds.note, "as last heard");
    say(this.voice.value, "ended");
    level(this.voice.bar, 0);
    say(this.voice.note, "");
  }

  /** @param {any} estimate an Estimate */
  estimate(estimate) {
    this.element.classList.remove("stale");
    const { affect } = estimate;
    const top = emotion(affect?.top);
    const why = estimate.abstains ? abstains(estimate.abstainReason) || "not to be acted on" : "";
    this.element.classList.toggle("abstains", Boolean(why));
    say(this.sounds.value, top ? `${top} ${percent(affect.confidence)}` : "\u2013");
    level(this.sounds.bar, affect?.confidence ?? 0, { colour: top || "soft", hatched: Boolean(why) });
    const since = seconds(estimate.end) - seconds(estimate.evidenceEnd);
    say(this.sounds.note, why ? `abstains: ${why}` : since > 1.5 ? `as last heard, ${Math.round(since)} s ago` : "");
    const judged = (affect?.scores?.length ?? 0) > 0;
    say(this.distress.value, judged ? percent(affect.distress) : "\u2013");
    level(this.distress.bar, judged ? affect.distress : 0, { colour: "bad", hatched: Boolean(why) });
    for (const which of /** @type {const} */ (["valence", "arousal"])) {
      say(this[which].value, affect ? signed(affect[which]) : "\u2013");
      level(this[which].bar, affect?.[which] ?? 0, { colour: which === "valence" ? "text" : "link", hatched: Boolean(why) });
    }
    say(this.voice.value, speaks(estimate) ? "speaking" : "silent");
    level(this.voice.bar, loudness(estimate.levelDbfs), { colour: "soft" });
    say(this.voice.note, `${decibels(estimate.levelDbfs)}, voice ${percent(estimate.speechRatio)}`);
  }
}
