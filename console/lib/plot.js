/** Draws a channel over time onto a canvas: what `Timeline` shows. It keeps nothing. */

import { abstentions, dimensions, distress, escalations, sounds, voice } from "./lanes.js";
import { colour } from "./palette.js";
import { clock, percent } from "./words.js";

/** @typedef {import("./layout.js").Scene} Scene */
/** @typedef {import("./series.js").Series} Series */
/** @typedef {import("./series.js").Moment} Moment */
/** @typedef {(t: number) => number} Scale */

/** @param {Scene} scene */
function scale({ layout, start, span }) {
  const per = (layout.right - layout.left) / span;
  return (/** @type {number} */ t) => layout.left + (t - start) * per;
}

/** @param {CanvasRenderingContext2D} ctx @param {Scene} scene */
export function paint(ctx, scene) {
  const { layout, ratio, series } = scene;
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  ctx.clearRect(0, 0, ctx.canvas.width / ratio, layout.height);
  ctx.font = `${layout.size}px system-ui, sans-serif`;
  ctx.textBaseline = "middle";
  ctx.lineJoin = "round";
  const x = scale(scene);
  axis(ctx, scene, x);

  const shown = visible(scene);
  const picture = { ctx, scene, shown, xs: shown.map(({ at }) => x(at)), x };
  // What is known already and not shown yet comes as the head gets there.
  within(ctx, layout, x(scene.head) + 1, () => {
    for (const lane of layout.lanes) {
      if (lane.kind === "voice") voice(picture, lane);
      if (lane.kind === "emotion") sounds(picture, lane);
      if (lane.kind === "dimensions") dimensions(picture, lane);
      if (lane.kind === "distress") distress(picture, lane);
    }
    abstentions(picture);
  });
  within(ctx, layout, layout.right, () => {
    for (const lane of layout.lanes) if (lane.kind === "escalations") escalations(picture, lane);
  });

  const read = scene.cursor === null ? series.at(Math.min(scene.head, scene.start + scene.span)) : series.at(scene.cursor);
  names(ctx, scene, read);
  values(ctx, scene, read);
  if (scene.cursor !== null) cursor(ctx, scene, x(scene.cursor), read);
}

/**
 * Draws nothing but where time is.
 * @param {CanvasRenderingContext2D} ctx
 * @param {import("./layout.js").Layout} layout
 * @param {number} until
 * @param {() => void} draw
 */
function within(ctx, { left, right, axis }, until, draw) {
  ctx.save();
  ctx.beginPath();
  ctx.rect(left, 0, Math.max(0, Math.min(right, until) - left), axis);
  ctx.clip();
  draw();
  ctx.restore();
}

/** The moments in sight, with one before; where they are closer than two pixels, not all. @param {Scene} scene @returns {Moment[]} */
function visible({ series, start, span, head, layout }) {
  const from = Math.max(0, series.index(start) - 1);
  const to = Math.min(series.moments.length, series.index(Math.min(start + span, head)) + 1);
  const apart = (span / (layout.right - layout.left)) * 2;
  /** @type {Moment[]} */
  const shown = [];
  for (let i = from; i < to; i++) {
    const moment = /** @type {Moment} */ (series.moments[i]);
    const last = shown.at(-1);
    if (last && moment.joins && moment.at - last.at < apart && i < to - 1) continue;
    shown.push(moment);
  }
  return shown;
}

/** @param {CanvasRenderingContext2D} ctx @param {Scene} scene @param {Scale} x */
function axis(ctx, { layout, start, span, head }, x) {
  const room = 64 * (layout.size / 12);
  const step = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600].find((s) => x(start + s) - x(start) >= room) ?? 7200;
  ctx.lineWidth = 1;
  ctx.textAlign = "center";
  const mid = layout.axis + 11 * (layout.size / 12);
  for (let t = Math.ceil(start / step) * step; t <= start + span + 1e-6; t += step) {
    const at = Math.round(x(t)) + 0.5;
    ctx.strokeStyle = colour("line");
    ctx.beginPath();
    ctx.moveTo(at, 0);
    ctx.lineTo(at, layout.axis + 4);
    ctx.stroke();
    ctx.fillStyle = colour("soft");
    ctx.fillText(clock(t), at, mid);
  }
  ctx.strokeStyle = colour("line");
  ctx.beginPath();
  for (const { kind, top, height } of layout.lanes) {
    if (kind === "escalations") continue;
    const y = Math.round(kind === "dimensions" ? top + height / 2 : top + height) + 0.5;
    ctx.moveTo(layout.left, y);
    ctx.lineTo(layout.right, y);
  }
  ctx.stroke();
  if (head > start && head <= start + span) {
    const at = Math.round(x(head)) - 0.5;
    ctx.strokeStyle = colour("soft");
    ctx.beginPath();
    ctx.moveTo(at, 0);
    ctx.lineTo(at, layout.axis);
    ctx.stroke();
  }
}

