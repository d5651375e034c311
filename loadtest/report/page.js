(() => {
  "use strict";

  // --- charts ---------------------------------------------------------------------------------

  const plots = [...document.querySelectorAll(".plot")];
  const views = new Map();
  // On A4, in px at 96 dpi, less the margins.
  const PRINTED_PX = 660;

  const unpacked = (id) => {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (sign) => sign.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };

  const run = (source) => {
    const script = document.createElement("script");
    script.textContent = source;
    document.head.append(script);
  };

  // Axes and labels keep their width, so the panels take what is left of the room.
  const fit = (plot, room = plot.clientWidth) => {
    const view = views.get(plot);
    if (!view || !room) return;
    const rest = plot.querySelector("svg").width.baseVal.value - view.width();
    view.width(Math.max(room - rest, 50)).run();
  };

  const sizes = new ResizeObserver((changes) => changes.forEach(({ target }) => fit(target)));

  const isInView = (plot) => {
    const { top, bottom } = plot.getBoundingClientRect();
    return bottom > 0 && top < innerHeight;
  };

  const drawAll = async () => {
    run(await unpacked("vega"));
    const { config, charts } = JSON.parse(await unpacked("charts"));
    const options = {
      // The page's own legend wraps on a telephone, and switches lines.
      config: { ...config, legend: { disable: true } },
      // Expressions are interpreted: the page's policy forbids to compile them.
      ast: true,
      renderer: "svg",
      actions: false,
      defaultStyle: false,
    };
    for (const rest = [...plots]; rest.length; ) {
      const [plot] = rest.splice(Math.max(rest.findIndex(isInView), 0), 1);
      const { view } = await vegaEmbed(plot, charts[plot.dataset.chart], options);
      views.set(plot, view);
      sizes.observe(plot);
      // The page stays usable while it draws.
      await new Promise((resolve) => setTimeout(resolve));
    }
    document.documentElement.dataset.drawn = String(plots.length);
  };

  addEventListener("beforeprint", () => plots.forEach((plot) => fit(plot, PRINTED_PX)));
  addEventListener("afterprint", () => plots.forEach((plot) => fit(plot)));

  for (const legend of document.querySelectorAll(".legend")) {
    const plot = legend.parentElement.querySelector(".plot");
    legend.addEventListener("click", (event) => {
      const pill = event.target.closest(".pill");
      const view = views.get(plot);
      if (!pill || !view) return;
      const isShown = pill.getAttribute("aria-pressed") !== "true";
      pill.setAttribute("aria-pressed", String(isShown));
      const pressed = legend.querySelectorAll(".pill[aria-pressed=true]");
      view.signal("shown", [...pressed].map((one) => one.dataset.line)).run();
      fit(plot);
    });
  }

  // --- tables ---------------------------------------------------------------------------------

  // On a telephone, the cells of a wide table stand behind their headings.
  for (const table of document.querySelectorAll(".scroll table")) {
    const headings = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
    if (headings.length < 4) continue;
    table.classList.add("wide");
    for (const { cells } of table.tBodies[0].rows) {
      [...cells].forEach((cell, at) => (cell.dataset.heading = headings[at]));
    }
  }

  const keyOf = (row, at) => {
    const cell = row.cells[at];
    const value = cell.dataset.v;
    return value === undefined ? cell.textContent : Number(value);
  };

  const compare = (one, other) => {
    if (typeof one === "number" && typeof other === "number") return one - other;
    // What has no number comes last, whichever way the rest goes.
    if (typeof one === "number") return -1;
    if (typeof other === "number") return 1;
    return one.localeCompare(other, "en", { numeric: true });
  };

  const sortBy = (heading) => {
    const table = heading.closest("table");
    const at = heading.cellIndex;
    const isUp = heading.getAttribute("aria-sort") !== "ascending";
    for (const other of heading.parentElement.cells) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", isUp ? "ascending" : "descending");
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [keyOf(row, at), row]);
    rows.sort(([one], [other]) => {
      const isMixed = typeof one !== typeof other;
      return compare(one, other) * (isUp || isMixed ? 1 : -1);
    });
    body.append(...rows.map(([, row]) => row));
  };

  const asText = (table) =>
    [...table.rows]
      .map((row) => [...row.cells].map((cell) => cell.textContent.trim()).join("\t"))
      .join("\n");

  const copyText = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // A page from a file may have no clipboard: the old way still works there.
    }
    const area = document.createElement("textarea");
    area.value = text;
    area.style.position = "fixed";
    document.body.append(area);
    area.select();
    const isCopied = document.execCommand("copy");
    area.remove();
    return isCopied;
  };

  const copy = async (button) => {
    const table = button.closest(".tablebox").querySelector("table");
    const isCopied = await copyText(asText(table));
    if (!isCopied) getSelection().selectAllChildren(table);
    button.textContent = isCopied ? "Copied" : "Selected: press Ctrl-C";
    setTimeout(() => (button.textContent = "Copy table"), 2000);
  };

  document.addEventListener("click", (event) => {
    const heading = event.target.closest("th[aria-sort]");
    if (heading) sortBy(heading);
    const button = event.target.closest(".copy");
    if (button) copy(button);
  });

  if (plots.length) drawAll();
})();
