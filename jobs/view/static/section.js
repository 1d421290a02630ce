// Puts a section that the server sent in the place of the one that is shown, and keeps what the reader did with it.

/* global Charts */

const figures = new WeakMap(); // chart -> the figure that it is to show
const visible = new Set();

const draw = (plot) => {
  const figure = figures.get(plot);
  if (!figure) return;
  figures.delete(plot);
  Charts.draw(plot, figure);
};

// A chart is drawn when it comes near the screen, and drawn anew while it is there.
const watcher = new IntersectionObserver((seen) => {
  for (const { target, isIntersecting } of seen) {
    if (isIntersecting) {
      visible.add(target);
      draw(target);
    } else visible.delete(target);
  }
}, { rootMargin: "400px" });

const keyed = (elements, name) => {
  const counts = new Map();
  return new Map([...elements].map((element) => {
    const key = name(element);
    counts.set(key, (counts.get(key) ?? 0) + 1);
    return [`${key} ${counts.get(key)}`, element];
  }));
};
const plotsOf = (part) => keyed(part.querySelectorAll(".plot"), (plot) => plot.getAttribute("aria-label"));
const detailsOf = (part) => keyed(part.querySelectorAll("details"), (details) => details.querySelector("summary").textContent);

/**
 * Show a section.
 *
 * @param part the element that holds it
 * @param html as the report's template renders it: every name in it is escaped, and the page's policy runs no script of it
 */
export const moveInto = (part, html) => {
  const next = document.importNode(new DOMParser().parseFromString(html, "text/html").body, true);
  const [oldPlots, oldDetails] = [plotsOf(part), detailsOf(part)];
  const focused = part.contains(document.activeElement) ? document.activeElement.closest("summary")?.textContent : null;
  for (const [key, plot] of plotsOf(next)) {
    const figure = Charts.take(plot);
    const kept = oldPlots.get(key) ?? plot;
    if (kept !== plot) plot.replaceWith(kept);
    figures.set(kept, figure);
  }
  for (const [key, details] of detailsOf(next)) if (oldDetails.has(key)) details.open = oldDetails.get(key).open;
  part.replaceChildren(...next.childNodes);
  for (const plot of part.querySelectorAll(".plot")) {
    watcher.observe(plot);
    if (visible.has(plot)) draw(plot);
  }
  if (focused) [...part.querySelectorAll("summary")].find((summary) => summary.textContent === focused)?.focus();
  part.dataset.shown = "1";
};

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  const plots = document.querySelectorAll(".plot");
  if (plots.length) Charts.recolour(plots); // a page without charts does not load what draws them
});
