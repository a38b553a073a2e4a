// Marks of classes: seven colours and five shapes in turn, as in the book's figures, so that 35 classes differ.
// Up to seven classes need no shapes. A protein of several classes bears the marks of all of them.
const SHAPES = ["circle", "up", "square", "plus", "down"];

function colourOf(code) {
  const colour = data.colours[code % data.colours.length];
  return (state.dark && { "#000000": "#F2F2F2", "#0072B2": "#1A85CC" }[colour]) || colour; // else hardly seen on black
}

function shapeOf(code, classes) {
  return classes <= data.colours.length ? "circle" : SHAPES[code % SHAPES.length];
}

function tracePath(ctx, shape, x, y, r) {
  ctx.beginPath();
  if (shape === "circle") ctx.arc(x, y, r, 0, 2 * Math.PI);
  else if (shape === "square") ctx.rect(x - 0.88 * r, y - 0.88 * r, 1.76 * r, 1.76 * r);
  else if (shape === "plus") {
    const a = 1.08 * r, b = 0.42 * r;
    [[-b, -a], [b, -a], [b, -b], [a, -b], [a, b], [b, b], [b, a], [-b, a], [-b, b], [-a, b], [-a, -b], [-b, -b]].forEach(([u, v], i) =>
      i ? ctx.lineTo(x + u, y + v) : ctx.moveTo(x + u, y + v));
    ctx.closePath();
  } else {
    const sign = shape === "up" ? 1 : -1;
    ctx.moveTo(x, y - sign * 1.2 * r);
    ctx.lineTo(x + 1.1 * r, y + sign * 0.8 * r);
    ctx.lineTo(x - 1.1 * r, y + sign * 0.8 * r);
    ctx.closePath();
  }
}

// Where the marks of one protein's classes stand, in radii, and how large they are
const TOGETHER = {
  2: [0.72, [[-0.72, 0], [0.72, 0]]],
  3: [0.64, [[-0.66, 0.5], [0.66, 0.5], [0, -0.66]]],
  4: [0.6, [[-0.62, -0.62], [0.62, -0.62], [-0.62, 0.62], [0.62, 0.62]]],
};

function paintMark(ctx, codes, classes, x, y, r, rim) {
  const finish = (colour) => {
    if (rim) { // around the mark, not over it
      ctx.lineWidth = 2 * rim;
      ctx.lineJoin = "round";
      ctx.strokeStyle = css("--map");
      ctx.stroke();
    }
    ctx.fillStyle = colour;
    ctx.fill();
  };
  const shown = codes.slice(0, 4), shaped = shown.some((c) => shapeOf(c, classes) !== "circle");
  if (shown.length > 1 && (shaped || classes > data.colours.length)) {
    const [size, spots] = TOGETHER[shown.length];
    shown.forEach((code, i) => {
      tracePath(ctx, shapeOf(code, classes), x + spots[i][0] * r, y + spots[i][1] * r, size * r);
      finish(colourOf(code));
    });
  } else if (shown.length > 1) { // few classes, all discs: one disc in several colours
    tracePath(ctx, "circle", x, y, r);
    finish(colourOf(shown[0]));
    shown.slice(1).forEach((code, i) => {
      const turn = (k) => (2 * Math.PI * k) / shown.length - Math.PI / 2;
      ctx.beginPath();
      ctx.moveTo(x, y);
      ctx.arc(x, y, r, turn(i + 1), turn(i + 2));
      ctx.closePath();
      ctx.fillStyle = colourOf(code);
      ctx.fill();
    });
  } else {
    tracePath(ctx, codes.length ? shapeOf(codes[0], classes) : "circle", x, y, codes.length ? r : 0.75 * r);
    finish(codes.length ? colourOf(codes[0]) : css("--soft"));
  }
}

function glyph(codes, classes, size = 14) {
  const canvas = document.createElement("canvas");
  const ratio = Math.max(2, window.devicePixelRatio || 1);
  canvas.width = canvas.height = size * ratio;
  canvas.style.width = canvas.style.height = `${size}px`;
  canvas.className = "glyph";
  canvas.setAttribute("aria-hidden", "true");
  const ctx = canvas.getContext("2d");
  ctx.scale(ratio, ratio);
  paintMark(ctx, codes, classes, size / 2, size / 2, size * (codes.length > 1 ? 0.33 : 0.36), 0);
  return canvas;
}

const cssSeen = new Map();
function css(name) {
  if (!cssSeen.has(name)) cssSeen.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  return cssSeen.get(name);
}
