// Several runs beside each other: the sections of the comparison.

import { showSections } from "./sections.js";

const runs = new URLSearchParams(location.search).getAll("run");
showSections({ api: "/api/compare", runs, title: runs.join(" and ") || "Compare", choices: [["axis", "x", "step"]] });
