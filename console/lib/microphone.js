/** The microphone, as chunks of 16-bit mono. Nothing of it is kept. */

/** Seconds of a chunk: as short as a frame of estimates' wait is not felt, as long as frames of WebSocket are few. */
const CHUNK_S = 0.1;
/** The highest rate that the server takes. */
const MOST_HZ = 48_000;
/** The longest wait for a browser's audio to start, in milliseconds. Without a device to play on some wait for ever. */
const START_MS = 10_000;

/** Why there is no microphone, with the remedy. */
export class MicrophoneError extends Error {
  /** @param {string} message @param {unknown} [cause] */
  constructor(message, cause) {
    super(message, { cause });
    this.name = "MicrophoneError";
  }
}

/** What a browser's refusal means. @param {unknown} error @returns {MicrophoneError} */
function explain(error) {
  if (error instanceof MicrophoneError) return error;
  const name = error instanceof Error ? error.name : "";
  const message =
    {
      NotAllowedError:
        "The browser was not allowed to use the microphone. Allow it in the site's settings (next to the address), then start again.",
      NotFoundError: "No microphone was found. Plug one in, then start again.",
      OverconstrainedError: "The chosen microphone is gone. Choose another one.",
      NotReadableError: "The microphone cannot be opened: another program may be using it, or the system does not let the browser have it.",
      AbortError: "The microphone could not be started. Try again.",
    }[name] ?? `The microphone cannot be used: ${error instanceof Error ? error.message : error}`;
  return new MicrophoneError(message, error);
}

/** Waits until a context runs. @param {AudioContext} context @throws {MicrophoneError} if it does not start */
async function start(context) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const late = new Promise((_, reject) => {
    const why =
      "The browser has the microphone, but its audio does not start: it may lack something to play on. " +
      "Plug headphones in, or choose an output in the system's settings, then start again.";
    timer = setTimeout(() => reject(new MicrophoneError(why)), START_MS);
  });
  try {
    await Promise.race([context.resume(), late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Whether this page may ask for a microphone at all; else why not. @returns {MicrophoneError | null} */
export function obstacle() {
  if (!isSecureContext) {
    return new MicrophoneError(
      "Browsers give the microphone to secure pages only: open this page over https, or as http://localhost on the server's own machine.",
    );
  }
  if (!navigator.mediaDevices?.getUserMedia || typeof AudioWorkletNode === "undefined") {
    return new MicrophoneError("This browser has no microphone for pages. A current Chrome, Edge, Firefox or Safari has.");
  }
  return null;
}

/** The microphones that there are. Their names are empty until the person has allowed one. @returns {Promise<MediaDeviceInfo[]>} */
export async function microphones() {
  if (obstacle()) return [];
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices.filter(({ kind, deviceId }) => kind === "audioinput" && deviceId);
}

/**
 * @typedef {object} Chunk
 * @property {ArrayBuffer} samples 16-bit integers, mono
 * @property {number} peak the loudest of them, 0 to 1
 */

/** A microphone that is open. Chunks come to `heard`, from `begin` on. */
export class Microphone {
  #media;
  #context;
  #node;
  #closed = false;

  /** Why it ended by itself, is heard here; nothing after `close`. @type {(why: string) => void} */
  ended = () => {};

  /** @param {MediaStream} media @param {AudioContext} context @param {AudioWorkletNode} node */
  constructor(media, context, node) {
    this.#media = media;
    this.#context = context;
    this.#node = node;
    const [track] = media.getAudioTracks();
    track.addEventListener("ended", () => this.#end("The microphone is gone: it was unplugged, or taken away from this page."));
    // A telephone call on the same device does that. What would come behind the gap would pass for what came before it.
    context.addEventListener("statechange", () => {
      if (context.state === "running") return;
      this.#end("The system has paused the microphone, for a telephone call perhaps. Start again when it is over.");
    });
  }

  /**
   * Asks for a microphone. To be called from a click: browsers play and record nothing before.
   * @param {{device?: string, processed?: boolean}} [options] `processed`: the browser may suppress echo and noise and level the voice
   * @returns {Promise<Microphone>}
   * @throws {MicrophoneError}
   */
  static async open({ device = "", processed = false } = {}) {
    const missing = obstacle();
    if (missing) throw missing;
    let media;
    try {
      media = await navigator.mediaDevices.getUserMedia({
        audio: {
          channelCount: 1,
          echoCancellation: processed,
          noiseSuppression: processed,
          autoGainControl: processed,
          ...(device && { deviceId: { exact: device } }),
        },
      });
    } catch (error) {
      throw explain(error);
    }
    let context;
    try {
      // At its own rate: not every browser connects a microphone to a context of another one.
      context = new AudioContext();
      if (context.sampleRate > MOST_HZ) {
        await context.close();
        context = new AudioContext({ sampleRate: MOST_HZ });
      }
      await context.audioWorklet.addModule(new URL("../worklet.js", import.meta.url));
      await start(context);
      const node = new AudioWorkletNode(context, "undertone", {
        numberOfOutputs: 0,
        channelCount: 1,
        channelCountMode: "explicit",
        processorOptions: { samples: Math.round(context.sampleRate * CHUNK_S) },
      });
      context.createMediaStreamSource(media).connect(node);
      return new Microphone(media, context, node);
    } catch (error) {
      for (const track of media.getTracks()) track.stop();
      void context?.close().catch(() => {});
      throw explain(error);
    }
  }

  /** Samples per second. */
  get rate() {
    return this.#context.sampleRate;
  }

  /** What the system calls it. */
  get name() {
    return this.#media.getAudioTracks()[0]?.label ?? "";
  }

  /** @param {(chunk: Chunk) => void} heard */
  begin(heard) {
    this.#node.port.onmessage = ({ data }) => {
      if (!this.#closed) heard(data);
    };
  }

  /** Lets go of it: the browser's sign that it listens goes out. */
  close() {
    if (this.#closed) return;
    this.#closed = true;
    this.#node.port.onmessage = null;
    for (const track of this.#media.getTracks()) track.stop();
    void this.#context.close();
  }

  /** @param {string} why */
  #end(why) {
    if (this.#closed) return;
    this.close();
    this.ended(why);
  }
}
