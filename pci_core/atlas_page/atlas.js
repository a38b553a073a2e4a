// What stands around the map: search, legend, tooltip, the panel of the selected protein.
function el(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(options)) {
    if (key === "on") for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    else if (key === "style") node.style.cssText = value;
    else if (value !== undefined && value !== null) node.setAttribute(key, value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined)); // text, never markup
  return node;
}

const scheme = () => data.schemes[state.scheme];
const schemeOf = (key) => data.schemes.find((s) => s.key === key);
const count = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
const terms = (i) => { const s = schemeOf("location"); return s ? s.codes[i].map((c) => s.classes[c]) : []; };
const markOf = (i, size) => glyph(scheme().codes[i], scheme().classes.length, size);
const kind = data.simulated ? "SIMULATED cells" : "real cells";
const nCells = data.n_cells.reduce((a, b) => a + b, 0);

function tile(i, cell, row, bar) {
  const what = row ? "protein" : "all channels";
  const canvas = el("canvas", { width: 2 * data.crops.px, height: 2 * data.crops.px, role: "img", "aria-label": `Cell ${cell + 1} of ${data.names[i]}, ${what}` });
  const box = el("div", { class: "tile", title: `${data.crop_cells[i][cell][0]}, ${what}` }, canvas);
  if (bar) box.append(el("div", { class: "bar", style: `width:${100 * data.crops.bar}%` }, el("span", {}, data.crops.bar_label)));
  crops.get(i).then((image) => {
    const ctx = canvas.getContext("2d"), p = data.crops.px;
    ctx.imageSmoothingQuality = "high";
    ctx.drawImage(image, cell * p, row * p, p, p, 0, 0, 2 * p, 2 * p);
    canvas.dataset.loaded = "true";
  }, () => box.append("no picture"));
  return box;
}

const ui = {
  hover(i, at) {
    if (state.hovered !== i) {
      state.hovered = i;
      $("marks").classList.toggle("over", i >= 0);
      map.drawOver();
      if (i >= 0) {
        const where = terms(i).join(", ") || (schemeOf("location") ? "no location" : "");
        const cluster = schemeOf("cluster")?.codes[i], told = cluster ? (cluster.length ? `cluster ${cluster[0] + 1} · ` : "in no cluster · ") : "";
        $("tip").replaceChildren(
          el("div", { class: "pair" }, tile(i, 0, 0, true), tile(i, 0, 1, false)),
          el("strong", {}, data.names[i]),
          el("div", {}, where),
          el("div", { class: "sub" }, `${told}${count(data.n_cells[i], data.simulated ? "simulated cell" : "cell")}`));
      }
      $("tip").hidden = i < 0;
    }
    if (i >= 0 && at) {
      const [w, h] = map.size(), tip = $("tip");
      const x = at[0] + 18 + tip.offsetWidth < w ? at[0] + 18 : Math.max(4, at[0] - 18 - tip.offsetWidth);
      const y = Math.min(Math.max(4, at[1] - 30), Math.max(4, h - tip.offsetHeight - 6));
      tip.style.transform = `translate(${Math.round(x)}px, ${Math.round(y)}px)`;
    }
  },

  select(i, quietly) {
    state.selected = i;
    ui.panel();
    if (i >= 0) {
      map.reveal(i);
      if (!quietly) $("said").textContent = `${data.names[i]} selected: ${terms(i).join(", ") || "no location"}`;
    } else map.redraw();
    const hash = i >= 0 ? `#${encodeURIComponent(data.names[i])}` : "#";
    if (location.hash !== hash && !(hash === "#" && !location.hash)) location.hash = hash; // so that Back goes to the protein before
  },

  panel() {
    const i = state.selected;
    $("selected").replaceChildren(...(i < 0 ? emptyPanel() : fullPanel(i)));
    $("detail").scrollTop = 0;
  },

  hint() {
    $("hint").hidden = false;
    clearTimeout(ui.timer);
    ui.timer = setTimeout(() => ($("hint").hidden = true), 1600);
  },
};

