/**
 * The style sheet's colours for a canvas, which knows no variables: each is resolved by the browser itself, so that light, dark and
 * whatever else the sheet says hold here too.
 */

/** @type {Map<string, string>} */
const known = new Map();
/** @type {Set<() => void>} */
const listeners = new Set();

function forget() {
  known.clear();
  for (const listener of listeners) listener();
}

addEventListener("undertone:theme", forget);
for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) matchMedia(query).addEventListener("change", forget);

/** @param {string} name as in the style sheet, without its dashes: "sad", "card" @returns {string} */
export function colour(name) {
  const there = known.get(name);
  if (there) return there;
  const probe = document.createElement("span");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const resolved = getComputedStyle(probe).color;
  probe.remove();
  known.set(name, resolved);
  return resolved;
}

/** Calls `listener` whenever colours have become others. @param {() => void} listener @returns {() => void} ends it */
export function recoloured(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}
