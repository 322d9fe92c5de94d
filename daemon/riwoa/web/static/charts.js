// Two charts as SVG, drawn at the width that there is, so that their text keeps its size.

import { clock, element, measure, milliseconds, short } from "./format.js";

const HEIGHT = 250;
const MARGIN = { top: 14, right: 26, bottom: 34, left: 58 };

const isKnown = (step) => step.value !== null && step.evaluations !== null;

/** How the leader rose; `other` is a run to compare with, or null. */
export function drawSteps(figure, steps, run, other) {
  const shown = steps.filter(isKnown), compared = (other?.steps ?? []).filter(isKnown);
  if (!shown.length) return empty(figure, "nothing was evaluated yet");
  const last = shown.at(-1).evaluations;
  const values = shown.map((step) => step.value);
  const plot = frame(figure, [0, Math.max(last, compared.at(-1)?.evaluations ?? 1)], padded([...values, ...compared.map((step) => step.value)]), {
    x: "evaluations", y: (value) => measure(run.metric, value, 1), xWord: short,
    label: `Best value over evaluations: ${measure(run.metric, values.at(-1))} after ${short(last)}`,
  });
  if (compared.length) plot.svg.append(stairs(plot, compared.map((step) => [step.evaluations, step.value]), "curve other"));
  plot.svg.append(stairs(plot, shown.map((step) => [step.evaluations, step.value]), "curve"));
  for (const step of thinned(shown, 80)) {
    const words = `${measure(run.metric, step.value)} at ${milliseconds(step.latency_ms)} after ${short(step.evaluations)} evaluations, ${clock(step.committed_unix_s)}${step.feasible ? "" : ", beyond a limit"}`;
    plot.svg.append(element("svg:circle", { class: step.feasible ? "point" : "cloud", cx: plot.x(step.evaluations), cy: plot.y(step.value), r: 3 }, element("svg:title", {}, words)));
  }
  const gained = shown.length > 1 ? `last improvement after ${short(lastRise(shown).evaluations)} of ${short(last)} evaluations, ${clock(lastRise(shown).committed_unix_s)}` : "one leader so far";
  const beside = compared.length ? `; dashed: run ${other.run.run_id}, ${measure(other.run.metric, compared.at(-1).value)} after ${short(compared.at(-1).evaluations)}` : "";
  figure.append(element("figcaption", {}, gained + beside));
}

const isPlaced = ({ candidate }) => candidate.latency_ms && candidate.value !== null;

/** The front before a cloud of other candidates, with the target and the front of `other`, a run to compare with. */
export function drawFront(figure, { front, cloud, run, other }, open) {
  const points = front.points.filter(isPlaced), compared = (other?.front.points ?? []).filter(isPlaced).map(({ candidate }) => [candidate.latency_ms, candidate.value]);
  if (!points.length) return empty(figure, "no latency is known of any network yet");
  const others = cloud.filter((one) => one.latency_ms && one.value !== null);
  const xs = [...points.map((point) => point.candidate.latency_ms), ...compared.map(([x]) => x)].sort((a, b) => a - b);
  const ys = [...points.map((point) => point.candidate.value), ...compared.map(([, y]) => y)];
  const yRange = padded([...ys, ...others.map((one) => one.value)]);
  const plot = frame(figure, padded(run.target_ms ? [...xs, run.target_ms] : xs), yRange, {
    x: "latency, ms", y: (value) => measure(run.metric, value, 1), xWord: short,
    label: `Front of ${points.length} networks, from ${milliseconds(xs[0])} to ${milliseconds(xs.at(-1))}`,
  });
  for (const one of others) {
    if (plot.holds(one.latency_ms, one.value)) plot.svg.append(element("svg:circle", { class: "cloud", cx: plot.x(one.latency_ms), cy: plot.y(one.value), r: 2 }));
  }
  if (run.target_ms) {
    const x = plot.x(run.target_ms);
    plot.svg.append(element("svg:line", { class: "target", x1: x, x2: x, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }));
    plot.svg.append(element("svg:text", { class: "target-word", x: x - 5, y: HEIGHT - MARGIN.bottom - 6, "text-anchor": "end" }, "target"));
  }
  if (compared.length) plot.svg.append(stairs(plot, compared, "curve other"));
  plot.svg.append(stairs(plot, points.map(({ candidate }) => [candidate.latency_ms, candidate.value]), "curve"));
  const keyed = points.length <= 24; // more would be a long way for whoever goes by the keyboard; the list has them all
  for (const point of [...points].sort((a, b) => a.leader - b.leader)) {
    const c = point.candidate;
    const test = point.test_accuracy === null ? "" : `, ${measure("accuracy", point.test_accuracy)} on test pictures`;
    const words = `${measure(run.metric, c.value)} at ${milliseconds(c.latency_ms)}${test}, by ${c.operator}, ${c.generation}/${c.slot}${point.leader ? ", the leader" : ""}`;
    plot.svg.append(element("svg:circle", {
      class: point.leader ? "leader" : "point", cx: plot.x(c.latency_ms), cy: plot.y(c.value), r: point.leader ? 7 : 4.5,
      ...(keyed ? { tabindex: 0, role: "button", "aria-label": words } : {}),
      click: () => open(c),
      keydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(c); } },
    }, element("svg:title", {}, words)));
  }
  figure.append(element("figcaption", {}, `${points.length} networks of ${short(front.evaluated)} candidates; ${compared.length ? `dashed: run ${other.run.run_id}; ` : ""}${others.length ? "grey: the newest candidates; " : ""}choose one to see it`));
}

