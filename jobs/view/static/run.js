// One run: the sections of the report.

import { showSections } from "./sections.js";

const run = new URLSearchParams(location.search).get("run") ?? "";
showSections({ api: "/api/run", runs: [run], title: run, choices: [["axis", "x", "step"], ["frames", "frames", "epoch"]] });
