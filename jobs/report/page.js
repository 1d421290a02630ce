"use strict";
(() => {
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const narrow = (plot) => plot.clientWidth < 560;

  // Every chart shares the page's colours and font; plotly takes them from a template.
  const template = () => {
    const axis = { gridcolor: css("--grid"), linecolor: css("--line"), zerolinecolor: css("--line"), automargin: false };
    const quiet = { bgcolor: css("--card"), bordercolor: css("--line"), font: { color: css("--ink") } };
    return {
      layout: {
        font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: css("--ink") },
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
        hoverlabel: { bgcolor: css("--card"), bordercolor: css("--line"), font: { color: css("--ink") } },
        xaxis: axis, yaxis: axis, dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
        updatemenudefaults: quiet, sliderdefaults: { ...quiet, bgcolor: css("--accent"), activebgcolor: css("--ink"), tickcolor: css("--line") },
      },
    };
  };

  // Nothing on the page leads to Plotly's servers: by default every chart has a button that uploads it, and a logo that is a link.
  const config = {
    responsive: true, displaylogo: false, showSendToCloud: false, plotlyServerURL: "",
    modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
  };

  // On a narrow screen the four panels stand below each other instead of two by two.
  const stack = (layout, height) => {
    const gap = layout.xaxis.type === "date" ? 0.08 : 0.055, each = (1 - 3 * gap) / 4;
    for (let i = 0; i < 4; i++) {
      const n = i ? i + 1 : "", top = 1 - i * (each + gap);
      Object.assign(layout["xaxis" + n], { domain: [0, 1], title: i === 3 ? layout.xaxis3.title : {} });
      layout["yaxis" + n].domain = [top - each, top];
      Object.assign(layout.annotations[i], { x: 0, xanchor: "left", y: top });
    }
    const inside = height - layout.margin.t - layout.margin.b;
    const drop = (px) => -px / inside;
    for (const name of ["coloraxis", "coloraxis2"]) if (layout[name]) layout[name].colorbar.y = drop(44);
    layout.sliders[0] = { ...layout.sliders[0], x: 0, len: 1, y: drop(138) };
    layout.updatemenus[0].y = drop(102);
    layout.height = height;
  };

  const draw = (plot) => {
    if (plot.dataset.drawn) return;
    plot.dataset.drawn = "1";
    const data = plot.querySelector("script");
    const figure = JSON.parse(data.textContent);
    data.remove();
    figure.layout.template = template();
    if (figure.frames && narrow(plot)) {
      stack(figure.layout, 1080);
      plot.style.height = "1080px";
    }
    figure.config = config;
    Plotly.newPlot(plot, figure);
  };

  const plots = [...document.querySelectorAll(".plot")];
  const watcher = new IntersectionObserver((seen) => {
    for (const entry of seen) if (entry.isIntersecting) { watcher.unobserve(entry.target); draw(entry.target); }
  }, { rootMargin: "500px" });
  plots.forEach((plot) => watcher.observe(plot));

  // Pause makes plotly reject the promise of the animation that it ends, for no reason and with nobody listening.
  addEventListener("unhandledrejection", (event) => { if (event.reason === undefined) event.preventDefault(); });
  addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((part) => { part.open = true; });
    plots.forEach(draw);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const plot of plots) if (plot.dataset.drawn) Plotly.relayout(plot, { template: template() });
  });
})();
