/** Draws what is in a timeline's lanes. */

import { colour } from "./palette.js";
import { percent } from "./words.js";

/** @typedef {import("./layout.js").Lane} Lane */
/** @typedef {import("./layout.js").Picture} Picture */
/** @typedef {import("./series.js").Moment} Moment */

/** @param {Picture} picture @param {Lane} lane */
export function voice({ ctx, scene, shown, xs, x }, { top, height }) {
  const { series, start, span, layout } = scene;
  const strip = height * 0.4;
  ctx.fillStyle = colour("soft");
  shown.forEach((moment, i) => {
    const left = moment.joins && i > 0 ? /** @type {number} */ (xs[i - 1]) : x(moment.from);
    const tall = moment.speech * strip;
    if (tall > 0) ctx.fillRect(left, top + height - tall, Math.max(1, /** @type {number} */ (xs[i]) - left), tall);
  });
  ctx.textAlign = "left";
  const y = top + height * 0.42;
  for (let i = series.utterances.length - 1; i >= 0; i--) {
    const spoken = /** @type {import("./series.js").Spoken} */ (series.utterances[i]);
    if (spoken.start > start + span) continue;
    if (spoken.end < start) break;
    const [left, right] = [x(spoken.start) + 1, x(spoken.end) - 1];
    const said = spoken.emotion !== "" && !spoken.abstains;
    ctx.strokeStyle = said ? colour(spoken.emotion) : colour("soft");
    ctx.lineWidth = said ? 3 : 1.5;
    ctx.setLineDash(said ? [] : [4, 3]);
    ctx.beginPath();
    ctx.moveTo(left, y);
    ctx.lineTo(right, y);
    ctx.stroke();
    ctx.setLineDash([]);
    ctx.lineWidth = 1.5;
    ctx.beginPath();
    for (const edge of [left, right]) {
      ctx.moveTo(edge, y - 3);
      ctx.lineTo(edge, y + 4);
    }
    ctx.stroke();
    const from = Math.max(left, layout.left);
    const room = Math.min(right, layout.right) - from - 2;
    const text = [said ? `${spoken.emotion} ${percent(spoken.confidence)}` : spoken.abstains, said ? spoken.emotion : "?"].find(
      (text) => ctx.measureText(text).width < room,
    );
    if (!text) continue;
    ctx.fillStyle = said ? colour("text") : colour("soft");
    ctx.fillText(text, from + 1, top + height * 0.17);
  }
}

/**
 * Runs of moments that go on without a break and have a value, as points.
 * @param {Picture} picture
 * @param {(moment: Moment) => number} value `NaN` where there is none
 * @param {(points: {x: number, v: number, moment: Moment}[]) => void} draw
 */
function runs({ shown, xs, x }, value, draw) {
  /** @type {{x: number, v: number, moment: Moment}[]} */
  let points = [];
  const done = () => {
    if (points.length > 0) draw(points);
    points = [];
  };
  shown.forEach((moment, i) => {
    const v = value(moment);
    if (!moment.joins) done();
    if (Number.isNaN(v)) return done();
    if (points.length === 0) points.push({ x: x(moment.from), v, moment });
    points.push({ x: /** @type {number} */ (xs[i]), v, moment });
  });
  done();
}

/** @param {Picture} picture @param {Lane} lane */
export function sounds(picture, { top, height, label }) {
  const { ctx } = picture;
  const { labels } = picture.scene.series;
  const base = top + height;
  const y = (/** @type {number} */ v) => base - v * height;
  ctx.fillStyle = colour(labels[label] ?? "neutral");
  ctx.strokeStyle = ctx.fillStyle;
  runs(
    picture,
    ({ scores }) => scores?.[label] ?? Number.NaN,
    (points) => {
      ctx.lineWidth = 1.25;
      ctx.beginPath();
      for (const { x, v } of points) ctx.lineTo(x, y(v));
      ctx.stroke();
      ctx.lineTo(/** @type {{x: number}} */ (points.at(-1)).x, base);
      ctx.lineTo(/** @type {{x: number}} */ (points[0]).x, base);
      ctx.globalAlpha = 0.2;
      ctx.fill();
      // The one that leads stands out, unless nothing should be made of it.
      for (const held of [false, true]) {
        ctx.beginPath();
        for (let i = 1; i < points.length; i++) {
          const [a, b] = [/** @type {typeof points[0]} */ (points[i - 1]), /** @type {typeof points[0]} */ (points[i])];
          if (b.moment.top !== label || b.moment.abstains || b.moment.held !== held) continue;
          ctx.moveTo(a.x, base);
          ctx.lineTo(a.x, y(a.v));
          ctx.lineTo(b.x, y(b.v));
          ctx.lineTo(b.x, base);
        }
        ctx.globalAlpha = held ? 0.35 : 0.9;
        ctx.fill();
      }
      ctx.globalAlpha = 1;
    },
  );
}