function emptyPanel() {
  return [el("div", { class: "empty" },
    el("h2", {}, "Where is a protein, and what looks like it?"),
    el("p", {}, "Each mark is a protein: the mean of its cells' features. Proteins whose cells look alike lie near one another."),
    el("p", {}, "Point at a mark to see its cells. Click it, or search its gene (press ", el("kbd", {}, "/"), "), for more cells and its nearest neighbours. Zoom in to see the cells on the map itself."),
    el("div", { class: "section" }, el("h2", {}, `${scheme().label}s: one protein of each`)),
    el("div", { class: "examples" }, ...examples().map((i) => el("button", { type: "button", title: `${data.names[i]}: ${terms(i).join(", ")}`, on: { click: () => ui.select(i) } },
      tile(i, 0, 0, false), el("div", { class: "who" }, markOf(i, 11), el("span", {}, data.names[i]))))))];
}

function examples() { // of each class the protein of most cells, those of that class alone first
  const s = scheme(), best = new Map();
  s.codes.forEach((codes, i) => codes.forEach((c) => {
    const rank = [codes.length === 1 ? 1 : 0, data.n_cells[i]], b = best.get(c);
    if (!b || rank[0] > b[0] || (rank[0] === b[0] && rank[1] > b[1])) best.set(c, [...rank, i]);
  }));
  return [...best].sort((a, b) => a[0] - b[0]).slice(0, 35).map(([, b]) => b[2]);
}

function fullPanel(i) {
  const name = data.names[i], where = schemeOf("location"), cluster = schemeOf("cluster");
  const chips = terms(i).map((term, j) => el("span", { class: "chip" }, glyph([where.codes[i][j]], where.classes.length, 13), term));
  if (where && !chips.length) chips.push(el("span", { class: "chip none" }, "no location known"));
  const out = [
    el("div", { class: "title" }, markOf(i, 20), el("h2", {}, name),
      el("button", { type: "button", id: "close", "aria-label": "Close this protein", title: "Close (Esc)", on: { click: () => ui.select(-1) } }, "×")),
    el("div", { class: "chips" }, ...chips),
    cluster && el("p", { class: "row" }, cluster.codes[i].length ? cluster.classes[cluster.codes[i][0]] : "In no cluster"),
    el("p", { class: "row" }, el("b", {}, count(data.n_cells[i], "cell")), data.lines ? `: ${data.lines[i].map(([l, k]) => `${data.line_names[l]} (${k})`).join(", ")}` : ""),
  ];
  const madeUp = data.simulated && /^SIM[A-Z]*\d+$/.test(name);
  if (data.atlas && !madeUp) {
    const id = data.ids && data.ids[i];
    const address = `https://www.proteinatlas.org/${id ? encodeURIComponent(id) : `search/${encodeURIComponent(name)}`}`;
    out.push(el("a", { class: "link", href: address, target: "_blank", rel: "noopener noreferrer" }, `${name} in the Human Protein Atlas ↗`));
  }
  if (data.simulated) {
    out.push(el("p", { class: "caution" }, madeUp ? "A made-up name: the cells are simulated, and so is the protein." :
      "The name is a real gene; its cells here are drawn by a simulator, from what is commonly known of its place."));
  }
  out.push(el("div", { class: "section" }, el("h2", {}, "Cells"), el("span", {}, `${data.crop_cells[i].length} of ${data.n_cells[i].toLocaleString("en")}, each ${data.crops.side_label} wide`)));
  const shown = data.crop_cells[i].length;
  const grid = el("div", { class: "crops", style: `grid-template-columns: repeat(${Math.max(2, Math.min(4, shown))}, 1fr)` });
  for (let row = 0; row < 2; row++) for (let j = 0; j < shown; j++) grid.append(tile(i, j, row, j === 0 && row === 0));
  if (data.lines) for (let j = 0; j < shown; j++) grid.append(el("div", { class: "crop-caption" }, data.line_names[data.crop_cells[i][j][1]] || ""));
  out.push(grid, el("div", { class: "channels" }, ...data.crops.colours.map(([channel, colour]) => el("span", {}, el("i", { style: `background:${colour}` }), channel)), el("span", {}, "below: protein alone")));
  out.push(el("div", { class: "section" }, el("h2", {}, "Nearest neighbours"), el("span", { title: "1 = the median distance of two proteins of this map" }, "bar: distance in feature space")));
  const far = data.far[i];
  out.push(el("ol", { class: "near" }, ...data.near[i].map((j, rank) => el("li", {}, el("button", {
    type: "button", "data-protein": data.names[j], title: `${data.names[j]}: ${terms(j).join(", ")}\ndistance ${far[rank].toFixed(2)}, where 1 is the median of two proteins`,
    on: {
      click: () => { ui.select(j); document.querySelector(".near button")?.focus({ preventScroll: true }); },
      mouseenter: () => { state.hovered = j; map.drawOver(); }, mouseleave: () => { state.hovered = -1; map.drawOver(); },
      focus: () => { state.hovered = j; map.drawOver(); }, blur: () => { state.hovered = -1; map.drawOver(); },
    },
  }, tile(j, 0, 0, false), el("span", { class: "words" },
    el("span", { class: "who" }, markOf(j, 12), el("span", {}, data.names[j])),
    el("div", { class: "where" }, terms(j).join(", ") || "\u00a0"),
    el("div", { class: "far" }, el("i", { style: `width:${Math.min(100, far[rank] * 100)}%` }))))))));
  return out.filter(Boolean);
}

