// The page: what comes by the stream is shown, what was committed since is asked for, buttons ask the daemon.

import { control, get, listen, token } from "./api.js";
import { drawFront, drawSteps } from "./charts.js";
import { Explorer, modelWords } from "./explorer.js";
import { clock, element, measure, short } from "./format.js";
import { bestPanel, configPanel, modelPanel, notices, progressPanel, showState, workersPanel } from "./panels.js";

const $ = (id) => document.getElementById(id);
const INTERNAL = new Set(["architecture_key", "oracle_version", "directory", "table_sha256"]); // of an event: for programs
const EVERY_MS = 2500; // between two looks at what was committed
const seen = { status: null, run: null, runs: [], steps: [], front: null, cloud: [], other: null, lost: null, told: null };
const explorer = new Explorer(complain);
let wordsCursor = null;

// -- what is shown ----------------------------------------------------------------------------------------------------

function show() {
  const status = seen.status;
  const shown = [seen.lost, seen.told].filter(Boolean).map(([tone, words]) => element("p", { class: "notice", "data-tone": tone }, words));
  if (status) {
    showState(status);
    shown.push(...notices(status));
    const latest = seen.runs[0]?.run_id === seen.run?.run_id ? seen.run : null;
    replace("best", bestPanel(status, latest));
    replace("progress", progressPanel(status, latest, latest ? lastRise() : null));
    replace("workers", workersPanel(status));
    replace("model", modelPanel(status));
    showControls(status);
  }
  replace("notices", ...shown);
}

/** Replace a panel only where it changed: a screen reader, a selection and an open fold stay undisturbed. */
function replace(id, ...nodes) {
  const made = element("div", {}, nodes);
  if (made.innerHTML !== $(id).innerHTML) $(id).replaceChildren(...made.childNodes);
}

function lastRise() {
  const last = seen.steps.filter((step, i, all) => i === 0 || step.value !== all[i - 1].value || step.latency_ms !== all[i - 1].latency_ms).at(-1);
  const total = seen.steps.at(-1)?.evaluations;
  return last ? `${measure(seen.run.metric, last.value)} at ${clock(last.committed_unix_s)}, ${short(total - last.evaluations)} evaluations ago` : null;
}

function showControls(status) {
  const paused = Boolean(status.governor?.holds?.person);
  const words = paused ? "Resume" : "Pause";
  if ($("pause").textContent !== words) $("pause").textContent = words;
  for (const id of ["pause", "reload", "stop"]) $(id).disabled = !status.alive;
}

function draw() {
  if (!seen.run) return;
  drawSteps($("steps"), seen.steps, seen.run, seen.other);
  if (seen.front) drawFront($("front"), seen, (one) => explorer.open(one.generation, one.slot));
}

function complain(error) {
  if (error.status === 401) askToken(`${error.message}.`);
  else seen.told = ["bad", error.message];
  show();
}

// -- what is asked for ------------------------------------------------------------------------------------------------

async function loadRuns(wanted) {
  seen.runs = await get("runs");
  $("run").replaceChildren(...seen.runs.map((run) => element("option", { value: run.run_id, selected: run.run_id === wanted }, `${run.run_id}, ${run.status === "running" ? "unfinished" : run.status}`)));
  await choose(seen.runs.find((run) => run.run_id === wanted) ?? seen.runs[0]);
}

async function choose(run) {
  seen.run = run ?? null;
  if (!run) return draw();
  describe(run);
  offerOthers(run);
  const explored = explorer.choose(run);
  [seen.steps, seen.front] = await Promise.all([get(`runs/${run.run_id}/progress`), get(`runs/${run.run_id}/front`)]);
  draw();
  show();
  await explored;
  const [cloud, events, configs] = await Promise.all([newest(run), get(`runs/${run.run_id}/events`), get(`runs/${run.run_id}/config`), loadWords()]);
  seen.cloud = cloud;
  $("events").replaceChildren(...(events.items.length ? events.items.map(eventItem) : [element("li", { class: "quiet" }, "none yet")]));
  replace("config", configPanel(seen.status ?? {}, configs));
  draw();
}

