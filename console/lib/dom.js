/** The page's elements. Text is always text: nothing that comes from outside is read as HTML. */

/**
 * An element. `props`: attributes (`false`, `null` and `undefined` leave them out, `true` sets them bare), `on*` listeners,
 * `class`, `dataset` and `style` objects (`style` by property, custom ones too).
 * @param {string} tag
 * @param {Record<string, any> | null} [props]
 * @param {...(Node | string | number | null | undefined | false | (Node | string)[])} children
 * @returns {any}
 */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  set(element, props ?? {});
  element.append(...content(children));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** The same for SVG. @param {string} tag @param {Record<string, any>} [props] @param {...any} children @returns {any} */
export function svg(tag, props, ...children) {
  const element = document.createElementNS(SVG, tag);
  set(element, props ?? {});
  element.append(...content(children));
  return element;
}

/** @param {any[]} children */
function content(children) {
  return children.flat().filter((child) => child !== null && child !== undefined && child !== false).map((child) => (child instanceof Node ? child : String(child)));
}

/** @param {any} element @param {Record<string, any>} props */
export function set(element, props) {
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2).toLowerCase(), value);
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (name === "style") for (const [property, of] of Object.entries(value)) element.style.setProperty(property, String(of));
    else if (value === false || value === null || value === undefined) element.removeAttribute(name);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
}

/** Writes a text only where it is another: what a screen reader reads out is left alone. @param {Element} element @param {string} text */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** What stands in an element from now on. @param {Element} element @param {...any} children */
export function fill(element, ...children) {
  element.replaceChildren(...content(children));
}

/**
 * One child per item, in order. Those that are there stay, with their focus.
 * @template T
 * @param {Element} parent
 * @param {T[]} items
 * @param {(item: T) => string} key
 * @param {(item: T) => HTMLElement} make
 * @param {(element: any, item: T) => void} [update] also right after `make`
 */
export function each(parent, items, key, make, update = () => {}) {
  const there = new Map([...parent.children].map((child) => [/** @type {HTMLElement} */ (child).dataset.key, child]));
  const named = items.map((item) => ({ item, name: key(item) }));
  // Those that go, go first: whatever stands behind them need not be moved then.
  const stay = new Set(named.map(({ name }) => name));
  for (const [name, child] of there) if (!stay.has(name ?? "")) child.remove();
  const focused = document.activeElement;
  let at = parent.firstElementChild;
  for (const { item, name } of named) {
    let child = there.get(name);
    if (!child) {
      child = make(item);
      /** @type {HTMLElement} */ (child).dataset.key = name;
    }
    if (child === at) at = at.nextElementSibling;
    else parent.insertBefore(child, at);
    update(child, item);
  }
  // What is moved loses the focus that is in it.
  if (focused instanceof HTMLElement && focused !== document.activeElement && parent.contains(focused)) focused.focus({ preventScroll: true });
}

/** The element with this id, which the page has. @param {string} id @returns {any} */
export function the(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no #${id}`);
  return element;
}
