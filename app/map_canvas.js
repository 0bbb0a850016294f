// The map as a street map: tiles from Python, drawn on a canvas, zoomed and dragged by hand.
// All text that comes from a trace is drawn or set as text, never as markup. What is drawn and how
// hands are followed stands in map_drawing.js, which is joined to this file.

const TILE = 256, LARGEST_CELL = 48, LABEL_CELL = 14, MOST_TILES = 240, PATIENCE = 4000;
const EDGE = { left: 118, top: 10, right: 96, bottom: 88 };
const instances = new WeakMap();

export default function ({ data, parentElement, setStateValue }) {
  if (!instances.has(parentElement)) instances.set(parentElement, new MapCanvas(parentElement));
  const map = instances.get(parentElement);
  map.send = (request) => setStateValue("request", request);
  map.receive(data);
  return () => {
    map.close();
    instances.delete(parentElement);
  };
}

// One packet: the length of the facts, the facts as JSON, the tiles' numbers: float32 where a cell
// is a single entry, else bfloat16.
function unpacked(packet) {
  const bytes = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
  const length = bytes.getUint32(0, true);
  const facts = JSON.parse(new TextDecoder().decode(packet.subarray(4, 4 + length)));
  let start = 4 + length;
  for (const tile of facts.tiles) {
    const stop = start + tile.rows * tile.columns * (tile.level ? 2 : 4);
    const own = packet.slice(start, stop).buffer;
    tile.exact = tile.level ? null : new Float32Array(own);
    tile.numbers = tile.level ? new Uint16Array(own) : new Uint32Array(own).map((bits) => bits >>> 16);
    start = stop;
  }
  return facts;
}

const words = new Uint32Array(65536).map((_, bits) => bits << 16);
const VALUES = new Float32Array(words.buffer); // of every bfloat16

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(Math.max(least, 1)));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= least);
}

