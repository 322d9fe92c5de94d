// What the status object says, as panels.

import { bytes, clock, duration, element, facts, measure, milliseconds, short } from "./format.js";

const TONES = { running: "good", polishing: "good", exporting: "good", finished: "good", training: "good", paused: "warn", starting: "warn", measuring: "warn", unhealthy: "bad" };

export function showState(status) {
  const pill = document.getElementById("state");
  const words = { none: "no run here" }[status.state] ?? status.state;
  if (pill.textContent !== words) pill.textContent = words;
  pill.dataset.tone = TONES[status.state] ?? "quiet";
  document.title = `${words} · riwoa`;
  document.getElementById("version").textContent = status.version ?? "";
  document.getElementById("place").textContent = status.state_directory ?? "";
}

/** Messages of the daemon, its warnings and a refused configuration, worst first. */
export function notices(status) {
  const found = [];
  if (status.message) found.push([TONES[status.state] ?? "quiet", status.message]);
  for (const [reason, words] of Object.entries(status.governor?.holds ?? {})) {
    if (words !== status.message) found.push(["warn", `paused (${reason}): ${words}`]);
  }
  for (const words of status.warnings ?? []) found.push(["warn", words]);
  if (status.config?.error) found.push(["bad", `the configuration was refused: ${status.config.error}`]);
  return found.map(([tone, words]) => element("p", { class: "notice", "data-tone": tone }, words));
}

/** The winner: its accuracy on test pictures first where there is one, its latency against the target. */
export function bestPanel(status, run) {
  const leader = status.leader ?? null;
  if (!leader) return element("p", { class: "quiet" }, "nothing was evaluated yet");
  const metric = leader.metric ?? "accuracy", test = status.test, timed = status.timed;
  const value = leader.value ?? leader.accuracy;
  const target = status.run?.target_ms ?? run?.target_ms;
  const tested = test?.accuracy !== null && test?.accuracy !== undefined;
  const error = tested ? test.accuracy_error : leader.accuracy_error;
  const spread = error ? ` ± ${(100 * error).toFixed(2)}` : "";
  const interval = leader.latency_interval ? ` ± ${(100 * leader.latency_interval).toFixed(0)} %` : "";
  const found = leader.origin ? `generation ${leader.origin[0]}, slot ${leader.origin[1]}` : null;
  const metrics = run?.leader?.architecture_key === leader.architecture_key ? run?.leader?.metrics : null;
  return element("div", {},
    element("p", { class: "big" }, tested ? measure("accuracy", test.accuracy) : measure(metric, value), element("small", {}, `${spread} ${tested ? "on test pictures" : metric === "accuracy" ? "on validation" : metric}`)),
    facts([
      ["validation", tested ? `${measure(metric, value)}, the best of ${short(leader.tries)} tries` : leader.tries ? `the best of ${short(leader.tries)} tries` : null],
      ["latency", leader.latency_ms ? [`${milliseconds(leader.latency_ms)}${interval}`, target ? (leader.latency_ms <= target ? " of " : element("span", { class: "over" }, " beyond ")) : "", target ? milliseconds(target) : ""] : null],
      ["measured", timed?.latency_ms ? `${milliseconds(timed.latency_ms)} (${milliseconds(timed.low_ms)} to ${milliseconds(timed.high_ms)}) in ${timed.runtime}` : null],
      ["note", timed?.note],
      ["size", metrics?.parameters ? `${short(metrics.parameters)} parameters, ${short(metrics.macs)} multiply-adds` : null],
      ["limits", leader.feasible ? null : element("span", { class: "over" }, missed(leader))],
      ["as good", test?.fastest_equal ? `${milliseconds(test.fastest_equal.latency_ms)} by ${measure("accuracy", test.fastest_equal.accuracy)}, not to be told from it` : null],
      ["found at", found],
    ]));
}

function missed(leader) {
  const over = (leader.limits ?? []).filter((limit) => limit.met === false).map((limit) => `${limit.metric} ${short(limit.value)} against ${short(limit.bound)}`);
  return `not within the limits${over.length ? `: ${over.join("; ")}` : ""}`;
}

export function progressPanel(status, latest, lastRise) {
  const run = status.run, counts = status.evaluations ?? (latest ? { unique: latest.evaluations } : null);
  if (!run) return element("p", { class: "quiet" }, status.message || "no run was begun");
  const total = run.phase === "search" ? run.generations : run.polish_evaluations;
  const done = run.phase === "search" ? run.generation : run.polish_spent;
  const unit = run.phase === "search" ? "generations" : "evaluations";
  const shown = total && status.state !== "finished";
  return element("div", {},
    shown ? element("progress", { max: total, value: Math.min(done ?? 0, total), "aria-label": `${run.phase}: ${done} of ${total} ${unit}` }) : null,
    facts([
      ["phase", total ? `${run.phase}, ${short(done)} of ${short(total)} ${unit}` : run.phase],
      ["evaluations", counts ? `${short(counts.unique)}${counts.per_s && status.alive ? `, ${counts.per_s.toFixed(1)} a second` : ""}${counts.failed ? `, ${short(counts.failed)} failed` : ""}` : null],
      ["time left", status.alive && status.state === "running" ? (status.time_left_s === null || status.time_left_s === undefined ? "unknown" : `about ${duration(status.time_left_s)}`) : null],
      ["last gain", lastRise],
      ["deadline", run.deadline_unix_s ? clock(run.deadline_unix_s) : null],
      ["running for", status.alive && status.started_unix_s ? duration(Date.now() / 1000 - status.started_unix_s) : null],
      ["written", status.alive ? null : status.updated_unix_s ? clock(status.updated_unix_s) : null],
      ["strategy", run.strategy ? `${run.strategy}, seed ${run.seed}` : null],
    ]));
}

