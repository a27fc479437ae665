/** The microphone, live: asked for, sent, and what comes back. */

import { EmotionStream } from "../lib/api.js";
import { offer } from "../lib/choices.js";
import { fill, h, say, the } from "../lib/dom.js";
import { Now } from "../lib/gauge.js";
import { Microphone, microphones, obstacle } from "../lib/microphone.js";
import { summary, utterances } from "../lib/result.js";
import { complain, name } from "../lib/shell.js";
import { Timeline } from "../lib/timeline.js";
import { Told } from "../lib/told.js";
import { clock, emotion, seconds } from "../lib/words.js";

/** Audio that waits to be sent at most, in seconds: what comes later than that is not live any more. */
const MOST_BEHIND_S = 5;

/**
 * One stream, from the wish to listen to its summary.
 * @typedef {object} Run
 * @property {Microphone | null} microphone `null` until the person has allowed it
 * @property {EmotionStream | null} stream
 * @property {boolean} started the server has agreed
 * @property {boolean} ending no more audio is sent
 * @property {Error | null} why what ended it, if not the person
 */
/** @type {Run | null} */
let running = null;

/** What one stream is shown on. */
class Sheet {
  constructor() {
    this.now = new Now();
    this.timeline = new Timeline({ seconds: 30, name: "the microphone" });
    this.spoken = utterances({ several: false });
    this.told = new Told(this.timeline, (acknowledge) => {
      if (!running?.stream || running.ending) return false;
      running.stream.acknowledge(acknowledge);
      return true;
    });
    this.summary = h("div", null);
    fill(
      the("live"),
      h("div", { id: "now" }, this.now.element),
      this.timeline.element,
      this.told.element,
      this.summary,
      this.spoken.element,
    );
    the("live").hidden = false;
  }
}
/** @type {Sheet | null} */
let before = null;

/** @param {Sheet} sheet @param {any} finished */
function sumUp({ timeline, summary: place }, finished) {
  timeline.ended();
  const why = finished.reason === "FINISH_REASON_DRAINING" ? "The server is ending and has finished the stream. " : "";
  fill(
    place,
    h("p", null, `${why}${clock(seconds(finished.audio))} heard, ${finished.estimates} estimates.`),
    summary(finished.channels ?? []),
  );
}

/** What the server says, to the end. @param {EmotionStream} stream @param {Sheet} sheet @param {() => void} started */
async function hear(stream, sheet, started) {
  const { now, timeline, spoken, told } = sheet;
  for await (const said of stream.events) {
    if (said.started) {
      const policy = said.started.policy?.name;
      timeline.labels((said.started.model?.labels ?? []).map(emotion));
      say(the("state"), policy ? `Listening. Its policy: ${policy}.` : "Listening. No policy: nothing is raised.");
      started();
    } else if (said.estimate) {
      timeline.estimate(said.estimate);
      now.estimate(said.estimate);
    } else if (said.utterance) {
      timeline.utterance(said.utterance);
      spoken.add(said.utterance);
    } else if (said.escalation) {
      told.escalation(said.escalation);
    } else if (said.warning) {
      told.warning(said.warning);
    } else if (said.draining) {
      say(the("state"), "The server is ending. What was heard is still analysed.");
    } else if (said.finished) {
      sumUp(sheet, said.finished);
    }
  }
}

/** @param {boolean} on */
function controls(on) {
  say(the("listen"), on ? "Stop" : "Start listening");
  for (const id of ["device", "model", "policy", "processed", "consent"]) the(id).disabled = on;
  the("level").hidden = !on;
  the("level").value = 0;
  document.title = on ? "\u25CF Listening - Undertone" : "Try it - Undertone";
}

