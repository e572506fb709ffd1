// The scores and boxes of every feature level at a place of the image.

import { colorOf } from "./colors.js";
import { element, swatch } from "./dom.js";

const LEAST = 0.0005; // a score below this value is printed as 0.000
const RUNNER_UP = 0.005; // lowest score of a runner-up class that a row names

const isSameBox = (a, b) => String([a.box, a.anchor]) === String([b.box, b.anchor]);
const highest = ({ best, covering }) => Math.max(best.score, ...covering.map(({ score }) => score));

// Return the nodes that show the levels of an answer, those with the highest scores first. `list` is the ObjectList.
export function renderLevels(answer, list) {
  const levels = [...answer.levels].sort((a, b) => highest(b) - highest(a));
  const rows = (shown) => element("ol", { class: "levels-list", children: shown.map((level) => renderLevel(level, answer, list)) });
  const low = levels.filter((level) => highest(level) < LEAST);
  const rest = element("details", {
    children: [element("summary", { textContent: `${low.length} more with scores below 0.001` }), rows(low)],
  });
  const help =
    "Each feature level scores every class and predicts boxes from its anchors. Listed are the box with the highest score at the position " +
    "nearest to the place, and boxes of other positions that cover the place. Dashed line: anchor. Solid line: predicted box.";
  return [
    rows(levels.filter((level) => highest(level) >= LEAST)),
    ...(low.length ? [rest] : []),
    element("p", { class: "muted small", textContent: help }),
  ];
}

function renderLevel(level, answer, list) {
  const boxes = [level.best, ...level.covering.filter((one) => !isSameBox(one, level.best))];
  const shown = boxes.filter(({ score }, i) => i === 0 || score >= LEAST).sort((a, b) => b.score - a.score);
  const rows = shown.map((one) => element("li", { children: [renderBox(one, answer, list)] }));
  const title = element("span", { class: "level", textContent: `${level.detail} (${level.level})` });
  return element("li", { children: [title, element("ul", { children: rows })] });
}

function renderBox(proposal, { threshold, detections }, list) {
  const meter = element("span", { class: "meter", "aria-hidden": "true", children: [element("i"), element("b")] });
  meter.children[0].style.width = `${100 * proposal.score}%`;
  meter.children[0].style.background = colorOf(proposal.class_id);
  meter.children[1].style.left = `${100 * threshold}%`;
  const others = proposal.classes.filter(({ class_id, score }) => class_id !== proposal.class_id && score >= RUNNER_UP);
  const runnersUp = others.map((one) => `or ${one.class} ${one.score.toFixed(3)}`).join(", ");
  const button = element("button", {
    class: "proposal",
    type: "button",
    title: "Explain this box",
    children: [
      swatch(proposal.class_id),
      element("span", { class: "name", textContent: proposal.class }),
      meter,
      element("span", { class: "number", textContent: proposal.score.toFixed(3) }),
      element("span", { class: "fate", textContent: [fateOf(proposal, detections, list), runnersUp].filter(Boolean).join("; ") }),
    ],
  });
  button.onmouseenter = button.onfocus = () => list.preview(proposal);
  button.onmouseleave = button.onblur = () => list.preview(null);
  button.onclick = () => list.explainBox(proposal);
  return button;
}

// Return what happened to a box, in words.
function fateOf({ fate, detection, iou }, detections, list) {
  const name = detection === null ? "a box that is not shown" : list.nameOf(detections[detection], true);
  const fates = {
    detected: name,
    below_threshold: "below the threshold",
    not_a_candidate: "not a candidate: too many boxes of the level have higher scores",
    suppressed: `suppressed by ${name}, IoU ${(iou ?? 0).toFixed(2)}`,
    beyond_max_detections: "beyond max_detections",
  };
  return fates[fate];
}
