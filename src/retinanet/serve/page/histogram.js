// The number of detections for each score, in the colours of kept and left out detections.

import { $ } from "./dom.js";

const BINS = 50;
const SVG = "http://www.w3.org/2000/svg";

// Return the numbers of kept and left out detections in each of `bins` equal parts of [min, max].
export function bins(detections, isKept, { min, max, count = BINS }) {
  const found = Array.from({ length: count }, () => ({ kept: 0, out: 0 }));
  for (const detection of detections) {
    const place = Math.floor(((detection.score - min) / (max - min)) * count);
    found[Math.min(Math.max(place, 0), count - 1)][isKept(detection) ? "kept" : "out"]++;
  }
  return found;
}

function bar(name, x, from, to) {
  const node = document.createElementNS(SVG, "rect");
  const values = { class: name, x: x + 0.1, y: 1 - to, width: 0.8, height: to - from };
  for (const [key, value] of Object.entries(values)) node.setAttribute(key, value);
  return node;
}

// Draw the bars. Their height is the logarithm of the number, because low scores are far more frequent than high ones.
export function drawHistogram(detections, isKept, range) {
  const found = bins(detections, isKept, range);
  const top = Math.log1p(Math.max(1, ...found.map(({ kept, out }) => kept + out)));
  const height = (number) => Math.log1p(number) / top;
  $("bars").replaceChildren(
    ...found.flatMap(({ kept, out }, x) => [
      ...(kept ? [bar("kept", x, 0, height(kept))] : []),
      ...(out ? [bar("out", x, height(kept), height(kept + out))] : []),
    ]),
  );
  const kept = found.reduce((sum, one) => sum + one.kept, 0);
  const out = found.reduce((sum, one) => sum + one.out, 0);
  $("histogram").setAttribute("aria-label", `Scores of the detections of this image: ${kept} above the threshold, ${out} below`);
}
