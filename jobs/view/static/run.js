// One run: the sections of the report, each asked for when it comes near the screen, and put in place again when it changes.

import { follow, showProblem } from "./live.js";
import { moveInto } from "./section.js";

const query = new URLSearchParams(location.search);
const run = query.get("run") ?? "";
const parts = [...document.querySelectorAll("[data-part]")];
const near = new Set([document.querySelector("#answer")]);
let wanted = parts.find((part) => part.id === location.hash.slice(1)); // the section that the address names, until it is there
if (wanted) near.add(wanted);
const tags = new Map(); // section -> the tag of what it shows

const addressOf = (part) => {
  const asked = new URLSearchParams({ run, part: part.dataset.part });
  for (const name of ["x", "frames"]) if (query.get(name)) asked.set(name, query.get(name));
  return `/api/run?${asked}`;
};

/** Ask for the sections that are near the screen, and show those that have changed. */
const refresh = async () => {
  for (const part of parts.filter((each) => near.has(each))) {
    const address = addressOf(part);
    const response = await fetch(address, { cache: "no-cache" });
    if (!response.ok) return (await response.json()).problem;
    const tag = `${address} ${response.headers.get("ETag")}`;
    if (tags.get(part) === tag) continue;
    tags.set(part, tag);
    moveInto(part, await response.text());
    if (part.id === "answer") {
      const alarm = part.querySelector(".alarm > .verdict");
      document.title = `${alarm ? "▲ " : ""}${run} · Gatewatch`;
    }
  }
  wanted?.scrollIntoView();
  wanted = undefined;
  return "";
};

const ask = follow(refresh, showProblem);

const watcher = new IntersectionObserver((seen) => {
  let more = false;
  for (const { target, isIntersecting } of seen) {
    more ||= isIntersecting && !tags.has(target);
    if (isIntersecting) near.add(target);
    else near.delete(target);
  }
  if (more) ask();
}, { rootMargin: "600px" });
parts.slice(1).forEach((part) => watcher.observe(part));

const selectFrom = (id, name, usual) => {
  const select = document.getElementById(id);
  select.value = query.get(name) ?? usual;
  if (!select.value) select.value = usual;
  select.addEventListener("change", () => {
    if (select.value === usual) query.delete(name);
    else query.set(name, select.value);
    history.replaceState(null, "", `?${query}${location.hash}`);
    ask();
  });
};

document.querySelector("#name").textContent = run;
document.title = `${run} · Gatewatch`;
selectFrom("axis", "x", "step");
selectFrom("frames", "frames", "epoch");
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  if (event.key === "b") location.assign("/");
  const part = /^[1-9]$/.test(event.key) ? parts[Number(event.key)] : null;
  if (part) location.hash = part.id;
});
