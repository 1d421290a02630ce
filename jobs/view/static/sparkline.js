// Charts of a line's height: the scores of a run as bars, and its loss as a line. A span of time shows its extremes, so a spike stays.

import { drawing } from "./dom.js";
import { number } from "./text.js";

const WIDTH = 132;
const HEIGHT = 30;

const picture = (label, ...parts) =>
  drawing("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label }, drawing("title", {}, label), ...parts);

const across = (share) => (1 + share * (WIDTH - 3)).toFixed(1);

/** The largest score of each span, from 0 up; those above the dashed line at 1 stand out. */
export const scoreBars = ({ x, high }) => {
  if (!x.length) return "";
  const top = Math.max(2, ...high);
  const y = (score) => (HEIGHT - 1 - (Math.max(0, score) / top) * (HEIGHT - 3)).toFixed(1);
  const path = (spans) => spans.map((i) => `M${across(x[i])} ${HEIGHT - 1}V${y(high[i])}`).join("");
  const all = [...x.keys()];
  const label = `largest ${number(Math.max(...high))}, newest ${number(high.at(-1))}`;
  return picture(
    `Scores over time: ${label}`,
    drawing("path", { class: "calm", d: path(all.filter((i) => high[i] <= 1)) }),
    drawing("path", { class: "above", d: path(all.filter((i) => high[i] > 1)) }),
    drawing("path", { class: "limit", d: `M0 ${y(1)}H${WIDTH}` }),
  );
};

/** A metric over time, from its smallest to its largest value. */
export const metricLine = ({ name, x, low, high }) => {
  if (!x.length) return "";
  const bottom = Math.min(...low);
  const range = Math.max(...high) - bottom || 1;
  const y = (value) => (HEIGHT - 2 - ((value - bottom) / range) * (HEIGHT - 4)).toFixed(1);
  const points = [...x.keys()].map((i) => `${across(x[i])} ${y(high[i])}L${across(x[i])} ${y(low[i])}`);
  const label = `${name} over time: ${number(bottom)} to ${number(Math.max(...high))}`;
  return picture(label, drawing("path", { class: "metric", d: `M${points.join("L")}` }));
};
