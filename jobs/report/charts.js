"use strict";
// Draws figures in the page's colours. The report has this in the page; gatewatch view loads it as a file.
const Charts = (() => {
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
        modebar: { bgcolor: css("--card"), color: css("--soft"), activecolor: css("--ink") },
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

  const prepared = (plot, figure) => {
    figure.layout.template = template();
    figure.layout.uirevision = "kept"; // what the reader zoomed stays when the figure is drawn anew
    if (figure.frames && narrow(plot)) {
      stack(figure.layout, 1080);
      plot.style.height = "1080px";
    }
    figure.config = config;
    return figure;
  };

  const isMoved = (plot) => {
    const slider = plot._fullLayout?.sliders?.[0];
    return plot._transitioning || (slider && slider.active < slider.steps.length - 1);
  };

  // Plotly's own buttons and slider take no key.
  const steer = (event) => {
    const plot = event.currentTarget, slider = plot._fullLayout?.sliders?.[0];
    if (event.target !== plot || !slider) return;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key !== " " && !by) return;
    event.preventDefault();
    const next = slider.steps[Math.min(slider.steps.length - 1, Math.max(0, slider.active + by))];
    const [play, pause] = plot._fullLayout.updatemenus[0].buttons;
    const chosen = by ? next : plot._transitionData._animationRaf ? pause : play;
    Plotly.animate(plot, ...chosen.args);
  };

  const makeSteerable = (plot) => {
    plot.tabIndex = 0;
    plot.setAttribute("aria-keyshortcuts", "Space ArrowLeft ArrowRight");
    plot.addEventListener("keydown", steer);
  };

  return {
    /** Draw a figure in an element, or draw it anew; an animation that plays, or was moved, is left as it is. */
    draw: (plot, figure) => {
      if (!plot.dataset.drawn) {
        plot.dataset.drawn = "1";
        if (figure.frames) makeSteerable(plot);
        return Plotly.newPlot(plot, prepared(plot, figure));
      }
      if (!figure.frames) return Plotly.react(plot, prepared(plot, figure));
      return isMoved(plot) ? null : Plotly.newPlot(plot, prepared(plot, figure));
    },

    /** Take the figure out of an element, as the page's template puts it there. */
    take: (plot) => {
      const data = plot.querySelector("script");
      data?.remove();
      return data ? JSON.parse(data.textContent) : null;
    },

    /** Give all charts the colours of the page, which follow those of the system. */
    recolour: (plots) => {
      for (const plot of plots) if (plot.dataset.drawn) Plotly.relayout(plot, { template: template() });
    },
  };
})();

// Pause makes plotly reject the promise of the animation that it ends, for no reason and with nobody listening.
addEventListener("unhandledrejection", (event) => { if (event.reason === undefined) event.preventDefault(); });
