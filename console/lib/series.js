/** What one channel sounded like over time: its estimates and utterances as numbers. Times are seconds of the stream. */

import { abstains, EMOTIONS, emotion, percent, seconds, signed } from "./words.js";

/**
 * What one estimate says of the stretch between the one before and itself.
 * @typedef {object} Moment
 * @property {number} from
 * @property {number} at up to where audio had been analysed
 * @property {boolean} joins whether it goes on where the one before ended
 * @property {Float32Array | null} scores by label; `null` where nothing could be judged
 * @property {number} top the most probable label, -1 if there is none
 * @property {number} confidence
 * @property {string} abstains why, in words; "" if it does not
 * @property {boolean} held whether it rests on what was said some time before
 * @property {number} valence
 * @property {number} arousal
 * @property {number} distress
 * @property {number} speech share of voice, 0 to 1
 * @property {number} level dBFS
 */

/**
 * @typedef {object} Spoken an utterance
 * @property {number} start
 * @property {number} end
 * @property {string} emotion a word; "" if there is none
 * @property {number} confidence
 * @property {string} abstains why, in words; "" if it does not
 */

/** Two hours at two a second, and a half more: what is older is dropped. */
const MOST = 20_000;
/** Estimates further apart than this have nothing between them, unless they always are: while nobody speaks none come. */
const GAP_S = 1.6;
/** An estimate is of the voice of before when its evidence ends so long before it: more than a step and a pause for breath. */
const HELD_S = 1;

export class Series {
  constructor() {
    /** Emotions in the order of their lanes. */
    this.labels = EMOTIONS;
    /** @type {Moment[]} in order of time */
    this.moments = [];
    /** @type {Spoken[]} in order of time */
    this.utterances = [];
    /** Whether the labels are the model's, and not only what most have. */
    this.certain = false;
    /** The last two distances between estimates. */
    this.steps = [Number.POSITIVE_INFINITY, 0];
  }

  /** Where it begins; 0 if nothing is there. */
  get first() {
    return this.moments[0]?.from ?? this.utterances[0]?.start ?? 0;
  }

  /** Where it ends. */
  get last() {
    return Math.max(this.moments.at(-1)?.at ?? 0, this.utterances.at(-1)?.end ?? 0);
  }

  /** @param {string[]} labels words, such as "sad" */
  relabel(labels) {
    if (labels.length === this.labels.length && labels.every((label, i) => label === this.labels[i])) {
      this.certain = true;
      return;
    }
    const from = labels.map((label) => this.labels.indexOf(label));
    const of = (/** @type {Moment} */ { top }) => (top < 0 ? -1 : labels.indexOf(this.labels[top] ?? ""));
    for (const moment of this.moments) {
      moment.top = of(moment);
      if (moment.scores) moment.scores = Float32Array.from(from, (old) => (old < 0 ? 0 : (moment.scores?.[old] ?? 0)));
    }
    this.labels = labels;
    this.certain = true;
  }

  /** @param {any} estimate an Estimate @returns {boolean} whether it was news */
  push(estimate) {
    const at = seconds(estimate.end);
    const before = this.moments.at(-1);
    if (before && at <= before.at) return false;
    const affect = estimate.affect;
    const judged = (affect?.scores?.length ?? 0) > 0;
    if (judged && !this.certain) this.relabel(affect.scores.map((/** @type {any} */ score) => emotion(score.emotion)));
    const step = before ? at - before.at : 0;
    // One pause does not make pauses usual.
    const joins = before !== undefined && step <= Math.max(GAP_S, 2.2 * Math.min(...this.steps));
    if (before) this.steps = [this.steps[1] ?? 0, step];
    const moment = {
      from: joins && before ? before.at : Math.max(before?.at ?? 0, at - 0.5),
      at,
      joins,
      scores: judged ? this.#scores(affect.scores) : null,
      top: judged ? this.labels.indexOf(emotion(affect.top)) : -1,
      confidence: affect?.confidence ?? 0,
      abstains: estimate.abstains ? abstains(estimate.abstainReason) || "not to be acted on" : "",
      held: estimate.evidenceEnd !== undefined && estimate.evidenceEnd !== null && at - seconds(estimate.evidenceEnd) > HELD_S,
      valence: affect ? affect.valence : Number.NaN,
      arousal: affect ? affect.arousal : Number.NaN,
      distress: judged ? affect.distress : Number.NaN,
      speech: estimate.speechRatio ?? 0,
      level: estimate.levelDbfs ?? -100,
    };
    this.moments.push(moment);
    if (this.moments.length > MOST) this.moments.splice(0, MOST / 10);
    return true;
  }

  /** @param {any[]} scores */
  #scores(scores) {
    const by = new Float32Array(this.labels.length);
    for (const { emotion: of, probability } of scores) {
      const lane = this.labels.indexOf(emotion(of));
      if (lane >= 0) by[lane] = probability;
    }
    return by;
  }

  /** @param {any} utterance an Utterance @returns {boolean} whether it was news */
  speak(utterance) {
    const start = seconds(utterance.start);
    if (start <= (this.utterances.at(-1)?.start ?? -1)) return false;
    this.utterances.push({
      start,
      end: seconds(utterance.end),
      emotion: emotion(utterance.affect?.top),
      confidence: utterance.affect?.confidence ?? 0,
      abstains: utterance.abstains ? abstains(utterance.abstainReason) || "not to be acted on" : "",
    });
    if (this.utterances.length > MOST) this.utterances.splice(0, MOST / 10);
    return true;
  }

  /** The number of the first moment that ends at `t` or later; their count if none does. @param {number} t */
  index(t) {
    let [low, high] = [0, this.moments.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (/** @type {Moment} */ (this.moments[middle]).at < t) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** What is known of the time `t`. @param {number} t @returns {Moment | undefined} */
  at(t) {
    const moment = this.moments[this.index(t)];
    return moment && moment.from <= t ? moment : undefined;
  }
}

/** A moment in words. @param {Series} series @param {Moment | undefined} moment */
export function describe(series, moment) {
  if (!moment) return "no estimate: nobody was heard";
  const top = series.labels[moment.top];
  const parts = [
    moment.abstains
      ? `abstains (${moment.abstains})${top ? `, most like ${top} ${percent(moment.confidence)}` : ""}`
      : top
        ? `${top} ${percent(moment.confidence)}`
        : "",
    Number.isNaN(moment.valence) ? "" : `valence ${signed(moment.valence)}, arousal ${signed(moment.arousal)}`,
    Number.isNaN(moment.distress) ? "" : `distress ${percent(moment.distress)}`,
    `voice ${percent(moment.speech)}`,
  ];
  return parts.filter(Boolean).join(", ");
}
