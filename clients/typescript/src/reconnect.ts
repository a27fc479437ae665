// How what broke off is gone on with.

/** How often, and for how long, another connection is tried for. */
export interface Reconnect {
  /** Seconds without a server after which it is given up; 60 if not given. */
  patience?: number;
  /** Seconds that the first wait is at most; 0.2 if not given. Each further one may be twice as long. */
  firstWait?: number;
  /** Seconds that a wait is at most; 5 if not given. */
  longestWait?: number;
}

/** A connection that went well for so long, in ms, ends the trouble before it. */
const STEADY_MS = 2_000;

/** The waits of one trouble after another. */
export class Retries {
  attempts = 0;
  #brokenSince: number | undefined;
  readonly #patience: number;
  readonly #firstWait: number;
  readonly #longestWait: number;

  constructor({ patience = 60, firstWait = 0.2, longestWait = 5 }: Reconnect) {
    [this.#patience, this.#firstWait, this.#longestWait] = [patience, firstWait, longestWait];
  }

  /** A connection ended, on which things went well from `begun` on (`performance.now()`), if they ever did. */
  ended(begun: number | undefined): void {
    const now = performance.now();
    if (begun !== undefined && now - begun > STEADY_MS) {
      this.attempts = 0;
      this.#brokenSince = undefined;
    }
    this.#brokenSince ??= now;
  }

  /** Seconds since the trouble began. */
  get downtime(): number {
    return (performance.now() - (this.#brokenSince ?? performance.now())) / 1e3;
  }

  /**
   * Seconds to wait before the next attempt, on top of what the server `asked` for; `undefined` if that is beyond all
   * patience. Full jitter: those whom one server sent away do not come back together.
   */
  pause(asked = 0): number | undefined {
    const most = Math.min(this.#longestWait, this.#firstWait * 2 ** Math.min(this.attempts, 30));
    const pause = asked + Math.random() * most;
    this.attempts += 1;
    return this.downtime + pause <= this.#patience ? pause : undefined;
  }
}

/** Waits, `signal` permitting: then it throws the signal's reason. */
export function sleep(seconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, seconds * 1e3);
    signal.addEventListener("abort", stop, { once: true });
  });
}
