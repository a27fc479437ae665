/** The protocol's values in words and numbers for people. */

/** Emotions as the protocol names them, in its order. */
export const EMOTIONS = ["neutral", "calm", "happy", "sad", "angry", "fear", "disgust", "surprise"];

/** "EMOTION_SAD" -> "sad"; "" for what is not set. @param {string} value */
export function emotion(value) {
  return word(value, "EMOTION_");
}

/** "SEVERITY_HIGH" -> "high"; "" for what is not set. @param {string} value */
export function severity(value) {
  return word(value, "SEVERITY_");
}

/** From 0 (none) to 4 (high). @param {string} value */
export function rank(value) {
  return ["", "advisory", "low", "medium", "high"].indexOf(severity(value));
}

/** "ESCALATION_STATE_RAISED" -> "raised". @param {string} value */
export function state(value) {
  return word(value, "ESCALATION_STATE_");
}

/** "ESCALATION_EVENT_KIND_RAISED" -> "raised". @param {string} value */
export function kind(value) {
  return word(value, "ESCALATION_EVENT_KIND_");
}

/** Why an estimate abstains, in words. @param {string} value */
export function abstains(value) {
  return (
    {
      ABSTAIN_REASON_TOO_LITTLE_SPEECH: "too little speech yet",
      ABSTAIN_REASON_UNSURE: "unsure",
      ABSTAIN_REASON_NO_EVIDENCE: "nothing to judge yet",
    }[value] ?? ""
  );
}

/** @param {string} value @param {string} prefix */
export function word(value, prefix) {
  const rest = value?.startsWith(prefix) ? value.slice(prefix.length) : (value ?? "");
  return rest === "UNSPECIFIED" ? "" : rest.toLowerCase().replaceAll("_", " ");
}

/** "1.500s" -> 1.5; 0 for what is not set. @param {string | null | undefined} duration */
export function seconds(duration) {
  return duration ? Number.parseFloat(duration) : 0;
}

/** 83.2 -> "1:23". @param {number} s */
export function clock(s) {
  const whole = Math.max(0, Math.floor(s));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (/** @type {number} */ n) => String(n).padStart(2, "0");
  return hours > 0 ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/** 0.714 -> "71 %". @param {number} share */
export function percent(share) {
  return `${Math.round(share * 100)} %`;
}

/** -0.25 -> "−0.25", 0.25 -> "+0.25". @param {number} value */
export function signed(value) {
  return `${value < 0 ? "\u2212" : "+"}${Math.abs(value).toFixed(2)}`;
}

/** Made once: it costs more than a thousand uses. */
const LOCAL = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** A time of the protocol in the reader's own time zone. @param {string | null | undefined} time */
export function moment(time) {
  return time ? LOCAL.format(new Date(time)) : "";
}

/** How long ago, roughly. @param {string | null | undefined} time */
export function ago(time) {
  if (!time) return "";
  const s = Math.max(0, (Date.now() - new Date(time).getTime()) / 1000);
  if (s < 60) return `${Math.floor(s)} s ago`;
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  if (s < 48 * 3600) return `${Math.floor(s / 3600)} h ago`;
  return `${Math.floor(s / 86_400)} days ago`;
}

/** Labels as one text. @param {Record<string, string> | undefined} labels */
export function labels(labels) {
  return Object.entries(labels ?? {}).map(([name, value]) => `${name}: ${value}`).join(", ");
}
