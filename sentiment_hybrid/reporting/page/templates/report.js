"use strict";
// Tables sort by a click on a column's name, and show the rows that contain what is typed above them.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const rising = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const numeric = [...body.rows].every((row) => key(row) === "" || !Number.isNaN(Number(key(row))));
      const order = numeric
        ? (a, b) => Number(key(a)) - Number(key(b))
        : (a, b) => key(a).localeCompare(key(b));
      body.append(...[...body.rows].sort((a, b) => (rising ? order(a, b) : order(b, a))));
    });
  });
  const label = document.createElement("label");
  label.className = "filter";
  label.textContent = "Filter rows: ";
  const input = document.createElement("input");
  input.type = "search";
  label.append(input);
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase();
    for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
  if (body.rows.length > 8) table.parentElement.before(label);
}
// Nothing is folded on paper.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => (one.open = true)));