export function workersPanel(status) {
  const workers = status.workers ?? [], operators = Object.entries(status.operators ?? {}).filter(([, o]) => o.proposals);
  const readings = status.governor?.readings ?? {};
  return element("div", {},
    workers.length ? table(["worker", "does", "done", "busy"], workers.map((w) => [w.name, w.state + (w.restarts ? `, ${w.restarts} restarts` : ""), short(w.done), percent(w.busy_share)])) : element("p", { class: "quiet" }, "no worker runs"),
    operators.length ? [element("h3", {}, "Who wins over its parents"), table(["operator", "proposals", "wins", "between"], operators.map(([name, o]) => [name, short(o.proposals), percent(o.win_rate), `${percent(o.win_rate_low)} and ${percent(o.win_rate_high)}`]))] : null,
    facts([
      ["waiting", status.evaluations?.queued ? `${status.evaluations.queued} candidates` : null],
      ["disk free", bytes(readings.disk_free_bytes)],
      ["memory", bytes(readings.memory_available_bytes)],
      ["load a core", readings.load_per_core === null || readings.load_per_core === undefined ? null : short(readings.load_per_core)],
      ["temperature", readings.temperature_c ? `${readings.temperature_c.toFixed(0)} °C` : null],
    ]));
}

export function modelPanel(status) {
  const proposals = status.proposals, learning = proposals?.learning, server = proposals?.server;
  if (!proposals) return element("p", {}, status.cognition?.reason ?? "no language model proposes");
  const trainings = learning ? ["accepted", "rejected", "failed"].filter((name) => learning[name]).map((name) => `${learning[name]} ${name}`).join(", ") : "";
  return facts([
    ["model", proposals.model], ["state", [proposals.state, proposals.reason].filter(Boolean).join(": ")],
    ["answers", `${short(proposals.answered)}, ${short(proposals.successes ?? 0)} beat their parents${proposals.fallbacks ? `, ${proposals.fallbacks} came too late` : ""}`],
    ["pace", proposals.tokens_per_s ? `${proposals.tokens_per_s.toFixed(1)} tokens a second, busy ${percent(proposals.busy_share)}` : null],
    ["server", server ? `${server.url}${server.model ? `, answered by ${server.model}` : ""}` : null], ["model changed", server?.changed],
    ["tokens since noon", server ? `${short(server.night_in + server.night_out)}${server.budget ? ` of ${short(server.budget)}` : ""}${typeof server.night_cost === "number" ? `, cost ${short(server.night_cost)}` : ""}` : null],
    ["trainings", server ? "none: a model on a server is not trained" : trainings || null], ["adapter", learning?.adapter ? `${learning.adapter.slice(0, 12)} since generation ${learning.since_generation}` : null],
  ]);
}

export function configPanel(status, configs) {
  const changes = configs.filter((config) => Object.keys(config.changed).length);
  return element("div", {},
    facts([["file", status.config?.file ?? "none: defaults"], ["revision", String(status.config?.revision ?? configs.at(-1)?.revision ?? 0)], ["waits for", (status.config?.restart_keys ?? []).join(", ")]]),
    changes.map((config) => element("div", {}, element("h3", {}, `from generation ${config.generation} on`),
      facts(Object.entries(config.changed).map(([key, [old, fresh]]) => [key, `${JSON.stringify(old)} → ${JSON.stringify(fresh)}`])))),
    configs.length ? element("details", {}, element("summary", {}, "all of it"), element("pre", { tabindex: 0 }, JSON.stringify(configs.at(-1).config, null, 1))) : null);
}

const percent = (share) => (share === null || share === undefined ? "–" : `${(100 * share).toFixed(0)} %`);

export function table(heads, rows) {
  const cells = (row, tag) => row.map((cell, i) => element(tag, { ...(i ? { class: "number" } : {}), ...(tag === "th" ? { scope: "col" } : {}) }, cell));
  return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `${heads[0]}s, scrollable` }, element("table", {}, element("thead", {}, element("tr", {}, cells(heads, "th"))), element("tbody", {}, rows.map((row) => element("tr", {}, cells(row, "td"))))));
}
