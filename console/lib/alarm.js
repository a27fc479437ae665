/** Tells of an escalation aloud or beside the page, for those who have asked for it. Off until they have. */

import { h } from "./dom.js";
import { severity } from "./words.js";

const SOUND = "undertone.sound";
const NOTICE = "undertone.notice";

/** @type {AudioContext | undefined} */
let audio;

/** Browsers let a page sound only when somebody has done something on it. */
function wake() {
  audio ??= new AudioContext();
  audio.resume().catch(() => {});
}

/** Two short tones, the second higher where it is urgent. @param {boolean} urgent */
function sound(urgent) {
  if (audio?.state !== "running") return;
  [660, urgent ? 990 : 660].forEach((hz, i) => {
    const context = /** @type {AudioContext} */ (audio);
    const [tone, gain] = [context.createOscillator(), context.createGain()];
    const at = context.currentTime + i * 0.18;
    tone.frequency.value = hz;
    gain.gain.setValueAtTime(0.0001, at);
    gain.gain.exponentialRampToValueAtTime(0.25, at + 0.02);
    gain.gain.exponentialRampToValueAtTime(0.0001, at + 0.15);
    tone.connect(gain).connect(context.destination);
    tone.start(at);
    tone.stop(at + 0.16);
  });
}

/** The two choices, for a page to show. @returns {any} */
export function alarmChoices() {
  const choice = (/** @type {string} */ key, /** @type {string} */ text, /** @type {(box: any) => void} */ on) => {
    const box = h("input", { type: "checkbox", checked: localStorage.getItem(key) === "on" });
    box.addEventListener("change", () => {
      localStorage.setItem(key, box.checked ? "on" : "off");
      if (box.checked) on(box);
    });
    return h("label", { class: "check" }, box, ` ${text}`);
  };
  if (localStorage.getItem(SOUND) === "on") addEventListener("pointerdown", wake, { once: true });
  const notices =
    "Notification" in window &&
    choice(NOTICE, "Notification", async (box) => {
      if ((await Notification.requestPermission()) === "granted") return;
      box.checked = false;
      localStorage.setItem(NOTICE, "off");
    });
  const sounds = choice(SOUND, "Sound", () => {
    wake();
    setTimeout(() => sound(false), 100);
  });
  return h("fieldset", { class: "choices" }, h("legend", null, "Tell me of new ones by"), sounds, notices);
}

/** @param {any} escalation one that has just been raised */
export function alarm(escalation) {
  if (localStorage.getItem(SOUND) === "on") sound(["high", "medium"].includes(severity(escalation.severity)));
  if (localStorage.getItem(NOTICE) === "on" && document.hidden && "Notification" in window && Notification.permission === "granted") {
    try {
      // Neither reason nor labels: a notification may be read by whoever passes the screen.
      new Notification(`${escalation.title} (${severity(escalation.severity)})`, {
        body: `Session ${escalation.sessionId}`,
        tag: escalation.id,
      });
    } catch {
      // Phones want a service worker for it. The page says it anyway.
    }
  }
}
