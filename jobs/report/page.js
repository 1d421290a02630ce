"use strict";
(() => {
  const draw = (plot) => {
    if (!plot.dataset.drawn) Charts.draw(plot, Charts.take(plot));
  };

  const plots = [...document.querySelectorAll(".plot")];
  const watcher = new IntersectionObserver((seen) => {
    for (const entry of seen) if (entry.isIntersecting) { watcher.unobserve(entry.target); draw(entry.target); }
  }, { rootMargin: "500px" });
  plots.forEach((plot) => watcher.observe(plot));

  addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((part) => { part.open = true; });
    plots.forEach(draw);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => Charts.recolour(plots));
})();
