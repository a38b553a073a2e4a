// The map: drawing, panning and zooming, and which protein lies under the pointer.
const map = (() => {
  const n = data.names.length;
  const box = $("map"), base = $("points"), top = $("marks");
  const ctx = base.getContext("2d"), over = top.getContext("2d");
  const xs = new Float32Array(n), ys = new Float32Array(n);
  for (let i = 0; i < n; i++) { xs[i] = data.xy[2 * i]; ys[i] = data.xy[2 * i + 1]; }
  const order = shuffled(n); // drawn in random order, so that no class hides the others
  const view = { k: 1, x: 0, y: 0 };
  const level = new Uint8Array(n).fill(2); // 2 shown, 1 in the background because a class or cell line is switched off
  const sprites = new Map();
  let width = 0, height = 0, ratio = 1, fitted = 1, waiting = 0, thumbs = new Map(), spots = [], flight = 0;

  // --- index: a grid over the map, so that finding the nearest of thousands takes no time
  const side = Math.max(1, Math.ceil(Math.sqrt(n / 2)));
  const cells = new Map();
  const cellOf = (v) => Math.min(side - 1, Math.max(0, Math.floor((v + 0.5) * side)));
  for (let i = 0; i < n; i++) {
    const key = cellOf(ys[i]) * side + cellOf(xs[i]);
    if (!cells.has(key)) cells.set(key, []);
    cells.get(key).push(i);
  }

  function hit(px, py) {
    for (const [i, [x, y, s]] of thumbs) if (Math.abs(px - x) <= s / 2 && Math.abs(py - y) <= s / 2) return i;
    const reach = Math.max(9, radius() + 4);
    const x = (px - view.x) / view.k, y = (py - view.y) / view.k, r = reach / view.k;
    let best = -1, least = r * r;
    for (let row = cellOf(y - r); row <= cellOf(y + r); row++)
      for (let column = cellOf(x - r); column <= cellOf(x + r); column++)
        for (const i of cells.get(row * side + column) || []) {
          const d = (xs[i] - x) ** 2 + (ys[i] - y) ** 2;
          if (d < least && level[i] === 2) { least = d; best = i; }
        }
    return best;
  }

  // --- view
  const screen = (i) => [xs[i] * view.k + view.x, ys[i] * view.k + view.y];
  const zoomed = () => view.k / fitted;
  const radius = () => Math.min(8.5, Math.min(6.2, Math.max(2.3, Math.min(100 / Math.sqrt(n), Math.min(width, height) / 95))) * zoomed() ** 0.38);

  function fittedView() {
    let x0 = 1, x1 = -1, y0 = 1, y1 = -1;
    for (let i = 0; i < n; i++) { x0 = Math.min(x0, xs[i]); x1 = Math.max(x1, xs[i]); y0 = Math.min(y0, ys[i]); y1 = Math.max(y1, ys[i]); }
    const margin = Math.min(56, 0.08 * Math.min(width, height) + 14);
    const k = Math.max(20, Math.min((width - 2 * margin) / Math.max(x1 - x0, 1e-6), (height - 2 * margin) / Math.max(y1 - y0, 1e-6)));
    return { k, x: width / 2 - (k * (x0 + x1)) / 2, y: height / 2 - (k * (y0 + y1)) / 2 };
  }

  function zoomBy(factor, px = width / 2, py = height / 2) {
    cancelAnimationFrame(flight);
    const k = Math.min(fitted * Math.max(40, Math.sqrt(n) * 4), Math.max(fitted * 0.6, view.k * factor));
    view.x = px - ((px - view.x) * k) / view.k;
    view.y = py - ((py - view.y) * k) / view.k;
    view.k = k;
    redraw();
  }

  function panBy(dx, dy) {
    cancelAnimationFrame(flight);
    view.x = Math.min(width * 0.9 + view.k / 2, Math.max(width * 0.1 - view.k / 2, view.x + dx));
    view.y = Math.min(height * 0.9 + view.k / 2, Math.max(height * 0.1 - view.k / 2, view.y + dy));
    redraw();
  }

  function fly(goal) {
    cancelAnimationFrame(flight);
    const from = { ...view }, began = performance.now(), still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const step = (now) => {
      const t = still ? 1 : Math.min(1, (now - began) / 260), e = 1 - (1 - t) ** 3;
      for (const key of ["k", "x", "y"]) view[key] = from[key] + (goal[key] - from[key]) * e;
      redraw();
      if (t < 1) flight = requestAnimationFrame(step);
    };
    step(began);
  }

  function reveal(i) { // pan only where the protein would be hard to see
    const [x, y] = screen(i);
    if (x > 24 && x < width - 24 && y > 24 && y < height - 24) return redraw();
    fly({ k: view.k, x: view.x + width / 2 - x, y: view.y + height / 2 - y });
  }

  function resize() {
    const w = box.clientWidth, h = box.clientHeight, r = window.devicePixelRatio || 1;
    if (!w || !h || (w === width && h === height && r === ratio)) return;
    const whole = !width || Math.abs(zoomed() - 1) < 0.01;
    const middle = [(width / 2 - view.x) / view.k, (height / 2 - view.y) / view.k];
    [width, height, ratio] = [w, h, r];
    for (const canvas of [base, top]) { canvas.width = Math.round(w * r); canvas.height = Math.round(h * r); }
    sprites.clear();
    const fit = fittedView();
    fitted = fit.k;
    Object.assign(view, whole ? fit : { k: view.k, x: width / 2 - middle[0] * view.k, y: height / 2 - middle[1] * view.k });
    draw();
  }

  // --- drawing
  function sprite(codes, classes, r) {
    const key = `${codes.join(",")}|${r}`;
    if (!sprites.has(key)) {
      const canvas = document.createElement("canvas"), size = Math.ceil(((codes.length > 1 ? 3.3 : 2.6) * r + 4) * ratio);
      canvas.width = canvas.height = size;
      const c = canvas.getContext("2d", { willReadFrequently: n > MANY });
      c.scale(ratio, ratio);
      paintMark(c, codes, classes, size / ratio / 2, size / ratio / 2, r, r > 3.5 ? 0.8 : 0.4);
      sprites.set(key, { canvas, size: size / ratio, pixels: null });
    }
    return sprites.get(key);
  }

  // Thousands of marks are written into the pixels directly: many times faster than drawing each where there is no graphics card
  let sheet = null, ink = null;
  const MANY = 1500;

  function packed(colour) { // "#rrggbb" as a pixel; every platform that has a browser is little-endian
    const v = parseInt(colour.slice(1), 16);
    return (0xff000000 | ((v & 255) << 16) | (v & 0xff00) | (v >> 16)) >>> 0;
  }

  function stampAll(inView, scheme, classes, r) {
    const w = base.width, h = base.height;
    if (!sheet || sheet.width !== w || sheet.height !== h) { sheet = ctx.createImageData(w, h); ink = new Uint32Array(sheet.data.buffer); }
    ink.fill(packed(css("--map")));
    const faint = packed(css("--faint")), dot = Math.max(1, Math.round(2 * ratio));
    for (let i = 0; i < n; i++) {
      if (level[i] === 2) continue;
      const x = Math.round((xs[i] * view.k + view.x) * ratio), y = Math.round((ys[i] * view.k + view.y) * ratio);
      if (x < 0 || y < 0 || x + dot > w || y + dot > h) continue;
      for (let b = 0; b < dot; b++) ink.fill(faint, (y + b) * w + x, (y + b) * w + x + dot);
    }
    for (const i of inView) {
      const codes = scheme.codes[i], mark = sprite(codes, classes, r), s = mark.canvas.width;
      mark.pixels ||= mark.canvas.getContext("2d").getImageData(0, 0, s, s).data;
      const strength = isDim(codes) ? 0.12 : 1, p = mark.pixels;
      const left = Math.round((xs[i] * view.k + view.x) * ratio - s / 2), upper = Math.round((ys[i] * view.k + view.y) * ratio - s / 2);
      const a0 = Math.max(0, -left), a1 = Math.min(s, w - left), b1 = Math.min(s, h - upper);
      for (let b = Math.max(0, -upper); b < b1; b++) {
        for (let a = a0, from = 4 * (b * s + a0), to = (upper + b) * w + left + a0; a < a1; a++, from += 4, to++) {
          const opacity = p[from + 3];
          if (!opacity) continue;
          const t = (opacity * strength) / 255, u = 1 - t, under = ink[to];
          ink[to] = 0xff000000 | ((p[from + 2] * t + ((under >> 16) & 255) * u) << 16) | ((p[from + 1] * t + ((under >> 8) & 255) * u) << 8) | (p[from] * t + (under & 255) * u);
        }
      }
    }
    ctx.putImageData(sheet, 0, 0);
  }

  const isDim = (codes) => state.focus !== null && !(codes.length ? codes.includes(state.focus) : state.focus === -1);

  function refilter() {
    const scheme = data.schemes[state.scheme], off = state.off[state.scheme];
    for (let i = 0; i < n; i++) {
      const codes = scheme.codes[i];
      const on = codes.length ? codes.some((c) => !off.has(c)) : !off.has(-1);
      const line = state.line < 0 || (data.lines && data.lines[i].some(([l]) => l === state.line));
      level[i] = on && line ? 2 : 1;
    }
    spots = numberSpots();
    redraw();
  }

  function draw() {
    waiting = 0;
    const scheme = data.schemes[state.scheme], classes = scheme.classes.length, r = Math.round(radius() * 4) / 4;
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.clearRect(0, 0, width, height);
    ctx.fillStyle = css("--faint");
    const inView = [];
    for (const i of order) {
      const x = xs[i] * view.k + view.x, y = ys[i] * view.k + view.y;
      if (x < -30 || y < -30 || x > width + 30 || y > height + 30) continue;
      if (level[i] === 2) inView.push(i);
      else if (n <= MANY) ctx.fillRect(x - 1, y - 1, 2, 2);
    }
    thumbs = placeThumbs(inView);
    if (n > MANY) stampAll(inView.filter((i) => !thumbs.has(i)), scheme, classes, r);
    for (const [i, [x, y, s]] of thumbs) drawThumb(i, x, y, s);
    if (n <= MANY) for (const i of inView) {
      if (thumbs.has(i)) continue;
      const codes = scheme.codes[i], { canvas, size } = sprite(codes, classes, r);
      ctx.globalAlpha = isDim(codes) ? 0.12 : 1;
      ctx.drawImage(canvas, xs[i] * view.k + view.x - size / 2, ys[i] * view.k + view.y - size / 2, size, size);
    }
    ctx.globalAlpha = 1;
    if (inView.length <= 220 && (zoomed() > 1.5 || classes < 2)) drawNames(inView, r);
    if (zoomed() < 3.2 && !thumbs.size && scheme.key !== "cell_line") drawNumbers();
    drawOver();
  }

  function drawOver() {
    over.setTransform(ratio, 0, 0, ratio, 0, 0);
    over.clearRect(0, 0, width, height);
    const chosen = state.selected, ring = radius() + 3;
    if (chosen >= 0) {
      const [x, y] = screen(chosen);
      over.strokeStyle = css("--text");
      over.lineWidth = 1;
      over.globalAlpha = 0.45;
      for (const j of data.near[chosen]) { const [u, v] = screen(j); over.beginPath(); over.moveTo(x, y); over.lineTo(u, v); over.stroke(); }
      over.globalAlpha = 0.9;
      for (const j of data.near[chosen]) if (!thumbs.has(j)) { const [u, v] = screen(j); circle(u, v, ring - 1, 1.2); }
      over.globalAlpha = 1;
      emphasise(chosen, 2.6);
      label(over, data.names[chosen], x, y - (thumbs.has(chosen) ? thumbs.get(chosen)[2] / 2 + 5 : ring + 6), "center", 13, 700);
    }
    if (state.hovered >= 0 && state.hovered !== chosen) emphasise(state.hovered, 2);
  }

  function emphasise(i, line) {
    const [x, y] = screen(i), placed = thumbs.get(i);
    over.strokeStyle = css("--text");
    if (placed) { over.lineWidth = line + 0.6; over.strokeRect(x - placed[2] / 2 - 1, y - placed[2] / 2 - 1, placed[2] + 2, placed[2] + 2); return; }
    const scheme = data.schemes[state.scheme];
    paintMark(over, scheme.codes[i], scheme.classes.length, x, y, radius() + 1, 1);
    over.strokeStyle = css("--text");
    circle(x, y, radius() + 4, line);
  }

  function circle(x, y, r, line) {
    over.lineWidth = line;
    over.beginPath();
    over.arc(x, y, r, 0, 2 * Math.PI);
    over.stroke();
  }

  function label(c, text, x, y, align, size, weight) {
    c.font = `${weight} ${size}px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif`;
    c.textAlign = align;
    c.lineJoin = "round";
    c.lineWidth = 3.5;
    c.strokeStyle = css("--map");
    c.strokeText(text, x, y);
    c.fillStyle = css("--text");
    c.fillText(text, x, y);
  }

  // --- cells instead of marks where there is room for them
  function placeThumbs(inView) {
    const found = new Map();
    if (!state.pictures || zoomed() < 1.45) return found;
    const s = Math.round(Math.min(60, Math.sqrt((0.4 * width * height) / (inView.length + 1)))), gap = s + 4;
    if (s < 34) return found;
    const first = state.selected >= 0 ? [state.selected, ...data.near[state.selected]].filter((i) => level[i] === 2) : [];
    const taken = new Map();
    for (const i of [...first, ...[...inView].sort((a, b) => a - b)]) { // in a fixed order, or they would flicker while zooming
      const [x, y] = screen(i);
      if (found.has(i) || x < -s || y < -s || x > width + s || y > height + s) continue;
      const cx = Math.floor(x / gap), cy = Math.floor(y / gap);
      let free = true;
      for (let a = cx - 1; a <= cx + 1 && free; a++)
        for (let b = cy - 1; b <= cy + 1 && free; b++)
          for (const [u, v] of taken.get(`${a},${b}`) || []) if (Math.abs(u - x) < gap && Math.abs(v - y) < gap + 11) free = false;
      if (!free) continue;
      const key = `${cx},${cy}`;
      if (!taken.has(key)) taken.set(key, []);
      taken.get(key).push([x, y]);
      found.set(i, [x, y, s]);
    }
    return found;
  }

  function drawThumb(i, x, y, s) {
    const scheme = data.schemes[state.scheme], codes = scheme.codes[i], image = crops.now(i, redraw);
    ctx.globalAlpha = isDim(codes) ? 0.15 : 1;
    ctx.fillStyle = "#000";
    ctx.fillRect(x - s / 2, y - s / 2, s, s);
    if (image) ctx.drawImage(image, 0, 0, data.crops.px, data.crops.px, x - s / 2, y - s / 2, s, s);
    ctx.lineWidth = 2.5;
    const colours = codes.length ? codes.slice(0, 2).map(colourOf) : [css("--soft")];
    ctx.strokeStyle = colours[0];
    ctx.strokeRect(x - s / 2, y - s / 2, s, s);
    if (colours.length > 1) { // the right half of the frame in the second colour
      ctx.strokeStyle = colours[1];
      ctx.beginPath();
      ctx.moveTo(x, y - s / 2); ctx.lineTo(x + s / 2, y - s / 2); ctx.lineTo(x + s / 2, y + s / 2); ctx.lineTo(x, y + s / 2);
      ctx.stroke();
    }
    ctx.globalAlpha = 1;
  }

  function drawNames(inView, r) {
    const placed = [...thumbs.values()].map(([x, y, s]) => [x - s / 2, y - s / 2, x + s / 2, y + s / 2]);
    for (const i of inView) { const [x, y] = screen(i); if (!thumbs.has(i)) placed.push([x - r, y - r, x + r, y + r]); }
    const clash = (a) => placed.some((b) => a[0] < b[2] && a[2] > b[0] && a[1] < b[3] && a[3] > b[1]);
    for (const i of [...inView].sort((a, b) => thumbs.has(b) - thumbs.has(a) || a - b)) {
      if (i === state.selected) continue;
      const [x, y] = screen(i), name = data.names[i].length > 14 ? `${data.names[i].slice(0, 13)}…` : data.names[i], w = name.length * 6.2, s = thumbs.get(i);
      if (s) {
        for (const at of [y + s[2] / 2 + 2, y - s[2] / 2 - 15]) { // below, else above
          const spot = [x - w / 2, at + 1, x + w / 2, at + 12];
          if (!clash(spot)) { placed.push(spot); label(ctx, name, x, at + 10, "center", 10.5, 500); break; }
        }
      } else {
        const spot = [x + r + 2.5, y - 6, x + r + 4 + w, y + 6];
        if (!clash(spot)) { placed.push(spot); label(ctx, name, x + r + 4, y + 3.5, "left", 10.5, 500); }
      }
    }
  }

  // --- the number of each class where most of it lies
  function numberSpots() {
    const scheme = data.schemes[state.scheme], members = scheme.classes.map(() => []);
    for (let i = 0; i < n; i++) if (level[i] === 2) for (const c of scheme.codes[i]) members[c].push(i);
    const found = [];
    members.forEach((own, c) => {
      if (!own.length || state.off[state.scheme].has(c)) return;
      const some = own.filter((_, j) => j % Math.ceil(own.length / 300) === 0);
      let best = some[0], most = -1;
      for (const a of some) {
        let near = 0;
        for (const b of some) near += 1 / (1 + ((xs[a] - xs[b]) ** 2 + (ys[a] - ys[b]) ** 2) * 900);
        if (near > most) { most = near; best = a; }
      }
      found.push({ c, x: xs[best], y: ys[best] });
    });
    return found;
  }

  function clearSpot(spot) { // the place around a class' middle that covers fewest marks
    const x = spot.x * view.k + view.x, y = spot.y * view.k + view.y, reach = 10 + radius(), away = reach + 2, r = reach / view.k;
    let best = [x, y], least = Infinity;
    for (let a = 0; a < 16; a++) {
      const u = x + away * Math.cos((a * Math.PI) / 8), v = y + away * Math.sin((a * Math.PI) / 8);
      const mx = (u - view.x) / view.k, my = (v - view.y) / view.k;
      let covered = 0;
      for (let row = cellOf(my - r); row <= cellOf(my + r); row++)
        for (let column = cellOf(mx - r); column <= cellOf(mx + r); column++)
          for (const i of cells.get(row * side + column) || []) covered += (xs[i] - mx) ** 2 + (ys[i] - my) ** 2 < r * r;
      if (covered < least) { least = covered; best = [u, v]; }
    }
    return best;
  }

  function drawNumbers() {
    const at = spots.map(clearSpot);
    for (let round = 0; round < 40; round++) // pushed apart until none covers another
      for (let a = 0; a < at.length; a++)
        for (let b = 0; b < a; b++) {
          const dx = at[a][0] - at[b][0], dy = at[a][1] - at[b][1], d = Math.hypot(dx, dy) || 1e-3;
          if (d < 21) { const p = (21 - d) / 2 / d; at[a][0] += dx * p; at[a][1] += dy * p + 0.01; at[b][0] -= dx * p; at[b][1] -= dy * p; }
        }
    ctx.textAlign = "center";
    ctx.font = '700 10.5px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif';
    spots.forEach((s, j) => {
      if (state.focus !== null && state.focus !== s.c) return;
      ctx.beginPath();
      ctx.arc(at[j][0], at[j][1], 9, 0, 2 * Math.PI);
      ctx.fillStyle = css("--panel");
      ctx.fill();
      ctx.lineWidth = 1.8;
      ctx.strokeStyle = colourOf(s.c);
      ctx.stroke();
      ctx.fillStyle = css("--text");
      ctx.fillText(String(s.c + 1), at[j][0], at[j][1] + 3.8);
    });
  }

  function redraw() { if (!waiting) waiting = requestAnimationFrame(draw); }
  function repaint() { sprites.clear(); cssSeen.clear(); redraw(); }

  // --- pointer, wheel, keys
  const held = new Map();
  let moved = 0;
  const place = (event) => { const r = top.getBoundingClientRect(); return [event.clientX - r.left, event.clientY - r.top]; };
  top.addEventListener("pointerdown", (event) => {
    top.setPointerCapture(event.pointerId);
    held.set(event.pointerId, place(event));
    if (held.size === 1) moved = 0;
  });
  top.addEventListener("pointermove", (event) => {
    const now = place(event), before = held.get(event.pointerId);
    if (!before) { if (event.pointerType !== "touch") ui.hover(hit(...now), now); return; }
    if (held.size === 2) {
      const other = [...held].find(([id]) => id !== event.pointerId)[1];
      const middle = [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2], old = [(before[0] + other[0]) / 2, (before[1] + other[1]) / 2];
      panBy(middle[0] - old[0], middle[1] - old[1]);
      zoomBy(Math.hypot(now[0] - other[0], now[1] - other[1]) / Math.max(1, Math.hypot(before[0] - other[0], before[1] - other[1])), ...middle);
      moved = 99;
    } else {
      moved += Math.abs(now[0] - before[0]) + Math.abs(now[1] - before[1]);
      if (moved > 4) { top.classList.add("dragged"); ui.hover(-1); panBy(now[0] - before[0], now[1] - before[1]); }
    }
    held.set(event.pointerId, now);
  });
  const release = (event) => {
    const was = held.delete(event.pointerId);
    top.classList.remove("dragged");
    if (was && event.type === "pointerup" && moved <= 4 && !held.size) { const i = hit(...place(event)); ui.hover(-1); ui.select(i); }
  };
  top.addEventListener("pointerup", release);
  top.addEventListener("pointercancel", release);
  top.addEventListener("pointerleave", () => { if (!held.size) ui.hover(-1); });
  // inside another page the wheel scrolls that page until the map is clicked
  const framed = window.self !== window.top;
  top.addEventListener("wheel", (event) => {
    if (framed && !event.ctrlKey && document.activeElement !== top) { ui.hint(); return; }
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 16 : 1;
    zoomBy(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0018)), ...place(event));
    ui.hover(-1);
  }, { passive: false });
  top.addEventListener("dblclick", (event) => zoomBy(event.shiftKey ? 0.5 : 2, ...place(event)));
  top.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = event.shiftKey ? 160 : 50;
    const does = {
      ArrowLeft: () => panBy(step, 0), ArrowRight: () => panBy(-step, 0), ArrowUp: () => panBy(0, step), ArrowDown: () => panBy(0, -step),
      "+": () => zoomBy(1.4), "=": () => zoomBy(1.4), "-": () => zoomBy(1 / 1.4), 0: () => fly(fittedView()),
    }[event.key];
    if (does) { event.preventDefault(); does(); }
  });
  new ResizeObserver(resize).observe(box);

  function shuffled(count) {
    const out = Uint32Array.from({ length: count }, (_, i) => i);
    let seed = 12345;
    for (let i = count - 1; i > 0; i--) {
      seed = (seed * 1664525 + 1013904223) >>> 0;
      const j = seed % (i + 1);
      [out[i], out[j]] = [out[j], out[i]];
    }
    return out;
  }

  return { resize, draw, redraw, repaint, drawOver, refilter, reveal, zoomBy, panBy, screen, hit, view,
    fit: () => fly(fittedView()), zoomed, size: () => [width, height], thumbs: () => thumbs.size };
})();
