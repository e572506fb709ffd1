// A dialog that shows an image large: zoom with the wheel, two fingers or + and -, pan by dragging, next and previous
// image with the arrow keys, close with Escape.

const viewerZoomStep = 1.4, viewerMaxZoom = 12;

// Return {open(number), redraw(), isOpen()}. `show(number)` returns the views, the size, the
// caption and the details of an image, and the place that zooming starts at.
function imageViewer({ count, show, move, threshold }) {
  const button = (text, name) => element("button", { type: "button", textContent: text, "aria-label": name });
  const stage = element("div", { class: "stage" });
  const caption = element("p", { class: "caption", role: "status" });
  const details = element("ul", { class: "details" });
  const [previous, next] = [button("‹", "Previous image"), button("›", "Next image")];
  const [smaller, larger, close] = [button("−", "Zoom out"), button("+", "Zoom in"), button("×", "Close")];
  const slider = threshold.cloneNode();
  slider.id = "threshold-large";
  const output = element("output", { "aria-live": "off" });
  const label = element("label", { htmlFor: slider.id, textContent: "Threshold" });
  const tools = element("div", { class: "tools", children: [previous, next, smaller, larger, label, slider, output, close] });
  const dialog = element("dialog", {
    class: "viewer", "aria-label": "Image with its objects and detections",
    children: [tools, stage, caption, element("details", {
      children: [element("summary", { textContent: "Objects and detections as text" }), details],
    })],
  });
  document.body.append(dialog);
  let current = 0, zoom = 1, centre = null, size = null, focus = null;

  const views = () => [...stage.querySelectorAll("svg.view")];
  function frame() {
    const [width, height] = size.map((side) => side / zoom);
    centre = centre.map((place, k) => {
      const half = [width, height][k] / 2;
      return Math.min(Math.max(place, half), size[k] - half);
    });
    for (const view of views()) {
      view.setAttribute("viewBox", `${centre[0] - width / 2} ${centre[1] - height / 2} ${width} ${height}`);
      scaleText(view);
    }
    smaller.disabled = zoom <= 1;
    larger.disabled = zoom >= viewerMaxZoom;
  }
  function draw({ keepsZoom }) {
    const shown = show(current);
    stage.replaceChildren(...shown.views);
    [size, focus] = [shown.size, shown.focus];
    if (!keepsZoom) [zoom, centre] = [1, size.map((side) => side / 2)];
    caption.textContent = `${current + 1} of ${count()}: ${shown.caption}`;
    details.replaceChildren(...shown.details.map((text) => element("li", { textContent: text })));
    [slider.value, output.textContent] = [threshold.value, shown.threshold];
    previous.disabled = next.disabled = count() < 2;
    frame();
  }
  function go(steps) {
    current = (current + steps + count()) % count();
    draw({ keepsZoom: false });
  }
  // Zoom around a place: the first of the chosen boxes, or the middle.
  function zoomBy(factor, at = (zoom === 1 && focus) || centre) {
    const before = zoom;
    zoom = Math.min(Math.max(zoom * factor, 1), viewerMaxZoom);
    centre = centre.map((place, k) => at[k] + (place - at[k]) * (before / zoom));
    frame();
  }
  // Return a place on the screen in pixels of the image.
  function place(event) {
    const view = event.target.closest("svg.view") ?? views()[0];
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(view.getScreenCTM().inverse());
    return [point.x, point.y];
  }
  const pan = (x, y) => { centre = [centre[0] + x, centre[1] + y]; frame(); };

  const fingers = new Map();
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
  });
  stage.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const spread = () => {
      const [a, b] = [...fingers.values()];
      return Math.hypot(a[0] - b[0], a[1] - b[1]);
    };
    const wide = fingers.size === 2 ? spread() : 0;
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (fingers.size === 2) zoomBy(spread() / Math.max(wide, 1));
    else {
      const scale = views()[0].getScreenCTM().a;
      pan((before[0] - event.clientX) / scale, (before[1] - event.clientY) / scale);
    }
  });
  for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, (event) => fingers.delete(event.pointerId));
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoomBy(event.deltaY < 0 ? viewerZoomStep : 1 / viewerZoomStep, place(event));
  }, { passive: false });
  stage.addEventListener("dblclick", (event) => zoomBy(viewerZoomStep * viewerZoomStep, place(event)));

  const pans = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
  const keys = {
    ArrowLeft: () => go(-1), ArrowRight: () => go(1), "+": () => zoomBy(viewerZoomStep), "=": () => zoomBy(viewerZoomStep),
    "-": () => zoomBy(1 / viewerZoomStep), 0: () => zoomBy(1 / viewerMaxZoom),
  };
  dialog.addEventListener("keydown", (event) => {
    if (event.target === slider && event.key.startsWith("Arrow")) return;
    if (event.shiftKey && pans[event.key]) pan(...pans[event.key].map((share, k) => (share * size[k]) / zoom));
    else if (keys[event.key] && !event.ctrlKey && !event.metaKey && !event.altKey) keys[event.key]();
    else return;
    event.preventDefault();
  });
  previous.addEventListener("click", () => go(-1));
  next.addEventListener("click", () => go(1));
  smaller.addEventListener("click", () => zoomBy(1 / viewerZoomStep));
  larger.addEventListener("click", () => zoomBy(viewerZoomStep));
  close.addEventListener("click", () => dialog.close());
  slider.addEventListener("input", () => move(Number(slider.value)));
  addEventListener("resize", () => dialog.open && frame());

  return {
    open(number) {
      current = number;
      dialog.showModal();
      draw({ keepsZoom: false });
      close.focus();
    },
    redraw: () => dialog.open && draw({ keepsZoom: true }),
  };
}
