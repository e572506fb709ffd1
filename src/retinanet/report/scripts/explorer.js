// The explorable evaluation: one threshold and filters move counts, matrices and images at once.

parts.explorer = (root, data) => {
  const { classes, kinds, runs, images } = data;
  const numClasses = classes.length, unlabelledKind = data.unlabelled, options = { numClasses, unlabelledKind };
  const slider = root.querySelector("#threshold"), output = root.querySelector("output");
  const active = root.querySelector(".active"), same = root.querySelector("[data-control=same]");
  const panel = document.querySelector("[data-view=images]");
  const matrices = [...document.querySelectorAll("[data-view=matrix]")];
  const form = panel?.querySelector("form"), gallery = panel?.querySelector(".images");
  const state = { step: Number(slider.value), filter: { ...allOutcomes }, outcome: "", cell: null, second: 1, pages: 1 };
  panel?.querySelectorAll("image").forEach((node, number) => { images[number].source = node.getAttribute("href"); });

  slider.hidden = false;

  const shownRuns = () => (runs.length > 1 ? [0, state.second] : [0]);
  // With two runs, each keeps its distance from the threshold at which it starts, unless both have the same threshold.
  const stepOf = (run) => {
    const apart = same?.checked ? 0 : runs[run].step - runs[0].step;
    return Math.min(Math.max(state.step + apart, data.lowest), data.last);
  };
  const decimal = (value) => (value === null ? "–" : value.toFixed(3));
  const whole = (value) => value.toLocaleString("en");
  const percent = (part, all) => {
    if (!all) return "–";
    const value = (100 * part) / all;
    return value > 0 && value < 1 ? "<1 %" : `${value.toFixed(0)} %`;
  };
  const set = (node, text) => { if (node && node.textContent !== text) node.textContent = text; };

  function drawCounts() {
    const steps = shownRuns().map(stepOf);
    const texts = steps.map((step) => (step / 100).toFixed(2));
    set(output, texts.join(" / "));
    const spoken = [];
    shownRuns().forEach((run, place) => {
      const counts = outcomeCounts(runs[run], steps[place], state.filter, unlabelledKind);
      spoken.push(`${counts.found} found, ${counts.missed} missed, ${counts.false} false`);
      for (const part of root.querySelectorAll(`[data-run="${place}"]`)) {
        for (const node of part.querySelectorAll("[data-value]")) {
          const value = counts[node.dataset.value];
          set(node, node.closest("dl") ? decimal(value) : whole(value));
        }
        const share = part.querySelector("[data-share]");
        const isObject = ["found", "missed"].includes(share?.dataset.share);
        const all = isObject ? counts.objects : counts.detections;
        const of = runs.length > 1 ? "" : ` of ${whole(all)} ${isObject ? "objects" : "detections"}`;
        if (share) set(share, percent(counts[share.dataset.share], all) + of);
        if (runs.length > 1) set(part.querySelector(".run"), runs[run].name);
      }
    });
    slider.setAttribute("aria-valuetext", `${texts.join(" and ")}: ${spoken.join("; ")}`);
    const { label, kind, size } = state.filter;
    const parts = [label >= 0 && `class ${classes[label]}`, size >= 0 && `${["small", "medium", "large"][size]} objects`,
      kind >= 0 && `errors of the kind "${kinds[kind]}" (missed and false only)`].filter(Boolean);
    active.hidden = !parts.length;
    set(active, parts.length ? `Counted: ${parts.join(", ")}.` : "");
  }

  function drawMatrices() {
    matrices.forEach((part, place) => {
      const run = shownRuns()[place];
      const counts = confusionCounts(runs[run], stepOf(run), state.filter, numClasses);
      const table = part.querySelector("table"), focused = document.activeElement?.dataset?.cell;
      const isHere = part.contains(document.activeElement);
      const selected = state.cell && state.cell.run === run ? state.cell.cell : null;
      drawMatrix(table, counts, classes, tableClasses(counts, data.tableClasses), selected, (i, j) => openCell(run, i, j));
      set(part.querySelector("[data-note]"), `Score threshold ${(stepOf(run) / 100).toFixed(2)}. A cell opens its images.`);
      if (table.caption) set(table.caption, runs[run].name);
      if (isHere && focused) (table.querySelector(`[data-cell="${focused}"]`) ?? table.parentElement).focus();
    });
  }

  // Return the marks of an image in each shown run, those that are drawn.
  function marksOf(image) {
    const all = shownRuns().map((run) => imageMarks(image, run, stepOf(run), options));
    if (state.cell) {
      return all.map((marks, place) => (shownRuns()[place] === state.cell.run || runs.length === 1
        ? pairedMarks(cellMarks(marks, state.cell.cell), image) : []));
    }
    if (state.outcome.startsWith("only-")) {
      const [mine, other] = state.outcome === "only-0" ? [0, 1] : [1, 0];
      const only = filteredMarks(onlyFound(all[mine], all[other]), state.filter, "");
      const missing = new Set(only.map((mark) => mark.object));
      const found = [];
      found[mine] = only;
      found[other] = all[other].filter((mark) => mark.outcome === "missed" && missing.has(mark.object));
      return found;
    }
    return all.map((marks) => filteredMarks(marks, state.filter, state.outcome));
  }
  // Add the object of a confused detection to its marks.
  function pairedMarks(marks, image) {
    return marks.flatMap((mark) => {
      if (mark.outcome === "missed" || !(mark.partner >= 0) || mark.object >= 0) return [mark];
      const [x1, y1, x2, y2, label, size] = image.objects[mark.partner];
      return [{ ...mark, outcome: "missed", score: null, box: [x1, y1, x2, y2], label, size, cell: null }, mark];
    });
  }
  // Return the errors in an image, or the objects that only one of two runs finds.
  const errors = (marks) => (marks.length > 1
    ? onlyFound(marks[0], marks[1]).length + onlyFound(marks[1], marks[0]).length
    : marks[0].filter((mark) => mark.outcome !== "found").length);
  const isLimited = () => state.cell || state.outcome || state.filter.label >= 0 || state.filter.kind >= 0 || state.filter.size >= 0;

  let shown = []; // the images of the gallery, in their order
  let figures = [];
  function chooseImages() {
    const found = images.map((image) => ({ image, marks: marksOf(image) }));
    const kept = isLimited() ? found.filter(({ marks }) => marks.flat().length) : found;
    const weight = ({ marks }) => (isLimited() ? marks.flat().length : errors(marks));
    shown = kept.map((one) => [one, weight(one)]).sort((a, b) => b[1] - a[1]).map(([{ image }]) => image);
    const visible = shown.slice(0, state.pages * data.page);
    figures = visible.map(figureOf);
    gallery.replaceChildren(...figures.map(({ figure }) => figure));
    const total = shown.flatMap((image) => marksOf(image).flat().filter((mark) => mark.cell)).length;
    const what = state.cell ? ` ${cellTitle(state.cell)}: ${whole(total)} of ${whole(state.cell.count)} are in these images.` : "";
    const number = shown.length === 1 ? "1 embedded image" : `${whole(shown.length)} embedded images`;
    set(panel.querySelector(".state"), `${visible.length} of ${number}${isLimited() ? " with such objects or detections" : ""}.${what}`);
    panel.querySelector(".more").hidden = visible.length === shown.length;
    drawImages();
  }
  function figureOf(image, number) {
    const views = shownRuns().map(() => imageView(image, image.source));
    views.forEach((view) => view.setAttribute("aria-hidden", "true"));
    const button = element("button", { type: "button", class: "enlarge" });
    button.addEventListener("click", () => viewer.open(number));
    const caption = element("figcaption");
    const figure = element("figure", { class: "image", children: [
      element("div", { class: "views", children: [...views, button] }), caption,
    ] });
    views.forEach((view) => sizes.observe(view));
    return { figure, image, views, button, caption };
  }
  function captionOf(image, marks) {
    const texts = marks.map((of, place) => (runs.length > 1 ? `${runs[shownRuns()[place]].name} ` : "") + countText(countMarks(of)));
    return `${image.name}: ${texts.join("; ")}.`;
  }
  function drawImages() {
    for (const { image, views, button, caption } of figures) {
      const marks = marksOf(image), text = captionOf(image, marks);
      views.forEach((view, place) => drawMarks(view, marks[place], classes, { truth: truthOf(image) }));
      set(caption, text);
      button.setAttribute("aria-label", `Enlarge ${text}`);
    }
    viewer.redraw();
  }
  const truthOf = (image) => (form.querySelector("[data-control=truth]").checked ? image.objects.map((row) => row.slice(0, 4)) : []);
  const sizes = new ResizeObserver((entries) => entries.forEach(({ target }) => scaleText(target)));

  function cellTitle({ cell: [row, column] }) {
    if (column === numClasses) return `Objects of class ${classes[row]} without a detection`;
    if (row === numClasses) return `Detections of class ${classes[column]} without an object`;
    return `Objects of class ${classes[row]} detected as ${classes[column]}`;
  }
  function openCell(run, row, column) {
    const isOpen = state.cell && state.cell.run === run && state.cell.cell[0] === row && state.cell.cell[1] === column;
    const counts = confusionCounts(runs[run], stepOf(run), state.filter, numClasses);
    state.cell = isOpen ? null : { run, cell: [row, column], count: counts[row][column] };
    state.pages = 1;
    drawMatrices();
    if (!panel) return;
    chooseImages();
    if (state.cell) {
      panel.scrollIntoView({ behavior: "instant", block: "start" });
      panel.querySelector(".enlarge")?.focus({ preventScroll: true });
    }
  }

  const viewer = panel && imageViewer({
    count: () => shown.length,
    threshold: slider,
    move: (step) => moveTo(step),
    show(number) {
      const image = shown[number], marks = marksOf(image);
      const views = shownRuns().map((run, place) => {
        const view = imageView(image, image.source);
        drawMarks(view, marks[place], classes, { truth: truthOf(image), named: marks[place].length <= 40 });
        view.setAttribute("aria-label", captionOf(image, marks));
        return view;
      });
      const details = marks.flat().map((mark) => {
        const kind = mark.outcome !== "found" && mark.kind >= 0 ? `, ${kinds[mark.kind]}` : "";
        return `${mark.outcome}: ${markText(mark, classes)}${kind}, at ${mark.box.map(Math.round).join(", ")}`;
      });
      const boxes = isLimited() ? marks.flat().map((mark) => mark.box) : [];
      const focus = boxes.length ? [0, 1].map((k) => (boxes[0][k] + boxes[0][k + 2]) / 2) : null;
      return { views, focus, size: [image.width, image.height], caption: captionOf(image, marks), details, threshold: output.textContent };
    },
  });

  let frame = 0;
  function redraw() {
    drawCounts();
    drawMatrices();
    if (panel) drawImages();
  }
  function moveTo(step) {
    state.step = step;
    slider.value = step;
    drawCounts();
    cancelAnimationFrame(frame); // the rest follows once per frame
    frame = requestAnimationFrame(redraw);
  }
  function readFilters() {
    for (const name of ["label", "kind", "size"]) state.filter[name] = Number(form.querySelector(`[data-filter=${name}]`).value);
    state.outcome = form.querySelector("[data-filter=outcome]").value;
    state.second = Number(form.querySelector("[data-control=second]")?.value ?? 1);
    Object.assign(state, { cell: null, pages: 1 });
    drawCounts();
    drawMatrices();
    chooseImages();
  }

  slider.addEventListener("input", () => moveTo(Number(slider.value)));
  slider.addEventListener("change", () => panel && chooseImages());
  if (same) {
    same.parentElement.hidden = false;
    same.addEventListener("change", () => { redraw(); if (panel) chooseImages(); });
  }
  if (panel) {
    form.hidden = false;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("change", readFilters);
    form.addEventListener("reset", () => requestAnimationFrame(readFilters));
    panel.querySelector(".more").addEventListener("click", () => {
      const next = figures.length;
      state.pages += 1;
      chooseImages();
      figures[next]?.button.focus();
    });
    chooseImages();
  }
  drawCounts();
  drawMatrices();
};
