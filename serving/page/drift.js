// Drift at a glance: the mails of late beside those that the model was tested on.

import { draw, make, percent, scrolling, table } from "./dom.js";

const WIDTH = 360, NAMES = 104, ENDS = 44, ROW = 26, BAR = 9, FOOT = 4;
const STATES = {
  steady: "steady",
  watch: "watch: some change",
  drift: "drift: a large change",
  too_few: "too few mails yet",
};

/** The answer of GET /v1/drift; null where nothing is measured. */
export function drift(report) {
  if (report.state === "no_reference") return null;
  const { state, mails, quantities } = report;
  return [
    make("p", { class: `label state ${state}` }, make("strong", {}, state === "too_few" ? few(report) : STATES[state])),
    make("p", { class: "note" }, beside(report)),
    mails ? make("div", { class: "plots" }, quantities.map((each) => figure(each, report))) : null,
    mails
      ? make("details", {}, make("summary", {}, "Drift in numbers"), quantities.map((each) => numbers(each, report)))
      : null,
  ];
}

function few({ mails, quantities }) {
  const needed = Math.max(...quantities.map((each) => each.needed ?? Infinity));
  return Number.isFinite(needed) && mails < needed
    ? `too few mails yet (have ${counted(mails)}, need ${counted(needed)})`
    : "the model was tested on too few mails to see a small change";
}

function beside({ mails, window_h: hours, replicas, reference_mails: known, reference_splits: splits }) {
  const of = replicas > 1 ? ` in ${counted(replicas)} replicas` : "";
  return `${counted(mails)} mails of the last ${hours === 1 ? "hour" : `${counted(hours)} hours`}${of}, ` +
    `beside ${counted(known)} ${splits.join(" and ")} mails. Bars are shares of mails: ` +
    "the upper one here, the lower, grey one where the model was tested.";
}

const named = ({ quantity }, { score_of: label }) => ({
  score: label === null ? "Highest probability" : `Probability of ${label}`,
  length: "Length in tokens",
  label: "Label",
})[quantity];

function figure(quantity, report) {
  const { bins, state, psi, mean, reference_mean: known } = quantity;
  const title = `${named(quantity, report)}: ${state === "too_few" ? STATES.too_few : state}`;
  const most = Math.max(...bins.flatMap(({ reference, here }) => [reference, here ?? 0])) || 1;
  const long = (share) => ((share * (WIDTH - NAMES - ENDS)) / most).toFixed(1);
  const bar = (share, y, kind) =>
    draw("rect", { class: kind, x: NAMES, y, width: long(share), height: BAR }, draw("title", {}, percent(share)));
  const image = draw(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${bins.length * ROW + FOOT}`, role: "img", "aria-label": `${title}. ${spoken(bins)}` },
    bins.map(({ name, reference, here }, number) => [
      draw("text", { x: NAMES - 6, y: number * ROW + 15, "text-anchor": "end" }, short(name)),
      bar(here ?? 0, number * ROW + 2, "here"),
      bar(reference, number * ROW + 2 + BAR, "reference"),
      draw("text", { x: NAMES + Number(long(Math.max(here ?? 0, reference))) + 5, y: number * ROW + 15 }, rounded(here ?? 0)),
    ]),
  );
  const means = mean === null || known === null ? "" : `; on average ${told(quantity, mean)}, was ${told(quantity, known)}`;
  return make("figure", {}, make("h3", {}, title), image, make("figcaption", {}, `PSI ${index(psi)}${means}`));
}

/** Which bin has gained most and which has lost most, for the one who listens. */
function spoken(bins) {
  const moved = bins.map(({ name, reference, here }) => ({ name, reference, here, by: (here ?? 0) - reference }));
  const by = moved.toSorted((one, other) => Math.abs(other.by) - Math.abs(one.by)).slice(0, 2);
  return by.map(({ name, reference, here }) => `${name}: ${rounded(here ?? 0)}, was ${rounded(reference)}`).join("; ");
}

function numbers(quantity, report) {
  const { bins, psi, chance } = quantity;
  const heads = [named(quantity, report), "here", "tested on"];
  const rows = bins.map(({ name, reference, here }) => [name, rounded(here ?? 0), rounded(reference)]);
  const luck = `PSI ${index(psi)}; chance alone is beyond ${index(chance)} once in 1,000 times.`;
  return [scrolling(heads[0], table(heads, rows)), make("p", { class: "note" }, luck)];
}

const counted = (number) => number.toLocaleString("en");
const rounded = (share) => `${Math.round(1000 * share) / 10}%`;
const index = (psi) => (psi === null ? "unknown" : psi.toFixed(3));
const told = ({ quantity }, mean) => (quantity === "score" ? rounded(mean) : `${Math.round(mean)} tokens`);
const short = (name) => (name.length > 16 ? `${name.slice(0, 15)}…` : name);
