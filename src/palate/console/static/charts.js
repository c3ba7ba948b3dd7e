// Draws every <div class="chart" data-chart="KIND" data-from="ID"> from the JSON block with that id.
// Tooltips are drawn on the canvas: no text of the data ever becomes HTML.
(() => {
  "use strict";
  const drawn = new Map();
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const palette = () => Array.from({ length: 10 }, (_, i) => css(`--c${i + 1}`));
  const narrow = (element) => element.clientWidth < 560;
  const cut = (text, n) => (text.length > n ? `${text.slice(0, n - 1)}…` : text);
  const number = (value, digits = 3) =>
    value == null ? "–" : Number(value).toLocaleString("en", { maximumFractionDigits: digits });

  const wrap = (text, width) => {
    const lines = [""];
    for (const word of String(text).slice(0, 400).split(/\s+/)) {
      for (let rest = word; rest; rest = rest.slice(width)) {
        const piece = rest.slice(0, width);
        const line = lines[lines.length - 1];
        if (line && line.length + piece.length + 1 > width) lines.push(piece);
        else lines[lines.length - 1] = line ? `${line} ${piece}` : piece;
      }
    }
    return lines.slice(0, 8).join("\n");
  };

  const shared = (element) => ({
    animation: !matchMedia("(prefers-reduced-motion: reduce)").matches,
    animationDuration: 300,
    color: palette(),
    textStyle: { fontFamily: getComputedStyle(document.body).fontFamily, color: css("--ink") },
    tooltip: {
      renderMode: "richText",
      confine: true,
      backgroundColor: css("--card"),
      borderColor: css("--line"),
      textStyle: { color: css("--ink"), fontSize: 13 },
    },
    legend: { show: false },
    aria: { enabled: false }, // the element carries its own label, and a table stands below
  });
  const axisLine = () => ({ lineStyle: { color: css("--line") } });
  const valueAxis = (name, extra) => ({
    type: "value",
    name,
    nameLocation: "middle",
    nameGap: 28,
    nameTextStyle: { color: css("--muted") },
    axisLabel: { color: css("--muted"), hideOverlap: true },
    splitLine: axisLine(),
    ...extra,
  });
  const rowAxis = (element, categories) => ({
    type: "category",
    data: categories,
    inverse: true,
    axisTick: { show: false },
    axisLine: axisLine(),
    axisLabel: { color: css("--ink"), interval: 0, formatter: (text) => cut(text, narrow(element) ? 15 : 34) },
  });
  const legend = (element, names) => ({
    show: names.length > 1,
    data: names,
    top: 0,
    left: 0,
    type: narrow(element) ? "plain" : "scroll",
    orient: narrow(element) ? "vertical" : "horizontal",
    itemGap: narrow(element) ? 6 : 10,
    formatter: (name) => cut(name, 44),
    itemWidth: 12,
    itemHeight: 12,
    icon: "circle",
    pageIconColor: css("--accent"),
    pageTextStyle: { color: css("--muted") },
    textStyle: { color: css("--ink") },
  });
  const headroom = (element, series) => (series < 2 ? 10 : narrow(element) ? 16 + 20 * series : 40);
  const frame = (top) => ({ left: 16, right: 40, top, bottom: 34, containLabel: true });

  // Dots with error bars: {axis, categories, series: [{name, points: [[value, low, high] | null]}], reference}
  const intervals = (element, data) => {
    const many = data.series.length;
    const top = headroom(element, many) + (data.reference_label ? 12 : 0);
    element.style.height = `${top + 46 + data.categories.length * Math.max(26, 14 * many)}px`;
    const dot = (row, of) => (params, api) => {
      const at = api.value(0);
      const band = api.size([0, 1])[1];
      const shift = many > 1 ? ((row + 0.5) / many - 0.5) * band * 0.8 : 0;
      const [x, y] = api.coord([api.value(1), at]);
      const color = api.visual("color");
      const children = [
        { type: "circle", shape: { cx: x, cy: y + shift, r: 4.5 }, style: { fill: color } },
      ];
      if (of[params.dataIndex].value[4]) {
        const [low] = api.coord([api.value(2), at]);
        const [high] = api.coord([api.value(3), at]);
        const line = { x1: low, x2: high, y1: y + shift, y2: y + shift };
        children.unshift({ type: "line", shape: line, style: { stroke: color, lineWidth: 2 } });
      }
      return { type: "group", children };
    };
    const series = data.series.map((one, row) => {
      const points = one.points
        .map((point, at) => point && { value: [at, point[0], point[1] ?? point[0], point[2] ?? point[0], point[1] != null] })
        .filter(Boolean);
      return {
        name: one.name, type: "custom", data: points, clip: true, renderItem: dot(row, points),
        encode: { x: [1, 2, 3], y: 0 },
        markLine: data.reference == null || row ? undefined : {
          silent: true, symbol: "none", data: [{ xAxis: data.reference }], animation: false,
          label: { formatter: data.reference_label ?? "", color: css("--muted"), position: "start", rotate: 0, distance: 3 },
          lineStyle: { color: css("--muted"), type: "dashed" },
        },
      };
    });
    const base = shared(element);
    return {
      ...base,
      legend: legend(element, data.series.map((one) => one.name)),
      grid: frame(top),
      xAxis: valueAxis(data.axis, { scale: true, min: data.min, max: data.max }),
      yAxis: rowAxis(element, data.categories),
      tooltip: {
        ...base.tooltip,
        formatter: ({ value, seriesName }) =>
          `${wrap(data.categories[value[0]], 40)}\n${wrap(seriesName, 40)}: ${number(value[1])}` +
          (value[4] ? `  [${number(value[2])}, ${number(value[3])}]` : ""),
      },
      series,
    };
  };

  // Horizontal bars: {axis, categories, series: [{name, values}], stacked, max}
  const bars = (element, data) => {
    const rows = data.stacked ? 1 : data.series.length;
    const top = headroom(element, data.series.length);
    element.style.height = `${top + 46 + data.categories.length * Math.max(26, 13 * rows)}px`;
    const base = shared(element);
    return {
      ...base,
      legend: legend(element, data.series.map((one) => one.name)),
      grid: frame(top),
      xAxis: valueAxis(data.axis, { min: 0, max: data.max }),
      yAxis: rowAxis(element, data.categories),
      tooltip: {
        ...base.tooltip,
        formatter: ({ name, seriesName, value }) => `${wrap(name, 40)}\n${wrap(seriesName, 40)}: ${number(value)}`,
      },
      series: data.series.map((one) => ({
        name: one.name, type: "bar", data: one.values, barMaxWidth: 16, barGap: "15%",
        stack: data.stacked ? "all" : undefined, itemStyle: { borderRadius: data.stacked ? 0 : [0, 3, 3, 0] },
      })),
    };
  };

  // Steps one after the other: {steps: [{name, start, seconds, state, detail}]}
  const timeline = (element, data) => {
    element.style.height = `${70 + data.steps.length * 28}px`;
    const base = shared(element);
    const worked = (step) => !["kept", "cached", "skipped", "unchanged"].includes(step.state);
    const colour = (step) => (step.state === "failed" ? css("--bad") : css(worked(step) ? "--c1" : "--c6"));
    return {
      ...base,
      grid: frame(10),
      xAxis: valueAxis("seconds", { min: 0 }),
      yAxis: rowAxis(element, data.steps.map((step) => step.name)),
      tooltip: {
        ...base.tooltip,
        formatter: ({ dataIndex }) => {
          const step = data.steps[dataIndex];
          const detail = step.detail ? `\n${wrap(step.detail, 48)}` : "";
          return `${wrap(step.name, 40)}: ${number(step.seconds, 1)} s, ${wrap(step.state, 40)}${detail}`;
        },
      },
      series: [
        { type: "bar", stack: "t", silent: true, itemStyle: { color: "transparent" }, data: data.steps.map((s) => s.start) },
        {
          type: "bar", stack: "t", barMaxWidth: 16, barMinHeight: 2,
          label: { show: true, position: "right", color: css("--muted"), formatter: ({ value }) => `${number(value, 1)} s` },
          labelLayout: { hideOverlap: false },
          data: data.steps.map((step) => ({ value: step.seconds, itemStyle: { color: colour(step), borderRadius: 3 } })),
        },
      ],
    };
  };

  // A zoomable map: {unit, roots: [{id, name, value, n_items, keywords, children}]}
  // Dark enough for white text, light or dark page alike.
  const HUES = ["#0b6e6a", "#a04a18", "#4353a6", "#96406f", "#5b6812", "#4a545e", "#14688f", "#7f5e00", "#6a41a0", "#37703f"];
  const darker = (hue, share) =>
    `#${[1, 3, 5].map((at) => Math.round(parseInt(hue.slice(at, at + 2), 16) * (1 - share)).toString(16).padStart(2, "0")).join("")}`;
  const coloured = (node, hue, share) => ({
    ...node,
    // the border of a node with children is the ground of its name
    itemStyle: node.children
      ? { color: darker(hue, share), borderColor: darker(hue, 0.35) }
      : { color: darker(hue, share) },
    children: node.children?.map((child, at) => coloured(child, hue, (at % 4) * 0.07)),
  });
  const treemap = (element, data) => {
    const base = shared(element);
    const tile = { show: true, color: "#fff", overflow: "truncate", fontSize: 13, lineHeight: 17 };
    const more = (node) => node.keywords?.length && `\n${wrap(node.keywords.join(", "), 26)}`;
    const label = ({ name, data: node }) => `${wrap(name, 26)}${(node && !node.children && more(node)) || ""}`;
    return {
      ...base,
      tooltip: {
        ...base.tooltip,
        formatter: ({ name, value, data: node }) =>
          wrap(name, 44) +
          (node?.n_items == null ? "" : `\n${number(node.n_items)} items`) +
          (node?.id === undefined || value == null ? "" : `, ${data.unit}: ${number(value)}`) +
          (node?.keywords?.length ? `\n${wrap(node.keywords.join(", "), 44)}` : ""),
      },
      series: [{
        type: "treemap", name: data.name ?? "All", roam: false, nodeClick: false,
        data: data.roots.map((node, at) => coloured(node, HUES[at % HUES.length], 0)),
        left: 0, right: 0, top: 0, bottom: 40, leafDepth: narrow(element) ? 1 : 2, visibleMin: 0,
        breadcrumb: {
          left: 0, bottom: 4, height: 26, emptyItemWidth: 60,
          itemStyle: { color: css("--accent-soft"), borderColor: css("--line"), textStyle: { color: css("--ink") } },
          emphasis: { itemStyle: { color: css("--line"), textStyle: { color: css("--ink") } } },
        },
        label: { ...tile, formatter: label, padding: 4 },
        upperLabel: { ...tile, height: 24, fontWeight: "bold", padding: [0, 6], formatter: ({ name }) => cut(name, 60) },
        itemStyle: { borderColor: css("--card"), gapWidth: 2, borderWidth: 1 },
        levels: [
          { itemStyle: { borderColor: css("--card"), borderWidth: 0, gapWidth: 4 }, upperLabel: { show: false } },
          { itemStyle: { borderWidth: 2, gapWidth: 1 } },
        ],
      }],
    };
  };

  // What is on screen is said in data-root, for people who cannot see it and for tests.
  const wireMap = (element, chart, data) => {
    const nodes = new Map();
    const parents = new Map();
    const walk = (node, parent) => {
      nodes.set(node.id, node);
      parents.set(node.id, parent);
      (node.children ?? []).forEach((child) => walk(child, node));
    };
    data.roots.forEach((node) => walk(node, null));
    const tell = (node) => element.dispatchEvent(new CustomEvent("palate:node", { bubbles: true, detail: node }));
    const enter = (node) => {
      const target = node.children?.length ? node : parents.get(node.id);
      if (target && element.dataset.root !== target.id) {
        chart.dispatchAction({ type: "treemapRootToNode", seriesIndex: 0, targetNodeId: target.id });
      }
    };
    chart.on("click", ({ data: node }) => {
      if (!node || node.id === undefined) return;
      enter(node);
      tell(node);
    });
    chart.on("treemaproottonode", (event) => {
      const id = event.targetNode?.getId?.() ?? event.targetNodeId ?? "";
      element.dataset.root = parents.has(id) ? id : "";
    });
    element.dataset.root = "";
    const asked = nodes.get(element.dataset.node);
    if (!asked) return;
    const arrive = () => {
      chart.off("finished", arrive); // going in while the map still grows leaves names of its first state behind
      enter(asked);
    };
    chart.on("finished", arrive);
  };

  // Numbers against numbers: {x, y, joined, series: [{name, points: [[x, y, low, high, label] ...]}]}
  const plane = (element, data) => {
    const top = headroom(element, data.series.length) + 14;
    element.style.height = `${top + 330}px`;
    const base = shared(element);
    const said = ({ value, seriesName }) =>
      `${wrap(value[4] ?? seriesName, 40)}\n${data.x}: ${number(value[0])}\n${data.y}: ${number(value[1])}` +
      (value[2] != null ? `  [${number(value[2])}, ${number(value[3])}]` : "");
    return {
      ...base,
      legend: legend(element, data.series.map((one) => one.name)),
      grid: { ...frame(top), left: 24 },
      xAxis: valueAxis(data.x, { scale: true, axisLine: axisLine() }),
      yAxis: valueAxis(data.y, { scale: true, nameGap: 44 }),
      tooltip: { ...base.tooltip, formatter: said },
      series: data.series.map((one) => ({
        name: one.name, type: data.joined ? "line" : "scatter", data: one.points, symbolSize: data.joined ? 6 : 10,
        label: { show: !data.joined && one.points.length < 12, position: "right", color: css("--muted"), formatter: ({ value }) => cut(value[4] ?? "", 24) },
      })),
    };
  };

  const kinds = { intervals, bars, timeline, treemap, plane };

  const draw = (element) => {
    const block = document.getElementById(element.dataset.from);
    const build = kinds[element.dataset.chart];
    if (!block || !build || !window.echarts) return;
    const data = JSON.parse(block.textContent);
    drawn.get(element)?.dispose();
    const option = build(element, data); // sets the height first
    const chart = window.echarts.init(element, null, { renderer: "canvas" });
    chart.setOption(option);
    if (element.dataset.chart === "treemap") wireMap(element, chart, data);
    element.dataset.drawn = "yes";
    drawn.set(element, chart);
  };
  const drawAll = (root = document) => root.querySelectorAll(".chart[data-chart]").forEach(draw);

  let waiting;
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      if (width === window.innerWidth) return; // a phone's address bar, not a new layout
      width = window.innerWidth;
      drawn.forEach((_, element) => draw(element));
    }, 150);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach((_, element) => draw(element)));
  window.palateCharts = { draw: drawAll, of: (element) => drawn.get(element) };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", () => drawAll());
  else drawAll();
})();
