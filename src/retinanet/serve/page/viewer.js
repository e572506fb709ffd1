// Shows an image, its boxes, and the objects that the user marked, on a canvas. pointer.js handles mouse, touch and keys.

import { drawBoxes } from "./boxes.js";
import { colorOf } from "./colors.js";
import { Pointer } from "./pointer.js";

const MAX_ZOOM = 24; // screen pixels per image pixel

const HANDLE = 7; // side of a handle, screen pixels
const CURSORS = { "-1,-1": "nwse-resize", "1,1": "nwse-resize", "1,-1": "nesw-resize", "-1,1": "nesw-resize" };
const ignore = () => {};

export class Viewer {
  // Others replace the functions: onPick(x, y), onHover(box), onDraw(box), onResize(box, isLast), onArm(isArmed).
  constructor(canvas) {
    Object.assign(this, { canvas, onPick: ignore, onHover: ignore, onDraw: ignore, onResize: ignore, onArm: ignore });
    this.context = canvas.getContext("2d");
    this.image = null; // an image source for drawImage
    this.boxes = []; // {box, class_id, class, score}
    this.proposal = null; // {box, anchor, class_id}
    this.objects = []; // {box, number, selected}: objects that the user marked
    this.evidence = []; // detections and predictions that explain the selected object, as `boxes`
    this.anchor = null; // box of the best anchor of the selected object
    this.drawing = null; // box that is being drawn
    this.place = null; // [x, y], image pixels
    this.cursor = null; // place that the arrow keys move
    this.marked = null; // one of the boxes
    this.labels = true;
    new ResizeObserver(() => this.#resized()).observe(canvas);
    this.pointer = new Pointer(this);
  }

  show(image, width, height) {
    Object.assign(this, { image, width, height, place: null, proposal: null, anchor: null, marked: null, cursor: null });
    this.pointer.cancel();
    this.fit();
  }

  fit() {
    const { clientWidth: w, clientHeight: h } = this.canvas;
    if (!this.image || !w || !h) return;
    this.fitted = true;
    this.scale = Math.min((w - 16) / this.width, (h - 16) / this.height);
    this.left = (w - this.width * this.scale) / 2;
    this.top = (h - this.height * this.scale) / 2;
    this.draw();
  }

  zoom(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    if (!this.image) return;
    const least = 0.5 * Math.min(this.canvas.clientWidth / this.width, this.canvas.clientHeight / this.height);
    const scale = Math.min(Math.max(this.scale * factor, least), MAX_ZOOM);
    this.left = x - ((x - this.left) * scale) / this.scale;
    this.top = y - ((y - this.top) * scale) / this.scale;
    this.scale = scale;
    this.fitted = false;
    this.draw();
  }

  draw() {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => {
      this.pending = 0;
      this.#draw();
    });
  }

