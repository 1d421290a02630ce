// What fired, and how the recording goes: tables that the server renders, put in place again when they change.

import { follow, showProblem } from "./live.js";
import { moveInto } from "./section.js";

const part = document.querySelector("#alerts");
let tag = ""; // of what is shown

follow(async () => {
  const response = await fetch("/api/alerts", { cache: "no-cache" });
  if (!response.ok) return (await response.json()).problem;
  const next = response.headers.get("ETag");
  if (next === tag) return "";
  moveInto(part, await response.text());
  tag = next;
  const firing = Number(part.querySelector("[data-firing]").dataset.firing);
  document.title = `${firing ? `(${firing} firing) ` : ""}Alerts and health · Gatewatch`;
  return "";
}, showProblem);
