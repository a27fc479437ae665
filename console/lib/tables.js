/** A stretch of a timeline as tables: what it shows, for those who would rather read it. */

import { h } from "./dom.js";
import { clock, percent, signed } from "./words.js";

/** Estimates at most. */
const ROWS = 240;

/**
 * @param {string} caption
 * @param {any[]} columns text, or a header cell
 * @param {any[]} rows
 */
function table(caption, columns, rows) {
  return h("table", null, h("caption", null, caption), h("thead", null, h("tr", null, columns)), h("tbody", null, rows));
}

const column = (/** @type {string} */ text) => h("th", { scope: "col" }, text);
const figures = (/** @type {string} */ text) => h("th", { scope: "col", class: "number" }, text);
const first = (/** @type {number} */ at) => h("th", { scope: "row" }, clock(at));
const cell = (/** @type {string} */ text) => h("td", null, text);

/** @param {number | undefined} value @param {(value: number) => string} how */
function figure(value, how) {
  return h("td", { class: "number" }, value === undefined || Number.isNaN(value) ? "\u2013" : how(value));
}

/** @param {string} emotion @param {number} confidence @param {string} abstains */
function judged(emotion, confidence, abstains) {
  return cell(abstains ? `abstains: ${abstains}` : emotion ? `${emotion} ${percent(confidence)}` : "\u2013");
}

/**
 * @param {{series: import("./series.js").Series, spans: import("./layout.js").Span[], start: number, span: number, newest: number}} stretch
 * @returns {any[]}
 */
export function tables({ series, spans, start, span, newest }) {
  const end = start + span;
  const [from, to] = [series.index(start), series.index(end)];
  const every = Math.max(1, Math.ceil((to - from) / ROWS));
  const moments = series.moments.slice(from, to + 1).filter((_, i, all) => (all.length - 1 - i) % every === 0);
  const utterances = series.utterances.filter((one) => one.end >= start && one.start <= end);
  const raised = spans.filter((one) => (one.end ?? Number.POSITIVE_INFINITY) >= start && one.start <= end);
  return [
    h("p", { class: "note" }, `From ${clock(start)} to ${clock(Math.min(end, newest))}${every > 1 ? `, every ${every}th estimate` : ""}.`),
    table(
      "Estimates",
      [column("At"), column("Sounds"), series.labels.map(figures), ["valence", "arousal", "distress", "voice", "dBFS"].map(figures)].flat(),
      moments.map((one) =>
        h(
          "tr",
          null,
          first(one.at),
          judged(series.labels[one.top] ?? "", one.confidence, one.abstains),
          series.labels.map((_, label) => figure(one.scores?.[label], percent)),
          figure(one.valence, signed),
          figure(one.arousal, signed),
          figure(one.distress, percent),
          figure(one.speech, percent),
          figure(one.level, (level) => String(Math.round(level)).replace("-", "\u2212")),
        ),
      ),
    ),
    utterances.length > 0 &&
      table(
        "Utterances",
        ["From", "To", "Sounds"].map(column),
        utterances.map((one) => h("tr", null, first(one.start), cell(clock(one.end)), judged(one.emotion, one.confidence, one.abstains))),
      ),
    raised.length > 0 &&
      table(
        "Escalations",
        ["From", "To", "Severity", "Title", "Reason"].map(column),
        raised.map((one) =>
          h(
            "tr",
            null,
            first(one.start),
            cell(one.end === null ? "in force" : clock(one.end)),
            cell(one.severity),
            cell(`${one.title}${one.acknowledged ? " (acknowledged)" : ""}`),
            cell(one.reason),
          ),
        ),
      ),
  ];
}
