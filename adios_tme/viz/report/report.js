"use strict";
(() => {
  const root = document.documentElement;
  const shown = JSON.parse(document.getElementById("data").textContent);
  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const HEIGHT = 240, COLOURS = 8, DASHES = [[], [6, 4], [2, 3], [8, 3, 2, 3]];
  const plots = [];

  // Theme: as the system has it, until one is chosen.
  const THEMES = ["", "light", "dark"];
  const NAMES = { "": "as the system", light: "light", dark: "dark" };
  const button = document.getElementById("theme");
  const stored = () => { try { return localStorage.getItem("adios-tme-theme") || ""; } catch { return ""; } };
  const setTheme = (theme) => {
    if (theme) root.dataset.theme = theme; else delete root.dataset.theme;
    button.textContent = `Theme: ${NAMES[theme]}`;
    try { localStorage.setItem("adios-tme-theme", theme); } catch { /* of this visit alone */ }
    repaint();
  };
  const repaint = () => {
    for (const { plot } of plots) {
      plot.redraw(false, true);
      plot.root.querySelectorAll(".u-series").forEach((row, number) => {
        const marker = row.querySelector(".u-marker");
        if (marker && number) marker.style.borderColor = marker.style.background = strokeOf(plot, number);
      });
    }
  };
  const strokeOf = (plot, number) => css(`--c${plot.series[number].colour % COLOURS}`);
  button.addEventListener("click", () => {
    setTheme(THEMES[(THEMES.indexOf(root.dataset.theme || "") + 1) % THEMES.length]);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);

  // Masks over iterations.
  for (const slider of document.querySelectorAll(".slider")) {
    const number = slider.dataset.series, pictures = shown.series[number];
    const range = slider.querySelector("input"), label = slider.querySelector("output");
    const image = document.getElementById(`picture-${number}`);
    const show = (place) => {
      const at = Math.min(Math.max(place, 0), pictures.length - 1);
      const iteration = pictures[at].iteration.toLocaleString("en");
      range.value = at;
      range.setAttribute("aria-valuetext", `iteration ${iteration}`);
      image.src = pictures[at].uri;
      image.alt = `Images, their masks and overlays after iteration ${iteration}`;
      label.textContent = `iteration ${iteration}`;
    };
    range.addEventListener("input", () => show(Number(range.value)));
    slider.querySelector(".back").addEventListener("click", () => show(Number(range.value) - 1));
    slider.querySelector(".on").addEventListener("click", () => show(Number(range.value) + 1));
  }

  // Curves: one zoom for all.
  const everything = document.getElementById("everything");
  let zooming = false;
  const zoomAll = (min, max) => {
    if (zooming) return;
    zooming = true;
    for (const { plot } of plots) plot.setScale("x", { min, max });
    zooming = false;
    const [first, last] = extent();
    everything.disabled = min <= first && max >= last;
  };
  const extent = () => [
    Math.min(...plots.map(({ plot }) => plot.data[0][0])),
    Math.max(...plots.map(({ plot }) => plot.data[0][plot.data[0].length - 1])),
  ];
  const seeEverything = () => zoomAll(...extent());
  everything.addEventListener("click", seeEverything);

  const number = (value) => value == null ? "" : Number(value.toPrecision(4)).toString();
  const sync = uPlot.sync("iterations");
  const draw = (place, chart, index) => {
    const axis = {
      stroke: () => css("--soft"),
      grid: { stroke: () => css("--line"), width: 1 },
      ticks: { stroke: () => css("--line"), width: 1 },
      font: "12px system-ui, sans-serif",
    };
    const options = {
      width: Math.max(200, place.clientWidth), height: HEIGHT,
      scales: { x: { time: false }, y: { distr: chart.log ? 3 : 1 } },
      axes: [
        { ...axis, values: (_, ticks) => ticks.map((tick) => tick.toLocaleString("en")), space: 70 },
        { ...axis, size: 62, values: (_, ticks) => ticks.map((tick) => tick == null ? "" : number(tick)) },
      ],
      series: [
        { label: "iteration", value: (_, value) => value == null ? "" : value.toLocaleString("en") },
        ...chart.curves.map((curve) => ({
          label: curve.label, colour: curve.colour, width: 1.6, spanGaps: true,
          dash: DASHES[curve.dash % DASHES.length],
          stroke: (plot, at) => css(`--c${plot.series[at].colour % COLOURS}`),
          value: (_, value) => number(value),
          points: { show: chart.data[0].length < 3 },
        })),
      ],
      cursor: { sync: { key: sync.key, scales: ["x", null] }, drag: { x: true, y: false } },
      hooks: { setScale: [(plot, key) => {
        if (key === "x") zoomAll(plot.scales.x.min, plot.scales.x.max);
      }] },
    };
    const plot = new uPlot(options, chart.data, place);
    plots.push({ plot, place });
    sync.sub(plot);
    plot.root.querySelector("canvas").setAttribute("aria-hidden", "true");
    plot.over.addEventListener("dblclick", seeEverything);
    place.addEventListener("keydown", (event) => onKey(event, plot, index));
    for (const name of plot.root.querySelectorAll(".u-series:not(:first-child) th")) {
      name.tabIndex = 0;
      name.setAttribute("role", "button");
      name.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        event.stopPropagation();
        name.click();
      });
    }
  };

  const onKey = (event, plot, index) => {
    const { min, max } = plot.scales.x, width = max - min, at = plot.cursor.idx;
    const middle = at == null ? (min + max) / 2 : plot.data[0][at];
    const moves = { ArrowLeft: -1, ArrowRight: 1 };
    if (event.key in moves) {
      const last = plot.data[0].length - 1;
      const to = Math.min(Math.max((at == null ? 0 : at + moves[event.key]), 0), last);
      plot.setCursor({ left: plot.valToPos(plot.data[0][to], "x"), top: 10 });
      tell(plot, index, to);
    } else if (event.key === "+" || event.key === "=") {
      zoomAll(middle - width / 4, middle + width / 4);
    } else if (event.key === "-") {
      const [first, last] = extent();
      zoomAll(Math.max(first, middle - width), Math.min(last, middle + width));
    } else if (event.key === "Escape") {
      seeEverything();
    } else {
      return;
    }
    event.preventDefault();
  };
  const tell = (plot, index, at) => {
    const values = plot.series.slice(1).filter((each) => each.show)
      .map((each) => `${each.label} ${number(plot.data[plot.series.indexOf(each)][at])}`);
    document.getElementById(`value-${index}`).textContent =
      `Iteration ${plot.data[0][at].toLocaleString("en")}: ${values.join(", ")}`;
  };

  document.querySelectorAll(".chart").forEach((figure, index) => {
    draw(figure.querySelector(".plot"), shown.charts[index], index);
  });
  new ResizeObserver(() => {
    for (const { plot, place } of plots) {
      const width = Math.max(200, place.clientWidth);
      if (width !== plot.width) plot.setSize({ width, height: HEIGHT });
    }
  }).observe(document.body);
  setTheme(stored());
})();
