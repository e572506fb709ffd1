// Functions that build the elements of the page.

import { styleOf } from "./colors.js";

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
  const { color, casing, dash } = styleOf(classId);
  // A gap of the dashes is a stripe in the colour of the casing.
  const [line, gap] = dash.map((n) => n * 1.5);
  node.style.background = dash.length ? `repeating-linear-gradient(90deg, ${color} 0 ${line}px, ${casing} 0 ${line + gap}px)` : color;
  return node;
}
