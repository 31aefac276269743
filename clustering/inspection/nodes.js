// The domains as nodes of a tree, from the JSON inside the page, and how their numbers are written.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);

// A node: its card, and id (its address), up and children, size (in `unit`), dots (the finest nodes in it that have
// a place on the map). The root is the whole corpus.
const layers = data.layers.map((layer, depth) =>
  layer.domains.map((domain, index) => ({ ...domain, id: `d${depth}-${index}`, index, depth, layer: layer.name, children: [] })),
);
const nodes = layers.flat();
const byId = new Map(nodes.map((node) => [node.id, node]));
const unit = nodes.some((node) => node.tokens) ? "tokens" : "samples";
const root = { id: "domains", depth: -1, children: layers[0], keywords: [] };
for (const node of nodes) {
  node.up = node.depth ? layers[node.depth - 1][node.parent] : root;
  if (node.depth) node.up.children.push(node);
  node.size = node[unit];
}
root.size = root.children.reduce((sum, node) => sum + node.size, 0);
for (const node of [...nodes].reverse()) {
  node.dots = node.place && node.size ? [node] : node.children.flatMap((child) => child.dots);
  node.describe = () => `#${node.index} · ${short(node.size)} ${unit}: ${node.keywords.slice(0, 8).join(", ") || "no words"}`;
}
root.dots = root.children.flatMap((child) => child.dots);

// Evenly spaced hues (degrees), or by the golden angle when there are many.
function hue(index, count) {
  return (25 + (count <= 12 ? (360 * index) / count : 137.508 * index)) % 360;
}

function percent(share) {
  if (share > 0 && share < 0.00005) return "<0.01%";
  return `${(100 * share).toFixed(share === 0 ? 0 : share < 0.0095 ? 2 : share < 0.0995 ? 1 : 0)}%`;
}
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
function short(count) {
  return compact.format(count).replace("K", "k");
}
function exact(count) {
  return count.toLocaleString("en");
}
function language(code) {
  if (code === "code") return code; // no language to the browser, and an error
  return code === "und" ? "undetermined" : (new Intl.DisplayNames("en", { type: "language", fallback: "code" }).of(code) ?? code);
}

// The ancestor that lies right below the root, and all nodes from there to this one.
function topOf(node) {
  return node.up === root ? node : topOf(node.up);
}
function above(node) {
  return node === root ? [] : [...above(node.up), node];
}
