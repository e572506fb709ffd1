// The objects that the user marks in an image, or that a click suggests: asks the server why each is found or missed.

import { renderAnswer } from "./answer.js";
import { $, element, swatch } from "./dom.js";
import { iou } from "./groups.js";

const SAME_IOU = 0.9; // a predicted box shows a marked object from this IoU on
const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
const contains = ([x1, y1, x2, y2], x, y) => x >= x1 && x <= x2 && y >= y1 && y <= y2;

export class ObjectList {
  // ask.place(upload, x, y, objects) and ask.objects(upload, objects) return answers of the server; onShow(objects,
  // selected) draws the objects; nameOf(detection) names a detection as the list of detections does.
  constructor({ ask, onShow, onError, onSpeak, onThreshold, onClose, nameOf, viewer }) {
    Object.assign(this, { ask, onShow, onError, onSpeak, onThreshold, onClose, nameOf, viewer });
    this.upload = null;
    this.classes = [];
    this.selected = null; // {box, label, result, isDraft, place, answer}: a draft gives way to the next click
    this.count = 0; // increases with each request; only the answer to the latest is shown
    $("objects-clear").onclick = () => this.#remove(this.objects);
    $("objects").onkeydown = (event) => event.key === "Escape" && this.close() && event.stopPropagation();
  }

  get objects() {
    return this.upload?.objects ?? [];
  }

  show(upload) {
    if (upload !== this.upload) {
      this.count++;
      this.upload = upload;
      this.selected = this.objects.at(-1) ?? null;
    }
    this.render();
    if (this.objects.some(({ box, result }) => box && !result)) this.explain();
  }

  // Explain the place of a click: select the marked object there, or the object that the server suggests.
  pick(x, y) {
    const others = this.objects.filter((one) => !one.isDraft && one !== this.selected && contains(one.box, x, y));
    const [inside] = others.sort((a, b) => area(a.box) - area(b.box));
    if (inside) {
      this.select(inside);
      return this.#focus();
    }
    return this.#askPlace(this.#add({ isDraft: true, box: null, label: null, place: [x, y] }), true);
  }

  // Explain a box. Without a class id, the server proposes the class.
  mark(box, label = null, isDraft = false) {
    this.#add({ isDraft, box, label, place: null });
    return this.explain(true);
  }

  // Explain a predicted box: select the marked object that it shows, or mark it as a draft.
  explainBox({ box, class_id }) {
    const isSame = (one) => !one.isDraft && one.label === class_id && iou(one.box, box) >= SAME_IOU;
    const marked = this.objects.find(isSame);
    if (!marked) return this.mark(box, class_id, true);
    this.select(marked);
    return this.#focus();
  }

  // Change the box of the selected object. Before the last change, nothing is requested.
  resize(box, isLast) {
    const object = this.selected;
    if (!object) return;
    this.count++;
    Object.assign(object, { box, isDraft: false, place: null, answer: null });
    for (const one of this.objects) one.result = null;
    if (isLast) this.explain();
    else this.onShow(this.objects, object);
  }

  select(object) {
    this.selected = object;
    this.render();
  }

  // Close the answer that is open. Return whether one was open.
  close() {
    const { selected } = this;
    if (!selected) return false;
    this.selected = null;
    if (selected.isDraft) this.#remove([selected]);
    else this.render();
    this.onClose();
    return true;
  }

  // The thresholds have changed: the causes hold for the previous thresholds only.
  forget() {
    this.count++;
    for (const object of this.objects) Object.assign(object, { result: null, answer: null });
    this.render();
  }

  // Explain all objects, because each object is a neighbour of the others.
  async explain(movesFocus = false) {
    const { upload } = this;
    const objects = this.objects.filter(({ box }) => box);
    for (const object of this.objects) if (!object.box) this.#askPlace(object, movesFocus);
    if (!objects.length) return this.render();
    await this.#ask(
      () => this.ask.objects(upload, objects),
      (answer) => objects.forEach((object, i) => this.#set(object, answer.objects[i], answer, objects)),
      movesFocus,
    );
  }

  // Mark a detection as another object, so that it does not count as the selected one.
  addNeighbour({ box, class_id }) {
    for (const object of this.objects) object.isDraft = false;
    this.objects.push({ isDraft: false, box, label: class_id, result: null, place: null, answer: null });
    for (const object of this.objects) object.result = null;
    return this.explain(true);
  }

