// The page: from a mail that was pasted, dropped or chosen to what the server says of it.

import { Api, message, Refusal, words } from "./asking.js";
import { model } from "./card.js";
import { drift } from "./drift.js";
import { find, isolated, make, percent, table } from "./dom.js";
import { reasons } from "./reasons.js";
import { spoken, verdict } from "./verdict.js";

const AT_ONCE = 2; // mails of a table that are asked about together
const MOST = 500; // mails of a table
const EVERY = 60; // seconds between two looks at the drift

const api = new Api();
const tasks = { mails: new AbortController(), mail: new AbortController() }; // what is being done
const running = new Set();
let again = null; // what is done once more with a token

const show = (id, ...nodes) => {
  find(`#${id} > div`).replaceChildren(...nodes.flat(Infinity).filter((node) => node !== null));
  find(`#${id}`).hidden = false;
};
/** Hide sections; a mail that was shown in one does not stay behind. */
const hide = (...ids) =>
  ids.forEach((id) => {
    find(`#${id}`).hidden = true;
    find(`#${id} > div`)?.replaceChildren();
  });
const say = (text) => (find("#said").textContent = text);

const stop = () => Object.values(tasks).forEach((task) => task.abort());

/** Do the work of a kind after ending the one before; `retry` is what a token makes worth doing again. */
async function run(kind, work, retry) {
  tasks[kind].abort();
  const own = (tasks[kind] = new AbortController());
  hide("fault");
  running.add(own);
  find("#classify").setAttribute("aria-busy", "true");
  try {
    await work(own.signal);
    again = null;
  } catch (error) {
    if (!own.signal.aborted) failed(error, retry);
    own.abort(); // a table's other rows
  } finally {
    running.delete(own);
    if (!running.size) find("#classify").removeAttribute("aria-busy");
  }
}

function failed(error, retry) {
  const fault = find("#fault");
  if (error instanceof Refusal && error.status === 401) {
    again = retry ?? again;
    const known = api.token !== "";
    find("#entry").hidden = false;
    find("#token").focus();
    if (!known) return say("This server wants a token");
  }
  fault.textContent = words(error);
  fault.hidden = false;
}

/** Classify one mail, then explain it; `mail` has `bytes`, and `name` or `plain`. */
function one(mail) {
  return run("mail", async (signal) => {
    hide("verdict", "reasons");
    say("Classifying");
    const began = performance.now();
    const answer = await api.classify(await read(mail), signal);
    show("verdict", verdict(answer, performance.now() - began, mail));
    find("#verdict").scrollIntoView({ block: "nearest" });
    say(spoken(answer));
    show("reasons", make("p", { class: "note" }, "Looking for the reasons …"));
    const because = await explained(mail, signal);
    show("reasons", because);
  }, () => one(mail));
}

async function explained(mail, signal) {
  try {
    return reasons(await api.explain(await read(mail), signal));
  } catch (error) {
    if (signal.aborted) throw error;
    const missing = error instanceof Refusal && [404, 405, 501].includes(error.status);
    const why = missing ? "This server gives no reasons for its verdicts." : `No reasons. ${words(error)}`;
    return make("p", { class: "note" }, why);
  }
}

async function read(mail) {
  try {
    return await mail.bytes.arrayBuffer();
  } catch {
    throw new Refusal(400, "unreadable", "the browser cannot read this file; is it a folder?");
  }
}

