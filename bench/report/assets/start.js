/* Puts the parts together: each table and plot listens to the filters, and these speak first. */

for (const table of DATA.tables) {
  const section = [...document.querySelectorAll("[data-table]")]
    .find((found) => found.dataset.table === table.title);
  startTable(section, table);
}
for (const plot of DATA.plots) {
  const figure = [...document.querySelectorAll("[data-plot]")]
    .find((found) => found.dataset.plot === plot.title);
  startPlot(figure, plot);
}
const filterForm = document.getElementById("filters");
if (filterForm) startFilters(filterForm);
