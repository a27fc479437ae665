// What a stream has told already, so that what is told again after a break is left out.

import type { StreamEmotionResponse } from "./gen/undertone/v1/emotion_service_pb.js";
import { seconds } from "./plain.js";

type Message = StreamEmotionResponse["message"];

export class Told {
  /** Per channel, the end of the last estimate. */
  readonly #estimates = new Map<number, number>();
  /** Per channel, the number of the next utterance. */
  readonly #utterances = new Map<number, number>();
  /** By reason and channel, the position of the last warning, and what that was when the connection broke. */
  readonly #warnings = new Map<string, number>();
  #warningsBefore = new Map<string, number>();
  /** Escalations' events. */
  readonly #events = new Set<string>();
  /** Marks reached, over all connections and on this one. */
  #marks = 0;
  #marksHere = 0;

  /** From here on things are told again; `marks` were reached before what is sent again. */
  goesOn(marks: number): void {
    this.#warningsBefore = new Map(this.#warnings);
    this.#marksHere = marks;
  }

  /** Whether it is new. */
  isNews({ case: kind, value }: Message): boolean {
    switch (kind) {
      case "estimate": {
        const end = seconds(value.end);
        const isNew = end > (this.#estimates.get(value.channel) ?? Number.NEGATIVE_INFINITY);
        if (isNew) {
          this.#estimates.set(value.channel, end);
        }
        return isNew;
      }
      case "utterance": {
        const isNew = value.index >= (this.#utterances.get(value.channel) ?? 0);
        if (isNew) {
          this.#utterances.set(value.channel, value.index + 1);
        }
        return isNew;
      }
      case "warning": {
        const key = `${value.reason} ${value.channel}`;
        const position = seconds(value.position);
        this.#warnings.set(key, Math.max(position, this.#warnings.get(key) ?? 0));
        return position > (this.#warningsBefore.get(key) ?? Number.NEGATIVE_INFINITY);
      }
      case "escalation": {
        // One that is not durable has no name yet.
        const isNew = value.id === "" || !this.#events.has(value.id);
        this.#events.add(value.id);
        return isNew;
      }
      case "mark": {
        this.#marksHere += 1;
        const isNew = this.#marksHere > this.#marks;
        this.#marks = Math.max(this.#marks, this.#marksHere);
        return isNew;
      }
      default:
        return true;
    }
  }
}
