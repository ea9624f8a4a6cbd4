// Why: the mail's text with its words weighed, the heaviest words, and what stands out in its head.

import { make, scrolling, table, visible } from "./dom.js";

const FAINTEST = 0.12; // of the heaviest word's weight; less is not marked
const LEVELS = 4;
const GAP = 200; // letters that were not read and are still shown
const HEAVIEST = 10;

/** The answer of POST /v1/explain. */
export function reasons(found) {
  const own = found.spans.filter((span) => !span.named && span.weight);
  const most = Math.max(...own.map((span) => Math.abs(span.weight)), 1e-9);
  return [
    make("p", {}, legend(found.label, "for", "+"), " ", legend(found.label, "against", "−")),
    found.complete ? null : make("p", { class: "note" }, "The time was up: the weights are rough."),
    make("h3", {}, "What stands out in its header and make-up"),
    findings(found),
    make("h3", {}, "The heaviest words"),
    heaviest(own, found.label),
    make("h3", { id: "read-title" }, "The text that the model reads"),
    make(
      "div",
      { class: "mail", tabindex: 0, role: "region", "aria-labelledby": "read-title", dir: "auto" },
      pieces(found, most),
    ),
  ];
}

const sign = (weight) => (weight > 0 ? "+" : "−");
const signed = (weight) => `${sign(weight)}${Math.abs(weight).toFixed(2)}`;

function legend(label, side, mark) {
  const says = `${mark} speaks ${side} ${label}`;
  return make("span", { class: `weighed ${side}`, "data-level": 3 }, says);
}

function findings({ findings: found }) {
  if (!found.length) return make("p", { class: "note" }, "Nothing.");
  const line = ({ text, weight }) =>
    make(
      "li", {}, make("bdi", {}, visible(text)), " ",
      make("span", { class: `side ${weight > 0 ? "for" : "against"}` }, signed(weight)),
    );
  return make("ul", { class: "findings" }, found.map(line));
}

function heaviest(spans, label) {
  const sums = new Map(); // the same word in several places is one row
  for (const { text, section, weight } of spans) {
    const key = `${section}\n${text.toLowerCase()}`;
    const row = sums.get(key) ?? { text, section, weight: 0, times: 0 };
    sums.set(key, { ...row, weight: row.weight + weight, times: row.times + 1 });
  }
  const rows = [...sums.values()].sort((one, other) => Math.abs(other.weight) - Math.abs(one.weight));
  const told = rows.slice(0, HEAVIEST).map(({ text, section, weight, times }) => [
    make("bdi", {}, visible(text)),
    make("span", { class: `side ${weight > 0 ? "for" : "against"}` }, signed(weight)),
    section,
    times > 1 ? `${times} times` : "",
  ]);
  if (!told.length) return make("p", { class: "note" }, "None.");
  const heads = ["word", `weight for ${label}`, "where", ""];
  return scrolling("The heaviest words", table(heads, told));
}

/** The text as nodes: offsets are in code points, which JavaScript's strings do not count in. */
function pieces({ text, spans, label }, most) {
  const letters = Array.from(text);
  const cut = (start, end) => letters.slice(start, end).join("");
  const nodes = [];
  let at = 0;
  for (const span of spans) {
    if (span.start < at) continue; // a word that two spans share is shown once
    nodes.push(unread(cut(at, span.start)), weighed(cut(span.start, span.end), span, most, label));
    at = span.end;
  }
  return [...nodes, unread(cut(at))];
}

function weighed(word, { weight, named }, most, label) {
  const share = Math.abs(weight) / most;
  if (named || share < FAINTEST) return visible(word);
  const side = weight > 0 ? "for" : "against";
  return make(
    "mark",
    {
      class: `weighed ${side}`,
      "data-level": Math.min(LEVELS, Math.ceil(share * LEVELS)),
      title: `${signed(weight)} for ${label}`,
    },
    visible(word),
  );
}

function unread(gap) {
  if (!gap.trim()) return gap.length > GAP ? "\n" : gap;
  const length = Array.from(gap).length;
  if (length <= 2) return visible(gap); // punctuation between words
  const shown = length > GAP ? `… ${length.toLocaleString("en")} letters that it did not read …` : gap;
  return make("span", { class: "unread" }, length > GAP ? `\n${shown}\n` : visible(shown));
}
