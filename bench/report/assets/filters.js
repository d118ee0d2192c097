/* One list of checkboxes a dimension; nothing ticked means all. */

function startFilters(form) {
  const status = make("output", { class: "count" });
  for (const dimension of DATA.dimensions) form.append(filter(dimension));
  const reset = make("button", { type: "reset", class: "reset" }, "All");
  form.append(reset, status);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", () => changed(form, status));
  form.addEventListener("reset", () => setTimeout(() => changed(form, status), 0));
  document.addEventListener("click", (event) => closeOthers(form, event.target));
  form.addEventListener("keydown", (event) => {
    const open = event.key === "Escape" && event.target.closest("details[open]");
    if (open) {
      open.open = false;
      open.querySelector("summary").focus();
    }
  });
  changed(form, status);
}

function filter(dimension) {
  const boxes = dimension.values.map((value, number) => make("label", {},
    make("input", { type: "checkbox", name: dimension.name, value: number }), " ", value));
  const said = make("span", { class: "said" }, "all");
  return make("details", { class: "filter", "data-dimension": dimension.name },
    make("summary", {}, dimension.label, ": ", said),
    make("fieldset", {}, make("legend", {}, dimension.label), ...boxes));
}

function changed(form, status) {
  for (const dimension of DATA.dimensions) {
    const ticked = [...form.querySelectorAll("input:checked")]
      .filter((box) => box.name === dimension.name).map((box) => Number(box.value));
    chosen.set(dimension.name, new Set(ticked));
    const block = [...form.querySelectorAll("details")]
      .find((found) => found.dataset.dimension === dimension.name);
    const words = ticked.map((number) => dimension.values[number]);
    const few = words.length <= 3 ? words.join(", ") : `${words.length} of ${dimension.values.length}`;
    block.querySelector(".said").textContent = words.length ? few : "all";
    block.classList.toggle("on", words.length > 0);
  }
  FILTERED.dispatchEvent(new Event("filtered"));
  const total = DATA.tables.reduce((sum, table) => sum + table.place.length, 0);
  const left = DATA.tables.reduce((sum, table) => sum + table.passing.length, 0);
  const said = left === total ? `${total.toLocaleString("en")} rows in all tables`
    : `${left.toLocaleString("en")} of ${total.toLocaleString("en")} rows`;
  status.textContent = said;
}

function closeOthers(form, target) {
  for (const open of form.querySelectorAll("details[open]")) {
    if (!open.contains(target)) open.open = false;
  }
}
