// Elements are made here and nowhere else: what a mail or the server says goes in as text nodes, so
// it cannot become markup.

const SVG = "http://www.w3.org/2000/svg";

export const find = (selector) => document.querySelector(selector);

/** An element with attributes (`on...` are listeners, null and false are left out) and children. */
export function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function draw(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== false));
  return element;
}

// Letters that one does not see, and that turn or hide others: controls, bidi marks, zero widths.
const UNSEEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]/u;

/** Text of a stranger as nodes; each letter that would not be seen is shown by its number. */
export function visible(text) {
  const nodes = [];
  let plain = "";
  for (const letter of text) {
    if (!UNSEEN.test(letter)) {
      plain += letter;
      continue;
    }
    const number = letter.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    nodes.push(plain, make("span", { class: "unseen-letter" }, `U+${number}`));
    plain = "";
  }
  return [...nodes, plain].filter((node) => node !== "");
}

/** A stranger's words in a line of ours, whose direction they must not turn. */
export const isolated = (text) => make("bdi", {}, visible(text));

/** A table; the first cell of each row names it. */
export function table(heads, rows) {
  const line = ([first, ...others]) =>
    make("tr", {}, make("th", { scope: "row" }, first), others.map((cell) => make("td", {}, cell)));
  const head = make("thead", {}, make("tr", {}, heads.map((name) => make("th", { scope: "col" }, name))));
  return make("table", {}, heads.length ? head : null, make("tbody", {}, rows.map(line)));
}

/** A box that scrolls sideways by itself, also by the keyboard. */
export const scrolling = (label, child) =>
  make("div", { class: "wide", tabindex: 0, role: "region", "aria-label": label }, child);

/** A probability in words; it never says that something is certain. */
export function percent(share) {
  if (share > 0.9999 && share <= 1) return "over 99.99%";
  if (share < 0.0001) return "under 0.01%";
  return `${(100 * share).toFixed(2)}%`;
}