/** A line of stairs through points in data's units. */
function stairs(plot, points, kind) {
  const path = points.map(([x, y], i) => (i ? `H${plot.x(x)}V${plot.y(y)}` : `M${plot.x(x)},${plot.y(y)}`)).join("");
  return element("svg:path", { class: kind, d: path });
}

function empty(figure, words) {
  figure.replaceChildren(element("p", { class: "quiet" }, words));
}

function lastRise(steps) {
  const best = steps.at(-1).value;
  return steps.find((step) => step.value === best) ?? steps.at(-1);
}

function padded(values) {
  const low = Math.min(...values), high = Math.max(...values);
  const pad = (high - low) * 0.06 || Math.abs(high) * 0.02 || 1;
  return [low - pad, high + pad];
}

function thinned(items, most) {
  const every = Math.ceil(items.length / most);
  return items.filter((_, i) => i % every === 0 || i === items.length - 1);
}

/** An SVG with axes, and the functions from values to places. */
function frame(figure, [x0, x1], [y0, y1], { x: xName, y: yWord, xWord, label }) {
  const width = Math.max(260, figure.clientWidth || 560);
  const x = (value) => Math.round(10 * (MARGIN.left + ((value - x0) / (x1 - x0)) * (width - MARGIN.left - MARGIN.right))) / 10;
  const y = (value) => Math.round(10 * (HEIGHT - MARGIN.bottom - ((value - y0) / (y1 - y0)) * (HEIGHT - MARGIN.top - MARGIN.bottom))) / 10;
  const svg = element("svg:svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "group", "aria-label": label });
  for (const value of ticks(y0, y1, 5)) {
    svg.append(element("svg:line", { class: "axis", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value) }));
    svg.append(element("svg:text", { x: MARGIN.left - 6, y: y(value) + 4, "text-anchor": "end" }, yWord(value)));
  }
  for (const value of ticks(x0, x1, width < 420 ? 4 : 6)) {
    svg.append(element("svg:text", { x: x(value), y: HEIGHT - MARGIN.bottom + 15, "text-anchor": "middle" }, xWord(value)));
  }
  svg.append(element("svg:text", { x: width - MARGIN.right, y: HEIGHT - 3, "text-anchor": "end" }, xName));
  figure.replaceChildren(svg);
  return { svg, x, y, holds: (a, b) => a >= x0 && a <= x1 && b >= y0 && b <= y1 };
}

function ticks(low, high, most) {
  const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((factor) => power * factor >= rough);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high; i += 1) found.push(Number((i * step).toPrecision(12)));
  return found;
}
