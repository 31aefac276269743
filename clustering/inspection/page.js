// Browsing the domains. The address says what is shown, #d0-3 (a domain) or #find=tensor (a search), so that the
// browser's buttons go back and forth. Nothing is fetched; texts of the corpus are set as text, never as markup.
"use strict";

// An element with attributes and content; text nodes only, so that no text of the corpus becomes markup.
function make(tag, attributes, ...content) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("--")) element.style.setProperty(name, value);
    else element.setAttribute(name, value);
  }
  element.append(...content.filter((part) => part !== null));
  return element;
}
function meter(share) {
  return make("span", { class: "meter" }, make("i", { "--share": `${100 * share}%` }));
}
function chips(node) {
  return make("span", { class: "chips" }, ...(node.keywords.length ? node.keywords : ["no words"]).map((word) => make("span", {}, word)));
}

// --- one domain ----------------------------------------------------------------------------------

function card(node) {
  const facts = [
    ["Documents", node.documents, exact],
    ["Tokens", node.tokens, exact],
    ["Tokens per document", node.documents ? Math.round(node.tokens / node.documents) : null, exact],
    ["Samples", node.samples, exact],
    ["Duplicates dropped", node.duplicates, percent],
    ["Languages", node.languages, (rows) => rows.map(([code, share]) => `${language(code)} ${percent(share)}`).join(", ")],
    ["Scripts", node.scripts, (rows) => rows.map(([name, share]) => `${name} ${percent(share)}`).join(", ")],
    ["Leaves of the tree", node.leaves > 1 ? node.leaves : null, exact],
  ].filter(([, value]) => value !== null && value.length !== 0);
  const list = (title, className, rows) => (rows.length ? [make("h3", {}, title), make("ul", { class: className }, ...rows)] : []);
  return make("article", { class: "panel card", "--hue": hue(topOf(node).index, root.children.length) },
    make("div", {},
      make("dl", {}, ...facts.flatMap(([name, value, show]) => [make("dt", {}, name), make("dd", {}, show(value))])),
      ...list("Documents by source", "sources", node.sources.map(([source, share]) =>
        make("li", {}, make("div", {}, make("span", { class: "ellipsis", title: data.sources[source] }, data.sources[source]), make("span", {}, percent(share))), meter(share)))),
      ...list("Nearest domains (cosine)", "nearest", node.nearest.map(([index, cosine]) => {
        const other = layers[node.depth][index];
        return make("li", {}, make("a", { href: `#${other.id}` }, `#${index}`), make("span", { class: "ellipsis" }, other.keywords.slice(0, 4).join(", ")), make("span", {}, cosine.toFixed(2)));
      }))),
    make("div", {},
      node.examples.length ? make("h3", {}, `Documents near the ${node.layer.startsWith("level") ? "center" : "centers of its largest parts"}, and the farthest (source, cosine distance)`) : make("p", { class: "empty" }, "No documents are known of this domain."),
      ...node.examples.map((row, i) => example(row, "near", i === 0)),
      node.farthest && example(node.farthest, "farthest", false)));
}

function example([text, source, distance], label, open) {
  const shown = make("details", { class: "example" },
    make("summary", {}, make("span", { class: "ellipsis" }, text.slice(0, 160)), make("span", {}, `${label} · ${data.sources[source]} · ${distance.toFixed(2)}`)),
    make("pre", {}, text));
  shown.open = open;
  return shown;
}

// --- lists of domains ----------------------------------------------------------------------------

