// Shows an image and its boxes on a canvas. Mouse, touch and keyboard zoom, pan, pick a box or a place, and draw a box.

import { colorOf, strokeBox, styleOf } from "./colors.js";

const MAX_LABELS = 150;
const CLICK_PIXELS = 5; // a press that moves at most this far is a click
const MIN_BOX = 1; // image pixels; smaller boxes are not drawn
const MAX_ZOOM = 24; // screen pixels per image pixel

export class Viewer {
  constructor(canvas, { onPick, onHover, onDraw }) {
    Object.assign(this, { canvas, onPick, onHover, onDraw });
    this.context = canvas.getContext("2d");
    this.image = null; // an image source for drawImage
    this.boxes = []; // {box, class_id, class, score}
    this.proposal = null; // {box, anchor, class_id}
    this.objects = []; // {box, number, selected}: objects that the user marked
    this.evidence = []; // detections and predictions that explain the selected object, as `boxes`
    this.corner = null; // first corner of the box that is being drawn, image pixels
    this.drawing = null; // box that is being drawn
    this.place = null; // [x, y], image pixels
    this.marked = null; // one of the boxes
    this.labels = true;
    this.explaining = false;
    this.cursor = null; // place that the arrow keys move while "Explain a miss" is on
    this.pointers = new Map();
    new ResizeObserver(() => this.#resized()).observe(canvas);
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#up(event));
    canvas.addEventListener("pointercancel", (event) => {
      this.pointers.delete(event.pointerId);
      this.cancelBox();
    });
    canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  show(image, width, height) {
    Object.assign(this, { image, width, height, place: null, proposal: null, marked: null, cursor: null, corner: null, drawing: null });
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
    const toScreen = (x, y) => [this.left + x * this.scale, this.top + y * this.scale];
    drawBoxes(context, this.boxes, {
      toScreen,
      labels: this.labels && !faded,
      marked: this.marked,
      alpha: faded ? 0.3 : 1,
    });
    drawBoxes(context, this.evidence, { toScreen, labels: true });
    for (const { box, number, selected } of this.objects) this.#drawObject(box, number, selected);
    if (this.drawing) this.#drawObject(this.drawing, null, true);
    if (this.proposal) this.#drawProposal();
    const place = this.place ?? (this.explaining && document.activeElement === canvas ? this.cursor : null);
    if (place) this.#drawPlace(place);
  }

  #drawProposal() {
    const { context } = this;
    const { box, anchor, class_id } = this.proposal;
    for (const [corners, dash, color] of [[anchor, [5, 4], "#fff"], [box, [], colorOf(class_id)]]) {
      const [x1, y1, x2, y2] = this.#rectangle(corners);
      for (const [style, width] of [["rgb(0 0 0 / 75%)", 5], [color, 2.5]]) {
        context.setLineDash(style === color ? dash : []);
        context.strokeStyle = style;
        context.lineWidth = width;
        context.strokeRect(x1, y1, x2 - x1, y2 - y1);
      }
    }
    context.setLineDash([]);
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
    context.fillRect(x2 - 10, y2 - 9, 20, 18);
    context.fillStyle = "#fff";
    context.textAlign = "center";
    context.fillText(number, x2, y2 + 0.5);
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

  #wheel(event) {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 30 : 1;
    this.zoom(Math.exp(-event.deltaY * lines * 0.0018), event.offsetX, event.offsetY);
  }

  #down(event) {
    this.canvas.setPointerCapture(event.pointerId);
    const isFirst = this.pointers.size === 0;
    if (!isFirst) this.cancelBox(); // a second finger zooms
    const draws = this.explaining && isFirst && event.button === 0 && !event.shiftKey;
    this.pointers.set(event.pointerId, { x: event.offsetX, y: event.offsetY, moved: isFirst ? 0 : Infinity, start: this.#inImage(event), draws });
  }

  #move(event) {
    const pointer = this.pointers.get(event.pointerId);
    if (!pointer) {
      this.onHover(this.#boxAt(...this.#toImage(event.offsetX, event.offsetY)));
      return;
    }
    const [dx, dy] = [event.offsetX - pointer.x, event.offsetY - pointer.y];
    pointer.moved += Math.hypot(dx, dy);
    const other = [...this.pointers.entries()].find(([id]) => id !== event.pointerId)?.[1];
    const before = other && Math.hypot(pointer.x - other.x, pointer.y - other.y);
    Object.assign(pointer, { x: event.offsetX, y: event.offsetY });
    if (other) {
      Object.assign(other, { moved: Infinity, draws: false });
      pointer.draws = false;
      [this.left, this.top] = [this.left + dx / 2, this.top + dy / 2];
      const after = Math.hypot(pointer.x - other.x, pointer.y - other.y);
      if (before > 0) this.zoom(after / before, (pointer.x + other.x) / 2, (pointer.y + other.y) / 2);
    } else if (pointer.draws && pointer.moved > CLICK_PIXELS && this.image) {
      if (!this.drawing) this.onHover(null);
      this.drawing = between(pointer.start, this.#inImage(event));
      this.draw();
    } else if (pointer.moved > CLICK_PIXELS && this.image) {
      this.left += dx;
      this.top += dy;
      this.fitted = false;
      this.draw();
    }
  }

  #up(event) {
    const pointer = this.pointers.get(event.pointerId);
    this.pointers.delete(event.pointerId);
    if (pointer?.draws && this.drawing) this.#finishBox();
    else if (pointer && pointer.moved <= CLICK_PIXELS) this.#pick(...this.#toImage(event.offsetX, event.offsetY));
  }

  #pick(x, y) {
    if (this.image && x >= 0 && y >= 0 && x <= this.width && y <= this.height) this.onPick(x, y, this.#boxAt(x, y));
  }

  #finishBox() {
    const box = this.drawing;
    this.cancelBox();
    if (box[2] - box[0] >= MIN_BOX && box[3] - box[1] >= MIN_BOX) this.onDraw(box);
  }

  // Stop drawing a box. Return whether one was being drawn.
  cancelBox() {
    const drew = this.corner !== null || this.drawing !== null;
    Object.assign(this, { corner: null, drawing: null });
    this.draw();
    return drew;
  }

  #key(event) {
    if (!this.image || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = event.shiftKey ? 10 : 1;
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in arrows) {
      const [dx, dy] = arrows[event.key];
      if (this.explaining) {
        const [x, y] = this.cursor ?? this.place ?? [this.width / 2, this.height / 2];
        const pixels = (4 * step) / this.scale;
        this.cursor = [Math.min(Math.max(x + dx * pixels, 0), this.width), Math.min(Math.max(y + dy * pixels, 0), this.height)];
        this.place = null;
        if (this.corner) this.drawing = between(this.corner, this.cursor);
      } else {
        this.left -= 24 * step * dx;
        this.top -= 24 * step * dy;
        this.fitted = false;
      }
      this.draw();
    } else if (event.key === "+" || event.key === "=") this.zoom(1.3);
    else if (event.key === "-") this.zoom(1 / 1.3);
    else if (event.key === "0") this.fit();
    else if (event.key.toLowerCase() === "b" && this.explaining) {
      this.cursor ??= this.place ?? [this.width / 2, this.height / 2];
      this.corner = this.cursor;
      this.place = null;
      this.draw();
    } else if (event.key === "Enter" && this.drawing) this.#finishBox();
    else if (event.key === "Enter" && this.explaining) this.#pick(...(this.cursor ?? [this.width / 2, this.height / 2]));
    else return;
    event.preventDefault();
  }

