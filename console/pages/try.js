/** Trying it out: the microphone, live, and a recording, whole. */

import { call } from "../lib/api.js";
import { offerModels } from "../lib/choices.js";
import { the } from "../lib/dom.js";
import { shell } from "../lib/shell.js";
import { offerPolicies } from "./try-microphone.js";
import { knowModels } from "./try-recording.js";

shell();

// Both are conveniences: without them there is still the server's own choice.
const [{ models = [] }, { policies = [] }] = await Promise.all(
  ["ListModels", "ListPolicies"].map((method) => call(`EmotionService/${method}`).catch(() => ({}))),
);
offerModels(the("model"), models);
offerModels(the("file-model"), models);
knowModels(models);
offerPolicies(policies);