// --- legend

function legend() {
  const s = scheme(), off = state.off[state.scheme];
  $("legend-title").textContent = s.label;
  const members = s.classes.map(() => 0);
  let none = 0;
  s.codes.forEach((codes) => { if (!codes.length) none++; codes.forEach((c) => members[c]++); });
  const classes = s.classes.map((name, c) => [c, name, members[c]]);
  if (none) classes.push([-1, s.key === "cluster" ? "in no cluster" : "not known", none]);
  $("classes").replaceChildren(...classes.map(([c, name, n]) => {
    const set = () => { $("classes").querySelectorAll(".class").forEach((b) => b.setAttribute("aria-pressed", String(!off.has(Number(b.dataset.code))))); map.refilter(); };
    const focus = (on) => { const next = on ? c : null; if (state.focus !== next) { state.focus = next; map.redraw(); } };
    return el("li", { on: { mouseenter: () => focus(true), mouseleave: () => focus(false) } },
      el("button", { type: "button", class: "class", "data-code": c, "aria-pressed": String(!off.has(c)), title: "Show or hide",
        on: { click: () => { if (!off.delete(c)) off.add(c); set(); }, focus: (e) => e.target.matches(":focus-visible") && focus(true), blur: () => focus(false) } },
      el("span", { class: "number" }, c < 0 ? "" : String(c + 1)), glyph(c < 0 ? [] : [c], s.classes.length, 14),
      el("span", { class: "name" }, s.key === "cluster" && c >= 0 ? name.replace(/^Cluster \d+:? ?/, "") || "cluster" : name), el("span", { class: "count" }, n.toLocaleString("en"))),
      el("button", { type: "button", class: "only", "aria-label": `Show only ${name}`, on: { click: () => { off.clear(); classes.forEach(([d]) => d !== c && off.add(d)); set(); } } }, "only"));
  }));
  $("all-on").onclick = () => { off.clear(); legend(); map.refilter(); };
  $("all-off").onclick = () => { classes.forEach(([c]) => off.add(c)); legend(); map.refilter(); };
  const notes = {
    location: s.codes.some((c) => c.length > 1) ? "A protein of several locations bears the marks of all of them (up to four); it counts for each, and shows while one of them is on." : "",
    cluster: `Hierarchical clusters of the features; beside each, the location that most of its proteins have.`,
    cell_line: "Each protein by the cell line that most of its cells are of.",
  };
  const many = s.classes.length > 35 ? " Marks repeat after 35 classes; numbers do not." : "";
  $("legend-note").textContent = notes[s.key] + many;
}

function colourBy(index) {
  state.scheme = index;
  state.focus = null;
  [...$("colour-by").children].forEach((b, i) => { b.setAttribute("aria-checked", String(i === index)); b.tabIndex = i === index ? 0 : -1; });
  map.repaint();
  legend();
  map.refilter();
  ui.panel();
}

