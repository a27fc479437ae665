/** Fields to choose one of what the server has. */

import { fill, h } from "./dom.js";

/**
 * What can be chosen from now on. The first choice stays, and so does what was chosen, if it is still there.
 * @param {HTMLSelectElement} select
 * @param {{value: string, text: string}[]} choices those behind the first
 */
export function offer(select, choices) {
  const chosen = select.value;
  fill(
    select,
    select.options[0],
    choices.map(({ value, text }) => h("option", { value }, text)),
  );
  if (choices.some(({ value }) => value === chosen)) select.value = chosen;
}

/** @param {HTMLSelectElement} select @param {any[]} models as ListModels gives them */
export function offerModels(select, models) {
  offer(
    select,
    models.map(({ name, version, isDefault }) => ({ value: name, text: `${name} ${version}${isDefault ? " (the default)" : ""}` })),
  );
}
