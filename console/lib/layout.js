/** Where everything of a timeline stands. */

/** @typedef {import("./series.js").Series} Series */
/** @typedef {import("./series.js").Moment} Moment */

/**
 * An escalation on the timeline.
 * @typedef {object} Span
 * @property {string} id
 * @property {number} start onset, in seconds of the stream
 * @property {number | null} end `null` while it is in force
 * @property {string} severity a word
 * @property {string} title
 * @property {string} reason
 * @property {boolean} acknowledged
 */

/** @typedef {{kind: "escalations" | "voice" | "emotion" | "dimensions" | "distress", top: number, height: number, label: number}} Lane */

/**
 * Where everything stands, in CSS pixels.
 * @typedef {object} Layout
 * @property {Lane[]} lanes
 * @property {number} left where time begins, right of the lanes' names
 * @property {number} right where it ends, left of their values
 * @property {number} axis the top of the axis
 * @property {number} height
 * @property {number} size of the letters
 */

/**
 * @typedef {object} Scene
 * @property {Series} series
 * @property {Span[]} spans
 * @property {Map<string, number>} rows which row each span stands in
 * @property {number} start of the stretch that is shown, in seconds
 * @property {number} span its length
 * @property {number} head up to where it is known
 * @property {number | null} cursor
 * @property {Layout} layout
 * @property {number} ratio device pixels per CSS pixel
 */

/**
 * A scene while it is drawn.
 * @typedef {object} Picture
 * @property {CanvasRenderingContext2D} ctx
 * @property {Scene} scene
 * @property {Moment[]} shown those in sight
 * @property {number[]} xs where each of them ends, in CSS pixels
 * @property {(t: number) => number} x where a time stands
 */

/**
 * @param {number} width in CSS pixels
 * @param {number} emotions how many
 * @param {number} rows of escalations
 * @param {number} size of the letters
 * @returns {Layout}
 */
export function arrange(width, emotions, rows, size) {
  const unit = size / 12;
  const narrow = width < 560;
  /** @type {Lane[]} */
  const lanes = [];
  let top = 0;
  /** @param {Lane["kind"]} kind @param {number} height @param {number} [label] */
  const lane = (kind, height, label = 0) => {
    lanes.push({ kind, top, height: height * unit, label });
    top += (height + 6) * unit;
  };
  lane("escalations", 22 * rows);
  lane("voice", 40);
  for (let label = 0; label < emotions; label++) lane("emotion", 26, label);
  lane("dimensions", 58);
  lane("distress", 32);
  return { lanes, left: (narrow ? 78 : 82) * unit, right: width - (narrow ? 54 : 62) * unit, axis: top, height: top + 20 * unit, size };
}

/**
 * Gives each span a row in which it meets no other, and says how many rows that takes.
 * @param {Span[]} spans
 * @returns {{rows: Map<string, number>, count: number}}
 */
export function stack(spans) {
  /** @type {number[]} */
  const ends = [];
  const rows = new Map();
  for (const { id, start, end } of [...spans].sort((a, b) => a.start - b.start)) {
    const free = ends.findIndex((taken) => taken <= start);
    const row = free < 0 ? ends.length : free;
    ends[row] = end ?? Number.POSITIVE_INFINITY;
    rows.set(id, row);
  }
  return { rows, count: ends.length };
}