/** @param {Picture} picture @param {Lane} lane */
export function dimensions(picture, { top, height }) {
  const { ctx } = picture;
  const y = (/** @type {number} */ v) => top + height / 2 - (v * height) / 2;
  for (const which of /** @type {const} */ (["valence", "arousal"])) {
    ctx.strokeStyle = colour(which === "valence" ? "text" : "link");
    ctx.lineWidth = 2;
    ctx.setLineDash(which === "valence" ? [] : [5, 4]);
    runs(
      picture,
      (moment) => moment[which],
      (points) => {
        ctx.beginPath();
        for (const { x, v } of points) ctx.lineTo(x, y(v));
        ctx.stroke();
      },
    );
  }
  ctx.setLineDash([]);
}

/** @param {Picture} picture @param {Lane} lane */
export function distress(picture, { top, height }) {
  const { ctx } = picture;
  const base = top + height;
  ctx.strokeStyle = colour("bad");
  ctx.fillStyle = colour("bad");
  runs(
    picture,
    (moment) => moment.distress,
    (points) => {
      ctx.lineWidth = 1.5;
      ctx.beginPath();
      for (const { x, v } of points) ctx.lineTo(x, base - v * height);
      ctx.stroke();
      ctx.lineTo(/** @type {{x: number}} */ (points.at(-1)).x, base);
      ctx.lineTo(/** @type {{x: number}} */ (points[0]).x, base);
      ctx.globalAlpha = 0.3;
      ctx.fill();
      ctx.globalAlpha = 1;
    },
  );
}

/** @type {Map<string, CanvasPattern | null>} */
const hatches = new Map();

/** @param {CanvasRenderingContext2D} ctx @param {number} ratio */
function hatch(ctx, ratio) {
  const key = `${colour("soft")} ${ratio}`;
  const there = hatches.get(key);
  if (there) return there;
  const size = Math.round(7 * ratio);
  const tile = document.createElement("canvas");
  tile.width = size;
  tile.height = size;
  const pen = /** @type {CanvasRenderingContext2D} */ (tile.getContext("2d"));
  pen.strokeStyle = colour("soft");
  pen.lineWidth = ratio;
  pen.beginPath();
  for (const shift of [-size, 0, size]) {
    pen.moveTo(shift, size);
    pen.lineTo(shift + size, 0);
  }
  pen.stroke();
  const pattern = ctx.createPattern(tile, "repeat");
  hatches.set(key, pattern);
  return pattern;
}

/** Hatches the stretches in which the estimates abstain, and says why where there is room. @param {Picture} picture */
export function abstentions({ ctx, scene: { layout, ratio }, shown, x }) {
  const judged = layout.lanes.filter(({ kind }) => kind === "emotion" || kind === "dimensions" || kind === "distress");
  const [first, last] = [/** @type {Lane} */ (judged[0]), /** @type {Lane} */ (judged.at(-1))];
  const pattern = hatch(ctx, ratio);
  ctx.textAlign = "left";
  for (let i = 0; i < shown.length; i++) {
    const { from, abstains } = /** @type {Moment} */ (shown[i]);
    if (!abstains) continue;
    while (i + 1 < shown.length && shown[i + 1]?.joins && shown[i + 1]?.abstains === abstains) i++;
    const [left, right] = [x(from), x(/** @type {Moment} */ (shown[i]).at)];
    const [top, height] = [first.top, last.top + last.height - first.top];
    // What stands there fades, and the hatching moves along with it.
    ctx.fillStyle = colour("card");
    ctx.globalAlpha = 0.4;
    ctx.fillRect(left, top, right - left, height);
    if (pattern) {
      pattern.setTransform(new DOMMatrix().translate(left, top).scale(1 / ratio));
      ctx.fillStyle = pattern;
      ctx.globalAlpha = 0.5;
      ctx.fillRect(left, top, right - left, height);
    }
    ctx.globalAlpha = 1;
    const wide = ctx.measureText(abstains).width;
    const at = Math.max(left, layout.left) + 4;
    if (at + wide + 8 > Math.min(right, layout.right)) continue;
    const y = top + layout.size * 0.9;
    ctx.fillStyle = colour("card");
    ctx.fillRect(at, y - layout.size * 0.7, wide + 8, layout.size * 1.4);
    ctx.fillStyle = colour("text");
    ctx.fillText(abstains, at + 4, y);
  }
}

