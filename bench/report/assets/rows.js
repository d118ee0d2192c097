/* The data of the page, column by column, and which of its rows the filters leave. */

const DATA = JSON.parse(document.getElementById("data").textContent);
const FILTERED = new EventTarget();
const chosen = new Map(DATA.dimensions.map((dimension) => [dimension.name, new Set()]));

function cell(column, row) {
  return column.cells ? column.cells[row] : column.texts[column.codes[row]];
}

/* Nothing chosen in a dimension: everything passes. A pair passes by either of its sides. */
function allowed(of) {
  const dimensions = DATA.dimensions.filter((d) => d.of === of && chosen.get(d.name).size);
  return (number) => dimensions.every((d) => chosen.get(d.name).has(d.codes[number]));
}

/* The numbers of the rows of a table or plot that pass, in their own order. */
function passing(source) {
  const place = allowed("place");
  const name = allowed("name");
  const places = new Map();
  const names = new Map();
  const remembered = (known, test, number) => {
    if (!known.has(number)) known.set(number, test(number));
    return known.get(number);
  };
  const rows = [];
  for (let row = 0; row < source.place.length; row += 1) {
    if (!remembered(places, place, source.place[row])) continue;
    if (remembered(names, name, source.name[row])
        || (source.against && remembered(names, name, source.against[row]))) rows.push(row);
  }
  return rows;
}
