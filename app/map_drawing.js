// --- drawing --------------------------------------------------------------------------------

function draw(map) {
  if (!map.view || !map.plot) return;
  const style = getComputedStyle(map.root), { pen, facts } = map;
  const look = {
    ink: style.getPropertyValue("--st-text-color") || "#222",
    ground: style.getPropertyValue("--st-secondary-background-color") || "#eee",
    line: style.getPropertyValue("--st-border-color") || "#bbb",
    font: style.getPropertyValue("--st-font") || "sans-serif",
  };
  const frame = {
    left: Math.max(EDGE.left, map.x(0)),
    right: Math.min(EDGE.left + map.plot.width, map.x(facts.keys)),
    top: Math.max(EDGE.top, map.y(0)),
    bottom: Math.min(EDGE.top + map.plot.height, map.y(facts.queries)),
  };
  pen.clearRect(0, 0, map.width, map.height);
  pen.save();
  pen.beginPath();
  pen.rect(frame.left, frame.top, frame.right - frame.left, frame.bottom - frame.top);
  pen.fillStyle = look.ground;
  pen.fill();
  pen.clip();
  pen.imageSmoothingEnabled = false;
  for (const [row, column] of map.visible()) drawTile(map, row, column);
  drawSegments(map, look);
  drawPointer(map, look);
  pen.restore();
  pen.strokeStyle = look.line;
  pen.lineWidth = 1;
  pen.strokeRect(frame.left - 0.5, frame.top - 0.5, frame.right - frame.left + 1, frame.bottom - frame.top + 1);
  drawAxis(map, look, frame, "key");
  drawAxis(map, look, frame, "query");
  drawLegend(map, look, frame);
  tellPointer(map);
}

// A tile, or while it is not there the part of a coarser one that lies in its place.
function drawTile(map, row, column) {
  const level = map.level;
  for (let up = 0; level + up <= map.facts.top; up++) {
    const parts = 2 ** up;
    const tile = map.tiles.get(`${level + up}/${Math.floor(row / parts)}/${Math.floor(column / parts)}`);
    if (!tile) continue;
    const size = TILE / parts, top = (row % parts) * size, left = (column % parts) * size;
    const rows = Math.min(size, tile.rows - top), columns = Math.min(size, tile.columns - left);
    if (rows <= 0 || columns <= 0) return;
    const span = 2 ** (level + up), fine = TILE * 2 ** level;
    const x = Math.round(map.x(column * fine)), y = Math.round(map.y(row * fine));
    const right = Math.round(map.x(column * fine + columns * span)), bottom = Math.round(map.y(row * fine + rows * span));
    map.pen.drawImage(map.picture(tile), left, top, columns, rows, x, y, right - x, bottom - y);
    return;
  }
}

// Where a role of the text ends, a thin line.
function drawSegments(map, look) {
  const { pen, facts } = map;
  pen.strokeStyle = look.ink;
  pen.globalAlpha = 0.35;
  pen.setLineDash([4, 4]);
  pen.beginPath();
  for (const start of facts.borders.key) pen.moveTo(Math.round(map.x(start)) + 0.5, 0), pen.lineTo(Math.round(map.x(start)) + 0.5, map.height);
  for (const start of facts.borders.query) pen.moveTo(0, Math.round(map.y(start)) + 0.5), pen.lineTo(map.width, Math.round(map.y(start)) + 0.5);
  pen.stroke();
  pen.setLineDash([]);
  pen.globalAlpha = 1;
}

function drawPointer(map, look) {
  const cell = pointedCell(map);
  if (!cell) return;
  const { pen } = map, x = map.x(cell.key), y = map.y(cell.query);
  const width = Math.max(map.x(cell.key + cell.span) - x, 3), height = Math.max(map.y(cell.query + cell.span) - y, 3);
  pen.lineWidth = 3;
  pen.strokeStyle = "#fff";
  pen.strokeRect(x, y, width, height);
  pen.lineWidth = 1.5;
  pen.strokeStyle = "#d55e00";
  pen.strokeRect(x, y, width, height);
}

function drawAxis(map, look, frame, axis) {
  const { pen, facts } = map, along = axis === "key";
  const pixels = along ? map.view.scale : map.tall(map.view.scale);
  const [top, bottom, left, right] = map.seen(), [first, stop] = along ? [left, right] : [top, bottom];
  const named = pixels >= LABEL_CELL;
  const step = named ? 1 : niceStep((along ? 64 : 34) / pixels);
  pen.fillStyle = look.ink;
  pen.strokeStyle = look.line;
  pen.font = `12px ${look.font}`;
  pen.textBaseline = "middle";
  for (let position = Math.ceil(first / step) * step; position < stop; position += step) {
    const place = (along ? map.x(position) : map.y(position)) + pixels / 2;
    if (place < (along ? frame.left : frame.top) || place > (along ? frame.right : frame.bottom)) continue;
    const text = (named && map.tokens[axis].get(position)) || position.toLocaleString("en-US");
    pen.save();
    if (along) pen.translate(place, frame.bottom + 6);
    else pen.translate(frame.left - 6, place);
    if (along && named) pen.rotate(-Math.PI / 2);
    pen.textAlign = along && !named ? "center" : "right";
    pen.fillText(text, 0, along && !named ? 7 : 0, along ? EDGE.bottom - 26 : EDGE.left - 30);
    pen.restore();
  }
  pen.save();
  pen.textAlign = "center";
  if (along) pen.translate((frame.left + frame.right) / 2, Math.min(frame.bottom + (named ? EDGE.bottom - 10 : 32), map.height - 8));
  else pen.translate(Math.max(frame.left - (named ? EDGE.left - 10 : 64), 8), (frame.top + frame.bottom) / 2), pen.rotate(-Math.PI / 2);
  pen.globalAlpha = 0.75;
  pen.fillText(`${axis} (${facts.axes[along ? 1 : 0]})`, 0, 0);
  pen.restore();
}

