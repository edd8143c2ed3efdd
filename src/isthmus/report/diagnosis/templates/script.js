(() => {
  const report = JSON.parse(document.getElementById("report").textContent);
  for (const part of document.querySelectorAll("button[hidden], label[hidden]")) part.hidden = false;

  // Places in the report: JSON pointers, in rows counted from the row's own.
  const at = (path) => path.slice(1).split("/").map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"))
    .reduce((value, step) => value?.[step], report);
  const place = (one) => (one.dataset.path.startsWith("/") ? one.dataset.path
    : `${one.closest("[data-base]").dataset.base}/${one.dataset.path}`);

  // One cell of a matrix in words.
  const told = (value, places, signed) => {
    const text = Math.abs(value).toFixed(places);
    if (Number(text) === 0) return "0";
    return `${value < 0 ? "−" : signed ? "+" : ""}${text.replace(/^0/, "")}`;
  };
  const sentence = (cell) => {
    const { verb, signed, own } = cell.closest("figure").dataset;
    const target = cell.parentNode.cells[0].title;
    const source = cell.closest("table").tHead.rows[0].cells[cell.cellIndex].title;
    const row = at(cell.parentNode.dataset.base) ?? {};
    const held = row[source] !== null && typeof row[source] === "object" ? row[source] : { estimate: row[source] };
    if (cell.classList.contains("self")) return `${target} itself`;
    if (typeof held.estimate !== "number") return `${source} on ${target}: ${held.reason ?? "not measured"}`;
    const sign = signed !== undefined;
    const level = row[target]?.estimate;
    const words = { source, target, value: told(held.estimate, 4, sign) };
    let says = verb.replace(/\{(source|target|value)\}/g, (_, word) => words[word]);
    if (own !== undefined && source !== target && typeof level === "number")
      says += `, ${told(held.estimate - level, 4, true)} against its own model`;
    if (held.ci) says += `; 95 % interval ${told(held.ci[0], 4, sign)} to ${told(held.ci[1], 4, sign)}, unadjusted`;
    if (typeof held.p_bh === "number")
      says += `; adjusted p ${held.p_bh < 0.001 ? "below .001" : told(held.p_bh, 3, false)}`;
    return `${says}${held.note ? `; ${held.note}` : ""}.`;
  };

  // Matrices: order, hover and focus, arrow keys.
  const follow = (cell) => {
    const says = cell.closest("figure").querySelector(".readout");
    if (!cell.hasAttribute("aria-label")) cell.setAttribute("aria-label", sentence(cell));
    says.textContent = cell.getAttribute("aria-label");
    says.classList.remove("rest");
  };
  for (const table of document.querySelectorAll("table.heat")) {
    const says = table.closest("figure").querySelector(".readout");
    says.textContent = says.dataset.rest;
    says.classList.add("rest");
    const orders = JSON.parse(table.dataset.orders);
    const head = [...table.tHead.rows[0].cells].slice(1);
    const lines = [...table.tBodies[0].rows].map((row) => ({ row, cells: [...row.cells].slice(1) }));
    const cellsNow = () => [...table.tBodies[0].rows].map((row) => [...row.cells].slice(1));
    const reach = (cell) => {
      table.querySelector('td[tabindex="0"]')?.setAttribute("tabindex", "-1");
      cell.setAttribute("tabindex", "0");
    };
    const sort = (by) => {
      const order = orders[by];
      for (const place of order) table.tHead.rows[0].append(head[place]);
      for (const place of order) {
        const { row, cells } = lines[place];
        for (const column of order) row.append(cells[column]);
        table.tBodies[0].append(row);
      }
      reach(cellsNow()[0][0]);
    };
    const choose = document.querySelector(`select[data-order="${table.closest("figure").id}"]`);
    choose.addEventListener("change", () => sort(choose.value));
    sort(choose.value);
    table.addEventListener("mouseover", (event) => {
      const cell = event.target.closest("td");
      if (cell) follow(cell);
    });
    table.addEventListener("focusin", (event) => {
      const cell = event.target.closest("td");
      if (cell) { reach(cell); follow(cell); }
    });
    table.addEventListener("keydown", (event) => {
      const cell = event.target.closest("td");
      if (!cell) return;
      const grid = cellsNow();
      const row = grid.findIndex((cells) => cells.includes(cell));
      const column = grid[row].indexOf(cell);
      const to = {
        ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1],
        ArrowRight: [row, column + 1], Home: [row, 0], End: [row, grid[row].length - 1],
      }[event.key];
      if (!to) return;
      event.preventDefault();
      grid[to[0]]?.[to[1]]?.focus();
    });
  }

  // CSV: tables as they stand but with full numbers; matrices one cell a line, from the report.
  const quote = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const ofTable = (table) => {
    const lines = [];
    for (const row of table.rows) {
      const line = [];
      for (const cell of row.cells) {
        const numbers = [...cell.querySelectorAll("[data-path]")].map((one) => at(place(one)) ?? "");
        const text = cell.textContent.replace(/\s+/g, " ").trim();
        const both = cell.querySelector(".ci") !== null;
        const shown = row.parentNode.tagName === "THEAD" ? text : numbers.length ? numbers.join(both ? ";" : " ") : text;
        line.push(shown === "–" ? "" : shown);
      }
      lines.push(line);
    }
    // An interval is two columns: lower and upper.
    const split = lines[0].map((title) => title.includes("interval"));
    return lines.map((line, number) => line.flatMap((text, column) => {
      if (!split[column]) return [text];
      if (number === 0) return [`${text} lower`, `${text} upper`];
      const [low = "", high = ""] = text.split(";");
      return [low, high];
    }));
  };
  const ofMatrix = (key) => {
    const held = key === "distance" ? report.likeness.distance : report.matrix[key];
    const lines = [["target", "source", "estimate", "lower", "upper", "p", "p_bh"]];
    for (const [target, row] of Object.entries(held)) {
      for (const [source, cell] of Object.entries(row)) {
        const of = cell !== null && typeof cell === "object" ? cell : { estimate: cell };
        const [low, high] = of.ci ?? [null, null];
        lines.push([target, source, of.estimate, low, high, of.p, of.p_bh].map((one) => String(one ?? "")));
      }
    }
    return lines;
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.csv");
    if (!button) return;
    const table = button.closest("details, figure").querySelector("table");
    const lines = button.dataset.matrix ? ofMatrix(button.dataset.matrix) : ofTable(table);
    const text = lines.map((line) => line.map(quote).join(",")).join("\r\n");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(["\ufeff", text, "\r\n"], { type: "text/csv" }));
    link.download = `${button.dataset.name.replace(/[^\w]+/g, "-").toLowerCase()}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });

  // Copy a command; where the page may not write to the clipboard, the command is selected.
  const copied = document.getElementById("copied");
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button.copy");
    if (!button) return;
    let done = true;
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
    } catch {
      getSelection().selectAllChildren(button.parentNode.querySelector("code"));
      done = document.execCommand("copy");
    }
    copied.textContent = done ? "Copied." : "The command is selected.";
    button.firstChild.data = done ? "Copied" : "Selected";
    setTimeout(() => { button.firstChild.data = "Copy"; copied.textContent = ""; }, 2000);
  });

  // Print: everything that folds is shown.
  addEventListener("beforeprint", () => {
    for (const fold of document.querySelectorAll("details:not([open])")) { fold.dataset.closed = ""; fold.open = true; }
  });
  addEventListener("afterprint", () => {
    for (const fold of document.querySelectorAll("details[data-closed]")) { fold.open = false; delete fold.dataset.closed; }
  });
})();