/** Runs to compare with: those that looked for the same metric. */
function offerOthers(run) {
  const others = seen.runs.filter((other) => other.run_id !== run.run_id && other.metric === run.metric && other.evaluations);
  seen.other = null;
  $("comparing").hidden = !others.length;
  $("against").replaceChildren(element("option", { value: "" }, "no other"), ...others.map((other) => element("option", { value: other.run_id }, `run ${other.run_id}`)));
}

async function compare(runId) {
  const run = seen.runs.find((other) => String(other.run_id) === runId);
  if (run) {
    const [steps, front] = await Promise.all([get(`runs/${runId}/progress`), get(`runs/${runId}/front`)]);
    seen.other = { run, steps, front };
  } else seen.other = null;
  draw();
}

const newest = async (run) => (await get(`runs/${run.run_id}/individuals`, { limit: 200, status: "ok" })).items;

function describe(run) {
  $("about-run").textContent = [run.strategy, run.oracle, run.seed === null ? null : `seed ${run.seed}`, `${run.generations} generations`, `begun ${clock(run.created_unix_s)}`, ...run.limits.map((limit) => limit.replace(/\d+\.\d{5,}/, (number) => Number(number).toPrecision(4)))].filter(Boolean).join(" · ");
}

let looking = false, again = false;
/** Ask for what was committed since the last look; one look at a time, not more often than every few seconds. */
async function look() {
  if (looking) { again = true; return; }
  looking = true;
  try {
    if (seen.status?.run && seen.runs[0]?.run_id !== seen.status.run.run_id) await loadRuns(seen.status.run.run_id);
    else if (seen.run && seen.run.run_id === seen.status?.run?.run_id) {
      const id = seen.run.run_id;
      [seen.run, seen.steps, seen.front, seen.cloud] = await Promise.all([get(`runs/${id}`), get(`runs/${id}/progress`), get(`runs/${id}/front`), newest(seen.run)]);
      describe(seen.run);
      draw();
      show();
      await explorer.follow();
      if (seen.status.proposals) await loadWords();
    }
  } catch (error) {
    complain(error);
  }
  setTimeout(() => { looking = false; if (again) { again = false; look(); } }, EVERY_MS);
}

async function loadWords(further = false) {
  const page = await get(`runs/${seen.run.run_id}/replies`, { limit: 8, cursor: further ? wordsCursor : "" });
  const list = $("words");
  if (!further && list.children.length > 8) return; // somebody reads on
  const known = new Set([...list.children].map((item) => item.dataset.request));
  if (!further && page.items.length === known.size && page.items.every((reply) => known.has(reply.request_id))) return;
  const items = page.items.map(wordsItem);
  if (further) list.append(...items); else list.replaceChildren(...items);
  wordsCursor = page.next_cursor;
  $("more-words").hidden = !wordsCursor;
}

function wordsItem(reply) {
  const came = reply.candidate_generation === null ? null : element("button", { type: "button", class: "link", click: () => explorer.open(reply.candidate_generation, reply.candidate_slot) }, `became ${reply.candidate_generation}/${reply.candidate_slot}`);
  const said = reply.text.trim().split("\n").at(-1).slice(0, 160) || reply.reason || reply.status;
  return element("li", { "data-request": reply.request_id }, element("details", {}, element("summary", {}, element("span", { class: "at" }, `for ${reply.join_generation}`), said), modelWords(reply)), came);
}

function eventItem(event) {
  const at = event.generation === null ? "" : ` at generation ${event.generation}`;
  const words = told(event);
  return element("li", {}, element("time", { datetime: new Date(1000 * event.created_unix_s).toISOString() }, clock(event.created_unix_s)), event.kind.replaceAll("_", " ") + at, words ? element("div", { class: "quiet" }, words) : null);
}

