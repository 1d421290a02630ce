// The list of runs: filtered and sorted here, from rows that the server sends. What is shown is in the page's address.

import { arrange, element } from "./dom.js";
import { follow, showProblem } from "./live.js";
import { metricLine, scoreBars } from "./sparkline.js";
import { count, duration, moment, number } from "./text.js";

const PAGE = 200; // rows that are shown at first, and added by "show more"
const MARKS = { live: "●", completed: "✓", failed: "✕", died: "✕", interrupted: "■" };
const part = (id) => document.getElementById(id);

const chosen = { text: "", state: "", sort: "seen", down: true, most: PAGE };
let runs = [];
let waiting = 0; // runs whose scores are still being read
let skew = 0; // milliseconds that the server's clock is ahead of this one
const shown = new Map(); // run -> its row and what that was made of
const MOST = 8; // runs that are compared
const picked = new Set(); // those that the reader has chosen to compare

const score = (run) => run.trend?.worst?.score ?? null;
const isAbove = (run) => (score(run) ?? 0) > 1;
const lastLoss = (run) => (run.metrics.find((metric) => metric.value !== null) ?? { value: null }).value;
const ORDERS = {
  run: (run) => run.run,
  state: (run) => run.state,
  step: (run) => run.step,
  score,
  loss: lastLoss,
  seen: (run) => run.seen,
};

// ---- the address

const readAddress = () => {
  const query = new URLSearchParams(location.search);
  chosen.text = query.get("q") ?? "";
  chosen.state = query.get("state") ?? "";
  chosen.sort = query.get("sort") in ORDERS ? query.get("sort") : "seen";
  chosen.down = query.get("order") ? query.get("order") === "down" : !["run", "state"].includes(chosen.sort);
  part("text").value = chosen.text;
  part("state").value = chosen.state;
};

const writeAddress = () => {
  const query = new URLSearchParams();
  if (chosen.text) query.set("q", chosen.text);
  if (chosen.state) query.set("state", chosen.state);
  if (chosen.sort !== "seen" || !chosen.down) {
    query.set("sort", chosen.sort);
    query.set("order", chosen.down ? "down" : "up");
  }
  history.replaceState(null, "", query.size ? `?${query}` : "/");
};

// ---- which runs, in which order

const words = (run) =>
  [run.run, run.state, run.phases, run.framework, run.model, run.error, ...Object.entries(run.tags).map((tag) => tag.join("="))]
    .filter(Boolean).join("\n").toLowerCase();

const isWanted = (run) => {
  if (chosen.state === "above" ? !isAbove(run) : chosen.state && run.state !== chosen.state) return false;
  const text = words(run);
  return chosen.text.toLowerCase().split(/\s+/).every((word) => text.includes(word));
};

const compare = (one, other) => {
  const [a, b] = [ORDERS[chosen.sort](one), ORDERS[chosen.sort](other)];
  if (a === null || b === null) return (a === null) - (b === null); // a run without a value comes last, either way
  const order = typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
  return chosen.down ? -order : order;
};

// ---- a row

const tagButton = (name, value) => {
  const text = `${name}=${value}`;
  const button = element("button", { type: "button", class: "tag", title: `show runs with ${text}` }, text);
  button.addEventListener("click", () => choose({ text: text.toLowerCase() === chosen.text.toLowerCase() ? "" : text }));
  return button;
};

const sinceWords = (run) => {
  const { worst, now } = run.trend;
  const where = `${worst.gate} of ${worst.layer}`;
  if (worst.score <= 1) return [where];
  const since = worst.since === null ? "" : `since step ${number(worst.since)}`;
  return [now > 1 ? since : `${since}, now ${number(now)}`, element("br"), where];
};

const scoreCell = (run) => {
  if (run.trend === null) return [element("span", { class: "soft" }, "reading…")];
  if (!run.trend.worst) return [element("span", { class: "soft" }, "not scored")];
  return [
    element("strong", { class: isAbove(run) ? "high" : null }, `${isAbove(run) ? "▲ " : ""}${number(score(run))}`),
    element("small", {}, ...sinceWords(run)),
  ];
};

const metricCell = (run) =>
  run.metrics.slice(0, 3).map(({ name, value }) =>
    element("span", { class: value === null ? "metric high" : "metric" }, element("small", {}, `${name} `), value === null ? "" : number(value)));

const showPicked = () => {
  const link = part("compare");
  const ready = picked.size > 1 && picked.size <= MOST;
  link.hidden = picked.size < 1;
  if (ready) link.setAttribute("href", `/compare?${new URLSearchParams([...picked].map((run) => ["run", run]))}`);
  else link.removeAttribute("href");
  link.textContent = ready ? `Compare ${count(picked.size, "run")}` : picked.size > MOST ? `At most ${MOST} runs can be compared` : "Choose another run to compare";
};

const pick = (run, wanted) => {
  if (wanted) picked.add(run);
  else picked.delete(run);
  showPicked();
};

