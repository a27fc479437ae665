/**
 * One channel over time: emotions, valence and arousal, distress, voice, utterances and escalations over one axis in seconds of the
 * stream. It moves with what comes, or stands still where somebody looks. Its styles are in style.css.
 */

import { fill, h, say, set } from "./dom.js";
import { recoloured } from "./palette.js";
import { arrange, stack } from "./layout.js";
import { paint } from "./plot.js";
import { Readout } from "./readout.js";
import { describe, Series } from "./series.js";
import { tables } from "./tables.js";
import { clock, severity as severityWord } from "./words.js";

/** @typedef {import("./layout.js").Span} Span */

const SPANS = [5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600];
/** Rows that escalations have in any case: nothing moves when the first are raised. */
const ROWS = 2;
/** The shortest time between two pictures of what moves by itself. */
const BEAT_MS = 40;
/** Pixels that a pointer may stray before it drags. */
const STRAY = 4;
/** How far the newest may be ahead of what is shown to be run after, in seconds. */
const RUN_S = 3;

const still = matchMedia("(prefers-reduced-motion: reduce)");

export class Timeline {
  #series = new Series();
  /** @type {Map<string, Span>} */
  #spans = new Map();
  /** @type {Map<string, number>} */
  #rows = new Map();
  #count = ROWS;
  #live;
  #name;
  #span;
  #start = 0;
  #follow;
  /** What is known up to, and what is shown up to: the second goes after the first. */
  #newest = 0;
  #head = 0;
  /** @type {number | null} */
  #cursor = null;
  /** Whether the cursor was set to stay, and not by a pointer passing by. */
  #set = false;
  #frame = 0;
  #timer = 0;
  #moving = false;
  #dirty = true;
  #inSight = true;
  #drawn = { head: Number.NaN, at: 0, told: 0 };
  #ratio = 1;
  #layout = arrange(600, 8, ROWS, 12);
  /** @type {{x: number, start: number, moved: boolean} | null} */
  #drag = null;
  /** @type {() => void} */
  #close;