/** @param {number} rate @returns {object} a StreamConfig */
function config(rate) {
  return {
    audio: { encoding: "AUDIO_ENCODING_LINEAR16", sampleRateHz: rate, channelCount: 1 },
    model: the("model").value,
    // Those who watch see that nobody has called.
    labels: { purpose: "tried out in the console", ...(name() && { by: name() }) },
    // Not the server's default: whoever tries a microphone wants nobody called who did not say so.
    ...(the("policy").value ? { policyName: the("policy").value } : { noPolicy: true }),
  };
}

/** @param {Run} run @param {string} why */
function breakOff(run, why) {
  run.why ??= new Error(why);
  stop(run);
}

async function listen() {
  /** @type {Run} */
  const run = { microphone: null, stream: null, started: false, ending: false, why: null };
  running = run;
  complain(the("microphone-problem"), null);
  controls(true);
  say(the("state"), "Waiting for the microphone: the browser may be asking you.");
  try {
    const microphone = await Microphone.open({ device: the("device").value, processed: the("processed").checked });
    run.microphone = microphone;
    // They may have thought better of it while the browser asked.
    if (run.ending) return;
    void offerDevices();
    before?.timeline.close();
    const sheet = new Sheet();
    before = sheet;
    say(the("state"), "Connecting ...");
    const stream = new EmotionStream(config(microphone.rate));
    run.stream = stream;
    microphone.ended = (why) => breakOff(run, why);
    await hear(stream, sheet, () => {
      run.started = true;
      microphone.begin(({ samples, peak }) => {
        the("level").value = peak;
        stream.audio(samples);
        if (stream.behind > MOST_BEHIND_S * microphone.rate * 2)
          breakOff(run, `The connection is too slow: ${MOST_BEHIND_S} s of audio were waiting to be sent.`);
      });
    });
  } catch (error) {
    // Whoever gives up on a server that does not answer is told nothing that they do not know.
    if (run.started || !run.ending) run.why ??= error instanceof Error ? error : new Error(String(error));
  } finally {
    run.microphone?.close();
    run.stream?.close();
    running = null;
    controls(false);
    say(the("state"), run.microphone ? "Stopped. The microphone is off." : "");
    complain(the("microphone-problem"), run.why);
  }
}

/** No more audio. The rest is analysed, and the summary comes. @param {Run} run */
function stop(run) {
  // Whoever does not want to wait for that need not; and there is none of a stream that has not begun.
  if (run.ending || !run.started) run.stream?.close();
  run.ending = true;
  run.microphone?.close();
  run.stream?.end();
  the("level").value = 0;
  say(the("state"), "Stopping ...");
}

/** @param {any[]} known as ListPolicies gives them */
export function offerPolicies(known) {
  offer(
    the("policy"),
    known.map(({ name, isDefault }) => ({ value: name, text: isDefault ? `${name} (the server's default)` : name })),
  );
  notePolicy();
}

function notePolicy() {
  const chosen = the("policy").value;
  the("policy-note").classList.toggle("warning", Boolean(chosen));
  const bench = h("a", { href: "policies.html#bench" }, "test bench");
  if (!chosen) return fill(the("policy-note"), "Without a policy nothing is raised. To rehearse one, take a recording to the ", bench, ".");
  fill(
    the("policy-note"),
    h("strong", null, "What it raises here is real"),
    ": it is recorded, and delivered to whomever this server tells. To rehearse it without that, take a recording to the ",
    bench,
    ".",
  );
}

async function offerDevices() {
  const found = (await microphones()).filter(({ label }) => label);
  offer(
    the("device"),
    found.map(({ deviceId, label }) => ({ value: deviceId, text: label })),
  );
}

the("microphone").addEventListener("submit", (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  if (running) stop(running);
  else void listen();
});
the("policy").addEventListener("change", notePolicy);
say(the("server"), `this server (${location.host})`);
// Whoever goes away is not listened to any longer.
addEventListener("pagehide", () => {
  running?.microphone?.close();
  running?.stream?.close();
});
const missing = obstacle();
if (missing) complain(the("microphone-problem"), missing);
else {
  navigator.mediaDevices.addEventListener("devicechange", () => void offerDevices());
  void offerDevices();
}
