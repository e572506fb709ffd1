// Styles of the classes, the same as in images drawn by `retinanet predict`: colour, casing and dashes of a line.

const styles = []; // {color, casing, dash} of each class id

export const setStyles = (given) => styles.splice(0, styles.length, ...given);
export const styleOf = (classId) => styles[classId];
export const colorOf = (classId) => styles[classId].color;

// Draw a rectangle in the style of a class: a line of `width`, with a casing of one `unit` on both of its sides.
export function strokeBox(context, classId, [x1, y1, x2, y2], width, unit = 1) {
  const { color, casing, dash } = styleOf(classId);
  for (const [strokeStyle, lineWidth, gaps] of [[casing, width + 2 * unit, []], [color, width, dash.map((n) => n * width)]]) {
    Object.assign(context, { strokeStyle, lineWidth });
    context.setLineDash(gaps);
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
  }
  context.setLineDash([]);
}
