// Saves the detections that are shown as JSON, CSV or JPEG.

import { drawBoxes } from "./boxes.js";

export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export function asJson(images, threshold) {
  const results = images.map(({ name, width, height, detections }) => ({ name, width, height, detections }));
  const content = { threshold, images: results, pictures: results }; // "pictures" is the old name of "images"
  return new Blob([JSON.stringify(content, null, 1)], { type: "application/json" });
}

// Columns as in `retinanet predict --format csv`. An image without detections is a line with only its name.
export function asCsv(images) {
  // Quotes are doubled. A leading apostrophe keeps a spreadsheet from evaluating a name as a formula.
  const quoted = (text) => {
    const plain = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\n\r]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
  };
  const lines = ["path,x1,y1,x2,y2,class,score"];
  for (const { name, detections } of images) {
    if (!detections.length) lines.push(`${quoted(name)},,,,,,`);
    for (const { box, class: className, score } of detections) lines.push([quoted(name), ...box, quoted(className), score].join(","));
  }
  return new Blob([lines.join("\n") + "\n"], { type: "text/csv" });
}

export function asImage(image, width, height, boxes, labels) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, width, height);
  drawBoxes(context, boxes, { toScreen: (x, y) => [x, y], labels, view: [width, height], unit: Math.max(1, Math.min(width, height) / 600) });
  return new Promise((done, failed) => {
    canvas.toBlob((blob) => (blob ? done(blob) : failed(new Error("the image is too large to draw"))), "image/jpeg", 0.92);
  });
}
