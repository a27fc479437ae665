/** A field for a text in lines: their numbers beside it, and marks on those that are wrong. */

import { h } from "./dom.js";

export class Editor {
  #area;
  #gutter;
  /** @type {Set<number>} */
  #marked = new Set();

  /** @param {HTMLTextAreaElement} area @param {HTMLElement} gutter @param {() => void} changed */
  constructor(area, gutter, changed) {
    this.#area = area;
    this.#gutter = gutter;
    area.addEventListener("input", () => {
      this.#number();
      changed();
    });
    area.addEventListener("scroll", () => {
      gutter.scrollTop = area.scrollTop;
    });
    this.#number();
  }

  get text() {
    return this.#area.value;
  }

  set text(text) {
    this.#area.value = text;
    this.#area.scrollTop = 0;
    this.#area.scrollLeft = 0;
    this.mark([]);
    this.#number();
  }

  /** Marks these lines, from 1. @param {number[]} lines */
  mark(lines) {
    this.#marked = new Set(lines);
    for (const [index, number] of [...this.#gutter.children].entries()) number.classList.toggle("fault", this.#marked.has(index + 1));
  }

  /**
   * Goes to a place, and selects from there to the end of its line.
   * @param {number} line from 1
   * @param {number} column from 1, in characters
   */
  go(line, column) {
    const lines = this.text.split("\n");
    const at = Math.min(line, lines.length) - 1;
    const start = lines.slice(0, at).reduce((sum, text) => sum + text.length + 1, 0);
    const text = lines[at] ?? "";
    // The server counts characters, a text field 16-bit units.
    const begin = start + [...text].slice(0, column - 1).join("").length;
    const end = Math.max(begin, start + text.length);
    this.#area.focus();
    this.#area.setSelectionRange(begin, end);
    this.#area.scrollTop = Math.max(0, (at - 4) * Number.parseFloat(getComputedStyle(this.#area).lineHeight));
    this.#gutter.scrollTop = this.#area.scrollTop;
  }

  #number() {
    const lines = this.text.split("\n").length;
    while (this.#gutter.childElementCount > lines) this.#gutter.lastElementChild?.remove();
    for (let line = this.#gutter.childElementCount + 1; line <= lines; line++)
      this.#gutter.append(h("div", { class: this.#marked.has(line) ? "fault" : "" }, line));
    this.#gutter.scrollTop = this.#area.scrollTop;
  }
}
