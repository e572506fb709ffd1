// Groups detections into objects. A model can detect one object under several classes: NMS compares boxes of one class only.

const SAME_OBJECT_IOU = 0.7; // detections of different classes with at least this IoU are one object

export function iou([ax1, ay1, ax2, ay2], [bx1, by1, bx2, by2]) {
  const w = Math.min(ax2, bx2) - Math.max(ax1, bx1);
  const h = Math.min(ay2, by2) - Math.max(ay1, by1);
  if (w <= 0 || h <= 0) return 0;
  return (w * h) / ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - w * h);
}

// Return one object for each place, the highest score first: the fields of its best detection, and `others`, its
// detections of other classes. An object has at most one detection of each class.
export function asObjects(detections) {
  const objects = [];
  for (const detection of [...detections].sort((a, b) => b.score - a.score)) {
    const isSame = (object) =>
      iou(object.box, detection.box) >= SAME_OBJECT_IOU &&
      [object, ...object.others].every(({ class_id }) => class_id !== detection.class_id);
    const object = objects.find(isSame);
    if (object) object.others.push(detection);
    else objects.push({ ...detection, others: [] });
  }
  return objects;
}

// Return the classes of an object with their scores, such as "apple 0.63, or orange 0.61", and the number of further ones.
export function labelOf({ others = [], ...best }, most = 1) {
  const named = [best, ...others.slice(0, most)].map((one) => `${one.class} ${one.score.toFixed(2)}`);
  return [...named, ...(others.length > most ? [`${others.length - most} more`] : [])].join(", or ");
}

// Return how many objects there are, and how many detections if an object has several.
export function countOf(objects) {
  const detections = objects.reduce((sum, { others }) => sum + 1 + others.length, 0);
  const counted = (number, name) => `${number} ${name}${number === 1 ? "" : "s"}`;
  if (detections === objects.length) return counted(objects.length, "detection");
  return `${counted(objects.length, "object")} from ${counted(detections, "detection")}`;
}