// `whole` is the node that shares refer to; `words` are the searched ones.
function row(node, whole, angle, words) {
  const from = node.sources.length ? `${percent(node.sources[0][1])} ${data.sources[node.sources[0][0]]}` : "";
  const path = words.length && node.up !== root ? `in ${above(node.up).map((up) => `#${up.index} ${up.keywords.slice(0, 2).join(", ")}`).join(" › ")}` : null;
  return make("li", {}, make("a", { class: "row panel", href: `#${node.id}`, "--hue": angle },
    make("span", { class: "number" }, `#${node.index}`),
    chips(node),
    make("span", { class: "size" }, make("b", {}, percent(node.size / whole.size)), ` · ${short(node.size)} ${unit}`, meter(node.size / whole.size)),
    make("span", { class: "from ellipsis" }, from),
    make("span", { class: "text ellipsis" }, ...excerpt(node, words)),
    path && make("span", { class: "inside ellipsis" }, path)));
}

// The beginning of the most central document, or the place where the searched words are.
function excerpt(node, words) {
  const found = node.examples.map(([text]) => text).find((text) => words.some((word) => text.toLowerCase().includes(word)));
  const text = (found ?? node.examples[0]?.[0] ?? "").replace(/\s+/g, " ");
  const word = words.find((word) => text.toLowerCase().includes(word));
  if (!word) return [text.slice(0, 200)];
  const at = text.toLowerCase().indexOf(word);
  const begin = Math.max(at - 30, 0);
  return [(begin ? "… " : "") + text.slice(begin, at), make("mark", {}, text.slice(at, at + word.length)), text.slice(at + word.length, at + 200)];
}

function fillList(title, rows, atOnce) {
  const items = make("ul", { class: "rows" });
  const more = make("button", { type: "button" }, "");
  const add = () => {
    items.append(...rows.slice(items.children.length, items.children.length + atOnce).map((build) => build()));
    const left = rows.length - items.children.length;
    more.textContent = `Show more (${exact(left)} left)`;
    more.hidden = left === 0;
  };
  more.addEventListener("click", add);
  add();
  list.replaceChildren(...(rows.length ? [make("h3", {}, title), items, more] : []));
}

// --- search --------------------------------------------------------------------------------------

const SEARCHED_SHARE = 0.1; // a domain is found by a language that a tenth of it is in

// What is searched is lower-cased once, when the first search begins.
function searched(node) {
  const names = [...node.sources.map(([source]) => data.sources[source]), ...node.languages.filter(([, share]) => share >= SEARCHED_SHARE).map(([code]) => language(code))];
  node.words ??= node.keywords.join(" ").toLowerCase();
  node.text ??= [...names, ...[...node.examples, ...(node.farthest ? [node.farthest] : [])].map(([text]) => text)].join("\n").toLowerCase();
  return node;
}

// Nodes that hold all words: those with all of them among their keywords first, then the larger ones.
function find(words) {
  const ranked = nodes.map(searched).flatMap((node) => {
    if (words.every((word) => node.words.includes(word))) return [[0, node]];
    return words.every((word) => node.words.includes(word) || node.text.includes(word)) ? [[1, node]] : [];
  });
  return ranked.sort(([a, one], [b, other]) => a - b || other.size - one.size).map(([, node]) => node);
}

// --- what is shown -------------------------------------------------------------------------------

const [section, search, matches, path, shown, list] = ["domains", "search", "matches", "path", "shown", "list"].map((id) => document.getElementById(id));
const [treeMap, centroids] = ["treemap", "centroids"].map((id) => document.getElementById(id));
let mapped = null; // the node that the maps show

function showMaps(node, lit) {
  if (node !== mapped) drawMaps(node);
  fade(treeMap, lit && new Set([...lit].flatMap(above)));
  fade(centroids, lit);
}

function drawMaps(node) {
  mapped = node;
  const inside = node.children[0]?.layer;
  treeMap.hidden = node.children.length < 2;
  centroids.hidden = treeMap.hidden || node.dots.length < 2;
  treeMap.querySelector("figcaption span").textContent =
    `Area: ${unit}. Tiles: the ${exact(node.children.length)} domains of ${inside}${node === root ? "" : ` inside #${node.index}`}. Choose one to open it.`;
  centroids.querySelector("figcaption span").textContent =
    `Each dot is a domain of ${data.layers.at(-1).name}; area: ${unit}, color: as above. Near dots are alike (t-SNE of the centroids); long distances say little.`;
  if (!treeMap.hidden) drawTreeMap(treeMap.querySelector(".map"), node);
  if (!centroids.hidden) drawCentroids(centroids.querySelector(".map"), node, root.dots);
}

