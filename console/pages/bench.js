/** The bench: a policy's text, checked while it is written, and tried on a recording. */

import { call, sleep } from "../lib/api.js";
import { offer, offerModels } from "../lib/choices.js";
import { fill, h, say, the } from "../lib/dom.js";
import { Editor } from "../lib/editor.js";
import { analyze, chooser } from "../lib/recording.js";
import { courses, events, outcome, policyInWords } from "../lib/rehearsal.js";
import { timelines } from "../lib/result.js";
import { complain } from "../lib/shell.js";
import { clock, emotion, seconds } from "../lib/words.js";

/** Where the text outlives a reload. */
const DRAFT = "undertone.policy";
/** How long a text rests before it is checked by itself. */
const REST_MS = 600;
/** Time between two points of a recording's timeline. */
const INTERVAL = "0.500s";

const EXAMPLE = `schema: undertone.policy/v1
name: my-policy
version: "1"
description: Say here whom it is for, and what is done when it raises something.
rules:
  - name: upset
    title: Upset for a while
    severity: medium
    when:
      all:
        - level: {of: angry, over: 10s, on: 0.4, off: 0.25}
        - level: {of: arousal, over: 10s, on: 0.2, off: 0.1}
    dwell: 2s          # how long it must be so before anybody is told
    clear_after: 10s   # how long it must be over before that is taken back
    cooldown: 60s      # how long the rule then keeps quiet
    reason: Sounds angry ({{ angry | percent }}) for {{ seconds }} s.
`;

const editor = new Editor(the("text"), the("gutter"), () => {
  sessionStorage.setItem(DRAFT, editor.text);
  void checkWhenRested();
});
const picker = chooser("Recording", () => complain(the("trial-problem"), null));
the("choose").append(picker);

/** @type {any[]} */
let models = [];
/** What is under way. @type {{check: AbortController | null, trial: AbortController | null}} */
const under = { check: null, trial: null };
/** @type {ReturnType<typeof timelines> | null} */
let shown = null;

/** @param {any[]} known as ListModels gives them */
export function knowModels(known) {
  models = known;
  offerModels(the("model"), known);
}

/** @param {any[]} known as ListPolicies gives them */
export function knowPolicies(known) {
  offer(
    the("start"),
    known.map(({ name }) => ({ value: name, text: name })),
  );
  offer(
    the("tried"),
    known.map(({ name }) => ({ value: name, text: `This server's ${name}` })),
  );
}

/** @param {string} name @returns {Promise<string>} */
export async function textOf(name) {
  return (await call("EmotionService/GetPolicy", { name })).yaml;
}

/** Puts a text on the bench. @param {string} name one of the server's policies; "" for the example */
export async function take(name) {
  try {
    editor.text = name ? await textOf(name) : EXAMPLE;
  } catch (error) {
    return complain(the("checked"), error);
  }
  sessionStorage.setItem(DRAFT, editor.text);
  the("tried").value = "";
  the("bench").scrollIntoView();
  the("text").focus({ preventScroll: true });
  the("text").setSelectionRange(0, 0);
  await check();
}

async function checkWhenRested() {
  under.check?.abort();
  const mine = new AbortController();
  under.check = mine;
  await sleep(REST_MS, mine.signal);
  if (!mine.signal.aborted) await check();
}

async function check() {
  under.check?.abort();
  const mine = new AbortController();
  under.check = mine;
  if (!editor.text.trim()) {
    editor.mark([]);
    say(the("verdict"), "There is no text yet.");
    return fill(the("checked"));
  }
  try {
    const { policy, faults = [] } = await call("EmotionService/CheckPolicy", { yaml: editor.text }, { signal: mine.signal });
    editor.mark(faults.map((/** @type {any} */ { line }) => line));
    if (faults.length > 0) {
      say(
        the("verdict"),
        faults.length === 1 ? `Not a policy yet: line ${faults[0].line} is wrong.` : `Not a policy yet: ${faults.length} faults.`,
      );
      fill(the("checked"), h("ul", { class: "faults" }, faults.map(fault)));
    } else {
      say(the("verdict"), `A good policy: ${policy.name} ${policy.version}.`);
      fill(the("checked"), h("div", { class: "does" }, h("h3", null, "What it does"), policyInWords(policy)));
    }
  } catch (error) {
    if (mine.signal.aborted) return;
    say(the("verdict"), "");
    complain(the("checked"), error);
  }
}

/** @param {{line: number, column: number, message: string}} fault */
function fault({ line, column, message }) {
  return h(
    "li",
    null,
    h("button", { class: "quiet small", type: "button", onclick: () => editor.go(line, column) }, `Line ${line}, column ${column}`),
    h("pre", null, message),
  );
}

function download() {
  const url = URL.createObjectURL(new Blob([editor.text], { type: "application/yaml" }));
  const name = /^name:\s*["']?([a-z0-9-]+)/m.exec(editor.text)?.[1] ?? "policy";
  h("a", { href: url, download: `${name}.yaml` }).click();
  URL.revokeObjectURL(url);
}

async function tryOut() {
  const { file } = picker;
  if (!file) return complain(the("trial-problem"), new Error("Choose a recording first."));
  complain(the("trial-problem"), null);
  const mine = new AbortController();
  under.trial = mine;
  say(the("try"), "Cancel");
  say(the("trial-state"), "Sending, and waiting for the server ...");
  const named = the("tried").value;
  try {
    const options = {
      model: the("model").value,
      channelMode: the("channels").value,
      estimateInterval: INTERVAL,
      ...(named ? { policyName: named } : { policyYaml: editor.text }),
      conditionCourses: true,
    };
    const { answer, tookMs } = await analyze(file, options, mine.signal);
    say(
      the("trial-state"),
      `${clock(seconds(answer.audio))} of audio, tried within ${(tookMs / 1000).toFixed(1)} s with the way there and back.`,
    );
    showTrial(answer, file);
  } catch (error) {
    say(the("trial-state"), mine.signal.aborted ? "Cancelled." : "");
    if (!mine.signal.aborted) complain(the("trial-problem"), error);
  } finally {
    under.trial = null;
    say(the("try"), "Try it");
  }
}

/** @param {any} answer an AnalyzeAudioResponse @param {File} file */
function showTrial(answer, file) {
  shown?.close();
  const labels = models.find(({ name }) => name === answer.model)?.labels?.map(emotion) ?? null;
  const view = timelines(answer, labels, file);
  shown = view;
  fill(
    the("trial-result"),
    h("p", { class: "outcome" }, outcome(answer)),
    answer.budgetSpent &&
      h("p", { class: "warning" }, `Its budget was used up (${answer.policy.budget}): more would have been raised without it.`),
    h("p", { class: "note" }, "Nothing was raised, recorded or delivered."),
    events(answer, view.play),
    view.element,
    h("h3", null, "What each condition measured"),
    h(
      "p",
      { class: "note" },
      "The line is the condition's value over its window; it is broken where too little speech was heard. ",
      "Dashed: where it turns on. Dotted: where it turns off. Shaded: while the rule was in force.",
    ),
    courses(answer),
  );
}

editor.text = sessionStorage.getItem(DRAFT) ?? EXAMPLE;
the("check").addEventListener("click", () => void check());
the("take").addEventListener("click", () => void take(the("start").value));
the("download").addEventListener("click", download);
the("trial").addEventListener("submit", (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  if (under.trial) under.trial.abort();
  else void tryOut();
});
void check();