class MapCanvas {
  constructor(parent) {
    this.root = parent.querySelector(".map");
    this.canvas = parent.querySelector("canvas");
    this.reading = parent.querySelector(".reading");
    this.pen = this.canvas.getContext("2d");
    this.tiles = new Map();
    this.tokens = { query: new Map(), key: new Map() };
    this.serial = 0;
    this.asked = null;
    this.pointer = null;
    this.listening = new AbortController();
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.root);
    listen(this, parent);
  }

  close() {
    this.listening.abort();
    this.observer.disconnect();
    clearTimeout(this.timer);
  }

  // --- what Python says ---------------------------------------------------------------------

  receive(packet) {
    const facts = unpacked(packet);
    const other = this.facts?.map !== facts.map;
    const resized = this.facts?.queries !== facts.queries || this.facts?.keys !== facts.keys;
    if (other) this.tiles.clear();
    if (other) this.tokens = { query: new Map(), key: new Map() };
    this.facts = facts;
    for (const axis of ["query", "key"])
      facts.tokens[axis].texts.forEach((text, i) => this.tokens[axis].set(facts.tokens[axis].start + i, text));
    for (const tile of facts.tiles) this.keep(tile);
    this.colors = this.colorTable();
    this.canvas.setAttribute("aria-label", facts.words);
    if (this.asked && facts.serial >= this.asked.serial) {
      this.root.dataset.answered = Math.round(performance.now() - this.asked.time); // milliseconds
      this.asked = null;
    }
    if (resized || !this.view) this.fit();
    this.changed();
  }

  keep(tile) {
    const name = `${tile.level}/${tile.row}/${tile.column}`;
    this.tiles.delete(name);
    this.tiles.set(name, { ...tile, share: this.facts.share, picture: null });
    for (const oldest of this.tiles.keys()) {
      if (this.tiles.size <= MOST_TILES) break;
      if (!oldest.startsWith(`${this.facts.top}/`)) this.tiles.delete(oldest);
    }
  }

  // A color for each of the 65,536 numbers that a tile can hold; what is missing stays clear.
  colorTable() {
    const { low, high, logarithmic, colors } = this.facts.scale;
    const ramp = colors.map((color) => 0xff000000 | parseInt(color.slice(5, 7) + color.slice(3, 5) + color.slice(1, 3), 16));
    const table = new Uint32Array(65536), last = ramp.length - 1;
    for (let bits = 0; bits < 65536; bits++) {
      let value = VALUES[bits];
      if (value !== value) continue;
      if (logarithmic) value = Math.log10(Math.max(value, 10 ** low));
      table[bits] = ramp[clamp(Math.round(((value - low) / (high - low)) * last), 0, last)];
    }
    this.painted = `${low} ${high} ${logarithmic} ${colors[0]} ${colors[last]}`;
    return table;
  }

  picture(tile) {
    if (tile.picture && tile.painted === this.painted) return tile.picture;
    tile.picture ??= Object.assign(document.createElement("canvas"), { width: tile.columns, height: tile.rows });
    const pen = tile.picture.getContext("2d"), image = pen.createImageData(tile.columns, tile.rows);
    const pixels = new Uint32Array(image.data.buffer), colors = this.colors;
    for (let i = 0; i < pixels.length; i++) pixels[i] = colors[tile.numbers[i]];
    pen.putImageData(image, 0, 0);
    tile.painted = this.painted;
    return tile.picture;
  }

  // --- where we are -------------------------------------------------------------------------

  resize() {
    const width = this.root.clientWidth, dots = window.devicePixelRatio || 1;
    if (!width || width === this.width) return;
    const middle = this.view && this.middle();
    this.width = width;
    this.height = Math.round(clamp(width * 0.66, 340, 640));
    this.canvas.style.height = `${this.height}px`;
    this.canvas.width = Math.round(width * dots);
    this.canvas.height = Math.round(this.height * dots);
    this.pen.setTransform(dots, 0, 0, dots, 0, 0);
    this.plot = { width: width - EDGE.left - EDGE.right, height: this.height - EDGE.top - EDGE.bottom };
    if (middle) this.center(middle, this.view.scale);
    else if (this.facts) this.fit();
    if (this.facts) this.changed();
  }

  // Show the part that the address names, or all of the map.
  fit(part = this.facts.view) {
    if (!this.plot) return;
    const { queries, keys, stretch } = this.facts;
    const [top, bottom, left, right] = part ?? [0, queries, 0, keys]; // null: all of it
    const scale = Math.min(this.plot.width / (right - left), this.plot.height / (bottom - top) / stretch);
    this.center({ query: (top + bottom) / 2, key: (left + right) / 2 }, scale);
  }

  middle() {
    const { key, query, scale } = this.view;
    return { query: query + this.plot.height / this.tall(scale) / 2, key: key + this.plot.width / scale / 2 };
  }

  tall(scale) {
    return scale * this.facts.stretch;
  }

  center(middle, scale) {
    const { queries, keys, stretch } = this.facts;
    const least = Math.min(this.plot.width / keys, this.plot.height / queries / stretch);
    scale = clamp(scale, Math.min(least, LARGEST_CELL), LARGEST_CELL / Math.min(1, stretch));
    this.view = { scale, query: 0, key: 0 };
    const place = (at, length, seen) => (seen >= length ? (length - seen) / 2 : clamp(at - seen / 2, 0, length - seen));
    this.view.key = place(middle.key, keys, this.plot.width / scale);
    this.view.query = place(middle.query, queries, this.plot.height / this.tall(scale));
  }

  zoom(factor, at = { x: EDGE.left + this.plot.width / 2, y: EDGE.top + this.plot.height / 2 }) {
    const before = this.at(at), scale = this.view.scale * factor;
    this.center(this.middle(), scale);
    const after = this.at(at), middle = this.middle();
    this.center({ query: middle.query + before.query - after.query, key: middle.key + before.key - after.key }, this.view.scale);
    this.changed();
  }

  pan(x, y) {
    const middle = this.middle();
    this.center({ query: middle.query + y / this.tall(this.view.scale), key: middle.key + x / this.view.scale }, this.view.scale);
    this.changed();
  }

  at({ x, y }) {
    const { key, query, scale } = this.view;
    return { query: query + (y - EDGE.top) / this.tall(scale), key: key + (x - EDGE.left) / scale };
  }

  x(key) {
    return EDGE.left + (key - this.view.key) * this.view.scale;
  }

  y(query) {
    return EDGE.top + (query - this.view.query) * this.tall(this.view.scale);
  }

  // The coarsest level whose cells are still a pixel at least.
  get level() {
    const pixels = this.view.scale * Math.min(1, this.facts.stretch);
    return clamp(Math.ceil(-Math.log2(pixels) - 1e-6), 0, this.facts.top);
  }

  seen() {
    const { queries, keys } = this.facts, { query, key, scale } = this.view;
    const run = (start, length, limit) => [clamp(Math.floor(start), 0, limit - 1), clamp(Math.ceil(start + length), 1, limit)];
    return [...run(query, this.plot.height / this.tall(scale), queries), ...run(key, this.plot.width / scale, keys)];
  }

  // The tiles of the view that hold anything: those behind all their queries do not.
  visible() {
    const [top, bottom, left, right] = this.seen(), span = TILE * 2 ** this.level, { offset, queries } = this.facts;
    const found = [];
    for (let row = Math.floor(top / span); row * span < bottom; row++)
      for (let column = Math.floor(left / span); column * span < right; column++)
        if (offset === null || column * span < Math.min((row + 1) * span, queries) + offset) found.push([row, column]);
    return found;
  }

  missing() {
    return this.visible().filter(([row, column]) => {
      const tile = this.tiles.get(`${this.level}/${row}/${column}`);
      return !tile || (!tile.final && tile.share !== this.facts.share);
    });
  }

  // --- asking, one question at a time -------------------------------------------------------

  changed() {
    this.root.dataset.state = "waiting";
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => draw(this));
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), 30);
  }

  ask() {
    if (!this.view || !this.plot) return;
    const wait = this.asked ? this.asked.time + PATIENCE - performance.now() : 0;
    if (wait > 0) {
      this.timer = setTimeout(() => this.ask(), wait);
      return;
    }
    const want = this.missing(), view = this.seen();
    const question = JSON.stringify([this.facts.map, view, this.level, want, want.length ? this.facts.share : 0]);
    if (question === this.question && !this.asked) return this.tell();
    this.question = question;
    this.asked = { serial: Math.max(this.serial, this.facts.serial) + 1, time: performance.now() };
    this.serial = this.asked.serial;
    this.tell();
    this.send({ map: this.facts.map, view, level: this.level, want, serial: this.serial });
  }

  tell() {
    this.root.dataset.state = this.asked || this.missing().length ? "waiting" : "ready";
    this.root.dataset.level = this.level;
    this.root.dataset.view = this.seen().join(" ");
  }
}
