// What is shown, as files.

import { drawBoxes } from "./viewer.js";

export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export function asJson(images, threshold) {
  const content = {
    threshold,
    images: images.map(({ name, width, height, detections }) => ({ name, width, height, detections })),
  };
  return new Blob([JSON.stringify(content, null, 1)], { type: "application/json" });
}

// The columns of `retinanet predict --format csv`; an image without detections is a line with its name alone.
export function asCsv(images) {
  // A quote doubled; and what a spreadsheet would take for a formula is kept text.
  const quoted = (text) => {
    const plain = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\n\r]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
  };
  const lines = ["path,x1,y1,x2,y2,class,score"];
  for (const { name, detections } of images) {
    if (!detections.length) lines.push(`${quoted(name)},,,,,,`);
    for (const { box, class: kind, score } of detections) lines.push([quoted(name), ...box, quoted(kind), score].join(","));
  }
  return new Blob([lines.join("\n") + "\n"], { type: "text/csv" });
}

export function asImage(image, width, height, boxes, labels) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, width, height);
  drawBoxes(context, boxes, { toScreen: (x, y) => [x, y], labels, unit: Math.max(1, Math.min(width, height) / 600) });
  return new Promise((done, failed) => {
    canvas.toBlob((blob) => (blob ? done(blob) : failed(new Error("the image is too large to draw"))), "image/jpeg", 0.92);
  });
}
