"use strict";

// The interactive parts of the report: name of the part -> function of its element and its data. Each further script adds
// its function. All scripts of a report share one scope: names that only one script uses belong into a block { ... }.
const parts = {};

// Return an element with properties, attributes ("aria-...", "role", "data-...") and children.
function element(tag, { children = [], ...properties } = {}) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") node.className = value;
    else if (name === "role" || name.startsWith("aria-") || name.startsWith("data-")) node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children);
  return node;
}
