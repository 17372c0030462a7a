// The status page: reads /v1/status once a second and shows it. Whatever the master says is put
// on the page as text, never as markup. Nothing is built anew that is there already, so that what
// a reader opened or selected stays.
"use strict";

const EVERY_MS = 1000;      // between two looks
const PATIENCE_MS = 4000;   // how long one answer may take
const SPARK_MAX = 120;      // looks that a curve shows
const SHARE_MAX = 5;        // looks that a share of time goes over
const SVG = "http://www.w3.org/2000/svg";

const byId = (id) => document.getElementById(id);

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// ---- numbers for people

const whole = new Intl.NumberFormat("en");
const count = (n) => whole.format(Math.round(n || 0));
const tenth = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

function duration(ms) {
  if (ms < 1000) return `${count(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 100) return `${tenth.format(seconds)} s`;
  if (seconds < 6000) return `${count(seconds / 60)} min`;
  if (seconds < 172800) return `${count(seconds / 3600)} h`;
  return `${count(seconds / 86400)} days`;
}

const ago = (ms) => (ms < 1000 ? "now" : `${duration(ms)} ago`);
const clock = (ms) => new Date(ms).toLocaleTimeString();
const moment = (ms) => new Date(ms).toLocaleString();

function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (n >= 1024 && at < units.length - 1) {
    n /= 1024;
    at += 1;
  }
  return `${tenth.format(n)} ${units[at]}`;
}

function phase(phase) {
  if (typeof phase === "string") return phase;
  if (phase && phase.listening) return "listening";
  const exit = phase && phase.exited;
  if (!exit) return "unknown";
  if (exit.frozen) return "killed: frozen";
  if (exit.signal !== null && exit.signal !== undefined) return `killed by signal ${exit.signal}`;
  return `ended with ${exit.code}`;
}

// ---- tables, lists and curves

// Makes the body have one row a list of cells. A cell is text, or a number's share of 1.
function fill(body, rows, numeric) {
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((cells, index) => {
    const row = body.rows[index] || body.insertRow();
    cells.forEach((cell, column) => {
      const td = row.cells[column] || row.insertCell();
      td.className = numeric.includes(column) ? "n" : "";
      if (typeof cell !== "object") return say(td, cell);
      if (!td.firstElementChild) td.replaceChildren(make("meter"));
      const meter = td.firstElementChild;
      meter.max = 1;
      meter.value = Math.min(1, cell.share);
      meter.title = `${tenth.format(cell.share * 100)} %`;
    });
  });
}

// A table with a title; neither is shown while it is empty.
function table(name, heads, numeric) {
  const node = make("table");
  const head = node.createTHead().insertRow();
  heads.forEach((text, column) => {
    head.append(make("th", numeric.includes(column) ? "n" : "", text));
  });
  node.append(make("tbody"));
  const wrap = make("div", "wide");
  wrap.append(node);
  const body = node.tBodies[0];
  const title = make("h4", "", name);
  const show = (rows) => {
    fill(body, rows, numeric);
    title.hidden = wrap.hidden = rows.length === 0;
  };
  return { nodes: [title, wrap], fill: show };
}

function curve(name, format) {
  const box = make("div");
  const title = make("h4");
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${SPARK_MAX - 1} 30`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const area = document.createElementNS(SVG, "path");
  const line = document.createElementNS(SVG, "polyline");
  svg.append(area, line);
  box.append(title, svg);
  const values = [];
  return {
    box,
    add(value) {
      values.push(value);
      if (values.length > SPARK_MAX) values.shift();
      const known = values.filter((it) => it !== null && it !== undefined);
      const most = Math.max(0, ...known);
      const seconds = (values.length * EVERY_MS) / 1000;
      say(title, known.length ? `${name}, at most ${format(most)} in ${seconds} s` : `${name}: none`);
      const from = SPARK_MAX - values.length;
      const points = values.map((it, index) => {
        const height = most > 0 ? ((it || 0) / most) * 27 : 0;
        return `${from + index},${(29 - height).toFixed(1)}`;
      });
      line.setAttribute("points", points.join(" "));
      const end = SPARK_MAX - 1;
      area.setAttribute("d", `M${from},30 L${points.join(" L")} L${end},30 Z`);
    },
  };
}

// ---- a job

