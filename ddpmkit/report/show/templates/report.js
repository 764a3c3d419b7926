"use strict";
// Sorting: a click or Enter on a head orders the rows of its table; the references stay below.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const body = table.tBodies[0];
      const key = (row) => row.cells[column].dataset.key ?? "";
      const numeric = head.hasAttribute("data-numeric");
      const rows = [...body.rows].filter((row) => !row.classList.contains("reference"));
      const last = [...body.rows].filter((row) => row.classList.contains("reference"));
      rows.sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (numeric && (x === "" || y === "")) return (x === "") - (y === "");
        const order = numeric ? Number(x) - Number(y) : x.localeCompare(y, "en", { numeric: true });
        return up ? order : -order;
      });
      body.append(...rows, ...last);
    });
  });
}
// A link to a cell opens its section.
const open = () => {
  const found = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (found && found.tagName === "DETAILS") found.open = true;
};
addEventListener("hashchange", open);
open();
