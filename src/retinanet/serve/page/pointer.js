// Mouse, touch and keys of the image: a click picks a place, a drag moves the image, Shift + drag draws a box, and a drag
// on a handle changes the selected box. No mode is needed; `arm` makes the next drag draw a box.

const CLICK_PIXELS = 5; // a press that moves at most this far is a click
const HANDLE_PIXELS = { mouse: 8, pen: 12, touch: 22 }; // distance from a handle at which a press grabs it
const MIN_BOX = 1; // image pixels; smaller boxes are not drawn
const KEY_PIXELS = 4; // screen pixels that an arrow key moves the place; ten times as many with Shift
const MARGIN = 24; // screen pixels; a place nearer to the border of the view moves the image

export class Pointer {
  constructor(viewer) {
    this.viewer = viewer;
    this.pointers = new Map();
    this.corner = null; // first corner of the box that the keys draw, image pixels
    this.isArmed = false;
    const { canvas } = viewer;
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#up(event));
    canvas.addEventListener("pointercancel", (event) => {
      this.pointers.delete(event.pointerId);
      this.cancel();
    });
    canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  // Let the next drag draw a box.
  arm(isArmed) {
    this.isArmed = isArmed;
    this.viewer.canvas.classList.toggle("drawing", isArmed);
    this.viewer.onArm(isArmed);
  }

  // Stop drawing a box. Return whether one was being drawn.
  cancel() {
    const drew = this.corner !== null || this.viewer.drawing !== null || this.isArmed;
    for (const pointer of this.pointers.values()) pointer.kind = "none";
    this.corner = this.viewer.drawing = null;
    this.arm(false);
    this.viewer.draw();
    return drew;
  }

  #wheel(event) {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 30 : 1;
    this.viewer.zoom(Math.exp(-event.deltaY * lines * 0.0018), event.offsetX, event.offsetY);
  }