  /**
   * @param {{seconds?: number, live?: boolean, name?: string}} [options] `seconds`: how much is in sight at first. `live`: whether more
   *     is to come; otherwise it begins at its beginning. `name`: whom it shows, for those who do not see it.
   */
  constructor({ seconds = 60, live = true, name = "" } = {}) {
    this.#span = seconds;
    this.#live = live;
    this.#follow = live;
    this.#name = name;
    this.canvas = h("canvas", { role: "img", "aria-label": "Timeline" });
    this.slider = h("div", {
      class: "timeline-cursor",
      role: "slider",
      tabindex: 0,
      "aria-label": `Moment${name ? `, ${name}` : ""}`,
      "aria-valuemin": 0,
      "aria-valuemax": 0,
      "aria-valuenow": 0,
      "aria-valuetext": "nothing heard yet",
    });
    this.field = h("div", { class: "timeline-field" }, this.canvas, this.slider);
    const button = (/** @type {string} */ text, /** @type {string} */ label, /** @type {() => void} */ does) =>
      h("button", { type: "button", class: "quiet small", "aria-label": label, title: label, onclick: does }, text);
    this.shown = h("span", { class: "timeline-span" });
    this.further = button("\u2212", "Zoom out", () => this.#zoom(1));
    this.closer = button("+", "Zoom in", () => this.#zoom(-1));
    this.liveButton = h(
      "button",
      {
        type: "button",
        class: "quiet small live",
        "aria-pressed": "true",
        title: "Move with what is heard (End)",
        hidden: !live,
        onclick: () => this.#goLive(),
      },
      "Live",
    );
    this.readout = new Readout();
    this.table = h("div", { class: "wide tabled", tabindex: 0, role: "group", "aria-label": "Tables" });
    this.details = h("details", null, h("summary", null, "As a table"), this.table);
    this.details.addEventListener("toggle", () => this.#tabulate());
    this.element = h(
      "div",
      { class: "timeline" },
      h(
        "div",
        { class: "timeline-bar" },
        h("span", { class: "note grow" }, "Hatched: it abstains. Paler: nothing new was heard since. Valence is weakly known from voice."),
        h(
          "span",
          { class: "buttons" },
          button("\u2190", "Earlier", () => this.#scroll(-0.5)),
          button("\u2192", "Later", () => this.#scroll(0.5)),
          this.further,
          this.shown,
          this.closer,
          this.liveButton,
        ),
      ),
      this.field,
      this.readout.element,
      this.details,
    );
    this.#listen();
    const sizes = new ResizeObserver(([entry]) => entry && this.#resize(entry));
    try {
      sizes.observe(this.field, { box: "device-pixel-content-box" });
    } catch {
      sizes.observe(this.field);
    }
    const sight = new IntersectionObserver(([entry]) => {
      this.#inSight = entry?.isIntersecting ?? true;
      this.#touch();
    });
    sight.observe(this.field);
    const colours = recoloured(() => this.#touch());
    this.#close = () => {
      sizes.disconnect();
      sight.disconnect();
      colours();
      cancelAnimationFrame(this.#frame);
      clearTimeout(this.#timer);
    };
    this.#tell();
  }

  /** Whether it moves with the newest. */
  get follow() {
    return this.#follow;
  }

  set follow(on) {
    if (on === this.#follow) return;
    if (!on) this.#start = this.#view().start;
    this.#follow = on;
    this.#touch();
  }

  /**
   * The emotions of the lanes, as the model tells them apart. Without this they are those of the first estimate.
   * @param {string[]} words such as "sad"
   */
  labels(words) {
    this.#series.relabel(words);
    this.#arrange();
  }

  /** @param {any} estimate an Estimate of this channel; one that is not newer than the last is passed over */
  estimate(estimate) {
    const lanes = this.#series.labels;
    if (!this.#series.push(estimate)) return;
    if (lanes !== this.#series.labels) this.#arrange();
    this.now(this.#series.last);
  }

  /** @param {any} utterance an Utterance of this channel */
  utterance(utterance) {
    if (this.#series.speak(utterance)) this.#touch();
  }

  /** An escalation, or what became of it. @param {Partial<Span> & {id: string, start: number}} span */
  escalation({ id, start, end = null, severity = "", title = "", reason = "", acknowledged = false }) {
    this.#spans.set(id, { id, start, end, severity: severityWord(severity), title, reason, acknowledged });
    const { rows, count } = stack([...this.#spans.values()]);
    this.#rows = rows;
    if (Math.max(ROWS, count) !== this.#count) {
      this.#count = Math.max(ROWS, count);
      this.#arrange();
    }
    this.#touch();
  }

  /** How far the stream is, where no estimate says so. @param {number} seconds */
  now(seconds) {
    if (seconds <= this.#newest) return;
    // A whole history at once is not run through, and nothing moves for those who would rather not see it.
    this.#newest = Math.max(this.#newest, seconds);
    if (seconds - this.#head > Math.min(this.#span / 2, 15) || still.matches || !this.#live) {
      this.#head = this.#newest;
      this.#dirty = true;
    }
    this.#ask();
  }

  /** What has come all at once is not run through: a picture that lags behind its numbers contradicts them. */
  catchUp() {
    if (this.#newest - this.#head <= RUN_S) return;
    this.#head = this.#newest;
    this.#touch();
  }

  /** What is shown up to, in seconds. */
  get head() {
    return this.#head;
  }

  /** Shows all there is. */
  fit() {
    this.#follow = false;
    this.#start = this.#first();
    this.#span = Math.max(5, this.#newest - this.#start);
    this.#touch();
  }

  clear() {
    const { labels, certain } = this.#series;
    this.#series = new Series();
    if (certain) this.#series.relabel(labels);
    this.#spans.clear();
    this.#rows.clear();
    this.#count = ROWS;
    this.#newest = 0;
    this.#head = 0;
    this.#start = 0;
    this.#cursor = null;
    this.#set = false;
    this.#follow = this.#live;
    this.#drawn.told = 0;
    this.#arrange();
  }

  /** Points at a moment, while a recording is played for instance. @param {number} at in seconds */
  point(at) {
    if (this.#newest > 0) this.#choose(at);
  }

  /** Nothing more is to come. */
  ended() {
    this.#live = false;
    this.#head = this.#newest;
    this.liveButton.hidden = true;
    this.#touch();
  }

  /** It is not needed any more. */
  close() {
    this.#close();
  }

  /** Where the view may begin: at a whole second. */
  #first() {
    return Math.max(0, Math.floor(this.#series.first));
  }

  #view() {
    const first = this.#first();
    const start = this.#follow ? Math.max(first, this.#head - this.#span) : this.#start;
    return { start, span: this.#span };
  }

  #touch() {
    this.#dirty = true;
    this.#ask();
  }

  #ask() {
    // Out of sight once a second will do: for those who hear what it shows, and for paper.
    if (this.#frame || (!this.#inSight && performance.now() - this.#drawn.at < 1000)) return;
    this.#frame = requestAnimationFrame((time) => {
      this.#frame = 0;
      this.#step(time);
    });
  }

  /** @param {number} time in milliseconds */
  #step(time) {
    const behind = this.#newest - this.#head;
    const pace = behind > 4 ? behind * 2 : 1 + behind * 0.3;
    if (behind > 0) {
      const passed = this.#moving ? Math.min(2, Math.max(0, (time - this.#drawn.at) / 1000)) : 0.016;
      this.#head = Math.min(this.#newest, this.#head + passed * pace);
    }
    this.#drawn.at = time;
    this.#moving = this.#head < this.#newest;
    // As long as nothing has gone on by a pixel, the picture is the same.
    const perPixel = this.#span / ((this.#layout.right - this.#layout.left) * this.#ratio);
    if (this.#dirty || Math.abs(this.#head - this.#drawn.head) >= perPixel || !this.#moving) this.#paint(time);
    if (!this.#moving || this.#timer) return;
    // The next pixel is waited for. All timelines of a page wait for the same beats, so that they share their frames.
    const beat = Math.max(BEAT_MS, Math.floor(((perPixel / pace) * 1000) / BEAT_MS) * BEAT_MS);
    this.#timer = setTimeout(
      () => {
        this.#timer = 0;
        this.#ask();
      },
      beat - (performance.now() % beat),
    );
  }

  /** @param {number} time */
  #paint(time) {
    const ctx = this.canvas.getContext("2d");
    if (!ctx || this.canvas.width === 0) return;
    const { start, span } = this.#view();
    if (this.#cursor !== null && !this.#set) this.#cursor = this.#under;
    paint(ctx, {
      series: this.#series,
      spans: [...this.#spans.values()],
      rows: this.#rows,
      start,
      span,
      head: this.#head,
      cursor: this.#cursor,
      layout: this.#layout,
      ratio: this.#ratio,
    });
    this.#dirty = false;
    this.#drawn.head = this.#head;
    this.readout.show(this.#series, [...this.#spans.values()], this.#cursor);
    this.#tell();
    if (time - this.#drawn.told > 2000 || this.#drawn.told === 0) {
      this.#drawn.told = time;
      this.#title(start, span);
    }
  }

  /** Where a passing pointer is, in seconds. */
  get #under() {
    const { start, span } = this.#view();
    const at = start + ((this.#pointer - this.#layout.left) / (this.#layout.right - this.#layout.left)) * span;
    return Math.min(Math.max(at, start), Math.min(start + span, Math.max(this.#newest, start)));
  }

  #pointer = 0;

  /** @param {number} start @param {number} span */
  #title(start, span) {
    const newest = this.#series.moments.at(-1);
    const forces = [...this.#spans.values()].filter(({ end }) => end === null).map(({ severity, title }) => `${title} (${severity})`);
    const whose = `Timeline${this.#name ? ` of ${this.#name}` : ""}`;
    const until = clock(Math.min(start + span, this.#newest));
    const last = newest && `Last at ${clock(newest.at)}: ${describe(this.#series, newest)}.`;
    const raised = forces.length > 0 ? ` In force: ${forces.join(", ")}.` : "";
    const text = newest ? `${whose} from ${clock(start)} to ${until}. ${last}${raised}` : `${whose}: nothing heard yet`;
    set(this.canvas, { "aria-label": text });
  }

  /** How its controls stand. */
  #tell() {
    const text = this.#span < 120 ? `${Math.round(this.#span)} s` : `${Math.round(this.#span / 6) / 10} min`;
    say(this.shown, text);
    this.further.disabled = this.#span >= /** @type {number} */ (SPANS.at(-1));
    this.closer.disabled = this.#span <= /** @type {number} */ (SPANS[0]);
    const pressed = String(this.#follow);
    if (this.liveButton.getAttribute("aria-pressed") !== pressed) set(this.liveButton, { "aria-pressed": pressed });
  }

  /** What the slider says to those who hear it: told when they move it, not as the stream goes on. */
  #announce() {
    const at = this.#cursor ?? this.#newest;
    set(this.slider, {
      "aria-valuemin": this.#first(),
      "aria-valuemax": Math.ceil(this.#newest),
      "aria-valuenow": Math.round(at * 10) / 10,
      "aria-valuetext": `${clock(at)}: ${describe(this.#series, this.#series.at(at))}`,
    });
  }

  #arrange() {
    const size = Number.parseFloat(getComputedStyle(document.documentElement).fontSize) * 0.75;
    const width = this.field.clientWidth || 600;
    const emotions =
      this.#series.certain || this.#series.moments.length === 0 || this.#series.moments.some(({ scores }) => scores)
        ? this.#series.labels.length
        : 0;
    this.#layout = arrange(width, emotions, this.#count, size);
    this.canvas.style.height = `${this.#layout.height}px`;
    this.field.style.height = `${this.#layout.height}px`;
    this.#pixels();
    this.#touch();
  }

  #pixels() {
    const [width, height] = [this.wide ?? Math.round(this.field.clientWidth * this.#ratio), Math.round(this.#layout.height * this.#ratio)];
    if (this.canvas.width !== width) this.canvas.width = width;
    if (this.canvas.height !== height) this.canvas.height = height;
  }

  /** @type {number | undefined} its width in device pixels, where the browser says */
  wide;

  /** @param {ResizeObserverEntry} entry */
  #resize(entry) {
    this.#ratio = devicePixelRatio;
    // Emulated devices say it in CSS pixels.
    const wide = entry.devicePixelContentBoxSize?.[0]?.inlineSize;
    this.wide = wide && Math.abs(wide - this.field.clientWidth * this.#ratio) < 2 ? wide : undefined;
    this.#arrange();
    // Whoever resizes sees no empty canvas in between.
    this.#paint(this.#drawn.at);
  }

  #listen() {
    const field = this.field;
    const place = (/** @type {PointerEvent} */ event) => {
      this.#pointer = event.clientX - field.getBoundingClientRect().left;
    };
    field.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
      if (event.button !== 0) return;
      place(event);
      field.setPointerCapture(event.pointerId);
      this.#drag = { x: event.clientX, start: this.#view().start, moved: false };
    });
    field.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
      place(event);
      const drag = this.#drag;
      if (drag && (drag.moved || Math.abs(event.clientX - drag.x) > STRAY)) {
        drag.moved = true;
        field.classList.add("dragged");
        this.#look(drag.start - ((event.clientX - drag.x) / (this.#layout.right - this.#layout.left)) * this.#span);
        return;
      }
      if (event.pointerType === "touch") return;
      this.#set = false;
      this.#cursor = this.#newest > 0 ? this.#under : null;
      this.#touch();
    });
    const end = (/** @type {PointerEvent} */ event) => {
      const drag = this.#drag;
      this.#drag = null;
      field.classList.remove("dragged");
      if (!drag || drag.moved || event.type === "pointercancel" || this.#newest === 0) return;
      // A tap, or a click, chooses a moment to stay at.
      this.#cursor = this.#under;
      this.#set = true;
      this.follow = false;
      this.#announce();
      this.#touch();
    };
    field.addEventListener("pointerup", end);
    field.addEventListener("pointercancel", end);
    field.addEventListener("pointerleave", () => {
      if (this.#set) return;
      this.#cursor = null;
      this.#touch();
    });
    field.addEventListener(
      "wheel",
      (/** @type {WheelEvent} */ event) => {
        const across = event.shiftKey && event.deltaX === 0 ? event.deltaY : event.deltaX;
        if (Math.abs(across) <= Math.abs(event.shiftKey ? 0 : event.deltaY)) return;
        event.preventDefault();
        this.#look(this.#view().start + (across / (this.#layout.right - this.#layout.left)) * this.#span);
      },
      { passive: false },
    );
    this.slider.addEventListener("focus", () => this.#announce());
    this.slider.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.#key(event));
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const moments = this.#series.moments;
    switch (event.key) {
      case "ArrowLeft":
      case "ArrowDown":
      case "ArrowRight":
      case "ArrowUp": {
        const by = event.key === "ArrowLeft" || event.key === "ArrowDown" ? -1 : 1;
        if (event.shiftKey) this.#scroll(by * 0.25);
        else if (moments.length > 0) {
          const here = this.#cursor === null ? moments.length - 1 : Math.min(moments.length - 1, this.#series.index(this.#cursor) + by);
          this.#choose(/** @type {{at: number}} */ (moments[Math.max(0, here)]).at);
        }
        break;
      }
      case "PageUp":
      case "PageDown":
        this.#scroll(event.key === "PageUp" ? -0.5 : 0.5);
        break;
      case "Home":
        if (moments[0]) this.#choose(moments[0].at);
        break;
      case "End":
        if (this.#live) this.#goLive();
        else if (moments.length > 0) this.#choose(/** @type {{at: number}} */ (moments.at(-1)).at);
        break;
      case "+":
      case "=":
        this.#zoom(-1);
        break;
      case "-":
        this.#zoom(1);
        break;
      case "Escape":
        if (this.#cursor === null) return;
        this.#cursor = null;
        this.#set = false;
        this.#touch();
        break;
      default:
        return;
    }
    event.preventDefault();
    this.#announce();
  }

  /** The cursor stays there, and the view goes where it is. @param {number} at */
  #choose(at) {
    this.follow = false;
    this.#cursor = at;
    this.#set = true;
    const { start, span } = this.#view();
    if (at < start) this.#start = Math.max(this.#first(), at - span * 0.1);
    else if (at > start + span) this.#start = at - span * 0.9;
    this.#touch();
  }

  #goLive() {
    this.#cursor = null;
    this.#set = false;
    this.#follow = true;
    this.#head = this.#newest;
    this.#touch();
  }

  /** The view begins there, or as near as can be; at its end it follows again. @param {number} start */
  #look(start) {
    const first = this.#first();
    const last = Math.max(first, this.#newest - this.#span);
    const live = this.#live && start >= last;
    if (live) this.#head = this.#newest;
    this.#follow = live;
    this.#start = Math.min(Math.max(start, first), last);
    if (live) this.#set = false;
    this.#touch();
  }

  /** @param {number} part of what is in sight */
  #scroll(part) {
    this.#look(this.#view().start + part * this.#span);
  }

  /** @param {number} by steps: -1 is closer */
  #zoom(by) {
    const { start, span } = this.#view();
    const to = by < 0 ? SPANS.findLast((s) => s < span - 0.01) : SPANS.find((s) => s > span + 0.01);
    if (!to) return;
    this.#span = to;
    if (!this.#follow) {
      const at = this.#cursor !== null && this.#set ? this.#cursor : start + span / 2;
      const shift = (at - start) / span;
      this.#start = Math.min(Math.max(at - shift * to, this.#first()), Math.max(this.#first(), this.#newest - to));
    }
    this.#touch();
  }

  /** What is in sight, as tables: as it stands now, since a table that moves cannot be read. */
  #tabulate() {
    if (!this.details.open) {
      fill(this.table);
      return;
    }
    const { start, span } = this.#view();
    fill(
      this.table,
      h("button", { type: "button", class: "quiet small", onclick: () => this.#tabulate() }, "Bring up to date"),
      tables({ series: this.#series, spans: [...this.#spans.values()], start, span, newest: this.#newest }),
    );
  }
}
