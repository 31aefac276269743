// Search and navigation for the inspection page. The page works without it; nothing is fetched.
"use strict";
(() => {
  const search = document.getElementById("search");
  const status = document.getElementById("matches");
  const nodes = [...document.querySelectorAll("details.domain")];
  const tiles = new Map(
    [...document.querySelectorAll("a.tile")].map((tile) => [tile.getAttribute("href").slice(1), tile]),
  );
  const wasOpen = new Map();
  const ownText = new Map();

  // A domain's own words: its summary and its examples, without the domains inside it.
  function textOf(node) {
    if (!ownText.has(node)) {
      const parts = node.querySelectorAll(":scope > summary, :scope > .body > .own");
      ownText.set(node, [...parts].map((part) => part.textContent).join(" ").toLowerCase());
    }
    return ownText.get(node);
  }

  function reset() {
    for (const node of nodes) {
      node.hidden = false;
      if (wasOpen.has(node)) node.open = wasOpen.get(node);
    }
    wasOpen.clear();
    for (const tile of tiles.values()) tile.classList.remove("faded");
    status.textContent = "";
  }

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length) return reset();
    if (!wasOpen.size) for (const node of nodes) wasOpen.set(node, node.open);
    const matches = new Set(nodes.filter((node) => words.every((word) => textOf(node).includes(word))));
    const around = new Set();
    for (const node of matches) {
      for (let up = node.parentElement.closest("details.domain"); up; up = up.parentElement.closest("details.domain")) {
        around.add(up);
      }
    }
    for (const node of nodes) {
      node.hidden = !matches.has(node) && !around.has(node);
      node.open = around.has(node);
    }
    for (const [id, tile] of tiles) tile.classList.toggle("faded", !matches.has(document.getElementById(id)));
    const count = matches.size;
    status.textContent = `${count} of ${nodes.length} domains match`;
  }

  function reveal(id) {
    const node = document.getElementById(id);
    if (!node || !node.matches("details.domain")) return;
    if (node.hidden) {
      search.value = "";
      reset();
    }
    for (let up = node; up; up = up.parentElement.closest("details.domain")) up.open = true;
    node.scrollIntoView({ block: "start" });
    node.querySelector("summary").focus({ preventScroll: true });
  }

  search.addEventListener("input", filter);
  document.getElementById("expand").addEventListener("click", () => {
    for (const node of nodes) node.open = true;
  });
  document.getElementById("collapse").addEventListener("click", () => {
    for (const node of nodes) node.open = false;
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#d']");
    if (!link) return;
    event.preventDefault();
    history.replaceState(null, "", link.getAttribute("href"));
    reveal(link.getAttribute("href").slice(1));
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== search) {
      event.preventDefault();
      search.focus();
    }
  });
  if (location.hash) reveal(location.hash.slice(1));
})();