function showNode(node) {
  search.value = "";
  matches.textContent = "";
  document.title = node === root ? `${data.name}: domains` : `#${node.index} ${node.keywords.slice(0, 3).join(", ")} · ${data.name}`;
  path.replaceChildren(...(node === root ? [] : [root, ...above(node)]).map((up) => {
    const name = up === root ? data.name : `#${up.index} ${up.keywords.slice(0, 2).join(", ")}`;
    return up === node ? make("span", { "aria-current": "page" }, name) : make("a", { href: `#${up.id}` }, name);
  }));
  if (node === root) shown.replaceChildren(make("h2", { tabindex: -1 }, "Domains"));
  else {
    const size = make("span", { class: "size" }, make("b", {}, percent(node.size / root.size)), ` of the corpus, ${short(node.size)} ${unit}; ${node.layer}`);
    shown.replaceChildren(make("h2", { tabindex: -1 }, make("span", { class: "number" }, `#${node.index}`), chips(node)), size, card(node));
  }
  showMaps(node, null);
  const count = node.children.length;
  fillList(
    count ? `${exact(count)} ${count === 1 ? "domain" : "domains"} of ${node.children[0].layer}${node === root ? "" : ` inside #${node.index}, shares of it`}` : "",
    node.children.map((child, i) => () => row(child, node, hue(i, count), [])),
    100,
  );
  centroids.after(list);
}

function showSearch(query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const found = find(words);
  matches.textContent = `${exact(found.length)} of ${exact(nodes.length)} domains match`;
  path.replaceChildren();
  shown.replaceChildren();
  showMaps(root, new Set(found));
  fillList("Domains that match", found.map((node) => () => row(node, root, hue(topOf(node).index, root.children.length), words)), 20);
  shown.after(list); // what was asked for comes before the maps
}

const queryOf = (hash) => new URLSearchParams(hash.slice(1)).get("find");

// Other addresses are places on the page: they change nothing here.
function route() {
  const query = queryOf(location.hash);
  const node = location.hash === "" ? root : location.hash === "#domains" ? root : byId.get(location.hash.slice(1));
  if (query !== null) {
    search.value = query;
    showSearch(query);
  } else if (node) showNode(node);
  return query !== null || node !== undefined;
}

search.addEventListener("input", () => {
  const query = search.value.trim();
  const begun = queryOf(location.hash) !== null;
  history[begun ? "replaceState" : "pushState"](null, "", query ? `#${new URLSearchParams({ find: query })}` : "#domains");
  if (query) showSearch(query);
  else showNode(root);
  if (section.getBoundingClientRect().top < 0) section.scrollIntoView();
});
addEventListener("hashchange", () => {
  if (!route()) return;
  section.scrollIntoView();
  shown.querySelector("h2")?.focus({ preventScroll: true });
});
let width = innerWidth;
addEventListener("resize", () => {
  if (width === innerWidth) return; // the address bar of a phone came or went
  width = innerWidth;
  drawMaps(mapped);
  if (queryOf(location.hash) !== null) route();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== search) {
    event.preventDefault();
    search.focus();
  } else if (event.key === "Escape") document.getElementById("tip").hidden = true;
});
for (const colored of document.querySelectorAll("[data-top]")) {
  colored.style.setProperty("--hue", hue(Number(colored.dataset.top), root.children.length));
}
[treeMap, centroids].forEach((figure) => explore(figure.querySelector(".map")));
if (!route()) showNode(root);
else if (location.hash) section.scrollIntoView();
