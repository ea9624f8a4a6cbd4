// The served model: its curves, and its card, which is Markdown of a bundle: the part of it that
// cards are written in, as elements; all else stays text.

import { isolated, make, scrolling } from "./dom.js";
import { curves } from "./plots.js";

/** The answer of GET /v1/models/{name}/card. */
export function model(card) {
  const none = "This bundle has no curves: it was made by a mailray that did not keep them.";
  const groups = curves(card).map(([title, figures], number) =>
    make(
      "details", { open: number === 0 },
      make("summary", {}, title),
      make("div", { class: "plots" }, figures),
    ),
  );
  return [
    Object.keys(card.curves).length ? null : make("p", { class: "note" }, none),
    ...groups,
    make(
      "details", {},
      make("summary", {}, "Model card of ", isolated(`${card.name} ${card.version}`)),
      make("article", {}, markdown(card.text)),
    ),
  ];
}

const HEADING = /^(#{1,6})\s+(.*)$/;
const ITEM = /^\s{0,3}(?:[-*+]|\d+[.)])\s+(.*)$/;
const INLINE = /`([^`]+)`|\*\*([^*]+)\*\*|\[([^\]]*)\]\((https:\/\/[^\s()]+)\)/g;

/** Headings, paragraphs, lists, tables, code blocks; its metadata are left out. */
export function markdown(text) {
  const lines = text.replace(/^---\n[^]*?\n---\n/, "").split("\n");
  const nodes = [];
  for (let at = 0; at < lines.length; ) {
    const line = lines[at];
    const take = (belongs) => {
      const start = at;
      while (at < lines.length && belongs(lines[at])) at++;
      return lines.slice(start, at);
    };
    if (!line.trim()) at++;
    else if (HEADING.test(line)) nodes.push(heading(lines[at++]));
    else if (line.startsWith("|")) nodes.push(grid(take((one) => one.startsWith("|"))));
    else if (line.startsWith("```")) {
      at++;
      nodes.push(make("pre", {}, take((one) => !one.startsWith("```")).join("\n")));
      at++;
    } else if (line.startsWith("    ")) {
      nodes.push(make("pre", {}, take((one) => one.startsWith("    ")).map((one) => one.slice(4)).join("\n")));
    } else if (ITEM.test(line)) {
      const items = take((one) => ITEM.test(one));
      nodes.push(make("ul", {}, items.map((one) => make("li", {}, inline(ITEM.exec(one)[1])))));
    } else {
      const first = lines[at++]; // part of it whatever it is, or nothing might be taken
      nodes.push(make("p", {}, inline([first, ...take((one) => !starts(one))].join(" "))));
    }
  }
  return nodes;
}

const starts = (line) =>
  !line.trim() || HEADING.test(line) || ITEM.test(line) || /^(\||```| {4})/.test(line);

function heading(line) {
  const [, marks, text] = HEADING.exec(line);
  return make(`h${Math.min(marks.length + 2, 6)}`, {}, inline(text)); // below the page's own
}

function grid(lines) {
  const cells = (line) => line.replace(/^\||\|\s*$/g, "").split("|").map((cell) => cell.trim());
  const [head, ...rows] = lines.map(cells).filter((row) => !row.every((cell) => /^:?-+:?$/.test(cell)));
  const body = rows.map((row) => make("tr", {}, row.map((cell) => make("td", {}, inline(cell)))));
  const heads = head.map((cell) => make("th", { scope: "col" }, inline(cell)));
  const whole = make("table", {}, make("thead", {}, make("tr", {}, heads)), make("tbody", {}, body));
  return scrolling(head.filter(Boolean).join(", ") || "Table", whole);
}

function inline(text) {
  const nodes = [];
  let at = 0;
  for (const match of text.matchAll(INLINE)) {
    const [whole, code, strong, words, address] = match;
    nodes.push(text.slice(at, match.index));
    if (code) nodes.push(make("code", {}, code));
    else if (strong) nodes.push(make("strong", {}, strong));
    else nodes.push(make("a", { href: address, rel: "noopener noreferrer", target: "_blank" }, words));
    at = match.index + whole.length;
  }
  return [...nodes, text.slice(at)].filter(Boolean);
}