function drawLegend(map, look, frame) {
  const { pen } = map, { colors, low, high, ticks, label } = map.facts.scale;
  const height = Math.min(frame.bottom - frame.top, 320), top = frame.top, left = frame.right + 16;
  for (let y = 0; y < height; y++) {
    pen.fillStyle = colors[Math.round((1 - y / (height - 1)) * (colors.length - 1))];
    pen.fillRect(left, top + y, 12, 1.5);
  }
  pen.fillStyle = look.ink;
  pen.font = `12px ${look.font}`;
  pen.textAlign = "left";
  pen.textBaseline = "middle";
  for (const [number, text] of ticks) {
    const y = top + (1 - (number - low) / (high - low)) * height;
    if (y < top - 1 || y > top + height + 1) continue;
    pen.fillText(text, left + 18, clamp(y, top + 5, top + height - 5), EDGE.right - 46);
  }
  pen.save();
  pen.globalAlpha = 0.75;
  pen.textAlign = "center";
  pen.translate(left + 68, top + height / 2);
  pen.rotate(Math.PI / 2);
  pen.fillText(label, 0, 0, height);
  pen.restore();
}

// --- what the pointer, or the middle for a keyboard, is on -----------------------------------

function pointedCell(map) {
  if (!map.pointer) return null;
  const { query, key } = map.at(map.pointer), span = 2 ** map.level;
  if (query < 0 || key < 0 || query >= map.facts.queries || key >= map.facts.keys) return null;
  const row = Math.floor(query / span), column = Math.floor(key / span);
  return { row, column, span, query: row * span, key: column * span };
}

function valueOf(map, { row, column }) {
  const tile = map.tiles.get(`${map.level}/${Math.floor(row / TILE)}/${Math.floor(column / TILE)}`);
  const place = (row % TILE) * (tile?.columns ?? 0) + (column % TILE);
  return tile && (tile.exact ? tile.exact[place] : VALUES[tile.numbers[place]]);
}

function tellPointer(map) {
  const cell = pointedCell(map);
  if (!cell) {
    map.reading.textContent = map.facts.hint;
    return;
  }
  const { queries, keys, offset, reduction } = map.facts, last = (start, limit) => Math.min(start + cell.span, limit) - 1;
  const named = (axis, start, limit) =>
    cell.span === 1
      ? `${axis} ${map.tokens[axis].get(start) ?? start}`
      : `${axis === "key" ? "keys" : "queries"} ${start.toLocaleString("en-US")}–${last(start, limit).toLocaleString("en-US")}`;
  const value = valueOf(map, cell);
  const future = offset !== null && cell.key > last(cell.query, queries) + offset;
  const number = value === undefined || value !== value ? (future ? "in the future" : "…") : Number(value.toPrecision(3)).toString();
  const how = cell.span === 1 ? "" : ` (${reduction} of ${cell.span} × ${cell.span})`;
  map.reading.textContent = `${named("query", cell.query, queries)} → ${named("key", cell.key, keys)}: ${number}${how}`;
}

// --- hands ----------------------------------------------------------------------------------

function listen(map, parent) {
  const { canvas } = map, options = { signal: map.listening.signal };
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  let held = null;
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 30 : 1;
    if (map.view) map.zoom(2 ** clamp((-event.deltaY * lines) / 200, -1, 1), place(event));
  }, { ...options, passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    held = place(event);
    canvas.setPointerCapture(event.pointerId);
  }, options);
  canvas.addEventListener("pointermove", (event) => {
    const now = place(event);
    map.pointer = now;
    if (held && map.view) map.pan(held.x - now.x, held.y - now.y), (held = now);
    else if (map.view) requestAnimationFrame(() => draw(map));
  }, options);
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (held = null), options);
  canvas.addEventListener("pointerleave", () => {
    map.pointer = null;
    if (map.view) draw(map);
  }, options);
  canvas.addEventListener("dblclick", (event) => map.view && map.zoom(2, place(event)), options);
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !act(map, event.key)) return;
    event.preventDefault();
    map.pointer = { x: EDGE.left + map.plot.width / 2, y: EDGE.top + map.plot.height / 2 };
  }, options);
  for (const button of parent.querySelectorAll("button")) button.addEventListener("click", () => act(map, button.value), options);
}

// Do what a key stands for; return whether it stands for anything.
function act(map, key) {
  if (!map.view) return false;
  const { width, height } = map.plot;
  const actions = {
    "+": () => map.zoom(2),
    "=": () => map.zoom(2),
    "-": () => map.zoom(0.5),
    0: () => (map.fit(null), map.changed()),
    Home: () => (map.fit(null), map.changed()),
    ArrowLeft: () => map.pan(-width / 4, 0),
    ArrowRight: () => map.pan(width / 4, 0),
    ArrowUp: () => map.pan(0, -height / 4),
    ArrowDown: () => map.pan(0, height / 4),
  };
  actions[key]?.();
  return key in actions;
}
