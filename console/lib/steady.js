/** Lists that are in use stay in their order: nobody should press what has just slid under their pointer. */

/** How long a list counts as in use after the last touch. */
const USED_MS = 4000;

/**
 * Keeps an order while somebody is at a list. What is new comes behind what is there, and takes its place when they have left.
 * @template T
 * @param {Element} parent
 * @param {(item: T) => string} key
 * @returns {(sorted: T[]) => T[]}
 */
export function steady(parent, key) {
  let used = Number.NEGATIVE_INFINITY;
  /** @type {string[]} */
  let order = [];
  for (const type of ["pointermove", "pointerdown", "keydown", "focusin"])
    parent.addEventListener(type, () => (used = performance.now()), { passive: true });
  return (sorted) => {
    if (performance.now() - used < USED_MS) {
      const place = new Map(order.map((name, i) => [name, i]));
      const at = (/** @type {T} */ item) => place.get(key(item)) ?? order.length;
      sorted = [...sorted].sort((a, b) => at(a) - at(b));
    }
    order = sorted.map(key);
    return sorted;
  };
}

/**
 * Calls `turn` again and again, `pause` milliseconds after it has ended, as long as the page can be seen.
 * @param {() => Promise<void>} turn
 * @param {number} pause
 */
export async function whileVisible(turn, pause) {
  for (;;) {
    if (document.hidden) await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
    else {
      await turn();
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }
}
