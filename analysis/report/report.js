// Sorts tables by a column, and shows one configuration in all figures and tables. Nothing depends on it.
"use strict";
const key = (text) => {
  const number = /^[<>≤≥]?\s*\[?([-+−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?)/.exec(text);
  return number ? Number(number[1].replace("−", "-").replaceAll(",", "")) : text;
};
const order = (a, b) =>
  typeof a === "number" && typeof b === "number"
    ? a - b
    : typeof a === typeof b
      ? a.localeCompare(b, "en", { numeric: true })
      : typeof a === "number" ? -1 : 1;
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const one of heads) one.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => [key(row.cells[column].textContent.trim()), row]);
      rows.sort(([a], [b]) => (down ? order(b, a) : order(a, b)));
      body.append(...rows.map(([, row]) => row));
    });
  });
}

const main = document.querySelector("main");
const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
document.body.append(tip);
const pick = (name) => {
  main.classList.toggle("picking", name !== null);
  for (const one of document.querySelectorAll("[data-of]"))
    one.classList.toggle("picked", one.dataset.of === name);
};
main.addEventListener("pointerover", (event) => {
  const of = event.target.closest("[data-of]");
  pick(of ? of.dataset.of : null);
  const point = event.target.closest("[data-tip]");
  tip.hidden = !point;
  if (!point) return;
  tip.textContent = point.dataset.tip;
  const left = Math.min(event.clientX + 12, window.innerWidth - tip.offsetWidth - 8);
  tip.style.cssText = `left: ${Math.max(0, left)}px; top: ${event.clientY + 14}px`;
});
main.addEventListener("pointerleave", () => {
  pick(null);
  tip.hidden = true;
});
