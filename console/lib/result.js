/** What a recording sounded like, as the server has analysed it: timelines, the whole in words, utterances. */

import { h, say } from "./dom.js";
import { Timeline } from "./timeline.js";
import { abstains, clock, emotion, percent, seconds, signed } from "./words.js";

/** A recording longer than this is looked at piece by piece; the timeline scrolls. */
const MOST_SECONDS_AT_ONCE = 120;

/**
 * How something sounds, in words: an estimate, an utterance, or a channel's summary.
 * @param {{affect?: any, abstains?: boolean, abstainReason?: string} | undefined} judged
 * @returns {{sounds: string, sure: string, known: boolean}} `sounds` such as "angry"; `sure` such as "62 % confident", or why nothing
 *     is known; `known`: whether it may be relied on as far as that goes
 */
export function verdict(judged) {
  const top = judged?.affect ? emotion(judged.affect.top) : "";
  if (!judged || judged.abstains || !judged.affect) {
    const why = abstains(judged?.abstainReason ?? "") || "nothing to judge yet";
    return {
      sounds: "No estimate",
      sure: top && judged?.abstainReason === "ABSTAIN_REASON_UNSURE" ? `${why}: ${top} at most, ${percent(judged.affect.confidence)}` : why,
      known: false,
    };
  }
  if (!top) return { sounds: "No emotions", sure: "this model knows valence and arousal alone", known: true };
  return { sounds: top, sure: `${percent(judged.affect.confidence)} confident`, known: true };
}

/**
 * Where each escalation of a rehearsal begins and ends, for the timeline.
 * @param {any} answer an AnalyzeAudioResponse
 * @returns {(import("./layout.js").Span & {channel: number, rule: string, end: number})[]}
 */
export function spans(answer) {
  const audio = seconds(answer.audio);
  const open = new Map();
  for (const { at, kind, escalation } of answer.escalations ?? []) {
    const { channel = 0, rule, severity, title, reason, onset } = escalation;
    // Without a session there is no id: of one rule on one channel only one is in force at a time, and each has its own onset.
    const id = `${channel}/${rule}/${onset}`;
    const end = kind === "ESCALATION_EVENT_KIND_CLEARED" ? seconds(at) : audio;
    open.set(id, { channel, id, rule, start: seconds(onset), end, severity, title, reason, acknowledged: false });
  }
  return [...open.values()];
}

/**
 * A recording's timelines, one per channel, with a player above them.
 * @param {any} answer an AnalyzeAudioResponse with `estimates`
 * @param {string[] | null} labels the model's emotions, if known
 * @param {File} file
 * @returns {{element: HTMLElement, play: (at: number) => void, close: () => void}} `close` forgets the recording
 */
export function timelines(answer, labels, file) {
  const audio = seconds(answer.audio);
  const channels = answer.channels.map((/** @type {any} */ { channel }) => channel ?? 0);
  const name = (/** @type {number} */ channel) => (channels.length > 1 ? `channel ${channel}` : "");
  const sight = Math.min(MOST_SECONDS_AT_ONCE, Math.max(5, audio));
  const lines = new Map(
    channels.map((/** @type {number} */ channel) => [channel, new Timeline({ seconds: sight, live: false, name: name(channel) })]),
  );
  for (const line of lines.values()) {
    if (labels) line.labels(labels);
    line.now(audio);
  }
  for (const estimate of answer.estimates ?? []) lines.get(estimate.channel ?? 0)?.estimate(estimate);
  for (const utterance of answer.utterances ?? []) lines.get(utterance.channel ?? 0)?.utterance(utterance);
  for (const span of spans(answer)) lines.get(span.channel)?.escalation(span);

  const url = URL.createObjectURL(file);
  const player = h("audio", { controls: true, src: url, preload: "metadata", "aria-label": `Play ${file.name}` });
  const silent = h(
    "p",
    { class: "note", hidden: true },
    "This browser cannot play this format. What was heard in it is below all the same.",
  );
  player.addEventListener("timeupdate", () => {
    for (const line of lines.values()) line.point(player.currentTime);
  });
  player.addEventListener("error", () => {
    player.hidden = true;
    silent.hidden = false;
  });
  const element = h(
    "div",
    null,
    h("div", { class: "player" }, player, silent),
    [...lines].map(([channel, line]) =>
      h("div", { class: "channel" }, lines.size > 1 && h("h3", null, `Channel ${channel}`), line.element),
    ),
  );
  return {
    element,
    play(at) {
      player.currentTime = at;
      void player.play().catch(() => {});
    },
    close() {
      for (const line of lines.values()) line.close();
      player.removeAttribute("src");
      URL.revokeObjectURL(url);
    },
  };
}