const FACTS = [
  "freshness", "behind", "records a second", "workers", "epoch", "generation", "restarts",
  "dead letters", "checkpoint", "records", "ingest",
];
const MAIN_FACTS = 3;

class Job {
  constructor() {
    this.card = make("article", "card job");
    const title = make("div", "title");
    this.name = make("h3");
    this.state = make("span", "state");
    title.append(this.name, this.state);
    this.why = make("p", "why");
    const list = make("dl");
    this.facts = {};
    FACTS.forEach((name, index) => {
      const fact = make("div", `fact-${name.replaceAll(" ", "-")}`);
      const value = make("dd", index < MAIN_FACTS ? "main" : "");
      fact.append(make("dt", "", name), value);
      list.append(fact);
      this.facts[name] = value;
    });
    this.behind = curve("records behind", count);
    this.freshness = curve("freshness (p99)", duration);
    const curves = make("div", "sparks");
    curves.append(this.behind.box, this.freshness.box);
    this.views = table("views", ["view", "rows"], [1]);
    this.dependencies = table("services",
      ["used as", "service", "state", "for", "at", "last error"], []);
    this.operators = table("operators, by time spent",
      ["operator", "of a core", "", "rows held", "bytes held"], [1, 3, 4]);
    this.processes = table("processes", ["process", "worker", "phase", "http"], []);
    this.failures = make("div");
    this.card.append(title, this.why, list, curves, ...this.dependencies.nodes,
      ...this.views.nodes, ...this.operators.nodes,
      ...this.processes.nodes, this.failures);
    this.looks = [];
  }

  show(job, now) {
    say(this.name, job.name);
    say(this.state, job.state);
    const known = ["running", "degraded", "failed", "stopped"].includes(job.state);
    this.state.className = `state ${known ? job.state : ""}`;
    say(this.why, job.why || "");
    this.why.hidden = !job.why;
    this.showFacts(job, now);
    this.behind.add(job.behind);
    this.freshness.add(job.freshness_p99_ms);
    this.dependencies.fill(job.dependencies.map((it) => [
      it.dependency, it.engine, it.state, duration(Math.max(0, now - it.since_ms)), it.at,
      it.error || "",
    ]));
    this.views.fill(Object.entries(job.views).map(([name, rows]) => [name, count(rows)]));
    this.showOperators(job.operators, now);
    this.processes.fill(job.processes.map((it) => [
      `${it.part} ${it.index}`, it.worker, phase(it.phase), it.http,
    ]));
    this.showFailures(job.failures);
  }

  showFacts(job, now) {
    const fresh = (ms) => (ms === null || ms === undefined ? "–" : duration(ms));
    const quantiles = `${fresh(job.freshness_p50_ms)} / ${fresh(job.freshness_p99_ms)}`;
    const none = job.freshness_p50_ms === null || job.freshness_p50_ms === undefined;
    const of = job.workers === job.workers_wanted ? "" : ` of ${job.workers_wanted}`;
    const late = job.lag_ms > 0 ? `, ${duration(job.lag_ms)} late` : "";
    const ingest = job.ingest;
    const facts = {
      "freshness": none ? "nothing new" : quantiles,
      "behind": job.behind === null ? `unknown${late}` : `${count(job.behind)} records${late}`,
      "records a second": tenth.format(job.records_per_second),
      "workers": `${job.workers}${of}`,
      "epoch": job.epoch ? `${clock(job.epoch)}, ${ago(now - job.epoch)}` : "none yet",
      "generation": count(job.generation),
      "restarts": count(job.restarts),
      "dead letters": count(job.dead_letters),
      "checkpoint": job.checkpointed ? ago(now - job.checkpointed) : "none yet",
      "records": count(job.records),
      "ingest": ingest
        ? `${ingest.state}${ingest.why ? ` (${ingest.why})` : ""}, `
          + `${tenth.format(ingest.published_per_second)} published a second, `
          + `${count(ingest.restarts)} restarts`
        : "not of this cluster",
    };
    for (const name of FACTS) say(this.facts[name], facts[name]);
  }

