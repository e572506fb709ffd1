// Functions that build the elements of the page.

import { colorOf } from "./colors.js";

export const $ = (id) => document.getElementById(id);

export function element(tag, { children = [], ...properties } = {}) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") node.className = value;
    else if (name.startsWith("aria-") || name === "role") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children);
  return node;
}

export function swatch(classId) {
  const node = element("span", { class: "swatch", "aria-hidden": "true" });
  node.style.background = colorOf(classId);
  return node;
}