/**
 * The whole of each channel.
 * @param {{channel?: number, speech: string, utterances: number, affect?: any, clippedSamples?: string}[]} channels ChannelSummaries
 * @returns {HTMLElement}
 */
export function summary(channels) {
  const several = channels.length > 1;
  return h(
    "div",
    { class: "wide", tabindex: 0, role: "group", "aria-label": "The whole" },
    h(
      "table",
      null,
      h("caption", null, several ? "Each channel as a whole" : "The whole"),
      h(
        "thead",
        null,
        h(
          "tr",
          null,
          several && h("th", { scope: "col" }, "Channel"),
          h("th", { scope: "col" }, "Sounds mostly"),
          numbers("Speech", "Utterances", "Valence", "Arousal", "Distress", "Overdriven"),
        ),
      ),
      h(
        "tbody",
        null,
        channels.map((channel) => {
          const { affect } = channel;
          const { sounds, sure } = verdict({ affect, abstains: !affect });
          return h(
            "tr",
            null,
            several && h("th", { scope: "row" }, channel.channel ?? 0),
            h("td", null, h("strong", null, sounds), " ", h("span", { class: "soft" }, sure)),
            cells(
              `${seconds(channel.speech).toFixed(1)} s`,
              String(channel.utterances ?? 0),
              affect ? signed(affect.valence) : "",
              affect ? signed(affect.arousal) : "",
              affect ? percent(affect.distress) : "",
              Number(channel.clippedSamples ?? 0) > 0 ? `${channel.clippedSamples} samples` : "no",
            ),
          );
        }),
      ),
    ),
  );
}

/**
 * A table of utterances to which more can be added while it is read.
 * @param {{several: boolean, play?: (at: number) => void}} options `play`: hears one again
 */
export function utterances({ several, play }) {
  const rows = h("tbody", null);
  const none = h("p", { class: "empty" }, "None so far. One ends with the pause behind it.");
  const table = h(
    "table",
    null,
    h("caption", null, "Utterances"),
    h(
      "thead",
      null,
      h(
        "tr",
        null,
        h("th", { scope: "col" }, "From, to"),
        several && h("th", { scope: "col" }, "Channel"),
        h("th", { scope: "col" }, "Sounds"),
        numbers("Speech", "Valence", "Arousal", "Distress"),
      ),
    ),
    rows,
  );
  const wide = h("div", { class: "wide", hidden: true, tabindex: 0, role: "group", "aria-label": "Utterances" }, table);
  return {
    element: h("div", null, none, wide),
    /** @param {any} utterance */
    add(utterance) {
      none.hidden = true;
      wide.hidden = false;
      const [start, end] = [seconds(utterance.start), seconds(utterance.end)];
      const { sounds, sure, known } = verdict(utterance);
      const { affect } = utterance;
      const span = `${clock(start)} to ${clock(end)}`;
      rows.append(
        h(
          "tr",
          { class: known ? "" : "unknown" },
          h(
            "th",
            { scope: "row", class: "time" },
            play
              ? h(
                  "button",
                  { class: "quiet small", type: "button", onclick: () => play(start) },
                  h("span", { "aria-hidden": "true" }, "\u25B6 "),
                  h("span", { class: "unseen" }, "Play "),
                  span,
                )
              : span,
          ),
          several && h("td", null, utterance.channel ?? 0),
          h("td", null, known ? h("strong", null, sounds) : sounds, " ", h("span", { class: "soft" }, sure)),
          cells(
            `${seconds(utterance.speech).toFixed(1)} s`,
            affect ? signed(affect.valence) : "",
            affect ? signed(affect.arousal) : "",
            affect ? percent(affect.distress) : "",
          ),
        ),
      );
    },
    /** @param {string} text what stands there as long as there are none */
    none(text) {
      say(none, text);
    },
  };
}

/** @param {...string} names */
function numbers(...names) {
  return names.map((name) => h("th", { scope: "col", class: "number" }, name));
}

/** @param {...string} values */
function cells(...values) {
  return values.map((value) => h("td", { class: "number" }, value));
}