  #draw() {
    const { canvas, context } = this;
    const ratio = devicePixelRatio || 1;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
    if (!this.image) return;
    context.imageSmoothingEnabled = this.scale < 3;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.image, this.left, this.top, this.width * this.scale, this.height * this.scale);
    const faded = this.proposal !== null || this.objects.length > 0;
    const toScreen = (x, y) => this.toScreen(x, y);
    const omitted = drawBoxes(context, this.boxes, {
      toScreen,
      view: [canvas.clientWidth, canvas.clientHeight],
      labels: this.labels && !faded,
      marked: this.marked,
      alpha: faded ? 0.3 : 1,
    });
    this.onLabels?.(omitted);
    drawBoxes(context, this.evidence, { toScreen, labels: true });
    for (const { box, number, selected } of this.objects) this.#drawObject(box, number, selected);
    if (this.drawing) this.#drawObject(this.drawing, null, true);
    if (this.anchor) this.#drawCased(this.anchor, [5, 4], "#fff");
    this.#drawHandles();
    if (this.proposal) {
      this.#drawCased(this.proposal.anchor, [5, 4], "#fff");
      this.#drawCased(this.proposal.box, [], colorOf(this.proposal.class_id));
    }
    const place = this.place ?? (document.activeElement === canvas ? this.cursor : null);
    if (place) this.#drawPlace(place);
  }

  #drawCased(corners, dash, color) {
    const { context } = this;
    const [x1, y1, x2, y2] = this.#rectangle(corners);
    for (const [style, width, gaps] of [["rgb(0 0 0 / 75%)", 5, []], [color, 2.5, dash]]) {
      context.setLineDash(gaps);
      context.strokeStyle = style;
      context.lineWidth = width;
      context.strokeRect(x1, y1, x2 - x1, y2 - y1);
    }
    context.setLineDash([]);
  }

  #drawHandles() {
    const { context } = this;
    for (const { x, y } of this.handles()) {
      context.fillStyle = "#000";
      context.fillRect(x - HANDLE / 2 - 1, y - HANDLE / 2 - 1, HANDLE + 2, HANDLE + 2);
      context.fillStyle = "#fff";
      context.fillRect(x - HANDLE / 2, y - HANDLE / 2, HANDLE, HANDLE);
    }
  }

  #drawObject(corners, number, selected) {
    const { context } = this;
    const [x1, y1, x2, y2] = this.#rectangle(corners);
    for (const [style, width, dash] of [["#000", selected ? 5 : 3, []], ["#fff", selected ? 2.5 : 1.5, [7, 5]]]) {
      context.setLineDash(dash);
      context.strokeStyle = style;
      context.lineWidth = width;
      context.strokeRect(x1, y1, x2 - x1, y2 - y1);
    }
    context.setLineDash([]);
    if (number === null) return;
    context.font = "bold 12px system-ui, sans-serif";
    context.textBaseline = "middle";
    context.fillStyle = "#000";
    const x = x2 + 26 < this.canvas.clientWidth ? x2 + 16 : x1 - 16; // beside the handles
    context.fillRect(x - 10, y2 - 18, 20, 18);
    context.fillStyle = "#fff";
    context.textAlign = "center";
    context.fillText(number, x, y2 - 8.5);
    context.textAlign = "start";
  }

  #drawPlace([x, y]) {
    const { context } = this;
    const [sx, sy] = [this.left + x * this.scale, this.top + y * this.scale];
    for (const [style, width] of [["#000", 5], ["#fff", 2]]) {
      context.strokeStyle = style;
      context.lineWidth = width;
      context.beginPath();
      context.arc(sx, sy, 7, 0, 2 * Math.PI);
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        context.moveTo(sx + 10 * dx, sy + 10 * dy);
        context.lineTo(sx + 17 * dx, sy + 17 * dy);
      }
      context.stroke();
    }
  }

  #rectangle([x1, y1, x2, y2]) {
    return [this.left + x1 * this.scale, this.top + y1 * this.scale, this.left + x2 * this.scale, this.top + y2 * this.scale];
  }

  #resized() {
    const { canvas } = this;
    const ratio = devicePixelRatio || 1;
    canvas.width = Math.round(canvas.clientWidth * ratio);
    canvas.height = Math.round(canvas.clientHeight * ratio);
    if (this.fitted ?? true) this.fit();
    this.#draw();
  }

  // Return the place of a pointer, moved to the nearest place in the image.
  inImage({ offsetX, offsetY }) {
    return this.clamp(...this.toImage(offsetX, offsetY));
  }

  clamp(x, y) {
    return [Math.min(Math.max(x, 0), this.width), Math.min(Math.max(y, 0), this.height)];
  }

  // Move the image by screen pixels.
  move(dx, dy) {
    this.left += dx;
    this.top += dy;
    this.fitted = false;
    this.draw();
  }

  // Return the place in the middle of the view.
  center() {
    return this.clamp(...this.toImage(this.canvas.clientWidth / 2, this.canvas.clientHeight / 2));
  }

  selectedBox() {
    return this.objects.find(({ selected }) => selected)?.box ?? null;
  }

  // Return the handles of the selected object: corners and middles of sides, in screen pixels.
  handles() {
    const box = this.selectedBox();
    if (!box || this.drawing) return [];
    const [x1, y1, x2, y2] = this.#rectangle(box);
    const places = [-1, 0, 1].flatMap((sx) => [-1, 0, 1].map((sy) => ({ sx, sy }))).filter(({ sx, sy }) => sx || sy);
    return places.map(({ sx, sy }) => ({
      sx,
      sy,
      x: sx ? (sx < 0 ? x1 : x2) : (x1 + x2) / 2,
      y: sy ? (sy < 0 ? y1 : y2) : (y1 + y2) / 2,
      cursor: CURSORS[[sx, sy]] ?? (sx ? "ew-resize" : "ns-resize"),
    }));
  }

  toScreen(x, y) {
    return [this.left + x * this.scale, this.top + y * this.scale];
  }

  toImage(x, y) {
    return [(x - this.left) / this.scale, (y - this.top) / this.scale];
  }

  // Return the smallest box that contains the place, so that boxes inside a large box can be picked.
  boxAt(x, y) {
    const area = ({ box: [x1, y1, x2, y2] }) => (x2 - x1) * (y2 - y1);
    const containing = this.boxes.filter(({ box: [x1, y1, x2, y2] }) => x >= x1 && x <= x2 && y >= y1 && y <= y2);
    return containing.sort((a, b) => area(a) - area(b))[0] ?? null;
  }
}