const makeRow = (run) => {
  const box = element("input", { type: "checkbox", class: "pick", "aria-label": `compare ${run.run}` });
  box.checked = picked.has(run.run);
  box.addEventListener("change", () => pick(run.run, box.checked));
  const link = element("a", { href: `/run?${new URLSearchParams({ run: run.run })}`, class: "name" }, run.run);
  const about = [run.phases.split(",").join(", "), run.model, run.framework].filter(Boolean).join(" · ");
  const state = element("td", { class: `state ${run.state}`, "data-label": "State" }, element("span", {}, `${MARKS[run.state] ?? ""} ${run.state}`));
  if (run.error) state.append(element("small", { title: run.error }, run.error));
  const seen = element("td", { class: "n seen", "data-label": "Last event", title: `last event ${moment(run.seen)}, started ${moment(run.started)}` });
  const row = element(
    "tr",
    { class: isAbove(run) || ["died", "failed"].includes(run.state) ? "bad-run" : null },
    element("th", { scope: "row" }, box, link, element("small", {}, about), element("span", { class: "tags" }, ...Object.entries(run.tags).map((tag) => tagButton(...tag)))),
    state,
    element("td", { class: "n", "data-label": "Step" }, number(run.step), element("small", {}, run.epoch === null || run.epoch === undefined ? "" : `epoch ${number(run.epoch)}`)),
    element("td", { class: "n", "data-label": "Worst score" }, ...scoreCell(run)),
    element("td", { class: "chart" }, run.trend ? scoreBars(run.trend.scores) : ""),
    element("td", { class: "n", "data-label": "Last metrics" }, ...metricCell(run)),
    element("td", { class: "chart" }, run.trend ? metricLine(run.trend.loss) : ""),
    seen,
  );
  return { row, seen, link, box };
};

const rowOf = (run) => {
  const made = JSON.stringify(run);
  const last = shown.get(run.run);
  if (last?.made === made) return last;
  const next = { ...makeRow(run), made, run };
  if (last?.row.isConnected) {
    const focused = last.row.contains(document.activeElement) ? document.activeElement : null;
    last.row.replaceWith(next.row);
    if (focused) (focused === last.box ? next.box : next.link).focus();
  }
  shown.set(run.run, next);
  return next;
};

const showAges = () => {
  const now = Date.now() + skew;
  for (const { run, seen } of shown.values()) seen.textContent = `${duration(now - run.seen)} ago`;
};

// ---- the page

const show = () => {
  const wanted = runs.filter(isWanted).sort(compare);
  arrange(document.querySelector("#runs tbody"), wanted.slice(0, chosen.most).map((run) => rowOf(run).row));
  const names = new Set(runs.map((run) => run.run));
  for (const run of [...shown.keys()]) if (!names.has(run)) shown.delete(run);
  for (const run of [...picked]) if (!names.has(run)) picked.delete(run);
  showPicked();
  for (const button of document.querySelectorAll("[data-sort]")) {
    const order = button.dataset.sort === chosen.sort ? (chosen.down ? "descending" : "ascending") : null;
    if (order) button.closest("th").setAttribute("aria-sort", order);
    else button.closest("th").removeAttribute("aria-sort");
  }
  part("runs").hidden = !wanted.length;
  part("filters").hidden = !runs.length;
  part("more").hidden = wanted.length <= chosen.most;
  part("more").textContent = `Show more: ${count(wanted.length - chosen.most, "run")} left`;
  part("count").textContent = wanted.length === runs.length ? count(runs.length, "run") : `${wanted.length} of ${count(runs.length, "run")}`;
  part("empty").hidden = wanted.length > 0;
  part("empty").textContent = runs.length
    ? "No run fits the filter. Esc clears it."
    : "This store holds no run yet. Train one with a GateMonitor that writes there, or try gatewatch demo. It appears here as soon as it begins.";
  const above = runs.filter(isAbove).length;
  document.title = `${above ? `(${above} above 1) ` : ""}Runs · Gatewatch`;
  showAges();
};

const choose = (change) => {
  Object.assign(chosen, change);
  part("text").value = chosen.text;
  part("state").value = chosen.state;
  writeAddress();
  show();
};

const takeData = (data, response) => {
  const sent = Date.parse(response.headers.get("Date"));
  skew = Number.isNaN(sent) ? 0 : sent - Date.now();
  if (Math.abs(skew) < 2000) skew = 0; // the header has whole seconds
  runs = data.runs;
  part("store").textContent = data.store;
  part("scoring").textContent = [data.scoring, data.waiting ? `The scores of ${count(data.waiting, "run")} are being read.` : ""].filter(Boolean).join(" ");
  waiting = data.waiting;
  show();
};

let tag = ""; // of the data that are shown

const refresh = async () => {
  const response = await fetch("/api/runs", { cache: "no-cache" });
  if (!response.ok) {
    tag = "";
    return (await response.json()).problem;
  }
  const next = response.headers.get("ETag");
  if (next !== tag) takeData(await response.json(), response);
  tag = next;
  return waiting ? 300 : "";
};

const step = (by) => {
  const links = [...document.querySelectorAll("#runs .name")];
  const at = links.indexOf(document.activeElement);
  const next = links[at < 0 ? (by > 0 ? 0 : links.length - 1) : Math.min(links.length - 1, Math.max(0, at + by))];
  next?.focus();
  next?.scrollIntoView({ block: "nearest" });
};

part("text").addEventListener("input", () => choose({ text: part("text").value, most: PAGE }));
part("state").addEventListener("change", () => choose({ state: part("state").value, most: PAGE }));
part("filters").addEventListener("submit", (event) => event.preventDefault());
part("more").addEventListener("click", () => choose({ most: chosen.most + PAGE }));
for (const button of document.querySelectorAll("[data-sort]")) {
  button.addEventListener("click", () => {
    const sort = button.dataset.sort;
    choose({ sort, down: sort === chosen.sort ? !chosen.down : !["run", "state"].includes(sort) });
  });
}
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") choose({ text: "", state: "" });
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "checkbox") return;
  if (event.key === "/") {
    event.preventDefault();
    part("text").focus();
  } else if (event.key === "c" && part("compare").hasAttribute("href")) part("compare").click();
  else if (event.key === "x") document.activeElement.closest?.("tr")?.querySelector(".pick")?.click();
  else if (event.key === "j" || event.key === "k") step(event.key === "j" ? 1 : -1);
});
addEventListener("popstate", () => {
  readAddress();
  show();
});
setInterval(showAges, 5000);
readAddress();
follow(refresh, showProblem);
