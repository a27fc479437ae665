// A browser's microphone, or any other track of audio, as a source.

import { DataLossError, TimedOutError } from "./errors.js";
import type { Source } from "./sources.js";
import type { AudioFormat } from "./types.js";

/** A source that plays on until it is stopped. */
export interface LiveSource extends Source {
  /** No more audio: a stream of it ends, and comes to its summary. */
  stop(): void;
}

/** Seconds of a chunk. */
const CHUNK_S = 0.1;
/** Seconds of audio that wait to be taken at most: as long as a stream that broke off is tried to be gone on with. */
const MOST_WAITING_S = 60;
/** The highest rate that the server takes. */
const MOST_HZ = 48_000;
/** The longest wait for a browser's audio to start, in milliseconds. Without a device to play on some wait for ever. */
const START_MS = 10_000;

/** Runs in the audio thread: gathers samples of its first input's first channel, as 16-bit integers, and posts them. */
const PROCESSOR = `
registerProcessor("undertone", class extends AudioWorkletProcessor {
  constructor({ processorOptions }) {
    super();
    this.chunk = new Int16Array(processorOptions.samples);
    this.filled = 0;
  }
  process([[samples]]) {
    if (samples === undefined) return true;
    for (const sample of samples) {
      this.chunk[this.filled++] = Math.max(-32768, Math.min(32767, Math.round(sample * 32768)));
      if (this.filled === this.chunk.length) {
        this.port.postMessage(this.chunk.slice());
        this.filled = 0;
      }
    }
    return true;
  }
});`;

/**
 * The user's microphone, once they allow it; `constraints` choose and prepare it. Call it from a click: browsers play and
 * record nothing before.
 */
export async function microphone(constraints: MediaTrackConstraints = {}): Promise<LiveSource> {
  const media = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, ...constraints } });
  const release = () => {
    for (const track of media.getTracks()) {
      track.stop();
    }
  };
  try {
    return await fromMediaStream(media, release);
  } catch (error) {
    release();
    throw error;
  }
}

/** The audio of a `MediaStream`, such as the other side of a WebRTC call. `released` is called when it is not needed any more. */
export async function fromMediaStream(media: MediaStream, released: () => void = () => {}): Promise<LiveSource> {
  let context = new AudioContext();
  if (context.sampleRate > MOST_HZ) {
    await context.close();
    context = new AudioContext({ sampleRate: MOST_HZ });
  }
  try {
    return await record(media, context, released);
  } catch (error) {
    void context.close();
    throw error;
  }
}

async function record(media: MediaStream, context: AudioContext, released: () => void): Promise<LiveSource> {
  const module = URL.createObjectURL(new Blob([PROCESSOR], { type: "text/javascript" }));
  try {
    await context.audioWorklet.addModule(module);
  } finally {
    URL.revokeObjectURL(module);
  }
  await start(context);
  const samples = Math.round(context.sampleRate * CHUNK_S);
  const worklet = new AudioWorkletNode(context, "undertone", {
    numberOfOutputs: 0,
    channelCount: 1,
    channelCountMode: "explicit",
    processorOptions: { samples },
  });
  context.createMediaStreamSource(media).connect(worklet);
  const format: AudioFormat = { encoding: "linear16", sampleRateHz: context.sampleRate };
  const recording = new Recording(format, () => {
    void context.close();
    released();
  });
  worklet.port.onmessage = ({ data }: MessageEvent<Int16Array>) => recording.take(new Uint8Array(data.buffer));
  for (const track of media.getAudioTracks()) {
    track.addEventListener("ended", () => recording.stop());
  }
  return recording;
}

/** Waits until `context` runs. */
async function start(context: AudioContext): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      const remedy = "call it from a click, and see that the system has an output to play on";
      reject(new TimedOutError(`the browser's audio did not start within ${START_MS / 1000} s`, { remedy }));
    }, START_MS);
  });
  try {
    await Promise.race([context.resume(), late]);
  } finally {
    clearTimeout(timer);
  }
}

/** What was recorded and not taken yet. */
class Recording implements LiveSource {
  readonly format: AudioFormat;
  readonly #release: () => void;
  readonly #chunks: Uint8Array[] = [];
  #isOver = false;
  #hasLost = false;
  #wake = () => {};

  constructor(format: AudioFormat, release: () => void) {
    this.format = format;
    this.#release = release;
  }

  take(chunk: Uint8Array): void {
    if (this.#chunks.length * CHUNK_S >= MOST_WAITING_S) {
      this.#hasLost = true;
      this.stop();
    }
    if (!this.#isOver) {
      this.#chunks.push(chunk);
    }
    this.#wake();
  }

  stop(): void {
    if (!this.#isOver) {
      this.#isOver = true;
      this.#release();
    }
    this.#wake();
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    return {
      next: async () => {
        for (;;) {
          const value = this.#chunks.shift();
          if (value) {
            return { done: false, value };
          }
          if (this.#hasLost) {
            throw new DataLossError(`the microphone's audio was not taken for ${MOST_WAITING_S} s`);
          }
          if (this.#isOver) {
            return { done: true, value: undefined };
          }
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
        }
      },
      return: async () => {
        this.stop();
        return { done: true, value: undefined };
      },
    };
  }
}