/** The lanes' names. @param {CanvasRenderingContext2D} ctx @param {Scene} scene @param {Moment | undefined} read */
function names(ctx, { layout, series }, read) {
  ctx.textAlign = "right";
  const at = layout.left - 8;
  for (const { kind, top, height, label } of layout.lanes) {
    const leads = kind === "emotion" && read !== undefined && !read.abstains && read.top === label;
    ctx.font = `${leads ? "bold " : ""}${layout.size}px system-ui, sans-serif`;
    ctx.fillStyle = leads ? colour("text") : colour("soft");
    if (kind === "emotion") ctx.fillText(series.labels[label] ?? "", at, top + height / 2 + 2);
    if (kind === "escalations") ctx.fillText("escalations", at, top + 11 * (layout.size / 12));
    if (kind === "voice") {
      ctx.fillText("utterances", at, top + height * 0.3);
      ctx.fillText("voice", at, top + height * 0.82);
    }
    if (kind === "distress") ctx.fillText("distress", at, top + height / 2);
    if (kind === "dimensions") {
      ctx.fillText("+1", at, top + 6);
      ctx.fillText("0", at, top + height / 2);
      ctx.fillText("\u22121", at, top + height - 6);
    }
  }
  ctx.font = `${layout.size}px system-ui, sans-serif`;
}

/**
 * What is read out, at the lanes' right ends.
 * @param {CanvasRenderingContext2D} ctx
 * @param {Scene} scene
 * @param {Moment | undefined} read
 */
function values(ctx, { layout }, read) {
  ctx.textAlign = "left";
  const at = layout.right + 6;
  for (const { kind, top, height, label } of layout.lanes) {
    if (kind === "emotion" && read?.scores) {
      const leads = read.top === label && !read.abstains;
      ctx.font = `${leads ? "bold " : ""}${layout.size}px system-ui, sans-serif`;
      ctx.fillStyle = leads ? colour("text") : colour("soft");
      ctx.fillText(percent(read.scores[label] ?? 0), at, top + height / 2 + 2);
    }
    ctx.font = `${layout.size}px system-ui, sans-serif`;
    ctx.fillStyle = colour("soft");
    if (kind === "voice" && read) ctx.fillText(percent(read.speech), at, top + height * 0.82);
    if (kind === "distress" && read && !Number.isNaN(read.distress)) ctx.fillText(percent(read.distress), at, top + height / 2);
    if (kind === "dimensions") {
      // Each name beside its line's end, but not over the other's.
      const y = (/** @type {number | undefined} */ v) => top + height / 2 - ((v === undefined || Number.isNaN(v) ? 0 : v) * height) / 2;
      const [v, a] = [y(read?.valence), y(read?.arousal)];
      const apart = layout.size * 1.15;
      const middle = Math.min(Math.max((v + a) / 2, top + apart / 2), top + height - apart / 2);
      const [low, high] =
        Math.abs(v - a) >= apart ? [v, a] : v <= a ? [middle - apart / 2, middle + apart / 2] : [middle + apart / 2, middle - apart / 2];
      ctx.fillStyle = colour("text");
      ctx.fillText("valence", at, low);
      ctx.fillStyle = colour("link");
      ctx.fillText("arousal", at, high);
    }
  }
}

/** @param {CanvasRenderingContext2D} ctx @param {Scene} scene @param {number} at @param {Moment | undefined} read */
function cursor(ctx, { layout, cursor, series }, at, read) {
  if (at < layout.left - 1 || at > layout.right + 1) return;
  ctx.strokeStyle = colour("text");
  ctx.lineWidth = 1;
  ctx.beginPath();
  ctx.moveTo(Math.round(at) + 0.5, 0);
  ctx.lineTo(Math.round(at) + 0.5, layout.axis + 2);
  ctx.stroke();
  if (read?.scores) {
    ctx.lineWidth = 2;
    for (const { kind, top, height, label } of layout.lanes) {
      if (kind !== "emotion") continue;
      ctx.fillStyle = colour(series.labels[label] ?? "neutral");
      ctx.strokeStyle = colour("card");
      ctx.beginPath();
      ctx.arc(at, top + height - (read.scores[label] ?? 0) * height, 4, 0, 7);
      ctx.stroke();
      ctx.fill();
    }
  }
  const text = clock(cursor ?? 0);
  const wide = ctx.measureText(text).width + 10;
  const left = Math.min(Math.max(at - wide / 2, 0), layout.right + 40 - wide);
  ctx.fillStyle = colour("text");
  ctx.fillRect(left, layout.axis + 2, wide, layout.size * 1.5);
  ctx.fillStyle = colour("card");
  ctx.textAlign = "center";
  ctx.fillText(text, left + wide / 2, layout.axis + 2 + layout.size * 0.78);
}