/**
 * Corners of the marks, around the middle. An advisory is a ring.
 * @type {Record<string, [number, number][]>}
 */
// prettier-ignore
const CORNERS = {
  low: [[-1, -1], [1, -1], [1, 1], [-1, 1]],
  medium: [[0, -1], [1, 1], [-1, 1]],
  high: [[0, -1.25], [1.25, 0], [0, 1.25], [-1.25, 0]],
};

/**
 * The mark of a severity, as style.css draws it.
 * @param {CanvasRenderingContext2D} ctx
 * @param {string} severity
 * @param {number} cx
 * @param {number} cy
 * @param {number} r
 */
function mark(ctx, severity, cx, cy, r) {
  const corners = CORNERS[severity];
  ctx.beginPath();
  if (!corners) ctx.arc(cx, cy, r - 1, 0, 7);
  else for (const [dx, dy] of corners) ctx.lineTo(cx + dx * r, cy + dy * r);
  ctx.closePath();
  ctx.fillStyle = colour(severity || "advisory");
  ctx.strokeStyle = ctx.fillStyle;
  ctx.lineWidth = 2.5;
  if (corners) ctx.fill();
  else ctx.stroke();
}

/** @param {CanvasRenderingContext2D} ctx @param {string} text @param {number} room */
function fitted(ctx, text, room) {
  if (ctx.measureText(text).width <= room) return text;
  let some = text;
  while (some.length > 1 && ctx.measureText(`${some}…`).width > room) some = some.slice(0, -1);
  return some.length > 1 ? `${some}…` : "";
}

/** @param {Picture} picture @param {Lane} lane */
export function escalations({ ctx, scene, x }, lane) {
  const { spans, rows, layout, start, span, head } = scene;
  const unit = layout.size / 12;
  const tall = 20 * unit;
  ctx.textAlign = "left";
  for (const { id, start: from, end, severity, title, acknowledged } of spans) {
    const to = end ?? Math.max(head, from);
    if (to < start || from > start + span) continue;
    const [left, right] = [x(from), Math.max(x(to), x(from) + 12 * unit)];
    const top = lane.top + (rows.get(id) ?? 0) * 22 * unit;
    ctx.fillStyle = colour(severity || "advisory");
    ctx.strokeStyle = ctx.fillStyle;
    ctx.globalAlpha = end === null ? 0.22 : 0.1;
    ctx.fillRect(left, top, right - left, tall);
    ctx.globalAlpha = 1;
    // Acknowledged: dashed. Over: closed at its right end.
    ctx.lineWidth = 1.5;
    ctx.setLineDash(acknowledged ? [4, 3] : []);
    ctx.beginPath();
    ctx.moveTo(right, top + 0.75);
    ctx.lineTo(left + 0.75, top + 0.75);
    ctx.lineTo(left + 0.75, top + tall - 0.75);
    ctx.lineTo(right, top + tall - 0.75);
    if (end !== null) ctx.lineTo(right, top + 0.75);
    ctx.stroke();
    ctx.setLineDash([1, 3]);
    ctx.lineWidth = 1;
    ctx.beginPath();
    for (const edge of end === null ? [left] : [left, right]) {
      ctx.moveTo(Math.round(edge) + 0.5, top + tall);
      ctx.lineTo(Math.round(edge) + 0.5, layout.axis);
    }
    ctx.stroke();
    ctx.setLineDash([]);
    const begin = Math.max(left, layout.left);
    mark(ctx, severity, begin + 11 * unit, top + tall / 2, 5 * unit);
    ctx.fillStyle = colour("text");
    ctx.fillText(
      fitted(ctx, `${title} · ${severity}${acknowledged ? " · acknowledged" : ""}`, Math.min(right, layout.right) - begin - 24 * unit),
      begin + 20 * unit,
      top + tall / 2 + 0.5,
    );
  }
}
