// The two maps of domains: rectangles by size, and dots by likeness.
"use strict";

// Rectangles in proportion to `sizes`, as near to squares as a greedy layout gets them, in their order.
// Source: M. Bruls, K. Huizing, J. van Wijk, "Squarified Treemaps" (2000).
function squarify(sizes, { x, y, width, height }) {
  const boxes = sizes.map(() => ({ x, y, width: 0, height: 0 }));
  const order = [...sizes.keys()].filter((i) => sizes[i] > 0).sort((a, b) => sizes[b] - sizes[a]);
  let left = order.reduce((sum, i) => sum + sizes[i], 0);
  for (let begin = 0; begin < order.length; ) {
    const scale = (width * height) / left;
    const side = Math.min(width, height);
    let end = begin;
    let total = 0;
    for (let worst = Infinity; end < order.length; end++) {
      const thickness = ((total + sizes[order[end]]) * scale) / side;
      const shape = (i) => (sizes[i] * scale) / thickness ** 2; // length of a tile over its thickness
      const candidate = Math.max(shape(order[begin]), 1 / shape(order[end]));
      if (candidate > worst) break;
      worst = candidate;
      total += sizes[order[end]];
    }
    const upright = width >= height;
    const thickness = (total * scale) / side;
    let offset = 0;
    for (const i of order.slice(begin, end)) {
      const length = (sizes[i] / total) * side;
      boxes[i] = upright
        ? { x, y: y + offset, width: thickness, height: length }
        : { x: x + offset, y, width: length, height: thickness };
      offset += length;
    }
    if (upright) [x, width] = [x + thickness, Math.max(width - thickness, 0)];
    else [y, height] = [y + thickness, Math.max(height - thickness, 0)];
    left -= total;
    begin = end;
  }
  return boxes;
}

// Tiles of the domains inside `node`, each divided by those inside it.
function drawTreeMap(map, node) {
  const whole = { x: 0, y: 0, width: map.clientWidth, height: map.clientHeight };
  const place = (element, { x, y, width, height }) =>
    Object.assign(element.style, { left: `${x}px`, top: `${y}px`, width: `${width}px`, height: `${height}px` });
  const boxes = squarify(node.children.map((child) => child.size), whole);
  const tiles = node.children.flatMap((child, i) => {
    const box = boxes[i];
    if (!child.size) return [];
    const tile = mapLink(child, "tile", hue(i, node.children.length));
    place(tile, box);
    tile.center = [box.x + box.width / 2, box.y + box.height / 2];
    squarify(child.children.map((inner) => inner.size), { ...box, x: 0, y: 0 }).forEach((inner, j) => {
      if (!inner.width) return;
      const part = document.createElement("i");
      part.node = child.children[j];
      place(part, inner);
      tile.append(part);
    });
    const lines = Math.floor((box.height - 8) / 16);
    if (box.width > 56 && lines > 0) {
      const text = document.createElement("span");
      text.style.setProperty("-webkit-line-clamp", lines);
      text.append(Object.assign(document.createElement("b"), { textContent: percent(child.size / node.size) }), ` ${child.keywords.join(", ")}`);
      tile.append(text);
    }
    return [tile];
  });
  map.replaceChildren(...tiles);
  if (tiles.length) tiles[0].tabIndex = 0;
}

// Every finest domain inside `node` as a dot, the rest of the corpus behind them, and names of the domains inside.
function drawCentroids(map, node, everything) {
  const [width, height, margin] = [map.clientWidth, map.clientHeight, 30];
  const size = node.dots.reduce((sum, dot) => sum + dot.size, 0);
  const scales = [width, height].map((extent, axis) => {
    const places = node.dots.map((dot) => dot.place[axis]);
    const low = places.reduce((a, b) => Math.min(a, b), 1);
    const high = places.reduce((a, b) => Math.max(a, b), 0);
    const unit = (extent - 2 * margin) / Math.max(high - low, 1e-9);
    return (place) => (high > low ? margin + (place - low) * unit : extent / 2);
  });
  const at = (dot) => scales.map((scale, axis) => scale(dot.place[axis]));
  const radius = (dot) => (!hues.has(dot) ? 4 : Math.min(Math.max(Math.sqrt((0.12 * width * height * dot.size) / size / Math.PI), 2), margin - 4));
  const hues = new Map();
  node.children.forEach((child, i) => child.dots.forEach((dot) => hues.set(dot, hue(i, node.children.length))));
  const inView = ([x, y]) => x > 0 && x < width && y > 0 && y < height;
  const svg = svgElement("svg", { width, height });
  const dots = everything.filter((dot) => hues.has(dot) || inView(at(dot)));
  dots.sort((a, b) => hues.has(a) - hues.has(b) || b.size - a.size); // small ones lie on large ones
  for (const dot of dots) {
    const link = mapLink(dot, hues.has(dot) ? "dot" : "dot context", hues.get(dot), "svg");
    link.center = at(dot);
    link.radius = radius(dot);
    link.append(svgElement("circle", { cx: link.center[0].toFixed(1), cy: link.center[1].toFixed(1), r: link.radius.toFixed(1) }));
    svg.append(link);
  }
  svg.append(...mapNames(node, at, width, height));
  map.replaceChildren(svg);
  const first = svg.querySelector(".dot:not(.context)");
  if (first) first.setAttribute("tabindex", 0);
}

