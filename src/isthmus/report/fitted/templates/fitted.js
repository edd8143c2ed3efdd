(() => {
  // Tables: a click on a head sorts by its column; what has no value stays at the end.
  const said = document.getElementById("sorted");
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const rising = head.getAttribute("aria-sort") !== "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", rising ? "ascending" : "descending");
        const body = table.tBodies[0];
        const key = (row) => {
          const cell = row.cells[column];
          if (cell.tagName === "TH") return cell.textContent.trim();
          return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
        };
        const rows = [...body.rows].map((row) => ({ row, key: key(row) }));
        rows.sort((a, b) => {
          if (a.key === null || b.key === null) return (a.key === null) - (b.key === null);
          const order = typeof a.key === "string" ? a.key.localeCompare(b.key) : a.key - b.key;
          return rising ? order : -order;
        });
        body.append(...rows.map((one) => one.row));
        said.textContent = `Sorted by ${button.textContent.trim()}, ${rising ? "rising" : "falling"}.`;
      });
    });
  }

  // Print: everything that folds is shown.
  addEventListener("beforeprint", () => {
    for (const fold of document.querySelectorAll("details:not([open])")) { fold.dataset.closed = ""; fold.open = true; }
  });
  addEventListener("afterprint", () => {
    for (const fold of document.querySelectorAll("details[data-closed]")) { fold.open = false; delete fold.dataset.closed; }
  });
})();
