/** The models: what they tell apart, what they learnt from and what that allows, how they were judged. */

import { call } from "../lib/api.js";
import { fill, h, the } from "../lib/dom.js";
import { CONDITIONS, MEASURES, number, sorted } from "../lib/figures.js";
import { bar, level } from "../lib/gauge.js";
import { complain, shell } from "../lib/shell.js";
import { emotion } from "../lib/words.js";

const KINDS = {
  MODEL_KIND_STREAMING_MFCC: "streaming: takes MFCCs step by step and remembers the utterance so far",
  MODEL_KIND_WINDOW_MFCC: "window: hears the last seconds anew each time, as MFCCs",
  MODEL_KIND_WINDOW_WAVEFORM: "window: hears the last seconds anew each time, as sound",
};

shell();

/** What may be done with it, said plainly. @param {{corpus: string, licence: string, commercialUse: boolean}[]} data */
function permission(data) {
  if (data.length === 0)
    return h(
      "p",
      { class: "warning" },
      h("strong", null, "Commercial use: not known."),
      " The model does not say what it has learnt from.",
    );
  const forbidden = data.filter(({ commercialUse }) => !commercialUse).map(({ corpus }) => corpus);
  if (forbidden.length === 0)
    return h(
      "p",
      null,
      h("strong", null, "Commercial use: allowed"),
      " by the licences of what it has learnt from. Read them all the same.",
    );
  return h(
    "p",
    { class: "warning" },
    h("strong", null, "Commercial use: not allowed."),
    ` It has learnt from ${list(forbidden)}, whose licences exclude it.`,
  );
}

/** @param {string[]} names */
function list(names) {
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

/** @param {{corpus: string, licence: string, commercialUse: boolean}[]} data */
function training(data) {
  return wide(
    "What it has learnt from",
    h(
      "table",
      null,
      h("caption", null, "What it has learnt from"),
      h(
        "thead",
        null,
        h(
          "tr",
          null,
          ["Corpus", "Licence", "Commercial use"].map((name) => h("th", { scope: "col" }, name)),
        ),
      ),
      h(
        "tbody",
        null,
        data.map(({ corpus, licence, commercialUse }) =>
          h(
            "tr",
            null,
            h("th", { scope: "row" }, corpus),
            h("td", null, licence),
            h("td", null, commercialUse ? "yes" : h("strong", null, "no")),
          ),
        ),
      ),
    ),
  );
}

/** @param {string} label @param {HTMLElement} table */
function wide(label, table) {
  return h("div", { class: "wide", tabindex: 0, role: "group", "aria-label": label }, table);
}

/**
 * One row per corpus.
 * @param {string} caption
 * @param {{name: string, title?: string}[]} columns
 * @param {{name: string, values: string[], shares: (number | undefined)[]}[]} rows `shares`: those that a bar is drawn of
 */
function byCorpus(caption, columns, rows) {
  return wide(
    caption,
    h(
      "table",
      { class: "figures" },
      h("caption", null, caption),
      h(
        "thead",
        null,
        h(
          "tr",
          null,
          h("th", { scope: "col" }, "Corpus"),
          columns.map(({ name }) => h("th", { scope: "col", class: "number" }, name)),
        ),
      ),
      h(
        "tbody",
        null,
        rows.map(({ name, values, shares }) =>
          h(
            "tr",
            null,
            h("th", { scope: "row" }, name),
            values.map((value, at) =>
              h(
                "td",
                { class: "number" },
                value || h("span", { class: "soft" }, "not measured"),
                shares[at] !== undefined && drawn(/** @type {number} */ (shares[at])),
              ),
            ),
          ),
        ),
      ),
    ),
  );
}

/** @param {number} share */
function drawn(share) {
  const gauge = bar();
  level(gauge, share);
  return gauge;
}

/** @param {any} model */
function measured(model) {
  const { corpora, measures, conditions, value, whole } = sorted(model.figures ?? {});
  if (corpora.length === 0 && whole.length === 0)
    return h("p", { class: "empty" }, "It brings no figures along. Nobody knows how good it is before it is measured: undertone evaluate.");
  const labels = model.labels?.length ?? 0;
  return [
    model.protocol && h("p", null, h("strong", null, "How it was measured: "), `${model.protocol}.`),
    labels > 0 && h("p", { class: "note" }, `Who guesses among ${labels} emotions is right in ${number(1 / labels, true)} of cases.`),
    corpora.length > 0 &&
      byCorpus(
        "On voices that it has never heard",
        measures.map((measure) => MEASURES[measure]),
        corpora.map(({ key, name }) => ({
          name,
          values: measures.map((measure) => number(value(measure, "", key), MEASURES[measure].share)),
          shares: measures.map((measure) => (measure === "ua" ? value("ua", "", key) : undefined)),
        })),
      ),
    corpora.length > 0 &&
      h(
        "details",
        null,
        h("summary", null, "What the columns mean"),
        h(
          "dl",
          { class: "facts" },
          measures.flatMap((measure) => [h("dt", null, MEASURES[measure].name), h("dd", null, MEASURES[measure].means)]),
        ),
      ),
    conditions.length > 1 &&
      byCorpus(
        "In bad conditions: balanced accuracy",
        conditions.map((condition) => ({ name: CONDITIONS[condition] })),
        corpora.map(({ key, name }) => ({
          name,
          values: conditions.map((condition) => number(value("ua", condition, key), true)),
          shares: [],
        })),
      ),
    whole.length > 0 &&
      h(
        "details",
        null,
        h("summary", null, "Further figures"),
        h(
          "dl",
          { class: "facts" },
          whole.flatMap(({ name, text }) => [h("dt", null, name), h("dd", { class: "mono" }, text)]),
        ),
      ),
  ];
}

/** @param {any} model */
function card(model) {
  const id = `model-${model.name}`;
  const labels = (model.labels ?? []).map(emotion);
  return h(
    "article",
    { class: "card", "aria-labelledby": id },
    h(
      "div",
      { class: "row" },
      h("h2", { id }, model.name),
      h("span", { class: "chip" }, `version ${model.version}`),
      model.isDefault && h("span", { class: "chip strong" }, "the default"),
    ),
    h("p", null, model.description),
    permission(model.trainingData ?? []),
    h(
      "dl",
      { class: "facts" },
      h("dt", null, "Tells apart"),
      h("dd", null, labels.length > 0 ? labels.join(", ") : "no emotions: valence and arousal alone"),
      h("dt", null, "Kind"),
      h("dd", null, KINDS[/** @type {keyof typeof KINDS} */ (model.kind)] ?? "not said"),
      h("dt", null, "SHA-256"),
      h("dd", { class: "mono" }, model.sha256),
    ),
    model.trainingData?.length > 0 && training(model.trainingData),
    h("h3", null, "How good it is"),
    measured(model),
  );
}

try {
  const { models = [] } = await call("EmotionService/ListModels");
  fill(the("models"), models.map(card));
} catch (error) {
  complain(the("problem"), error);
}
the("models").removeAttribute("aria-busy");
// The place that a link points to has moved while the models came.
if (location.hash === "#limits") the("limits").scrollIntoView();
