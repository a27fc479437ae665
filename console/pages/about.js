/** Responsible use: the page stands as it is, but for what is known of this server's models. */

import { call } from "../lib/api.js";
import { fill, h, the } from "../lib/dom.js";
import { number, sorted } from "../lib/figures.js";
import { complain, shell } from "../lib/shell.js";

shell();

/** How often it was right. @param {any} model */
function right(model) {
  const { corpora, value } = sorted(model.figures ?? {});
  const shares = corpora.map(({ key }) => value("ua", "", key)).filter((share) => share !== undefined);
  if (shares.length === 0) return "it brings no figures along, and nobody knows how often it is right.";
  const [least, most] = [Math.min(...shares), Math.max(...shares)];
  const range = least === most ? number(least, true) : `${number(least, true)} to ${number(most, true)}, by corpus`;
  return `by its figures, right in ${range}, on acted speech of voices never heard before.`;
}

/** @param {any} model */
function item(model) {
  const forbidden = (model.trainingData ?? [])
    .filter((/** @type {any} */ { commercialUse }) => !commercialUse)
    .map((/** @type {any} */ { corpus }) => corpus);
  return h(
    "li",
    null,
    h("strong", null, model.name),
    model.isDefault && " (the default)",
    `: ${right(model)} `,
    forbidden.length > 0 && `Not for commercial use: it has learnt from ${forbidden.join(", ")}.`,
  );
}

try {
  const { models = [] } = await call("EmotionService/ListModels");
  fill(the("models"), h("ul", null, models.map(item)));
} catch (error) {
  complain(the("models"), error);
}
