// Candidates with filters, and one candidate with its ancestors and the model's words.

import { get } from "./api.js";
import { element, facts, isShare, measure, milliseconds, short } from "./format.js";

const $ = (id) => document.getElementById(id);

export class Explorer {
  constructor(complain) {
    this.complain = complain;
    this.run = null;
    this.cursor = null;
    this.pages = 0;
    this.asked = 0; // questions, of which only the last one's answer is shown
    this.answered = 0; // the last of them that was
    this.shown = ""; // the first page, as it came
    let waiting;
    $("filters").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(() => this.load(), 250); });
    $("filters").addEventListener("submit", (event) => event.preventDefault());
    $("more").addEventListener("click", () => this.load(true));
  }

  /** Show another run's candidates. */
  async choose(run) {
    this.run = run;
    const percent = isShare(run.metric);
    $("value-head").textContent = run.metric;
    $("least-label").textContent = percent ? "At least, %" : `At least, ${run.metric}`;
    await this.load();
    const operators = await get(`runs/${run.run_id}/operators`);
    const chosen = $("operator").value;
    $("operator").replaceChildren(element("option", { value: "" }, "anything"), ...operators.map((name) => element("option", { value: name, selected: name === chosen }, name)));
  }

  /** New candidates were committed: the list follows where only its beginning is shown. */
  async follow() {
    if (this.pages <= 1 && !this.isBusy() && this.answered === this.asked) await this.load(false, true);
  }

  /** Whether somebody is at the list: rows must not be taken from under a finger. */
  isBusy() {
    return document.querySelector("dialog[open]") !== null || $("candidates").contains(document.activeElement);
  }

  /** Ask for the first page, or the next. `quietly`: nobody asked, so whoever is at the list by then is left alone. */
  async load(further = false, quietly = false) {
    if (!this.run) return;
    this.asked += 1;
    const mine = this.asked;
    const filters = Object.fromEntries(new FormData($("filters")));
    const share = isShare(this.run.metric) && filters.least !== "";
    const wanted = { ...filters, least: share ? Number(filters.least.replace(",", ".")) / 100 : filters.least, most_ms: filters.most_ms.replace(",", "."), name: filters.name.trim().toLowerCase() };
    try {
      const page = await get(`runs/${this.run.run_id}/individuals`, { ...wanted, limit: 15, cursor: further ? this.cursor : "" });
      if (mine !== this.asked) return; // a later question was asked meanwhile
      this.answered = mine;
      const came = JSON.stringify([this.run.run_id, page]);
      if (!further && (came === this.shown && this.pages === 1 || quietly && this.isBusy())) return;
      this.shown = further ? this.shown : came;
      const rows = page.items.map((candidate) => this.row(candidate));
      const body = $("candidates").tBodies[0];
      if (further) body.append(...rows); else body.replaceChildren(...rows);
      this.pages = further ? this.pages + 1 : 1;
      this.cursor = page.next_cursor;
      $("more").hidden = !page.next_cursor;
      $("candidates-note").textContent = body.rows.length ? `${body.rows.length} shown` : "no candidate is like that";
      if (further) rows[0]?.querySelector("button").focus({ preventScroll: true });
    } catch (error) {
      this.answered = mine;
      $("candidates-note").textContent = error.message;
    }
  }

  row(candidate) {
    const at = `${candidate.generation}/${candidate.slot}`;
    const over = this.run.target_ms && candidate.latency_ms > this.run.target_ms;
    return element("tr", {},
      element("td", {}, element("button", { type: "button", class: "link", "aria-haspopup": "dialog", "aria-label": `candidate ${at}`, click: () => this.open(candidate.generation, candidate.slot) }, at)),
      element("td", {}, candidate.operator + (candidate.repeat ? ", known" : "")),
      element("td", { class: "number" }, measure(this.run.metric, candidate.value)),
      element("td", { class: over ? "number over" : "number", title: over ? "beyond the target" : null }, milliseconds(candidate.latency_ms)),
      element("td", { class: "number wide" }, candidate.fitness === null ? "–" : candidate.fitness.toFixed(4)),
      element("td", { class: "wide" }, element("code", {}, candidate.name.slice(0, 8))),
      element("td", { class: "wide" }, candidate.parent ?? "–"),
      element("td", { class: "wide" }, candidate.status));
  }

  /** Show one candidate in a dialog. */
  async open(generation, slot) {
    try {
      const detail = await get(`runs/${this.run.run_id}/individuals/${generation}/${slot}`);
      $("detail-title").textContent = `Candidate ${generation}/${slot}`;
      $("detail-body").replaceChildren(...this.body(detail));
      if (!$("detail").open) $("detail").showModal();
      $("detail").scrollTop = 0;
    } catch (error) {
      this.complain(error);
    }
  }

  body({ candidate, metrics, architecture, error, ancestors, words }) {
    const metric = this.run.metric;
    const more = Object.entries(metrics).filter(([name, value]) => ![metric, "latency_ms"].includes(name) && typeof value === "number");
    return [
      element("p", { class: "big" }, measure(metric, candidate.value), element("small", {}, ` at ${milliseconds(candidate.latency_ms)}`)),
      facts([
        ["made by", candidate.operator], ["ended", error ? `${candidate.status}: ${error}` : candidate.status],
        ["fitness", candidate.fitness === null ? null : candidate.fitness.toFixed(5)], ...more.map(([name, value]) => [name, short(value)]),
        ["name", element("code", {}, candidate.name)], ["more", element("code", {}, `riwoactl why ${candidate.name.slice(0, 8)}`)],
      ]),
      element("details", {}, element("summary", {}, `${Object.keys(architecture).length} genes`), element("pre", { tabindex: 0 }, Object.entries(architecture).map(([gene, value]) => `${gene} = ${value}`).join("\n"))),
      element("h3", {}, "Where it comes from"),
      ancestors.length ? element("ol", { class: "lineage" }, ancestors.map((ancestor, i) => this.ancestor(ancestor, i ? ancestors[i - 1].operator : candidate.operator))) : element("p", { class: "quiet" }, "it has no parent"),
      words ? [element("h3", {}, "The model’s words"), modelWords(words)] : null,
    ].flat().filter(Boolean);
  }

  ancestor(ancestor, by) {
    const changes = Object.entries(ancestor.changed).map(([gene, [old, fresh]]) => `${gene} ${old ?? "off"} → ${fresh ?? "off"}`);
    const gain = ancestor.gain === null ? "" : `${ancestor.gain >= 0 ? "+" : ""}${ancestor.gain.toFixed(4)} of fitness`;
    const few = changes.length <= 6;
    return element("li", {},
      element("div", {}, `${by} changed `, few ? changes.join(", ") || "nothing that is active" : element("details", {}, element("summary", {}, `${changes.length} genes`), changes.join(", ")), gain ? [" ", element("span", { class: ancestor.gain > 0 ? "gain" : "loss" }, gain)] : null),
      element("div", {}, "of ", element("button", { type: "button", class: "link", click: () => this.open(ancestor.generation, ancestor.slot) }, `${ancestor.generation}/${ancestor.slot}`), `, ${measure(this.run.metric, ancestor.value)} at ${milliseconds(ancestor.latency_ms)}, by ${ancestor.operator}`));
  }
}

/** What the model was asked and said. */
export function modelWords(words) {
  return element("div", {},
    facts([["model", words.model], ["adapter", words.adapter_sha256?.slice(0, 12)], ["answer", words.status ? `${words.verdict ?? words.status}${words.reason ? `: ${words.reason}` : ""}, ${words.tokens} tokens in ${words.duration_s.toFixed(1)} s` : "none yet"]]),
    words.text ? element("pre", { tabindex: 0 }, words.text) : null,
    element("details", {}, element("summary", {}, "what it was asked"), element("pre", { tabindex: 0 }, words.prompt)));
}
