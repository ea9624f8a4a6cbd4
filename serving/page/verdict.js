// The verdict on one mail.

import { isolated, make, percent, table } from "./dom.js";

/** The verdict in a line, for the one who listens. */
export function spoken({ label, probability, unsure }) {
  return `${label}, probability ${percent(probability)}${unsure ? ", unsure" : ""}`;
}

/** Label, probabilities, operating point, model and latency; `took` is in milliseconds. */
export function verdict(answer, took, { name, plain }) {
  const several = answer.labels.length > 1 ? answer.labels : [answer.label];
  return [
    name ? make("p", { class: "note" }, isolated(name)) : null,
    plain ? make("p", { class: "note" }, "Read as plain text: it has no header lines.") : null,
    make(
      "p", { class: "label" },
      make("strong", {}, answer.labels.length ? several.join(", ") : "no label"),
      answer.unsure ? make("span", { class: "unsure" }, "unsure") : null,
    ),
    make("div", { class: "scores" }, Object.entries(answer.scores).map((score) => bar(score, answer))),
    point(answer),
    answer.unsure ? make("p", {}, unsure(answer)) : null,
    table([], facts(answer, took)),
  ];
}

function bar([label, score], answer) {
  const given = answer.labels.includes(label);
  const second = label === Object.keys(answer.scores)[1];
  const fill = make("span", { class: given ? "fill given" : "fill" });
  fill.style.width = `${100 * score}%`;
  const track = make("span", { class: "track", "aria-hidden": "true" }, fill);
  if (second && answer.threshold != null) {
    const tick = make("span", { class: "tick" });
    tick.style.left = `${100 * answer.threshold}%`;
    track.append(tick);
  }
  return make("p", { class: "score" }, make("span", {}, label), track, make("span", {}, percent(score)));
}

function point({ operating_point: name, threshold, scores }) {
  if (!name) {
    return make("p", { class: "note" }, "No operating point: the most probable label is given.");
  }
  const text = `Operating point ${name}: ${Object.keys(scores)[1]} from ${(100 * threshold).toFixed(2)}% on`;
  return make("p", { class: "note" }, `${text}, where the mark stands.`);
}

function unsure({ label, threshold, scores }) {
  const likeliest = Object.entries(scores).reduce((one, other) => (other[1] > one[1] ? other : one))[0];
  return likeliest === label || threshold == null
    ? "Unsure: the probability lies in the band in which this server wants a person to look."
    : `Unsure: ${likeliest} is more probable, but the operating point gives ${label}.`;
}

function facts(answer, took) {
  const rows = [["latency", `${took.toFixed(1)} ms, from the page to the server and back`]];
  const parts = Object.entries(answer.timings ?? {}).filter(([, time]) => typeof time === "number");
  if (parts.length) {
    const all = parts.reduce((sum, [, time]) => sum + time, 0);
    const each = parts.map(([part, time]) => `${part} ${time.toFixed(1)}`).join(", ");
    rows.push(["in the server", `${all.toFixed(1)} ms: ${each}`]);
  }
  rows.push(["model", `${answer.model}, version ${answer.version}`]);
  rows.push(["request", make("code", {}, answer.request_id)]);
  return rows;
}
