/** What every page has: the head with its links, the foot, who one is, and the tone of messages. */

import { CallError, setToken, token } from "./api.js";
import { fill, h, say } from "./dom.js";

const PAGES = [
  ["./", "Sessions"],
  ["escalations.html", "Escalations"],
  ["try.html", "Try it"],
  ["models.html", "Models"],
  ["policies.html", "Policies"],
  ["about.html", "Responsible use"],
];
const NAME = "undertone.name";
const THEME = "undertone.theme";

/** Puts head and foot around the page's `main`. `under` is the link that the page stands under, if it has none of its own. @param {string} [under] */
export function shell(under) {
  theme(localStorage.getItem(THEME) ?? "");
  const here = under ?? (location.pathname.split("/").pop() || "./");
  const main = /** @type {HTMLElement} */ (document.querySelector("main"));
  main.id = "main";
  main.tabIndex = -1;
  const links = PAGES.map(([to, name]) => h("li", null, h("a", { href: to, "aria-current": to === here || (here === "index.html" && to === "./") ? "page" : null }, name)));
  document.body.prepend(
    h("a", { class: "skip", href: "#main" }, "Skip to content"),
    h("header", { class: "head" }, h("a", { class: "brand", href: "./" }, h("img", { src: "icon.svg", alt: "", width: 24, height: 24 }), "Undertone"), h("nav", { "aria-label": "Pages" }, h("ul", null, links)), who(), chooser()),
  );
  // On a telephone the links are a row that scrolls: the one where one is stands in sight.
  const [row, link] = [/** @type {HTMLElement} */ (document.querySelector(".head nav ul")), document.querySelector(".head [aria-current]")];
  if (link) row.scrollLeft += link.getBoundingClientRect().right - row.getBoundingClientRect().right;
  document.body.append(
    h(
      "footer",
      { class: "foot" },
      h("p", null, "Audio is analysed and forgotten: it is never written. Estimates are of how something sounds, not of what a person feels. People must be told that they are listened to. ", h("a", { href: "about.html" }, "Responsible use"), "."),
    ),
  );
  addEventListener("undertone:unauthenticated", () => ask(token() ? "The server does not take the token that you gave." : "This server wants to know who asks."));
}

/** @param {string} choice "light", "dark", or "" for what the system says */
function theme(choice) {
  if (choice) document.documentElement.dataset.theme = choice;
  else delete document.documentElement.dataset.theme;
}

function chooser() {
  const chosen = localStorage.getItem(THEME) ?? "";
  const option = (/** @type {string} */ value, /** @type {string} */ name) => h("option", { value, selected: value === chosen }, name);
  const select = h("select", { id: "theme", "aria-label": "Colours" }, option("", "System colours"), option("light", "Light"), option("dark", "Dark"));
  select.addEventListener("change", () => {
    localStorage.setItem(THEME, select.value);
    theme(select.value);
    dispatchEvent(new Event("undertone:theme"));
  });
  return select;
}

/** What the person calls themselves in the audit trail; "" until they have said it. */
export function name() {
  return localStorage.getItem(NAME) ?? "";
}

/** @type {HTMLElement} */
let known;

function who() {
  known = h("button", { class: "quiet", type: "button", onclick: () => ask() });
  tell();
  return known;
}

function tell() {
  say(known, name() || (token() ? "Signed in" : "Who are you?"));
  known.title = "Your name for the audit trail, and a token where the server wants one";
}

/** The newest dialog, and whether it was answered. @type {{dialog: HTMLDialogElement, answered: Promise<boolean>} | undefined} */
let asking;

/**
 * Asks who the person is: a name for the audit trail, and a token where the server wants one. Given a token, the page is loaded anew.
 * @param {string} [why]
 * @returns {Promise<boolean>} whether they answered
 */
export function ask(why) {
  // A dialog that was closed says so some frames later: whoever asks in between gets a new one.
  if (asking?.dialog.open) return asking.answered;
  const named = h("input", { name: "name", maxlength: 255, autocomplete: "name", value: name() });
  const secret = h("input", { name: "token", type: "password", autocomplete: "off", value: token(), "aria-describedby": "token-note" });
  const dialog = h(
    "dialog",
    { class: "card", "aria-labelledby": "ask-title" },
    h(
      "form",
      { method: "dialog" },
      h("h2", { id: "ask-title" }, "Who are you?"),
      why && h("p", null, why),
      h("label", null, "Your name, for the audit trail", named),
      h("label", null, "Token, if the server wants one", secret),
      h("p", { id: "token-note", class: "note" }, "The token stays in this tab and is forgotten with it."),
      h("div", { class: "row" }, h("button", { value: "ok" }, "Go on"), h("button", { class: "quiet", value: "cancel", formnovalidate: true }, "Cancel")),
    ),
  );
  const answered = new Promise((resolve) =>
    dialog.addEventListener("close", () => {
      const given = dialog.returnValue === "ok";
      const changed = given && secret.value.trim() !== token();
      if (given) {
        localStorage.setItem(NAME, named.value.trim());
        setToken(secret.value.trim());
        tell();
      }
      dialog.remove();
      resolve(given);
      if (changed) location.reload();
    }),
  );
  asking = { dialog, answered };
  document.body.append(dialog);
  dialog.showModal();
  return answered;
}

/** What went wrong, for people, with the remedy where one is known. @param {unknown} error @returns {string} */
export function problem(error) {
  if (!(error instanceof CallError)) return String(error instanceof Error ? error.message : error);
  if (error.code === "unauthenticated" && token()) return `The server does not take your token: ${error.message}. Give another one (at the top right).`;
  if (error.code === "unauthenticated") return "The server wants to know who asks: give a token (at the top right).";
  if (error.reason === "NO_ESCALATION_STORE") return "This server keeps no escalations: it was started without a store.";
  const fields = error.fields.map(({ field, description }) => `${field} ${description}`).join("; ");
  return (error.code !== "not_found" && fields) || error.message;
}

/**
 * Shows a problem in `place`, or takes it away.
 * @param {Element} place
 * @param {unknown} error `null`: all is well
 * @param {boolean} [again] whether the page goes on trying by itself, as far as that can help
 */
export function complain(place, error, again = false) {
  const mends = again && error instanceof CallError && ["unavailable", "resource_exhausted", "deadline_exceeded"].includes(error.code);
  const text = error === null ? "" : `${problem(error)}${mends ? "; trying again" : ""}`;
  if (place.textContent === text) return;
  fill(place, text && h("p", { class: "problem", role: "alert" }, text));
}

/**
 * Takes an escalation on, in the person's name, which is asked for once.
 * @param {(actor: string) => Promise<unknown>} acknowledge
 */
export async function acknowledge(acknowledge) {
  if (!name()) await ask("Whoever takes an escalation on stands in its audit trail.");
  if (name()) await acknowledge(name());
}