/** What an event says, in words; of a kind that is not known here, its plain fields. */
function told({ kind, payload }) {
  const p = payload ?? {};
  if (p.error) return p.error;
  if (kind === "config_applied") return Object.entries(p).map(([key, [old, fresh]]) => `${key} ${JSON.stringify(old)} → ${JSON.stringify(fresh)}`).join(", ");
  if (kind === "network_judged") return `${measure("accuracy", p.accuracy)} ± ${(100 * (p.accuracy_error ?? 0)).toFixed(2)} on ${short(p.pictures)} ${p.split} pictures`;
  if (kind === "finalists_timed") return [`${p.networks.length} networks in ${p.runtime}`, p.note].filter(Boolean).join("; ");
  if (kind === "adapter_accepted" || kind === "adapter_rejected") return [p.sha256.slice(0, 12), ...p.reasons].join("; ");
  return Object.entries(p).filter(([name, value]) => value !== null && value !== "" && typeof value !== "object" && !INTERNAL.has(name))
    .map(([name, value]) => `${name.replaceAll("_", " ")} ${typeof value === "number" ? short(value) : value}`).join(" · ");
}

// -- controls -----------------------------------------------------------------------------------------------------------

let waiting = null; // what was asked for before there was a token

async function carryOut(verb) {
  if (!token.get()) { waiting = verb; return askToken(); }
  if (verb === "stop" && !$("ask-stop").open) return $("ask-stop").showModal();
  $("ask-stop").close();
  try {
    seen.told = ["good", `${verb}: ${(await control(verb)).message}`];
    setTimeout(() => { seen.told = null; show(); }, 8000);
  } catch (error) {
    if (error.status === 401) waiting = verb;
    complain(error);
  }
  show();
}

function askToken(reason) {
  if (reason) $("token-reason").textContent = reason;
  if (!$("ask-token").open) $("ask-token").showModal();
}

$("pause").addEventListener("click", () => carryOut($("pause").textContent.toLowerCase()));
$("reload").addEventListener("click", () => carryOut("reload"));
$("stop").addEventListener("click", () => carryOut("stop"));
$("really-stop").addEventListener("click", () => carryOut("stop"));
$("token").addEventListener("click", () => { waiting = null; askToken(); });
$("token-forget").addEventListener("click", () => { token.set(""); location.reload(); });
$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token.set($("token-text").value.trim());
  if (!seen.status) return location.reload(); // nothing could be read without it
  $("ask-token").close();
  if (waiting && token.get()) carryOut(waiting);
  waiting = null;
});
for (const button of document.querySelectorAll("dialog .close")) button.addEventListener("click", () => button.closest("dialog").close());
$("run").addEventListener("change", () => choose(seen.runs.find((run) => String(run.run_id) === $("run").value)).catch(complain));
$("against").addEventListener("change", () => compare($("against").value).catch(complain));
$("more-words").addEventListener("click", () => loadWords(true).catch(complain));
let width = innerWidth;
addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; draw(); } });

// -- begin --------------------------------------------------------------------------------------------------------------

const first = loadRuns().catch(complain);
listen({
  status: async (status) => {
    const before = seen.status;
    seen.status = status;
    seen.lost = null;
    show();
    await first;
    if (before === null || before.run?.generation !== status.run?.generation || before.run?.run_id !== status.run?.run_id || before.state !== status.state) look();
  },
  journal: async (event) => {
    await first;
    if (seen.run && event.run_id === seen.run.run_id && event.event_id > (seen.event ?? 0)) {
      const known = seen.event !== undefined;
      seen.event = event.event_id;
      if (known) $("events").prepend(eventItem(event));
    }
  },
}, (error) => {
  seen.lost = ["bad", `not live: ${error.message}`];
  if (error.status === 401) askToken(`${error.message}.`);
  show();
});
document.documentElement.dataset.ready = "true";
