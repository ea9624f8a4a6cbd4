// A model's curves as SVG, in the colours of the page, which has no other way to draw.

import { draw, make } from "./dom.js";

const WIDTH = 360, HEIGHT = 250;
const LEFT = 46, RIGHT = 10, TOP = 10, BOTTOM = 40;
const BETWEEN = 8; // points between two corners of a curve that is bent there

/** ROC, precision and recall and calibration of a label, and the course of training: a list of
 * [title, figures], as far as they are there. */
export function curves({ curves: of, points, epochs }) {
  const drawable = Object.entries(of ?? {}).filter(([, { yes, no }]) => yes && no);
  const found = drawable.map(([label, curve]) => [
    `Test mails: ${label}`,
    [roc(label, curve, points ?? []), precision(label, curve), calibration(label, curve)],
  ]);
  const told = (epochs ?? []).filter((row) => Number.isFinite(row.val_loss));
  return told.length > 1 ? [...found, ["Training", [learning(told)]]] : found;
}

function roc(label, { yes, no, roc: corners }, points) {
  const least = 10 ** Math.floor(Math.log10(1 / no));
  const rate = (count) => Math.max(count / no, least);
  const line = corners.map(([taken, hit]) => [rate(taken), hit / yes]);
  const dots = points.filter(({ threshold }) => threshold != null).map(({ name, threshold }) => {
    const [taken, hit] = corners.findLast((corner) => corner[2] === null || corner[2] >= threshold);
    return { at: [rate(taken), hit / yes], name };
  });
  const ticks = [];
  for (let tick = least; tick < 1.5; tick *= 10) ticks.push(tick);
  return plot({
    title: `ROC: recall of ${label} against its false-positive rate`,
    note: `${counted(yes + no)} test mails, ${counted(yes)} of them ${label}; logarithmic axis`,
    x: { name: "false-positive rate", from: least, to: 1, log: true, ticks, tell: share },
    y: { name: `recall of ${label}`, ...unit },
    lines: [{ points: line }],
    dots,
  });
}

function precision(label, { yes, roc: corners }) {
  const line = [];
  corners.slice(1).forEach(([taken, hit], number) => {
    const [before, had] = corners[number];
    for (let step = 0; step <= BETWEEN; step++) {
      const [no, all] = [before + ((taken - before) * step) / BETWEEN, had + ((hit - had) * step) / BETWEEN];
      if (!(no + all)) continue;
      if (!line.length) line.push([0, all / (no + all)]);
      line.push([all / yes, all / (no + all)]);
    }
  });
  return plot({
    title: `Precision against recall of ${label}`,
    note: `The lowest precision, ${share(Math.min(...line.map(([, y]) => y)))}, is that of calling all mails ${label}`,
    x: { name: `recall of ${label}`, ...unit },
    y: { name: "precision", ...unit },
    lines: [{ points: line }],
  });
}

function calibration(label, { calibration: bins }) {
  const most = Math.max(...bins.map(([, , mails]) => mails));
  const dots = bins.map(([said, true_, mails]) => ({
    at: [said, true_],
    radius: 2.5 + 4.5 * Math.sqrt(mails / most),
    name: `${counted(mails)} mails`,
    quiet: true,
  }));
  return plot({
    title: `Calibration: share of mails that are ${label} against the probability said`,
    note: "On the dashed line probabilities are honest; a larger dot is more mails",
    x: { name: `probability of ${label}`, ...unit },
    y: { name: `share that is ${label}`, ...unit },
    lines: [{ points: [[0, 0], [1, 1]], dashed: true }],
    dots,
  });
}

function learning(rows) {
  const of = (key) => rows.filter((row) => Number.isFinite(row[key])).map((row) => [row.epoch, row[key]]);
  const [train, validation] = [of("train_loss"), of("val_loss")];
  const high = Math.max(...[...train, ...validation].map(([, loss]) => loss)) * 1.05 || 1;
  const last = rows.at(-1).epoch;
  const step = Math.ceil(last / 8);
  const whole = { name: "epoch", from: 1, to: last, tell: String };
  return plot({
    title: "Loss of each epoch of training",
    note: "Full line: validation mails; dashed: training mails",
    x: { ...whole, ticks: rows.map((row) => row.epoch).filter((epoch) => epoch % step === 0) },
    y: { name: "loss", from: 0, to: high, ticks: [0, high / 2, high], tell: (loss) => loss.toPrecision(2) },
    lines: [{ points: validation }, { points: train, dashed: true }],
  });
}

const counted = (number) => number.toLocaleString("en");
const share = (part) => `${Number((100 * part).toPrecision(3))}%`;
const unit = { from: 0, to: 1, ticks: [0, 0.25, 0.5, 0.75, 1], tell: share };

function plot({ title, note, x, y, lines, dots = [] }) {
  const along = ({ from, to, log }, value) =>
    log ? Math.log(value / from) / Math.log(to / from) : (value - from) / (to - from || 1);
  const across = (value) => LEFT + along(x, value) * (WIDTH - LEFT - RIGHT);
  const up = (value) => HEIGHT - BOTTOM - along(y, value) * (HEIGHT - TOP - BOTTOM);
  const text = (words, attributes) => draw("text", attributes, words);
  const [low, right] = [HEIGHT - BOTTOM, WIDTH - RIGHT];
  const image = draw(
    "svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title },
    x.ticks.map((tick) => [
      draw("path", { class: "grid", d: `M${across(tick)} ${TOP}V${low}` }),
      text(x.tell(tick), { x: across(tick), y: low + 15, "text-anchor": tick > 0.99 * x.to ? "end" : "middle" }),
    ]),
    y.ticks.map((tick) => [
      draw("path", { class: "grid", d: `M${LEFT} ${up(tick)}H${right}` }),
      text(y.tell(tick), { x: LEFT - 5, y: up(tick) + 4, "text-anchor": "end" }),
    ]),
    text(x.name, { x: (LEFT + right) / 2, y: HEIGHT - 6, "text-anchor": "middle" }),
    lines.map(({ points, dashed }) =>
      draw("path", {
        class: dashed ? "line dashed" : "line",
        d: points.map(([px, py], at) => `${at ? "L" : "M"}${across(px).toFixed(1)} ${up(py).toFixed(1)}`).join(""),
      })),
    dots.map(({ at: [px, py], name, radius = 4, quiet }, number) => [
      draw("circle", { class: "dot", cx: across(px), cy: up(py), r: radius }, draw("title", {}, name)),
      quiet ? null : text(name, { x: across(px) + 8, y: up(py) + 14 + 12 * number }),
    ]),
  );
  return make("figure", {}, make("h3", {}, title), image, make("figcaption", {}, note));
}
