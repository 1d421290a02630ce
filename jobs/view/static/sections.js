// A page of sections that the server renders: each is asked for when it comes near the screen, and put in place again when it changes.

import { follow, showProblem } from "./live.js";
import { moveInto } from "./section.js";

const query = new URLSearchParams(location.search);

/**
 * Show the sections of the page, for as long as somebody looks at it.
 *
 * @param api the address that renders a section
 * @param runs names of the runs that are shown
 * @param title of the page
 * @param choices id, name in the address and usual value of each list to choose from
 */
export const showSections = ({ api, runs, title, choices }) => {
  const parts = [...document.querySelectorAll("[data-part]")];
  const near = new Set([document.querySelector("#answer")]);
  let wanted = parts.find((part) => part.id === location.hash.slice(1)); // the section that the address names, until it is there
  if (wanted) near.add(wanted);
  const tags = new Map(); // section -> the tag of what it shows

  const addressOf = (part) => {
    const asked = new URLSearchParams({ part: part.dataset.part });
    for (const run of runs) asked.append("run", run);
    for (const name of ["x", "frames"]) if (query.get(name)) asked.set(name, query.get(name));
    return `${api}?${asked}`;
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
        document.title = `${alarm ? "▲ " : ""}${title} · Gatewatch`;
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

  document.querySelector("#name").textContent = title;
  document.title = `${title} · Gatewatch`;
  for (const [id, name, usual] of choices) selectFrom(id, name, usual);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    if (event.key === "b") location.assign("/");
    const part = /^[1-9]$/.test(event.key) ? parts[Number(event.key)] : null;
    if (part) location.hash = part.id;
  });
};