// Names of the domains inside `node` at their middlemost dots: the largest first, those that would overlap not at
// all, and none by a keyword that names a larger one, as long as they have others.
function mapNames(node, at, width, height) {
  const [taken, said] = [[], new Set()];
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = `600 12px ${getComputedStyle(document.body).fontFamily}`;
  const bySize = node.children.filter((child) => child.dots.length && child.keywords.length).sort((a, b) => b.size - a.size);
  return bySize.flatMap((child) => {
    const total = child.dots.reduce((sum, dot) => sum + dot.size, 0);
    const mean = [0, 1].map((axis) => child.dots.reduce((sum, dot) => sum + dot.place[axis] * dot.size, 0) / total);
    const away = (dot) => Math.hypot(dot.place[0] - mean[0], dot.place[1] - mean[1]);
    const [x, y] = at(child.dots.reduce((best, dot) => (away(dot) < away(best) ? dot : best)));
    const own = child.keywords.filter((word) => !said.has(word));
    const name = (own.length ? own : child.keywords).slice(0, 2).join(", ");
    const half = pen.measureText(name).width / 2 + 4;
    const middle = Math.min(Math.max(x, half), width - half);
    const free = (line) =>
      line > 10 && line < height - 10 && taken.every(([a, b, h]) => Math.abs(a - middle) >= h + half || Math.abs(b - line) >= 18);
    const line = [y, y - 18, y + 18].find(free);
    if (line === undefined) return [];
    taken.push([middle, line, half]);
    name.split(", ").forEach((word) => said.add(word));
    const text = svgElement("text", { x: middle.toFixed(1), y: (line + 4).toFixed(1) });
    text.textContent = name;
    return [text];
  });
}

function mapLink(node, kind, angle, svg) {
  const link = svg ? svgElement("a", {}) : document.createElement("a");
  link.setAttribute("class", kind);
  link.setAttribute("href", `#${node.id}`);
  link.setAttribute("tabindex", -1); // one tab stop per map: arrow keys move inside
  link.setAttribute("aria-label", node.describe());
  if (angle !== undefined) link.style.setProperty("--hue", angle);
  link.node = node;
  return link;
}

// Fade what stands for a node that is not in `lit`; nothing when that is null.
function fade(map, lit) {
  for (const drawn of map.querySelectorAll("a, i")) drawn.classList.toggle("faded", lit !== null && !lit.has(drawn.node));
}

function svgElement(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

const tip = document.getElementById("tip");

function showTip(link) {
  const box = link.getBoundingClientRect();
  tip.textContent = link.node.describe();
  tip.hidden = false;
  const x = Math.min(Math.max(box.left + box.width / 2 - tip.offsetWidth / 2, 8), innerWidth - tip.offsetWidth - 8);
  const above = box.top - tip.offsetHeight - 6;
  tip.style.transform = `translate(${x}px, ${above > 4 ? above : Math.min(box.bottom + 6, innerHeight - tip.offsetHeight - 4)}px)`;
}

// What the pointer or the focus is on is described in the tip; arrow keys go to the nearest link in their direction.
function explore(map) {
  let pointed = null;
  const point = (link) => {
    pointed?.classList.remove("pointed");
    pointed = link;
    map.classList.toggle("over", link !== null);
    tip.hidden = link === null;
    if (link) showTip(link);
    link?.classList.add("pointed");
  };
  const nearest = (event) => {
    const frame = map.getBoundingClientRect();
    const [x, y] = [event.clientX - frame.left, event.clientY - frame.top];
    let [best, least] = [event.target.closest("a"), 12];
    if (best) return best;
    for (const link of map.querySelectorAll("a.dot")) {
      const distance = Math.hypot(link.center[0] - x, link.center[1] - y) - link.radius;
      if (distance < least) [best, least] = [link, distance];
    }
    return best;
  };
  map.addEventListener("pointermove", (event) => point(nearest(event)));
  map.addEventListener("pointerleave", () => point(null));
  map.addEventListener("focusin", (event) => point(event.target.closest("a")));
  map.addEventListener("focusout", () => point(null));
  map.addEventListener("click", (event) => {
    const link = nearest(event); // a small dot is hit by coming near it
    if (link && !event.target.closest("a")) location.hash = link.node.id;
  });
  map.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const from = event.target.closest("a");
    if (!step || !from) return;
    event.preventDefault();
    let [best, least] = [null, Infinity];
    for (const to of map.querySelectorAll("a:not(.context)")) {
      const [dx, dy] = [to.center[0] - from.center[0], to.center[1] - from.center[1]];
      const along = dx * step[0] + dy * step[1];
      const cost = along + 2 * Math.abs(dx * step[1] + dy * step[0]);
      if (along > 0.5 && cost < least) [best, least] = [to, cost];
    }
    if (!best) return;
    from.setAttribute("tabindex", -1);
    best.setAttribute("tabindex", 0);
    best.focus();
  });
}
