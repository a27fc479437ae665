/**
 * A model's measured figures, by what they are about. Their keys are those of its manifest (docs/evaluation.md): a measure, the
 * conditions if they were bad ones, and the corpus, such as "ua_pink_10_crema_d".
 */

/** Measures of a corpus: what they are called, what they mean, and whether they are shares of 1. */
export const MEASURES = {
  ua: {
    name: "Balanced accuracy",
    means: "the share that is right of each emotion, averaged over the emotions that the corpus has (unweighted average recall, UA)",
    share: true,
  },
  ua_of_all_labels: {
    name: "Among all labels",
    means: "the same where the model may also choose emotions that the corpus does not have, as in service",
    share: true,
  },
  wa: { name: "Accuracy", means: "the share of all clips that is right (WA)", share: true },
  macro_f1: { name: "Macro F1", means: "precision and recall of each emotion in one number, averaged", share: true },
  nll: { name: "Loss", means: "negative log-likelihood: lower is better", share: false },
  ece: { name: "Calibration error", means: "by how much a probability is off on average (ECE): lower is better", share: true },
};

/** Bad conditions in which balanced accuracy was measured. */
export const CONDITIONS = {
  "": "Clean",
  pink_20: "Noise, 20 dB below",
  pink_10: "Noise, 10 dB below",
  pink_5: "Noise, 5 dB below",
  telephone: "Telephone",
  reverberation: "In a room",
  quiet: "20 dB quieter",
  loud: "20 dB louder",
};

/** Figures of the whole. */
const WHOLE = {
  ece_pooled: { name: "Calibration error over all clips together", share: true },
  random_split_accuracy: { name: "Accuracy on a random split, which flatters: the same speakers are on both sides", share: true },
  random_split_loss: { name: "Loss on that split", share: false },
  cpu_ms_per_audio_second_batch_1: { name: "Processor time per second of audio, one stream, ms", share: false },
  cpu_ms_per_audio_second_batch_16: { name: "The same with 16 streams at once, ms", share: false },
  cpu_ms_per_audio_second_batch_64: { name: "The same with 64 streams at once, ms", share: false },
};

/** How corpora write themselves. */
const CORPORA = { crema_d: "CREMA-D", ravdess: "RAVDESS", savee: "SAVEE", tess: "TESS" };

/**
 * @param {Record<string, number>} figures
 * @returns {{corpora: {key: string, name: string}[], measures: (keyof typeof MEASURES)[], conditions: (keyof typeof CONDITIONS)[],
 *     value: (measure: string, condition: string, corpus: string) => number | undefined, whole: {name: string, text: string}[]}}
 *     what there is of each, in the order to be shown; what is not known stands in `whole` by its key
 */
export function sorted(figures) {
  const keys = Object.keys(figures);
  const measures = /** @type {(keyof typeof MEASURES)[]} */ (Object.keys(MEASURES));
  const conditions = /** @type {(keyof typeof CONDITIONS)[]} */ (Object.keys(CONDITIONS));
  // The longest first: "ua_of_all_labels_tess" is no balanced accuracy of a corpus "of_all_labels_tess".
  const prefixes = [
    ...measures.map((measure) => ({ measure, condition: "" })),
    ...conditions.filter(Boolean).map((condition) => ({ measure: "ua", condition })),
  ]
    .map((prefix) => ({ ...prefix, text: `${[prefix.measure, prefix.condition].filter(Boolean).join("_")}_` }))
    .sort((one, other) => other.text.length - one.text.length);

  /** @type {Map<string, number>} */
  const known = new Map();
  const corpora = new Set();
  const whole = [];
  for (const key of keys) {
    const prefix = key in WHOLE ? undefined : prefixes.find(({ text }) => key.startsWith(text));
    if (!prefix) {
      const { name, share } = WHOLE[/** @type {keyof typeof WHOLE} */ (key)] ?? { name: key, share: false };
      whole.push({ key, name, text: number(figures[key], share) });
      continue;
    }
    const corpus = key.slice(prefix.text.length);
    corpora.add(corpus);
    known.set(`${prefix.measure} ${prefix.condition} ${corpus}`, figures[key]);
  }
  const order = Object.keys(WHOLE);
  whole.sort((one, other) => (order.indexOf(one.key) + 1 || 99) - (order.indexOf(other.key) + 1 || 99) || one.key.localeCompare(other.key));
  const there = [...corpora].sort();
  const value = (/** @type {string} */ measure, /** @type {string} */ condition, /** @type {string} */ corpus) =>
    known.get(`${measure} ${condition} ${corpus}`);
  return {
    corpora: there.map((key) => ({ key, name: CORPORA[/** @type {keyof typeof CORPORA} */ (key)] ?? key })),
    measures: measures.filter((measure) => there.some((corpus) => value(measure, "", corpus) !== undefined)),
    conditions: conditions.filter((condition) => there.some((corpus) => value("ua", condition, corpus) !== undefined)),
    value,
    whole,
  };
}

/** 0.6089 -> "60.9 %" where it is a share, else "0.609". @param {number | undefined} value @param {boolean} share */
export function number(value, share) {
  if (value === undefined) return "";
  return share ? `${(value * 100).toFixed(1)} %` : value.toFixed(2);
}
