// What is to be sent on a stream, and what was sent and may have to be sent again.

import type { StreamEmotionRequest } from "./gen/undertone/v1/emotion_service_pb.js";

/** Sent requests are kept up to so many bytes of audio: 20 minutes of 16 kHz mono. */
const MOST_KEPT_BYTES = 40 << 20;

/**
 * The requests of a stream, numbered from 0, configurations not counted. Those that a checkpoint covers are forgotten. What
 * waits to be sent is bounded by whoever adds to it; what was sent is bounded here: beyond, the oldest are forgotten, and the
 * stream cannot be gone on with until a checkpoint covers that.
 */
export class Outbox {
  /** Nothing more will be added. */
  ended = false;
  /** Marks among what is forgotten. */
  marksBefore = 0;
  /** Bytes of audio that this connection has not taken yet. */
  unsentBytes = 0;
  readonly #requests: StreamEmotionRequest[] = [];
  /** Number of the first of them, of the next to be sent, and how many a checkpoint covers. */
  #first = 0;
  #next = 0;
  #covered = 0;
  #bytes = 0;
  readonly #waiting = new Set<() => void>();

  /** Whether something that no checkpoint covers is forgotten. */
  get hasGap(): boolean {
    return this.#first > this.#covered;
  }

  add(request: StreamEmotionRequest): void {
    const size = bytes(request);
    this.#requests.push(request);
    this.#bytes += size;
    this.unsentBytes += size;
    this.ring();
  }

  /** The next request for this connection, as if it were sent; `undefined` if there is none now. */
  next(): StreamEmotionRequest | undefined {
    const request = this.#requests[this.#next - this.#first];
    if (request) {
      this.#next += 1;
      this.unsentBytes -= bytes(request);
      while (this.#bytes > MOST_KEPT_BYTES && this.#first < this.#next) {
        this.#forgetFirst();
      }
      this.ring();
    }
    return request;
  }

  /** A checkpoint covers the first `count` requests. */
  cover(count: number): void {
    this.#covered = Math.max(this.#covered, count);
    while (this.#first < count && this.#requests.length > 0) {
      this.#forgetFirst();
    }
  }

  /** What was sent need not be kept: there are no checkpoints. */
  coverSent(): void {
    this.cover(this.#next);
  }

  /** Another connection begins, with what no checkpoint covers. */
  rewind(): void {
    this.#next = this.#first;
    this.unsentBytes = this.#bytes;
    this.ring();
  }

  /** Waits until something about it has changed. */
  change(): Promise<void> {
    return new Promise((resolve) => this.#waiting.add(resolve));
  }

  /** Wakes all who wait. */
  ring(): void {
    for (const wake of this.#waiting) {
      wake();
    }
    this.#waiting.clear();
  }

  #forgetFirst(): void {
    const request = this.#requests.shift();
    if (request) {
      if (this.#next === this.#first) {
        this.#next += 1;
        this.unsentBytes -= bytes(request);
      }
      this.#first += 1;
      this.#bytes -= bytes(request);
      this.marksBefore += request.message.case === "mark" ? 1 : 0;
    }
  }
}

function bytes({ message }: StreamEmotionRequest): number {
  return message.case === "audio" ? message.value.data.length : 0;
}
