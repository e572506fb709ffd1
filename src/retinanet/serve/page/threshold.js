// The score threshold: a slider over the histogram of the scores, and the thresholds that `retinanet tune` chose.

import { MIN_SCORE } from "./api.js";
import { colorOf } from "./colors.js";
import { $, element } from "./dom.js";
import { explainAgain, forgetExplanations } from "./explanation.js";
import { countOf } from "./groups.js";
import { drawHistogram } from "./histogram.js";
import { allDetections, changeFilters, isAbove, onChange, shownObjects, state } from "./state.js";

const MAX_MARKS = 12; // marks of single classes; of more classes, one mark spans all thresholds
const slider = $("threshold");

const range = () => ({ min: Number(slider.min), max: Number(slider.max) });
const percent = (value) => {
  const { min, max } = range();
  return Math.min(100, Math.max(0, (100 * (value - min)) / (max - min)));
};
const areEqual = (values) => values.every((value) => value === values[0]);
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

// Start with the tuned thresholds if the model has any, otherwise with the threshold at which detections are drawn.
export function startThreshold({ threshold, tuned } = {}) {
  const { model } = state;
  const least = Math.min(MIN_SCORE, ...(model.tuned?.thresholds ?? []));
  slider.min = Math.floor(100 * least) / 100;
  if (model.tuned) showMarks(model.tuned);
  state.threshold = threshold ?? Math.max(model.score_threshold, model.draw_threshold);
  useTuned(Boolean(model.tuned) && (tuned ?? threshold === undefined));
}

function useTuned(isUsed) {
  const { tuned } = state.model;
  changeFilters(() => (state.tuned = isUsed ? tuned.thresholds : null));
}

function showMarks({ thresholds, aim, sentence }) {
  const { classes } = state.model;
  const [least, most] = [Math.min(...thresholds), Math.max(...thresholds)];
  $("tuned-line").hidden = $("ticks").hidden = $("tuned-text").hidden = false;
  const values = least === most ? least.toFixed(2) : `${least.toFixed(2)} to ${most.toFixed(2)}`;
  $("tuned-name").textContent = least === most ? `Tuned threshold ${values} (${aim})` : `Tuned thresholds, one for each class: ${values} (${aim})`;
  $("tuned-text").textContent = sentence;
  const marks = least === most ? [["", least]] : thresholds.map((value, id) => [id, value]);
  $("ticks").replaceChildren(
    ...(marks.length > MAX_MARKS ? [span(least, most)] : marks.map(([id, value]) => tick(value, id === "" ? null : id, classes[id]))),
  );
}

function tick(value, id, name) {
  const node = element("i", { title: `${name ? `${name}: ` : "tuned: "}${value.toFixed(3)}` });
  node.style.left = `${percent(value)}%`;
  if (id !== null) node.style.background = colorOf(id);
  return node;
}

function span(least, most) {
  const node = element("i", { class: "span", title: `tuned: ${least.toFixed(3)} to ${most.toFixed(3)}` });
  Object.assign(node.style, { left: `${percent(least)}%`, width: `${percent(most) - percent(least)}%` });
  return node;
}

function render() {
  const { tuned } = state;
  const isDone = state.current?.status === "done";
  const single = !tuned || areEqual(tuned);
  const value = tuned ? mean(tuned) : state.threshold;
  slider.value = value;
  const text = single ? value.toFixed(2) : "by class";
  $("threshold-value").textContent = tuned ? `tuned, ${text}` : text;
  const count = isDone ? `, ${countOf(shownObjects(state.current))}` : "";
  slider.setAttribute("aria-valuetext", `${single ? value.toFixed(2) : "tuned thresholds, one for each class"}${count}`);
  $("tuned").checked = Boolean(tuned);
  $("cut").hidden = !single;
  $("cut").style.left = `${percent(value)}%`;
  $("bars-text").hidden = !isDone;
  $("scale").hidden = !isDone && !state.model?.tuned;
  const seen = allDetections(state.current).filter(({ class_id }) => !state.hidden.has(class_id));
  drawHistogram(seen, isAbove, range());
}

slider.oninput = () => {
  state.hasChosenThreshold = true;
  state.threshold = Number(slider.value);
  forgetExplanations();
  useTuned(false);
};
slider.onchange = explainAgain;
$("tuned").onchange = () => {
  state.hasChosenThreshold = true;
  forgetExplanations();
  useTuned($("tuned").checked);
  explainAgain();
};
onChange(render);