  #down(event) {
    const { viewer } = this;
    viewer.canvas.setPointerCapture(event.pointerId);
    const isFirst = this.pointers.size === 0;
    if (!isFirst) this.cancel(); // a second finger zooms
    const pointer = { x: event.offsetX, y: event.offsetY, moved: isFirst ? 0 : Infinity, start: viewer.inImage(event), kind: "pan" };
    if (isFirst && event.button === 0 && (event.shiftKey || this.isArmed)) pointer.kind = "draw";
    else if (isFirst && event.button === 0) {
      pointer.handle = this.#handleAt(event);
      if (pointer.handle) Object.assign(pointer, { kind: "resize", box: viewer.selectedBox() });
    }
    this.pointers.set(event.pointerId, pointer);
  }

  #move(event) {
    const { viewer } = this;
    const pointer = this.pointers.get(event.pointerId);
    if (!pointer) {
      viewer.canvas.style.cursor = this.#handleAt(event)?.cursor ?? "";
      viewer.onHover(viewer.boxAt(...viewer.toImage(event.offsetX, event.offsetY)));
      return;
    }
    const [dx, dy] = [event.offsetX - pointer.x, event.offsetY - pointer.y];
    pointer.moved += Math.hypot(dx, dy);
    const other = [...this.pointers.entries()].find(([id]) => id !== event.pointerId)?.[1];
    const before = other && Math.hypot(pointer.x - other.x, pointer.y - other.y);
    Object.assign(pointer, { x: event.offsetX, y: event.offsetY });
    if (other) {
      for (const one of [pointer, other]) Object.assign(one, { moved: Infinity, kind: "pan" });
      viewer.move(dx / 2, dy / 2);
      const after = Math.hypot(pointer.x - other.x, pointer.y - other.y);
      if (before > 0) viewer.zoom(after / before, (pointer.x + other.x) / 2, (pointer.y + other.y) / 2);
      return;
    }
    if (pointer.moved <= CLICK_PIXELS || !viewer.image) return;
    if (pointer.kind === "draw") {
      if (!viewer.drawing) viewer.onHover(null);
      viewer.drawing = between(pointer.start, viewer.inImage(event));
      viewer.draw();
    } else if (pointer.kind === "resize") {
      viewer.onResize(resized(pointer.box, pointer.handle, viewer.inImage(event)), false);
    } else if (pointer.kind === "pan") viewer.move(dx, dy);
  }

  #up(event) {
    const { viewer } = this;
    const pointer = this.pointers.get(event.pointerId);
    this.pointers.delete(event.pointerId);
    if (!pointer) return;
    if (pointer.kind === "draw" && viewer.drawing) this.#finish();
    else if (pointer.kind === "resize" && pointer.moved > CLICK_PIXELS) {
      viewer.onResize(resized(pointer.box, pointer.handle, viewer.inImage(event)), true);
    } else if (pointer.moved <= CLICK_PIXELS && pointer.kind !== "none") this.#pick(...viewer.toImage(event.offsetX, event.offsetY));
  }

  #pick(x, y) {
    const { image, width, height } = this.viewer;
    if (image && x >= 0 && y >= 0 && x <= width && y <= height) this.viewer.onPick(x, y);
  }

  #finish() {
    const box = this.viewer.drawing;
    this.cancel();
    if (box[2] - box[0] >= MIN_BOX && box[3] - box[1] >= MIN_BOX) this.viewer.onDraw(box);
  }

  // Return the handle of the selected box at a pointer: the nearest one.
  #handleAt(event) {
    const limit = HANDLE_PIXELS[event.pointerType] ?? HANDLE_PIXELS.mouse;
    const near = this.viewer.handles().map((handle) => ({ ...handle, far: Math.hypot(handle.x - event.offsetX, handle.y - event.offsetY) }));
    return near.filter(({ far }) => far <= limit).sort((a, b) => a.far - b.far)[0] ?? null;
  }

  #key(event) {
    const { viewer } = this;
    if (!viewer.image || event.ctrlKey || event.metaKey || event.altKey) return;
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in arrows) this.#moveCursor(arrows[event.key], KEY_PIXELS * (event.shiftKey ? 10 : 1));
    else if (event.key === "+" || event.key === "=") viewer.zoom(1.3);
    else if (event.key === "-") viewer.zoom(1 / 1.3);
    else if (event.key === "0") viewer.fit();
    else if (event.key.toLowerCase() === "b") {
      viewer.cursor ??= viewer.place ?? viewer.center();
      this.corner = viewer.cursor;
      viewer.place = null;
      viewer.draw();
    } else if (event.key === "Enter" && this.corner && viewer.drawing) this.#finish();
    else if (event.key === "Enter") this.#pick(...(viewer.cursor ?? viewer.place ?? viewer.center()));
    else return;
    event.preventDefault();
  }

  // Move the place by screen pixels, and the image if the place comes near to the border of the view.
  #moveCursor([dx, dy], pixels) {
    const { viewer } = this;
    const [x, y] = viewer.cursor ?? viewer.place ?? viewer.center();
    viewer.cursor = viewer.clamp(x + (dx * pixels) / viewer.scale, y + (dy * pixels) / viewer.scale);
    viewer.place = null;
    if (this.corner) viewer.drawing = between(this.corner, viewer.cursor);
    const { clientWidth, clientHeight } = viewer.canvas;
    const [sx, sy] = viewer.toScreen(...viewer.cursor);
    const outside = (value, size) => Math.max(0, MARGIN - value) - Math.max(0, value - size + MARGIN);
    const [moveX, moveY] = [outside(sx, clientWidth), outside(sy, clientHeight)];
    if (moveX || moveY) viewer.move(moveX, moveY);
    viewer.draw();
  }
}

// Return the box with two opposite corners.
function between([ax, ay], [bx, by]) {
  return [Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx), Math.max(ay, by)];
}

// Return a box after one of its handles was moved to a place. A handle in the middle of a side moves this side only.
function resized([x1, y1, x2, y2], { sx, sy }, [x, y]) {
  const [left, right] = sx < 0 ? [x, x2] : sx > 0 ? [x1, x] : [x1, x2];
  const [top, bottom] = sy < 0 ? [y, y2] : sy > 0 ? [y1, y] : [y1, y2];
  const box = between([left, top], [right, bottom]);
  return [box[0], box[1], Math.max(box[2], box[0] + MIN_BOX), Math.max(box[3], box[1] + MIN_BOX)];
}