data.schemes.forEach((s, i) => $("colour-by").append(el("button", { type: "button", role: "radio", "data-key": s.key, on: {
  click: () => colourBy(i),
  keydown: (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    colourBy((i + step + data.schemes.length) % data.schemes.length);
    $("colour-by").children[state.scheme].focus();
  },
} }, s.label)));

if (data.line_names.length > 1) {
  $("line-filter").hidden = false;
  $("line").append(el("option", { value: -1 }, "all cell lines"), ...data.line_names.map((name, j) => el("option", { value: j }, name)));
  $("line").addEventListener("change", () => { state.line = Number($("line").value); map.refilter(); });
}

// --- search: names that are it, begin with it, hold it; else those that differ least

const folded = data.names.map((name) => name.toLowerCase());

function find(text) {
  const q = text.trim().toLowerCase();
  if (!q) return { rows: [], near: false };
  const score = (i) => (folded[i] === q ? 0 : folded[i].startsWith(q) ? 1 : folded[i].includes(q) ? 2 : data.ids && data.ids[i].toLowerCase() === q ? 0 : 9);
  const rows = [];
  for (let i = 0; i < folded.length; i++) { const s = score(i); if (s < 9) rows.push([s, folded[i].length, i]); }
  if (rows.length) return { rows: rows.sort((a, b) => a[0] - b[0] || a[1] - b[1] || (folded[a[2]] < folded[b[2]] ? -1 : 1)).map((r) => r[2]), near: false };
  const far = folded.map((name, i) => [distance(q, name), i]).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  return { rows: far.filter((r) => r[0] <= Math.max(1, q.length / 2)).slice(0, 5).map((r) => r[1]), near: true };
}

function distance(a, b) { // letters to change, add or drop
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) next.push(Math.min(next[j - 1] + 1, row[j] + 1, row[j - 1] + (a[i - 1] !== b[j - 1])));
    row = next;
  }
  return row[b.length];
}

const box = $("search"), list = $("results");
let found = [], active = -1;

function showResults() {
  const { rows, near } = find(box.value);
  found = rows.slice(0, 12);
  active = found.length && !near ? 0 : -1;
  const q = box.value.trim().toLowerCase();
  const words = (i) => {
    const at = near ? -1 : folded[i].indexOf(q), name = data.names[i];
    return at < 0 ? [name] : [name.slice(0, at), el("mark", {}, name.slice(at, at + q.length)), name.slice(at + q.length)];
  };
  const items = found.map((i, j) => el("li", { role: "option", id: `result-${j}`, "aria-selected": String(j === active), "data-protein": data.names[i],
    on: { mousedown: (event) => { event.preventDefault(); choose(j); }, mousemove: () => setActive(j) } },
  markOf(i, 14), el("span", {}, ...words(i)), el("span", { class: "where" }, terms(i).join(", "))));
  if (near && q) items.unshift(el("li", { class: "told", role: "presentation" }, found.length ? "No protein of this name here. Similar names:" : "No protein of this name here."));
  if (rows.length > found.length) items.push(el("li", { class: "told", role: "presentation" }, `and ${(rows.length - found.length).toLocaleString("en")} more; type on`));
  list.replaceChildren(...items);
  open(Boolean(q));
  if (q) $("said").textContent = near ? (found.length ? "No protein of this name; similar names are listed" : "No protein of this name") : `${count(rows.length, "protein")} found`;
}

function open(on) {
  list.hidden = !on;
  box.setAttribute("aria-expanded", String(on));
  if (on && active >= 0) box.setAttribute("aria-activedescendant", `result-${active}`);
  else box.removeAttribute("aria-activedescendant");
}

function setActive(j) {
  active = j;
  list.querySelectorAll('[role="option"]').forEach((item, k) => item.setAttribute("aria-selected", String(k === j)));
  box.setAttribute("aria-activedescendant", `result-${j}`);
  $(`result-${j}`).scrollIntoView({ block: "nearest" });
}

function choose(j) {
  if (j < 0 || j >= found.length) return;
  const i = found[j];
  box.value = data.names[i];
  open(false);
  ui.select(i);
}

