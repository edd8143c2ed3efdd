(() => {
  const body = document.querySelector("#table tbody");
  const head = [...document.querySelectorAll("#table thead th")];
  const find = document.getElementById("find");
  const choices = [...document.querySelectorAll("select[data-by]")];
  const compare = document.getElementById("compare");
  const first = document.getElementById("first");
  const said = document.getElementById("said");
  const live = document.getElementById("live");
  document.querySelector(".find").hidden = false;
  let sorted = null; // { column, up }
  let ticked = []; // ids, in the order of ticking

  const rows = () => [...body.rows];
  const nameOf = (row) => row.querySelector("th").textContent;

  // Filter: each choice offers what stands in the table.
  const offer = () => {
    for (const choice of choices) {
      const held = [...new Set(rows().map((row) => row.dataset[choice.dataset.by]))].filter(Boolean).sort();
      if (choice.value && !held.includes(choice.value)) held.push(choice.value);
      const now = choice.value;
      choice.replaceChildren(new Option("all", ""), ...held.map((one) => new Option(one, one)));
      choice.value = now;
    }
  };
  const filter = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows()) {
      const text = row.textContent.toLowerCase();
      const held = words.every((word) => text.includes(word))
        && choices.every((choice) => !choice.value || row.dataset[choice.dataset.by] === choice.value);
      row.hidden = !held;
      shown += held;
    }
    tell(shown);
  };
  const tell = (shown) => {
    const all = body.rows.length;
    const hidden = ticked.filter((id) => rowOf(id)?.hidden).length;
    said.textContent = `${shown === all ? all : `${shown} of ${all}`} ${all === 1 ? "run" : "runs"}`
      + (ticked.length ? `, ${ticked.length} ticked${hidden ? ` (${hidden} of them filtered out)` : ""}` : "");
  };

  // Sort: a click turns the order; what is not known stands last.
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    if ("v" in cell.dataset) return cell.dataset.v === "" ? null : Number(cell.dataset.v);
    return cell.textContent.trim().toLowerCase() || null;
  };
  const sort = () => {
    if (!sorted) return;
    const { column, up } = sorted;
    const held = rows().map((row) => [valueOf(row, column), row]);
    held.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      const order = typeof a === "number" ? a - b : a.localeCompare(b);
      return up ? order : -order;
    });
    for (const [, row] of held) body.append(row);
  };
  for (const [column, cell] of head.entries()) {
    if (column === 0 || column === head.length - 1) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.textContent = cell.textContent;
    cell.replaceChildren(button);
    button.addEventListener("click", () => {
      const numbers = rows().some((row) => "v" in row.cells[column].dataset);
      sorted = { column, up: sorted?.column === column ? !sorted.up : !numbers };
      for (const one of head) one.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", sorted.up ? "ascending" : "descending");
      sort();
    });
  }

  // Ticks: two or more can be compared; the first ticked one is what the others are compared with.
  const rowOf = (id) => rows().find((row) => row.dataset.id === id);
  const tick = () => {
    const now = rows().filter((row) => row.querySelector("input").checked).map((row) => row.dataset.id);
    ticked = [...ticked.filter((id) => now.includes(id)), ...now.filter((id) => !ticked.includes(id))];
    compare.disabled = ticked.length < 2;
    const chosen = ticked.includes(first.value) ? first.value : ticked[0];
    first.replaceChildren(...ticked.map((id) => new Option(nameOf(rowOf(id)), id)));
    if (chosen) first.value = chosen;
    first.disabled = compare.disabled;
    document.getElementById("first-label").hidden = compare.disabled;
    filter();
  };
  body.addEventListener("change", tick);
  find.addEventListener("input", filter);
  for (const choice of choices) choice.addEventListener("change", filter);

  // News: rows as the server draws them; a tick and the focus stay where they are.
  const drawn = (html) => {
    const holder = document.createElement("template");
    holder.innerHTML = html.trim();
    return holder.content.firstElementChild;
  };
  const put = (id, html) => {
    const old = rowOf(id);
    const row = drawn(html);
    if (!old) {
      body.prepend(row);
      return `${nameOf(row)} is new.`;
    }
    row.querySelector("input").checked = old.querySelector("input").checked;
    const stops = (of) => [...of.querySelectorAll("input, a")];
    const focused = stops(old).indexOf(document.activeElement);
    old.replaceWith(row);
    stops(row)[focused]?.focus({ preventScroll: true });
    return old.dataset.state === row.dataset.state ? "" : `${nameOf(row)} is ${row.dataset.state}.`;
  };
  const listen = () => {
    const version = JSON.parse(document.getElementById("version").textContent);
    const news = new EventSource(`/events?since=${encodeURIComponent(version)}`);
    news.addEventListener("runs", (event) => {
      const { rows: changed, gone, pages } = JSON.parse(event.data);
      const told = Object.entries(changed).map(([id, html]) => put(id, html)).filter(Boolean);
      for (const id of gone) rowOf(id)?.remove();
      document.getElementById("none")?.remove();
      document.querySelector("h1").textContent = `${body.rows.length} ${body.rows.length === 1 ? "run" : "runs"}`;
      if (typeof pages === "string") {
        document.getElementById("page-items").innerHTML = pages;
        document.getElementById("pages").hidden = !pages.trim();
      }
      offer();
      sort();
      tick();
      if (told.length) said.textContent += `. ${told.slice(0, 3).join(" ")}`;
    });
    news.addEventListener("again", () => location.reload());
    news.addEventListener("open", () => { live.textContent = "live"; });
    news.addEventListener("error", () => { live.textContent = "the server does not answer"; });
  };
  offer();
  tick();
  listen();
  addEventListener("pageshow", tick); // a browser that goes back brings ticks and filters along
})();
