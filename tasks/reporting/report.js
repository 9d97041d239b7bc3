const specs = JSON.parse(document.getElementById("specs").textContent);
const tip = document.getElementById("tip"), spoken = document.getElementById("spoken");
const boxes = [...document.querySelectorAll(".switch .key input")], others = document.getElementById("others");
const first = boxes.filter((box) => box.checked).map((box) => box.value);
const chosen = () => boxes.filter((box) => box.checked).map((box) => box.value);
const views = new Map();

// --- drawings: each is drawn when it comes near, and then in idle time -------------------------------------

function show(text, x, y) {
  tip.textContent = text;
  tip.hidden = !text;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(6, Math.min(x + 14, innerWidth - width - 6))}px`;
  tip.style.top = `${y + height + 20 > innerHeight ? Math.max(6, y - height - 12) : y + 16}px`;
}
const hide = () => { tip.hidden = true; };
const onHover = (_, event, __, text) => (text ? show(text, event.clientX, event.clientY) : hide());

async function draw(figure) {
  const spec = structuredClone(specs[figure.dataset.chart]), canvas = figure.querySelector(".canvas");
  if (spec.facet) spec.columns = columns(canvas, spec);
  for (const param of spec.params) param.value = param.name === "on" ? chosen() : others?.checked ?? true;
  if (spec.usermeta) spec.height = rows(spec);
  const { view } = await window.vegaEmbed(canvas, spec, { mode: "vega-lite", actions: false, renderer: "svg", ast: true, logLevel: 1, tooltip: onHover });
  views.set(figure, view);
  unname(canvas);
}
function unname(canvas) { // Vega calls a group that is empty a symbol, which then lacks a name
  for (const group of canvas.querySelectorAll('[role="graphics-symbol"]:not([aria-label])')) group.removeAttribute("role");
}
const rows = (spec) => { // the height of a drawing with an arm a row
  const on = chosen(), all = spec.data.values.filter((row) => others?.checked || on.includes(row.arm));
  return spec.usermeta.row * Math.max(1, all.length);
};
const columns = (canvas, spec) => Math.max(1, Math.floor((canvas.clientWidth - 40) / (spec.spec.width + spec.spacing)));
const drawn = new Map();
function drawOnce(figure) {
  if (!figure.offsetParent) return Promise.resolve(); // of a user who is not shown
  if (!drawn.has(figure)) drawn.set(figure, draw(figure));
  return drawn.get(figure);
}
const figures = [...document.querySelectorAll(".chart")];
const near = new IntersectionObserver((seen) => seen.forEach((one) => one.isIntersecting && drawOnce(one.target)), { rootMargin: "400px" });
figures.forEach((figure) => near.observe(figure));
const idle = window.requestIdleCallback ?? ((then) => setTimeout(then, 50));
async function drawRest() {
  for (const figure of figures) { await new Promise((then) => idle(then)); await drawOnce(figure); }
  document.documentElement.dataset.drawn = "all";
}
drawRest();
let width = innerWidth;
addEventListener("resize", () => {
  if (Math.abs(innerWidth - width) < 40) return;
  width = innerWidth;
  for (const [figure] of views) if (specs[figure.dataset.chart].facet) draw(figure);
});

// --- arms on and off ---------------------------------------------------------------------------------------

async function update() {
  const on = chosen();
  document.querySelector(".switch .count").textContent = on.length;
  for (const one of document.querySelectorAll("[data-arm]")) one.hidden = !on.includes(one.dataset.arm);
  await Promise.all([...views].map(([figure, view]) => {
    const spec = specs[figure.dataset.chart];
    if (spec.usermeta) view.height(rows(spec));
    return view.signal("on", on).signal("others", others.checked).runAsync().then(() => unname(figure));
  }));
}
[...boxes, others].forEach((box) => box.addEventListener("change", update));
for (const button of document.querySelectorAll("[data-arms]")) {
  const choose = { first: (arm) => first.includes(arm), all: () => true, none: () => false }[button.dataset.arms];
  button.addEventListener("click", () => { boxes.forEach((box) => { box.checked = choose(box.value); }); update(); });
}
addEventListener("click", (event) => {
  const open = document.querySelector(".switch[open]");
  if (open && !open.contains(event.target)) open.open = false;
});

// --- values by keyboard: arrows go from mark to mark of the drawing in focus ---------------------------------

const marks = (canvas) => [...canvas.querySelectorAll('[role="graphics-symbol"][aria-label]')].filter((mark) => mark.__data__?.tooltip);
function leave(canvas) { canvas.querySelector(".marked")?.classList.remove("marked"); hide(); }
for (const canvas of document.querySelectorAll(".canvas")) {
  let place = -1;
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key], all = marks(canvas);
    if (event.key === "Escape") return leave(canvas);
    if (!step || !all.length) return;
    event.preventDefault();
    leave(canvas);
    canvas.scrollIntoView({ block: "nearest", behavior: "instant" });
    place = (place + step + all.length) % all.length;
    const mark = all[place], box = mark.getBoundingClientRect(), text = mark.__data__.tooltip;
    mark.classList.add("marked");
    show(text, box.x + box.width / 2, box.y + box.height / 2);
    spoken.textContent = text;
  });
  canvas.addEventListener("blur", () => leave(canvas));
}
for (const kind of ["wheel", "touchmove"]) addEventListener(kind, hide, { passive: true });
addEventListener("keydown", (event) => {
  const open = document.querySelector(".switch[open]");
  if (event.key === "Escape" && open) { open.open = false; open.querySelector("summary").focus(); }
});

// --- tables: a click on a heading sorts, a word above filters ------------------------------------------------

function value(row, column) {
  const cell = row.children[column], text = cell.dataset.value ?? cell.textContent.trim();
  const found = parseFloat(text.replaceAll(",", "").replace("−", "-").replace("< ", ""));
  if (column && !Number.isNaN(found)) return found * ({ kB: 1e3, MB: 1e6, GB: 1e9 }[text.slice(-2)] ?? 1);
  return text === "–" ? "" : text;
}
const compare = (a, b) => (typeof a === typeof b ? (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true })) : typeof a === "number" ? 1 : -1);
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.querySelectorAll("thead th")];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort"); // numbers start with the highest, names with A
      const ascending = before ? before === "descending" : column === 0;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const body = table.tBodies[0], sign = ascending ? 1 : -1;
      body.append(...[...body.rows].sort((a, b) => sign * compare(value(a, column), value(b, column))));
    });
  });
  const top = table.closest(".table")?.querySelector(".top");
  if (!top) continue;
  const field = Object.assign(document.createElement("input"), { type: "search", className: "filter", placeholder: "Search rows" });
  field.setAttribute("aria-label", `Search rows: ${top.querySelector(".caption").textContent}`);
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/);
    for (const row of table.tBodies[0].rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
  });
  top.append(field);
}

// --- users: one at a time; what an arm saw shows on hover and focus, and a click goes there -------------------

const people = [...document.querySelectorAll(".person")], select = document.getElementById("person");
function showPerson(place) {
  people.forEach((one) => { one.hidden = one.dataset.person !== place; });
  figures.filter((figure) => figure.closest(".person:not([hidden])")).forEach(drawOnce);
}
if (select) { showPerson(select.value); select.addEventListener("change", () => showPerson(select.value)); }
for (const link of document.querySelectorAll("[data-show]")) {
  link.addEventListener("click", () => { select.value = link.dataset.show; showPerson(select.value); });
}
for (const link of document.querySelectorAll("[data-item]")) {
  const item = document.getElementById(link.getAttribute("href").slice(1)), box = () => link.getBoundingClientRect();
  const read = () => show([...item.querySelector(".text").childNodes].map((part) => part.textContent.trim()).join("\n"), box().x, box().y);
  link.addEventListener("mouseenter", read);
  link.addEventListener("focus", () => { link.scrollIntoView({ block: "nearest", behavior: "instant" }); read(); });
  link.addEventListener("mouseleave", hide);
  link.addEventListener("blur", hide);
  link.addEventListener("click", () => { item.closest("details").open = true; });
}
document.getElementById("copy").addEventListener("click", async (event) => {
  const command = document.getElementById("command");
  try { await navigator.clipboard.writeText(command.textContent); }
  catch { getSelection().selectAllChildren(command); document.execCommand("copy"); }
  event.target.textContent = "copied";
});
