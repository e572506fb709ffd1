// The list of the classes: shows and hides the detections of each class.

import { $, element, swatch } from "./dom.js";
import { asObjects } from "./groups.js";
import { allDetections, changeFilters, isAbove, onChange, shownObjects, state } from "./state.js";

export function showClasses() {
  $("classes").replaceChildren(
    ...state.model.classes.map((name, id) => {
      const box = element("input", { type: "checkbox", checked: !state.hidden.has(id) });
      box.onchange = () => changeFilters(() => state.hidden[box.checked ? "delete" : "add"](id));
      const label = element("label", {
        children: [box, swatch(id), element("span", { class: "name", textContent: name }), element("span", { class: "number" })],
      });
      return Object.assign(element("li", { children: [label] }), { classId: id });
    }),
  );
}

function counts(objects) {
  const found = new Map();
  for (const { class_id } of objects) found.set(class_id, (found.get(class_id) ?? 0) + 1);
  return found;
}

const MAX_UNSORTED = 12; // of more classes, those with the highest scores in the image come first

let sorted = null; // result whose classes come first

function sortLines() {
  const { result } = state.current ?? {};
  if (!result || result === sorted || state.model.classes.length <= MAX_UNSORTED || $("classes").contains(document.activeElement)) return;
  sorted = result;
  const best = new Map();
  for (const { class_id, score } of result.detections) best.set(class_id, Math.max(score, best.get(class_id) ?? 0));
  const lines = [...$("classes").children].sort((a, b) => (best.get(b.classId) ?? 0) - (best.get(a.classId) ?? 0) || a.classId - b.classId);
  $("classes").replaceChildren(...lines);
}

// Show the number of objects of each class. Objects of a hidden class are counted as if no class were hidden.
function render() {
  const done = state.current?.status === "done";
  const shown = counts(shownObjects(state.current));
  const all = state.hidden.size ? counts(asObjects(allDetections(state.current).filter(isAbove))) : shown;
  sortLines();
  [...$("classes").children].forEach((line) => {
    const id = line.classId;
    const count = (state.hidden.has(id) ? all : shown).get(id) ?? 0;
    line.querySelector(".number").textContent = done ? count : "";
    line.classList.toggle("none", done && !count);
    line.querySelector("input").checked = !state.hidden.has(id);
  });
}

for (const [id, hide] of [["all", false], ["none", true]]) {
  $(id).onclick = () => changeFilters(() => (state.hidden = new Set(hide ? state.model?.classes.keys() : [])));
}
onChange(render);