  // Request the scores of all feature levels at the place of an object, or in its middle.
  async showLevels(object) {
    if (object.answer) return;
    const [x1, y1, x2, y2] = object.box;
    const [x, y] = object.place ?? [(x1 + x2) / 2, (y1 + y2) / 2];
    await this.#ask(() => this.ask.place(this.upload, x, y, []), (answer) => (object.answer = answer));
  }

  #askPlace(object, movesFocus) {
    const { upload } = this;
    const neighbours = this.objects.filter(({ isDraft }) => !isDraft);
    return this.#ask(
      () => this.ask.place(upload, ...object.place, neighbours),
      (answer) => {
        object.answer = answer;
        if (answer.object) {
          object.box = answer.object.box;
          this.#set(object, answer.object, answer, [object, ...neighbours]);
        }
      },
      movesFocus,
    );
  }

  async #ask(request, use, movesFocus = false) {
    const own = ++this.count;
    this.render();
    try {
      const answer = await request();
      if (own !== this.count) return;
      use(answer);
    } catch (error) {
      if (own === this.count) this.onError(error.message);
    }
    this.render();
    if (movesFocus) this.#focus();
    else if (this.selected?.result) this.onSpeak(this.selected.result.summary);
  }

  // `order` holds the objects of the request, because the answer refers to them by index.
  #set(object, result, { note, detections }, order) {
    object.label = result.class_id;
    object.result = { ...result, note, found: detections, order };
  }

  #add(object) {
    this.upload.objects = this.objects.filter(({ isDraft }) => !isDraft);
    this.selected = { result: null, answer: null, ...object };
    this.upload.objects.push(this.selected);
    return this.selected;
  }

  #remove(objects) {
    this.count++;
    this.upload.objects = this.objects.filter((one) => !objects.includes(one));
    if (!this.objects.includes(this.selected)) this.selected = this.objects.at(-1) ?? null;
    for (const object of this.objects) object.result = null;
    this.render();
    if (this.objects.length) this.explain();
    else this.onClose();
  }

  // Move the focus to the answer, which becomes visible.
  #focus() {
    const title = $("object-list").querySelector(".answer");
    title?.focus({ preventScroll: innerWidth <= 820 });
    if (innerWidth <= 820) $("objects").scrollIntoView({ block: "start" });
  }

  render() {
    $("objects").hidden = !this.objects.length;
    document.body.classList.toggle("explaining", this.objects.length > 0);
    const focused = document.activeElement?.dataset?.key;
    $("object-list").replaceChildren(...this.objects.map((object, i) => this.#row(object, i)));
    if (focused) $("object-list").querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
    this.onShow(this.objects, this.selected);
  }

  #row(object, i) {
    const { box, label, place, result } = object;
    const number = i + 1;
    const select = element("select", { "aria-label": `Class of object ${number}`, disabled: label === null });
    if (label === null) select.append(element("option", { textContent: box ? "…" : `place ${place.map(Math.round).join(", ")}`, value: "" }));
    this.classes.forEach((name, k) => select.append(element("option", { textContent: name, value: k, selected: k === label })));
    select.onchange = () => {
      Object.assign(object, { label: Number(select.value), isDraft: false, result: null });
      this.selected = object;
      this.explain();
    };
    const isFound = result?.cause === "detected";
    const cause = element("button", {
      class: `cause ${isFound ? "detected" : ""}`,
      type: "button",
      textContent: result?.cause ?? (object.answer ? "" : "…"),
      "aria-label": `Object ${number}: ${result?.cause ?? "no cause yet"}`,
      "aria-expanded": String(object === this.selected),
    });
    cause.onclick = () => (object === this.selected ? this.close() : this.select(object));
    const remove = element("button", { class: "link", type: "button", textContent: "×", title: "Remove", "aria-label": `Remove object ${number}` });
    remove.onclick = () => this.#remove([object]);
    [select, cause, remove].forEach((node, place) => (node.dataset.key = `${i}-${place}`));
    const line = element("div", { class: "object", children: [element("b", { textContent: number }), ...(label === null ? [] : [swatch(label)]), select, cause, remove] });
    const answer = object === this.selected ? renderAnswer(object, this) : [];
    return element("li", { class: object === this.selected ? "on" : "", children: [line, ...answer] });
  }
}
