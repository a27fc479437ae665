/** What was raised: all of it, or one escalation where the address names one. */

import { shell } from "../lib/shell.js";
import { one } from "./escalations-one.js";
import { all } from "./escalations-all.js";

const id = new URLSearchParams(location.search).get("id");

shell("escalations.html");
if (id) one(id);
else all();
