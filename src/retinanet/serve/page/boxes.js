// Draws boxes with labels that do not overlap.

import { colorOf, strokeBox, styleOf } from "./colors.js";
import { labelOf } from "./groups.js";

const CROWD = 150; // with at least this number of boxes, a box has a label only if the label is hardly wider than the box
const FONT = 'px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';

// Draw boxes, the highest score on top. `toScreen` maps a place of the image to the context; `view` is the size of the
// context, outside which no label is drawn. Return the number of boxes in the view whose label is omitted.
export function drawBoxes(context, boxes, { toScreen, labels, view, marked = null, alpha = 1, unit = 1 }) {
  const order = [...boxes].sort((a, b) => (a === marked) - (b === marked) || a.score - b.score);
  context.globalAlpha = alpha;
  const drawn = order.map((object) => {
    const corners = [...toScreen(object.box[0], object.box[1]), ...toScreen(object.box[2], object.box[3])];
    return { object, corners, line: drawBox(context, object, corners, object === marked, unit) };
  });
  let omitted = 0;
  if (labels || marked) {
    context.font = `${12 * unit}${FONT}`;
    const wanted = drawn.filter(({ object }) => labels || object === marked).reverse();
    const places = placeLabels(context, wanted, { marked, isCrowd: boxes.length >= CROWD, view, unit });
    places.reverse().forEach((place) => drawLabel(context, place, unit));
    omitted = wanted.filter(({ corners }) => isInside(corners, view)).length - places.length;
  }
  context.globalAlpha = 1;
  return omitted;
}

// Draw the box of an object. Return the width of its line.
function drawBox(context, { class_id }, [x1, y1, x2, y2], isMarked, unit) {
  const thin = Math.max(1, Math.min(2, Math.min(x2 - x1, y2 - y1) / 12)) * unit;
  const line = isMarked ? 2 * thin + unit : thin;
  if (isMarked) {
    context.fillStyle = colorOf(class_id) + "33";
    context.fillRect(x1, y1, x2 - x1, y2 - y1);
  }
  strokeBox(context, class_id, [x1, y1, x2, y2], line, unit);
  return line;
}

const isInside = ([x1, y1, x2, y2], view) => !view || (x2 > 0 && y2 > 0 && x1 < view[0] && y1 < view[1]);

// Return the place of the label of each box, in the order of the boxes, without the labels that would overlap an earlier one.
function placeLabels(context, boxes, { marked, isCrowd, view, unit }) {
  const places = [];
  for (const { object, corners, line } of boxes) {
    if (!isInside(corners, view)) continue;
    const text = labelOf(object);
    const [width, height] = [context.measureText(text).width + 8 * unit, 17 * unit];
    if (isCrowd && object !== marked && width > 1.25 * (corners[2] - corners[0])) continue;
    const place = candidates(corners, width, height, line, view).find((one) => !places.some((other) => doOverlap(one, other)));
    if (place) places.push({ ...place, text, classId: object.class_id });
  }
  return places;
}

// Return places for a label, the best first: above the box, below it, in its top.
function candidates([x1, y1, , y2], width, height, line, view) {
  const [viewWidth, viewHeight] = view ?? [Infinity, Infinity];
  const x = Math.max(0, Math.min(x1 - line / 2, viewWidth - width));
  const ys = [y1 - height, y2, y1].filter((y) => y >= 0 && y + height <= viewHeight);
  return (ys.length ? ys : [Math.max(0, y1)]).map((y) => ({ x, y, width, height }));
}

const doOverlap = (a, b) => a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;

function drawLabel(context, { x, y, width, height, text, classId }, unit) {
  context.fillStyle = colorOf(classId);
  context.fillRect(x, y, width, height);
  context.fillStyle = styleOf(classId).casing;
  context.textBaseline = "middle";
  context.fillText(text, x + 4 * unit, y + height / 2 + unit / 2);
}