/** Classify several mails into a table. */
function many(mails) {
  return run("mails", async (signal) => {
    hide("verdict", "reasons");
    const rows = mails.slice(0, MOST).map((mail) => ({ mail, cells: [1, 2, 3].map(() => make("span")) }));
    const names = rows.map(({ mail, cells }) => [
      make("button", { type: "button", class: "plain", onclick: () => one(mail) }, isolated(mail.name)),
      ...cells,
    ]);
    const left = mails.length - rows.length;
    const note = left > 0 ? `The first ${MOST}; ${left} more are left out.` : "Choose one for its reasons.";
    show("mails", make("p", { class: "note" }, note), table(["mail", "verdict", "probability", "latency"], names));
    find("#mails").scrollIntoView({ block: "nearest" });
    say(`Classifying ${rows.length} mails`);
    const queue = rows.values();
    const worker = async () => {
      for (const row of queue) row.label = await rowed(row, signal);
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
    const counts = new Map();
    for (const { label } of rows) counts.set(label, (counts.get(label) ?? 0) + 1);
    say([...counts].map(([label, count]) => `${count} ${label}`).join(", "));
  }, () => many(mails));
}

/** Fill one row; what is wrong with one mail stands there, and the others go on. */
async function rowed({ mail, cells: [label, probability, latency] }, signal) {
  const began = performance.now();
  try {
    const answer = await api.patient(await read(mail), signal);
    label.replaceChildren(
      make("strong", {}, answer.labels.join(", ") || "no label"),
      answer.unsure ? make("span", { class: "unsure" }, "unsure") : "",
    );
    probability.textContent = percent(answer.probability);
    latency.textContent = `${(performance.now() - began).toFixed(1)} ms`;
    return answer.label;
  } catch (error) {
    if (signal.aborted || !(error instanceof Refusal) || error.status === 401) throw error;
    label.replaceChildren(make("span", { class: "fault" }, words(error)));
    return "without a verdict";
  }
}

function taken(files) {
  stop();
  const mails = Array.from(files, (file) => ({ name: file.name, bytes: file }));
  if (mails.length > 1) return many(mails);
  hide("mails");
  if (mails.length) one(mails[0]);
}

function pasted() {
  const text = find("#text").value;
  if (!text.trim()) return failed(new Refusal(400, "empty", "there is nothing to classify; paste a mail"));
  stop();
  hide("mails");
  one(message(text));
}

/** Which model answers, its card and its curves. */
async function served() {
  try {
    const [{ name, version }] = (await api.models()).models;
    find("#served").replaceChildren("serves ", isolated(name), ", version ", isolated(version));
    show("model", model(await api.card(name)));
  } catch (error) {
    if (error instanceof Refusal && error.status === 401) return failed(error, null);
    const why = error.status === 404 && error.message ? `The server says: ${error.message}.` : words(error);
    show("model", make("p", { class: "note" }, `There is no card to show. ${why}`));
  }
}

/** How far the mails of late are from those that the model was tested on, where that is measured. */
async function drifted() {
  try {
    const found = drift(await api.drift());
    if (found) show("drift", found);
    else hide("drift");
  } catch (error) {
    const absent = !(error instanceof Refusal) || error.status === 401; // which is told by others
    if (absent) return hide("drift");
    show("drift", make("p", { class: "note" }, `Drift is not known. ${words(error)}`));
  }
}

find("#ask").addEventListener("submit", (event) => {
  event.preventDefault();
  pasted();
});
find("#ask").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  pasted();
});
find("#files").addEventListener("change", ({ target }) => {
  taken(target.files);
  target.value = ""; // so that the same file can be chosen again
});
find("#clear").addEventListener("click", () => {
  stop();
  find("#text").value = "";
  hide("mails", "verdict", "reasons", "fault");
  say("Cleared");
  find("#text").focus();
});
find("#entry").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = find("#token");
  // Anything else cannot be sent as a header.
  api.token = /^[!-~]+$/.test(field.value.trim()) ? field.value.trim() : "";
  field.value = "";
  if (!api.token) return failed(new Refusal(401, "no_token", "a token is letters and digits without spaces"));
  hide("entry", "fault");
  find("#text").focus();
  served();
  drifted();
  again?.();
});
// A browser opens what is dropped on a page, so every drop is taken here.
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    const over = name === "dragenter" || name === "dragover";
    document.body.classList.toggle("dropping", over);
    if (name !== "drop" || !event.dataTransfer) return;
    const text = event.dataTransfer.getData("text/plain");
    if (event.dataTransfer.files.length) taken(event.dataTransfer.files);
    else if (text) find("#text").value = text;
  });
}
served();
drifted();
setInterval(() => document.hidden || find("#entry").checkVisibility() || drifted(), 1000 * EVERY);
