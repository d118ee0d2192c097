/* Tables: a window of rows at a time, sorted by what a reader sees in a column. */

const PAGE = 100;
const LONG = 40;  // characters that are set as words, in more lines than one
const VERDICTS = new Set(["faster", "slower", "fastest"]);
const COLLATOR = new Intl.Collator("en", { numeric: true });

function startTable(section, table) {
  const state = { table, by: -1, down: false, first: 0, order: null };
  const head = make("tr");
  table.columns.forEach((column, number) => {
    const button = make("button", { type: "button" }, column.name);
    button.addEventListener("click", () => sortBy(state, number));
    head.append(make("th", { scope: "col", class: column.words ? "words" : null }, button));
  });
  state.head = head;
  state.body = make("tbody");
  state.count = make("output");
  state.back = make("button", { type: "button" }, "Previous");
  state.next = make("button", { type: "button" }, "Next");
  state.back.addEventListener("click", () => turn(state, -PAGE));
  state.next.addEventListener("click", () => turn(state, PAGE));
  const title = section.querySelector("h2");
  section.querySelector(".place").append(
    make("div", { class: "scroll", role: "region", "aria-labelledby": title.id, tabindex: 0 },
      make("table", {}, make("thead", {}, head), state.body)),
    make("div", { class: "pager" }, state.count, state.back, state.next));
  const filter = () => {
    table.passing = passing(table);
    state.first = 0;
    show(state);
  };
  FILTERED.addEventListener("filtered", filter);
}

function turn(state, rows) {
  state.first = Math.max(0, state.first + rows);
  show(state);
}

/* Up, down, as it was. */
function sortBy(state, number) {
  if (state.by !== number) Object.assign(state, { by: number, down: false });
  else if (!state.down) state.down = true;
  else Object.assign(state, { by: -1, down: false });
  state.first = 0;
  state.order = state.by < 0 ? null : ordered(state.table.columns[state.by], state.down);
  [...state.head.children].forEach((th, n) => {
    if (n === state.by) th.setAttribute("aria-sort", state.down ? "descending" : "ascending");
    else th.removeAttribute("aria-sort");
  });
  show(state);
}

/* The number that a cell begins with, an interval's middle; what says "never" is more than any. */
function value(text) {
  if (/^(never|inf)\b/.test(text)) return Infinity;
  const found = /^[^\d-]*(-?[\d,]*\.?\d+(?:e[+-]?\d+)?)/i.exec(text);
  return found ? Number(found[1].replaceAll(",", "")) : NaN;
}

/* Every row's place in the order; rows that have no number come last, whichever way. */
function ordered(column, down) {
  const count = column.cells ? column.cells.length : column.codes.length;
  const rows = Array.from({ length: count }, (_, row) => row);
  const texts = rows.map((row) => cell(column, row));
  const isNumber = texts.some((text) => /^-?[\d.]/.test(text))
    && (!column.words || texts.every((text) => value(text) === value(text)));
  const sign = down ? -1 : 1;
  if (isNumber) {
    const keys = texts.map(value);
    rows.sort((a, b) => {
      const [x, y] = [keys[a], keys[b]];
      if (x !== x || y !== y) return (x !== x) - (y !== y) || a - b;
      return (x === y ? 0 : sign * (x < y ? -1 : 1)) || a - b;
    });
  } else rows.sort((a, b) => sign * COLLATOR.compare(texts[a], texts[b]) || a - b);
  const place = new Uint32Array(count);
  rows.forEach((row, n) => { place[row] = n; });
  return place;
}

function show(state) {
  const { table } = state;
  let rows = table.passing;
  if (state.order) rows = [...rows].sort((a, b) => state.order[a] - state.order[b]);
  const part = rows.slice(state.first, state.first + PAGE);
  const columns = table.columns;
  const lines = part.map((row) => {
    const line = document.createElement("tr");
    for (const column of columns) {
      const text = cell(column, row);
      const data = document.createElement("td");
      data.textContent = text;
      if (text.length > LONG) data.className = "words long";
      else if (column.words) data.className = VERDICTS.has(text) ? `words ${text}` : "words";
      line.append(data);
    }
    return line;
  });
  if (!lines.length) lines.push(make("tr", {}, make("td", { class: "words", colspan: columns.length },
    "No row is left by the filters.")));
  state.body.replaceChildren(...lines);
  const last = state.first + part.length;
  const number = (n) => n.toLocaleString("en");
  const of = rows.length === table.place.length ? number(rows.length)
    : `${number(rows.length)} that are left of ${number(table.place.length)}`;
  state.count.textContent = rows.length > PAGE
    ? `rows ${number(state.first + 1)} to ${number(last)} of ${of}` : `${of} rows`;
  state.back.hidden = state.next.hidden = rows.length <= PAGE;
  state.back.disabled = state.first === 0;
  state.next.disabled = last >= rows.length;
}
