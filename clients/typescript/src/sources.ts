// Where audio comes from.

import { DataLossError, InvalidRequestError } from "./errors.js";
import type { AudioFormat, Encoding } from "./types.js";

/** Audio as it comes, in chunks of any size. */
export interface Source extends AsyncIterable<Uint8Array> {
  readonly format: AudioFormat;
}

/** How audio that lies there is read. */
export interface ReadOptions {
  /** Seconds of a chunk; 0.1 if not given. */
  chunk?: number;
  /** Whether a chunk comes when its last sample would have sounded, as from a microphone; false if not given. */
  realtime?: boolean;
}

/** Any iterable of raw samples, such as `process.stdin`. */
export function fromIterable(iterable: AsyncIterable<Uint8Array> | Iterable<Uint8Array>, format: AudioFormat): Source {
  return {
    format,
    async *[Symbol.asyncIterator]() {
      yield* iterable;
    },
  };
}

/** Raw samples in memory. */
export function fromBytes(data: Uint8Array, format: AudioFormat, options: ReadOptions = {}): Source {
  return read(async (start, end) => data.subarray(start, end), 0, data.length, format, options);
}

/** Gives the bytes from `start` to `end` of something; fewer where it is shorter. */
type ReadAt = (start: number, end: number) => Promise<Uint8Array>;

/** A wav file: its bytes, or a `Blob` such as a page's `File`. 16-bit, 32-bit float, A-law and mu-law. */
export function fromWav(wav: Uint8Array | Blob, options: ReadOptions = {}): Promise<Source> {
  return readWav(
    wav instanceof Uint8Array
      ? async (start, end) => wav.subarray(start, end)
      : async (start, end) => new Uint8Array(await wav.slice(start, end).arrayBuffer()),
    options,
  );
}

const SAMPLE_BYTES: Record<Encoding, number> = { linear16: 2, float32: 4, mulaw: 1, alaw: 1 };

function read(readAt: ReadAt, from: number, to: number, format: AudioFormat, options: ReadOptions): Source {
  const frameBytes = SAMPLE_BYTES[format.encoding] * (format.channelCount ?? 1);
  const { chunk = 0.1, realtime = false } = options;
  if (!(chunk > 0)) {
    throw InvalidRequestError.ofField("chunk", `is ${chunk}; give seconds, such as 0.1`);
  }
  const step = Math.max(1, Math.round(chunk * format.sampleRateHz)) * frameBytes;
  return {
    format,
    async *[Symbol.asyncIterator]() {
      const began = performance.now();
      for (let start = from; start < to; start += step) {
        const data = await readAt(start, Math.min(start + step, to));
        if (realtime) {
          const due = ((start - from + data.length) / frameBytes / format.sampleRateHz) * 1e3;
          await new Promise((resolve) => setTimeout(resolve, began + due - performance.now()));
        }
        yield data;
      }
    },
  };
}

// Codes of WAVE's format chunk, and the bits that a sample must have.
const WAV_FORMATS: Record<number, { encoding: Encoding; bits: number }> = {
  1: { encoding: "linear16", bits: 16 },
  3: { encoding: "float32", bits: 32 },
  6: { encoding: "alaw", bits: 8 },
  7: { encoding: "mulaw", bits: 8 },
};
const WAV_EXTENSIBLE = 0xfffe;
/** Length of the longest format chunk, that of WAVE_FORMAT_EXTENSIBLE. */
const WAV_FORMAT_BYTES = 40;

/** The audio of a wav file that `readAt` reads. */
export async function readWav(readAt: ReadAt, options: ReadOptions): Promise<Source> {
  const text = (bytes: Uint8Array) => String.fromCharCode(...bytes);
  const riff = await readAt(0, 12);
  if (text(riff.subarray(0, 4)) !== "RIFF" || text(riff.subarray(8, 12)) !== "WAVE") {
    throw new DataLossError("this is no wav file", { remedy: "analyze() takes other containers" });
  }
  let format: AudioFormat | undefined;
  for (let start = 12; ; ) {
    const head = await readAt(start, start + 8);
    if (head.length < 8) {
      throw new DataLossError("the wav file has no audio");
    }
    const size = new DataView(head.buffer, head.byteOffset).getUint32(4, true);
    const name = text(head.subarray(0, 4));
    if (name === "fmt ") {
      format = wavFormat(await readAt(start + 8, start + 8 + Math.min(size, WAV_FORMAT_BYTES)));
    } else if (name === "data" && format) {
      // What is cut off, or was written to a pipe, claims to be longer than it is.
      const last = size === 0xffffffff ? Number.MAX_SAFE_INTEGER : start + 8 + size;
      return until(readAt, start + 8, last, format, options);
    }
    start += 8 + size + (size % 2);
  }
}

function until(readAt: ReadAt, from: number, to: number, format: AudioFormat, options: ReadOptions): Source {
  const source = read(readAt, from, to, format, options);
  return {
    format,
    async *[Symbol.asyncIterator]() {
      for await (const data of source) {
        if (data.length === 0) {
          return;
        }
        yield data;
      }
    },
  };
}

function wavFormat(chunk: Uint8Array): AudioFormat {
  const view = new DataView(chunk.buffer, chunk.byteOffset, chunk.length);
  if (chunk.length < 16) {
    throw new DataLossError("the wav file's format is cut off");
  }
  const tag = view.getUint16(0, true);
  const bits = view.getUint16(14, true);
  const code = tag === WAV_EXTENSIBLE && chunk.length >= 26 ? view.getUint16(24, true) : tag;
  const known = WAV_FORMATS[code];
  if (known?.bits !== bits) {
    const remedy = "give 16-bit, 32-bit float, A-law or mu-law samples; analyze() takes others";
    throw new DataLossError(`the wav file has samples of format ${code} with ${bits} bits`, { remedy });
  }
  return { encoding: known.encoding, sampleRateHz: view.getUint32(4, true), channelCount: view.getUint16(2, true) };
}