  // The share is that of the time since a few looks ago; a process that began anew counts from 0.
  showOperators(operators, now) {
    this.looks.push({ at: now, busy: new Map(operators.map((it) => [it.name, it.busy_us])) });
    if (this.looks.length > SHARE_MAX + 1) this.looks.shift();
    const first = this.looks[0];
    const passed = (now - first.at) * 1000;
    const shares = operators.map((it) => {
      const before = first.busy.get(it.name);
      const busy = before === undefined || before > it.busy_us ? 0 : it.busy_us - before;
      return { it, share: passed > 0 ? busy / passed : 0 };
    });
    shares.sort((a, b) => b.share - a.share || b.it.busy_us - a.it.busy_us);
    const held = (n, format) => (n === null || n === undefined ? "" : format(n));
    this.operators.fill(shares.map(({ it, share }) => [
      it.name, `${tenth.format(share * 100)} %`, { share },
      held(it.rows, count), held(it.bytes, bytes),
    ]));
  }

  showFailures(failures) {
    const key = JSON.stringify(failures);
    if (key === this.shownFailures) return;
    this.shownFailures = key;
    this.failures.replaceChildren();
    if (failures.length) this.failures.append(make("h4", "", "failures, newest first"));
    failures.forEach((failure) => {
      const details = make("details");
      const what = `${moment(failure.at_ms)}: ${failure.process}: ${failure.what}`;
      details.append(make("summary", "", `${what} (generation ${failure.generation})`));
      details.append(make("pre", "", failure.tail.join("\n") || "it left no log"));
      this.failures.append(details);
    });
  }
}

// ---- everything

const jobs = new Map();

function showJobs(status) {
  const there = new Set(status.jobs.map((job) => job.name));
  for (const [name, job] of jobs) {
    if (there.has(name)) continue;
    job.card.remove();
    jobs.delete(name);
  }
  status.jobs.forEach((told, index) => {
    if (!jobs.has(told.name)) jobs.set(told.name, new Job());
    const job = jobs.get(told.name);
    job.show(told, status.master.now_ms);
    const at = byId("jobs").children[index];
    if (at !== job.card) byId("jobs").insertBefore(job.card, at || null);
  });
  const running = status.jobs.filter((job) => job.state === "running").length;
  say(byId("jobs-count"), `${running} of ${status.jobs.length} run`);
  byId("no-jobs").hidden = status.jobs.length > 0;
}

function showWorkers(status) {
  const rows = status.workers.map((it) => [
    it.name, `${it.slots_used} of ${it.slots}`, ago(it.silent_ms), it.http, it.version,
  ]);
  fill(byId("workers").tBodies[0], rows, [1, 2]);
  const slots = status.workers.reduce((sum, it) => sum + it.slots, 0);
  const used = status.workers.reduce((sum, it) => sum + it.slots_used, 0);
  say(byId("workers-count"), `${status.workers.length}, ${used} of ${slots} slots used`);
  byId("no-workers").hidden = status.workers.length > 0;
  byId("workers-card").hidden = status.workers.length === 0;
}

function show(status) {
  const { version, generation, started_ms: started, now_ms: now } = status.master;
  say(byId("master"), `master ${generation}, version ${version}, up for ${duration(now - started)}`);
  showJobs(status);
  showWorkers(status);
  const failed = status.jobs.filter((job) => job.state === "failed").length;
  const degraded = status.jobs.filter((job) => job.state === "degraded").length;
  const wrong = [[failed, "failed"], [degraded, "degraded"]].filter(([jobs]) => jobs > 0);
  const told = wrong.map(([jobs, what]) => `${jobs} ${what}`).join(", ");
  document.title = told ? `(${told}) Tidemill` : "Tidemill";
}

let heard = null; // when the master said something last
let asking = false;

async function ask() {
  const answer = await fetch("v1/status", { signal: AbortSignal.timeout(PATIENCE_MS) });
  if (!answer.ok) throw new Error(`it answered with ${answer.status}`);
  return answer.json();
}

async function look() {
  setTimeout(look, EVERY_MS);
  if (asking) return;
  asking = true;
  let status = null;
  let why = "";
  try {
    status = await ask();
  } catch (error) {
    why = error.message;
  }
  asking = false;
  byId("away").hidden = status !== null;
  byId("main").classList.toggle("stale", status === null);
  if (status === null) {
    const since = heard === null ? "" : ` since ${clock(heard)}; shown is what it said last`;
    say(byId("away"), `The master is away${since} (${why}).`);
    document.title = "(away) Tidemill";
    return;
  }
  heard = Date.now();
  say(byId("read"), `read at ${clock(heard)}`);
  show(status);
}

look();
