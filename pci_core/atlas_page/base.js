// What everything else uses: the data, what the reader has chosen, and the pictures, decoded when they are wanted.
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const state = {
  scheme: 0, // by what the map is coloured
  off: data.schemes.map(() => new Set()), // classes switched off, -1 = those without a class
  line: -1, // cell line whose proteins are shown, -1 = all
  focus: null, // class under the pointer in the legend
  hovered: -1,
  selected: -1,
  pictures: true,
  dark: false,
};

const crops = (() => {
  const starts = [], kept = new Map(), failed = new Set();
  let read = document.readyState !== "loading", last = 0;
  data.crop_chars.forEach((length, i) => {
    if (i % data.crop_chunk === 0) last = 0;
    starts.push(last);
    last += length;
  });
  const parsed = new Promise((done) => document.addEventListener("DOMContentLoaded", () => { read = true; done(); }));

  async function load(i) { // the pictures stand at the end of the file, which may still be on its way
    const id = `crops-${Math.floor(i / data.crop_chunk)}`;
    if (!read && !$(id)?.nextElementSibling) await parsed;
    const image = new Image();
    image.src = `data:image/webp;base64,${$(id).textContent.substr(starts[i], data.crop_chars[i])}`;
    await image.decode();
    return image;
  }

  function get(i) {
    if (kept.has(i)) { // the latest used come last
      const entry = kept.get(i);
      kept.delete(i);
      kept.set(i, entry);
      return entry.loading;
    }
    const entry = { image: null, loading: null };
    entry.loading = load(i).then((image) => (entry.image = image)).catch((error) => { failed.add(i); throw error; });
    entry.loading.catch(() => {});
    kept.set(i, entry);
    if (kept.size > 900) kept.delete(kept.keys().next().value);
    return entry.loading;
  }

  function now(i, later) { // for drawing: what is there at once, and a call when it is
    const entry = kept.get(i);
    if (entry?.image) return entry.image;
    if (!entry) get(i).then(later, () => {});
    return null;
  }

  return { get, now, failed: () => failed.size };
})();
