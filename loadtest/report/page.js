(() => {
  "use strict";

  // --- charts ---------------------------------------------------------------------------------

  const figures = JSON.parse(document.getElementById("figures").textContent);
  const plots = [...document.querySelectorAll(".plot")];
  const isTouched = matchMedia("(pointer: coarse)").matches;
  const config = { responsive: true, displayModeBar: false, doubleClick: "reset" };
  // On A4, in px at 96 dpi, less the margins.
  const PRINTED_PX = 660;

  const ink = () => getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();

  const draw = (plot) => {
    const { data, layout } = figures[plot.dataset.figure];
    layout.font.color = ink();
    if (isTouched) {
      // A finger on a chart scrolls the page.
      layout.dragmode = false;
      for (const name of Object.keys(layout)) {
        if (/^[xy]axis/.test(name)) layout[name].fixedrange = true;
      }
    }
    return Plotly.newPlot(plot, data, layout, config);
  };

  const drawAll = async () => {
    for (const plot of plots) {
      await draw(plot);
      // The page stays usable while it draws.
      await new Promise((resolve) => setTimeout(resolve));
    }
    document.documentElement.dataset.drawn = String(plots.length);
  };

  const recolor = () => plots.forEach((plot) => Plotly.relayout(plot, { "font.color": ink() }));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolor);
  addEventListener("beforeprint", () => {
    for (const plot of plots) Plotly.relayout(plot, { width: PRINTED_PX, "font.color": "#000" });
  });
  addEventListener("afterprint", () => {
    for (const plot of plots) {
      Plotly.relayout(plot, { width: null, autosize: true, "font.color": ink() });
    }
  });

  for (const legend of document.querySelectorAll(".legend")) {
    const plot = legend.parentElement.querySelector(".plot");
    legend.addEventListener("click", (event) => {
      const pill = event.target.closest(".pill");
      if (!pill) return;
      const isShown = pill.getAttribute("aria-pressed") !== "true";
      pill.setAttribute("aria-pressed", String(isShown));
      const traces = plot.data.flatMap((trace, at) => (trace.meta === pill.dataset.line ? [at] : []));
      Plotly.restyle(plot, { visible: isShown }, traces);
    });
  }

  // --- tables ---------------------------------------------------------------------------------

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

  drawAll();
})();