box.addEventListener("input", showResults);
box.addEventListener("focus", () => { box.select(); if (box.value.trim() && folded[state.selected] !== box.value.trim().toLowerCase()) showResults(); });
box.addEventListener("blur", () => open(false));
box.addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    if (list.hidden) return showResults();
    if (found.length) setActive((active + (event.key === "ArrowDown" ? 1 : -1) + found.length) % found.length);
  } else if (event.key === "Enter") {
    event.preventDefault();
    if (list.hidden) showResults();
    choose(active);
  } else if (event.key === "Escape") {
    event.stopPropagation();
    if (!list.hidden) open(false);
    else if (box.value) box.value = "";
    else box.blur();
  }
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input, select, textarea");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) { event.preventDefault(); box.focus(); }
  else if (event.key === "Escape" && !typing && state.selected >= 0) { ui.select(-1); $("marks").focus({ preventScroll: true }); }
  else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && event.target.matches(".near button")) {
    event.preventDefault();
    const all = [...document.querySelectorAll(".near button")];
    all[(all.indexOf(event.target) + (event.key === "ArrowDown" ? 1 : -1) + all.length) % all.length].focus();
  }
});

// --- buttons, theme, address

$("zoom-in").onclick = () => map.zoomBy(1.6);
$("zoom-out").onclick = () => map.zoomBy(1 / 1.6);
$("fit").onclick = () => map.fit();
$("pictures").onclick = () => { state.pictures = !state.pictures; $("pictures").setAttribute("aria-pressed", String(state.pictures)); map.redraw(); };
$("legend-toggle").onclick = () => $("legend-toggle").setAttribute("aria-expanded", String($("legend").classList.toggle("open")));

function theme(dark) {
  state.dark = dark;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  map.repaint();
  legend();
  ui.panel();
}

const system = matchMedia("(prefers-color-scheme: dark)");
system.addEventListener("change", () => theme(system.matches));
$("theme").onclick = () => theme(!state.dark);

function fromAddress() {
  let name = "";
  try { name = decodeURIComponent(location.hash.slice(1)); } catch { /* no name that this page wrote */ }
  const i = name ? folded.indexOf(name.toLowerCase()) : -1;
  if (i !== state.selected) ui.select(i, true);
}
window.addEventListener("hashchange", fromAddress);

$("kind").textContent = kind;
$("kind").classList.toggle("simulated", data.simulated);
$("facts").textContent = `${data.title} · ${count(data.names.length, "protein")}, ${count(nCells, "cell")} · ${data.features}`;
$("facts").title = $("facts").textContent;
box.placeholder = `Search a gene, e.g. ${data.names[Math.floor(data.names.length / 3)].slice(0, 14)}`;
$("marks").setAttribute("aria-label", `Map of ${count(data.names.length, "protein")}. Arrow keys move it, plus and minus zoom, 0 shows all of it. Search a gene to select a protein.`);
const about = [
  data.simulated ? `The cells are simulated${data.atlas ? "; gene names are real, the pictures are drawn" : ""}. What they show holds for simulated cells.` : "The cells are real.",
  `Recipe ${data.recipe}. Features: ${data.features}, ${data.n_features} of them, averaged over the cells of each protein, centred and scaled to unit variance.`,
  `Map: UMAP (McInnes et al. 2018) with ${data.map.n_neighbors} neighbours${data.map.n_neighbors < 20 ? " (all other proteins, since there are so few)" : ""}, min_dist ${data.map.min_dist}, seed ${data.map.seed}. It keeps neighbourhoods; distances between far groups, and sizes and densities of groups, mean little. Nearest neighbours are searched in the features, not on the map.`,
  `Clusters: ${data.map.linkage} linkage, ${data.map.metric} distance, cut by excess of mass into clusters of at least ${data.map.min_size} proteins${schemeOf("cluster") ? "" : "; the rule found none"}.`,
  `Crops: drawn at random from as many images as possible, each stretched to its own range and compressed; for looking at, not for measuring.`,
  `Keys: / search, arrows and + − 0 on the map, ↑ ↓ in lists, Esc back.`,
];
$("about-text").replaceChildren(...about.map((text) => el("p", {}, text)));

colourBy(0);
theme(system.matches);
map.resize();
fromAddress();
window.atlas = { data, state, map, crops, select: ui.select, find }; // for tests and for the curious
performance.mark("usable");
document.documentElement.dataset.ready = "true";
