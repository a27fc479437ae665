/** A recording as it is sent whole, and the field to choose one in. */

import { CallError, call } from "./api.js";
import { h, say } from "./dom.js";

/** What a file may be, in words. */
export const FORMATS = "WAV, FLAC, Ogg Vorbis, MP3, M4A (AAC, ALAC), AIFF or Matroska; not Opus";
/** What the dialogue for files offers: by ending, since systems disagree about types. */
const ACCEPT = ".wav,.flac,.ogg,.oga,.mp3,.m4a,.mp4,.aif,.aiff,.mkv,.mka,audio/*";
/** The server's default (`max_clip_bytes`). */
const USUAL_LIMIT = 32 * 1024 * 1024;

/** 1234567 -> "1.2 MiB". @param {number} bytes */
export function size(bytes) {
  return bytes < 1024 * 1024 ? `${Math.ceil(bytes / 1024)} KiB` : `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
}

/** @param {Blob} blob @returns {Promise<string>} */
async function base64(blob) {
  const reader = new FileReader();
  const read = new Promise((resolve, reject) => {
    reader.addEventListener("load", () => resolve(undefined));
    reader.addEventListener("error", () =>
      reject(new Error("The file cannot be read. Was it moved, or is it still being written?", { cause: reader.error })),
    );
  });
  reader.readAsDataURL(blob);
  await read;
  const url = /** @type {string} */ (reader.result);
  return url.slice(url.indexOf(",") + 1);
}

/**
 * Has the server analyse a recording. It keeps nothing of it.
 * @param {File} file
 * @param {object} options further fields of an AnalyzeAudioRequest
 * @param {AbortSignal} [signal]
 * @returns {Promise<{answer: any, tookMs: number}>} an AnalyzeAudioResponse, and how long it took with the way there and back
 * @throws {CallError}
 */
export async function analyze(file, options, signal) {
  if (file.size === 0) throw new Error(`${file.name} is empty.`);
  const content = await base64(file);
  const began = performance.now();
  try {
    const answer = await call(
      "EmotionService/AnalyzeAudio",
      { content, formatHint: file.name.split(".").pop() ?? "", ...options },
      { signal },
    );
    return { answer, tookMs: performance.now() - began };
  } catch (error) {
    // Some servers hang up on what is too large while it is still being sent: a browser then knows no more than that.
    if (error instanceof CallError && error.code === "unavailable" && file.size > USUAL_LIMIT) {
      const limit = `it has ${size(file.size)}, and servers take ${size(USUAL_LIMIT)} unless they are set otherwise`;
      throw new CallError(error.code, `${error.message}; perhaps because the file is too large: ${limit}`, error);
    }
    throw error;
  }
}

/**
 * A field to choose or drop a recording in. `chosen` is called with each file.
 * @param {string} label
 * @param {(file: File) => void} chosen
 * @returns {HTMLElement & {file: File | null}}
 */
export function chooser(label, chosen) {
  const input = h("input", { type: "file", accept: ACCEPT });
  const named = h("span", { class: "note", role: "status" });
  const zone = h(
    "div",
    { class: "drop" },
    h("label", null, label, input),
    h(
      "p",
      { class: "note" },
      `Or drop one here. ${FORMATS}; at most ${size(USUAL_LIMIT)} and an hour, unless this server is set otherwise.`,
    ),
    named,
  );
  zone.file = null;

  const take = (/** @type {File | undefined} */ file) => {
    if (!file) return;
    zone.file = file;
    say(named, `${file.name}, ${size(file.size)}`);
    chosen(file);
  };
  input.addEventListener("change", () => take(input.files[0]));
  zone.addEventListener("dragover", (/** @type {DragEvent} */ event) => {
    event.preventDefault();
    zone.classList.add("over");
  });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (/** @type {DragEvent} */ event) => {
    event.preventDefault();
    zone.classList.remove("over");
    take(event.dataTransfer?.files[0]);
  });
  return zone;
}
