/* Plots: the specifications come with the page, the marks are those that the filters leave. */

const MOST_PANELS = 6;
const DARK = matchMedia("(prefers-color-scheme: dark)");

const STATES = [];

function startPlot(figure, plot) {
  const state = { figure, plot, view: null, seen: false, stale: true, width: 0, busy: null };
  STATES.push(state);
  FILTERED.addEventListener("filtered", () => { state.stale = true; refresh(state); });
  new IntersectionObserver((entries) => {
    state.seen = entries.some((entry) => entry.isIntersecting);
    refresh(state);
  }, { rootMargin: "200px" }).observe(figure);
  const again = () => { state.width = 0; state.stale = true; refresh(state); };
  DARK.addEventListener("change", again);
  addEventListener("resize", debounced(() => { if (width(figure) !== state.width) again(); }, 150));
  addEventListener("beforeprint", () => { state.seen = true; refresh(state); });
}

function width(figure) {
  return Math.floor(figure.querySelector(".drawing").clientWidth);
}

/* Draws what can be seen, one after the other, and never twice at once. */
function refresh(state) {
  if (!state.seen || !state.stale) return state.busy;
  state.stale = false;
  const work = () => draw(state).catch((error) => {
    state.figure.querySelector(".note").textContent = `not drawn: ${error.message}`;
  });
  state.busy = (state.busy || Promise.resolve()).then(work);
  return state.busy;
}

async function draw(state) {
  const { figure, plot } = state;
  const { marks, panels, all } = left(plot);
  const note = figure.querySelector(".note");
  note.textContent = all > panels.length
    ? `${panels.length} of ${all} panels that the filters leave; choose in the filters above to see others.`
    : marks.length ? "" : "Nothing is left by the filters.";
  const room = width(figure);
  const columns = Math.max(1, Math.min(3, panels.length, Math.floor(room / 330)));
  if (state.view && state.width === room && state.columns === columns) {
    await state.view.data("marks", marks).runAsync();
    return;
  }
  const spec = structuredClone(plot.spec);
  spec.columns = columns;
  const labels = plot.kind === "heat" ? Math.min(190, 14 + 6.2 * longest(plot)) : 62;
  // Facets share the labels of their rows: only the first panel of a row has them.
  spec.spec.width = Math.max(90, Math.floor((room - labels - 20 * columns) / columns));
  spec.datasets = { marks };
  spec.config = { ...spec.config, ...look(room) };
  const made = await vegaEmbed(figure.querySelector(".drawing"), spec, {
    actions: false, ast: true, defaultStyle: false, renderer: "svg", tooltip: showTip,
  });
  figure.classList.add("drawn");
  if (state.view) state.view.finalize();
  Object.assign(state, { view: made.view, width: room, columns });
}

function longest(plot) {
  const { series } = plot.marks;
  return Math.max(...(series.cells || series.texts).map((text) => text.length));
}

/* The marks of the first panels. */
function left(plot) {
  const rows = passing(plot);
  const panel = plot.marks.panel;
  const names = new Set();
  const kept = [];
  for (const row of rows) {
    const name = cell(panel, row);
    if (names.size < MOST_PANELS) names.add(name);
    if (names.has(name)) kept.push(row);
  }
  const all = new Set(rows.map((row) => cell(panel, row))).size;
  const marks = kept.map((row) => {
    const mark = {};
    for (const [name, column] of Object.entries(plot.marks)) mark[name] = cell(column, row);
    const [framework, ...strategy] = DATA.names[plot.name[row]].split("/");
    return Object.assign(mark, { framework, strategy: strategy.join("/") });
  });
  return { marks, panels: [...names], all };
}

function look(room) {
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--ink").trim();
  const soft = style.getPropertyValue("--soft").trim();
  const line = style.getPropertyValue("--line").trim();
  const font = "system-ui, sans-serif";
  return {
    background: "transparent", font,
    view: { stroke: line },
    axis: { labelColor: soft, titleColor: ink, gridColor: line, gridOpacity: 0.6, domainColor: line,
      tickColor: line, titleFontWeight: "normal" },
    header: { labelColor: ink },
    legend: { orient: "bottom", columns: Math.max(2, Math.floor(room / 150)), labelColor: ink, titleColor: soft,
      titleFontWeight: "normal", labelLimit: 260, symbolLimit: 60, symbolOpacity: 1,
      symbolStrokeColor: ink },
  };
}

/* Our own tooltip: text, in an element of ours. */
function showTip(_handler, event, _item, value) {
  const tip = document.getElementById("tip");
  if (value == null || value === "") { tip.hidden = true; return; }
  const lines = Object.entries(value).filter(([, said]) => said != null && said !== "null" && said !== "NaN");
  tip.replaceChildren(...lines.map(([name, said]) => make("div", {}, `${name}: ${said}`)));
  tip.hidden = false;
  const x = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
  tip.style.left = `${Math.max(4, x)}px`;
  tip.style.top = `${Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8)}px`;
}
