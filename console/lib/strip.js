/** What one condition of a policy measured over a recording, drawn: its value, its thresholds, and when its rule was in force. */

import { h, svg } from "./dom.js";
import { clock, seconds } from "./words.js";

/** @typedef {{at: number, value: number | null}} Point `value`: `null` where too little speech was heard */
/** @typedef {{start: number, end: number}} Stretch in seconds */

/** Points of a drawn course at most: two to each pixel of a wide screen. */
const MOST_POINTS = 1200;
/** Rows of a course's table at most. */
const MOST_ROWS = 120;
/** The drawing's own units: it is stretched to the width that there is, so that numbers stand beside it. */
const [WIDTH, HEIGHT] = [1000, 100];
/** What a condition on silence measures, in the server's words. */
const SILENCE = "seconds without speech";

/**
 * @param {any} course a ConditionCourse
 * @param {number} audio length of the recording in seconds
 * @param {Stretch[]} inForce when the condition's rule was
 * @returns {HTMLElement}
 */
export function strip(course, audio, inForce) {
  /** @type {Point[]} */
  const points = course.points.map((/** @type {any} */ { at, value }) => ({ at: seconds(at), value: value ?? null }));
  const far = farthest(points, course.on >= course.off);
  const on = thresholds(course);
  const [low, high] = range([course.on, course.off, ...points.map(({ value }) => value ?? course.on)]);
  const drawn = draw(course, points, { audio, low, high, inForce });
  const when = inForce.map(({ start, end }) => `from ${clock(start)} to ${clock(end)}`).join(", ");
  drawn.setAttribute("aria-label", `${course.what}: ${far}; ${on}; ${when ? `in force ${when}` : "never in force"}`);
  const table = h("details", { class: "values" }, h("summary", null, "As a table"));
  table.addEventListener("toggle", () => table.childElementCount > 1 || table.append(rows(course.what, points)));
  return h(
    "div",
    { class: "condition" },
    h("p", null, h("strong", null, course.what), `: ${far}`),
    h("p", { class: "note" }, `${on.charAt(0).toUpperCase()}${on.slice(1)}.`),
    h(
      "div",
      { class: "plot" },
      h("div", { class: "scale", "aria-hidden": "true" }, h("span", null, short(high)), h("span", null, short(low))),
      drawn,
      h("div", { class: "times", "aria-hidden": "true" }, h("span", null, "0:00"), h("span", null, clock(audio))),
    ),
    table,
  );
}

/** @param {number} value */
function short(value) {
  return String(Number(value.toFixed(2))).replace("-", "\u2212");
}

/** @param {{what: string, on: number, off: number}} course */
function thresholds({ what, on, off }) {
  if (what === SILENCE) return `on after ${short(on)} s, off when somebody speaks`;
  const [more, under] = on >= off ? ["more", "under"] : ["less", "above"];
  return `on at ${short(on)} or ${more}, off ${under} ${short(off)}`;
}

/** How near it came to being raised. @param {Point[]} points @param {boolean} rising whether high values turn it on */
function farthest(points, rising) {
  let far = /** @type {{at: number, value: number} | null} */ (null);
  for (const { at, value } of points) {
    if (value !== null && (far === null || (rising ? value > far.value : value < far.value))) far = { at, value };
  }
  return far ? `${rising ? "highest" : "lowest"} ${short(far.value)} at ${clock(far.at)}` : "never a value: too little speech";
}

/** The values between which a course is drawn: the same for signals of one kind. @param {number[]} values @returns {[number, number]} */
function range(values) {
  let [low, high] = [0, 0];
  for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
  if (low >= 0 && high <= 1) return [0, 1];
  if (low >= -1 && high <= 1) return [-1, 1];
  return [low, Math.ceil(high * 1.05)];
}

/**
 * At most `MOST_POINTS` of them: of each stretch the lowest and the highest.
 * @param {Point[]} points
 * @returns {Point[]}
 */
function thinned(points) {
  if (points.length <= MOST_POINTS) return points;
  const stretch = Math.ceil(points.length / (MOST_POINTS / 2));
  const kept = [];
  for (let from = 0; from < points.length; from += stretch) {
    const some = points.slice(from, from + stretch);
    const by = some.filter(({ value }) => value !== null).sort((one, other) => Number(one.value) - Number(other.value));
    if (by.length < some.length) kept.push({ at: some[0].at, value: null });
    if (by.length > 0) kept.push(...[by[0], by[by.length - 1]].sort((one, other) => one.at - other.at));
  }
  return kept;
}

/**
 * @param {any} course a ConditionCourse
 * @param {Point[]} points
 * @param {{audio: number, low: number, high: number, inForce: Stretch[]}} frame
 * @returns {SVGElement}
 */
function draw({ what, on, off }, points, { audio, low, high, inForce }) {
  const x = (/** @type {number} */ at) => (at / Math.max(audio, 0.001)) * WIDTH;
  const y = (/** @type {number} */ value) => HEIGHT * (1 - (value - low) / (high - low));
  const across = (/** @type {string} */ of, /** @type {number} */ value) =>
    svg("line", { class: of, x1: 0, x2: WIDTH, y1: y(value), y2: y(value) });
  let path = "";
  let begun = false;
  for (const { at, value } of thinned(points)) {
    if (value !== null) path += `${begun ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
    begun = value !== null;
  }
  return svg(
    "svg",
    { class: "strip", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" },
    inForce.map(({ start, end }) =>
      svg("rect", { class: "force", x: x(start), y: 0, width: Math.max(1, x(end) - x(start)), height: HEIGHT }),
    ),
    low < 0 && across("zero", 0),
    across("on", on),
    what !== SILENCE && across("off", off),
    svg("path", { class: "course", d: path }),
  );
}

/** @param {string} what @param {Point[]} points */
function rows(what, points) {
  const each = Math.max(1, Math.ceil(points.length / MOST_ROWS));
  const some = points.filter((_, index) => index % each === each - 1 || index === points.length - 1);
  const value = (/** @type {Point} */ point) => (point.value === null ? "too little speech" : short(point.value));
  const row = (/** @type {Point} */ point) =>
    h("tr", null, h("th", { scope: "row" }, `${point.at.toFixed(1)} s`), h("td", { class: "number" }, value(point)));
  return h(
    "table",
    { class: "narrow" },
    h("caption", null, each > 1 ? `${what}, every ${each}th value` : what),
    h("thead", null, h("tr", null, h("th", { scope: "col" }, "At"), h("th", { scope: "col", class: "number" }, "Value"))),
    h("tbody", null, some.map(row)),
  );
}