  // Return the place of a pointer, moved to the nearest place in the image.
  #inImage({ offsetX, offsetY }) {
    const [x, y] = this.#toImage(offsetX, offsetY);
    return [Math.min(Math.max(x, 0), this.width), Math.min(Math.max(y, 0), this.height)];
  }

  #toImage(x, y) {
    return [(x - this.left) / this.scale, (y - this.top) / this.scale];
  }

  // Return the smallest box that contains the place, so that boxes inside a large box can be picked.
  #boxAt(x, y) {
    const area = ({ box: [x1, y1, x2, y2] }) => (x2 - x1) * (y2 - y1);
    const containing = this.boxes.filter(({ box: [x1, y1, x2, y2] }) => x >= x1 && x <= x2 && y >= y1 && y <= y2);
    return containing.sort((a, b) => area(a) - area(b))[0] ?? null;
  }
}

// Return the box with two opposite corners.
function between([ax, ay], [bx, by]) {
  return [Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx), Math.max(ay, by)];
}

export function drawBoxes(context, boxes, { toScreen, labels, marked = null, alpha = 1, unit = 1 }) {
  const order = [...boxes].sort((a, b) => (a === marked) - (b === marked) || a.score - b.score);
  context.globalAlpha = alpha;
  for (const detection of order) {
    const [x1, y1] = toScreen(detection.box[0], detection.box[1]);
    const [x2, y2] = toScreen(detection.box[2], detection.box[3]);
    const thin = Math.max(1, Math.min(2, Math.min(x2 - x1, y2 - y1) / 12)) * unit;
    if (detection === marked) {
      context.fillStyle = colorOf(detection.class_id) + "33";
      context.fillRect(x1, y1, x2 - x1, y2 - y1);
    }
    strokeBox(context, detection.class_id, [x1, y1, x2, y2], detection === marked ? 2 * thin + unit : thin, unit);
  }
  if (labels || marked) {
    const size = 12 * unit;
    context.font = `${size}px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif`;
    context.textBaseline = "middle";
    for (const detection of labels && order.length <= MAX_LABELS ? order : order.filter((box) => box === marked)) {
      const [x, y] = toScreen(detection.box[0], detection.box[1]);
      const text = `${detection.class} ${detection.score.toFixed(2)}`;
      const width = context.measureText(text).width + 8 * unit;
      const height = 17 * unit;
      const top = y - height < 0 ? y : y - height;
      context.fillStyle = colorOf(detection.class_id);
      context.fillRect(x - context.lineWidth / 2, top, width, height);
      context.fillStyle = styleOf(detection.class_id).casing;
      context.fillText(text, x + 4 * unit - context.lineWidth / 2, top + height / 2 + unit / 2);
    }
  }
  context.globalAlpha = 1;
}
