/** A recording, analysed whole. */

import { emotion, clock, seconds } from "../lib/words.js";
import { fill, h, say, the } from "../lib/dom.js";
import { analyze, chooser } from "../lib/recording.js";
import { summary, timelines, utterances } from "../lib/result.js";
import { complain } from "../lib/shell.js";

/** Time between two points of the timeline. */
const INTERVAL = "0.500s";

const picker = chooser("Recording", () => complain(the("file-problem"), null));
the("choose").append(picker);

/** @type {any[]} */
let models = [];
/** @type {ReturnType<typeof timelines> | null} */
let shown = null;
/** @type {AbortController | null} */
let analysing = null;

/** @param {any[]} known as ListModels gives them */
export function knowModels(known) {
  models = known;
}

async function analyse() {
  const { file } = picker;
  if (!file) return complain(the("file-problem"), new Error("Choose a recording first."));
  complain(the("file-problem"), null);
  analysing = new AbortController();
  say(the("analyse"), "Cancel");
  say(the("file-state"), "Sending, and waiting for the server ...");
  try {
    const options = { model: the("file-model").value, channelMode: the("channels").value, estimateInterval: INTERVAL };
    const { answer, tookMs } = await analyze(file, options, analysing.signal);
    const took = `${(tookMs / 1000).toFixed(1)} s with the way there and back`;
    say(the("file-state"), `${clock(seconds(answer.audio))} of audio, analysed by ${answer.model} within ${took}.`);
    show(answer, file);
  } catch (error) {
    const cancelled = analysing.signal.aborted;
    say(the("file-state"), cancelled ? "Cancelled." : "");
    if (!cancelled) complain(the("file-problem"), error);
  } finally {
    analysing = null;
    say(the("analyse"), "Analyse");
  }
}

/** @param {any} answer an AnalyzeAudioResponse @param {File} file */
function show(answer, file) {
  shown?.close();
  const labels = models.find(({ name }) => name === answer.model)?.labels?.map(emotion) ?? null;
  const channels = answer.channels ?? [];
  const view = timelines(answer, labels, file);
  shown = view;
  const table = utterances({ several: channels.length > 1, play: view.play });
  table.none("Nobody was heard speaking.");
  for (const utterance of answer.utterances ?? []) table.add(utterance);
  fill(
    the("file-result"),
    h("h3", null, file.name),
    answer.undecodablePackets > 0 &&
      h("p", { class: "warning" }, `${answer.undecodablePackets} packets of the file could not be decoded and were passed over.`),
    view.element,
    summary(channels),
    table.element,
  );
}

the("recording").addEventListener("submit", (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  if (analysing) analysing.abort();
  else void analyse();
});
