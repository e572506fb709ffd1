// Numbers at a score threshold. A threshold is a whole number of hundredths ("step"); scores are whole thousandths.
//
// Tables hold one column per property and the number of equal rows:
// objects: class, size, kind of error, highest step at which the object is found (-1: never).
// false: class, size, kind of error, highest step at which the false detection is shown.
// pairs: class of the object (number of classes: none), class of the detection, size, highest step.
// A filter has a class, a size and a kind; -1 stands for all.

const allOutcomes = { label: -1, size: -1, kind: -1 };

function passesFilter(filter, label, size) {
  return (filter.label < 0 || filter.label === label) && (filter.size < 0 || filter.size === size);
}

// Return the counts of a run: objects, found, missed, false, unlabelled, and precision, recall, F1 (null: undefined).
// The kind limits only the missed objects and the false detections; the other numbers do not depend on it.
function outcomeCounts(run, step, filter, unlabelledKind) {
  let objects = 0, found = 0, missed = 0, wrong = 0, unlabelled = 0, detections = 0;
  const { objects: o, false: f } = run;
  for (let i = 0; i < o.count.length; i++) {
    if (!passesFilter(filter, o.label[i], o.size[i])) continue;
    objects += o.count[i];
    if (o.step[i] >= step) found += o.count[i];
    else if (filter.kind < 0 || filter.kind === o.kind[i]) missed += o.count[i];
  }
  for (let i = 0; i < f.count.length; i++) {
    if (f.step[i] < step || !passesFilter(filter, f.label[i], f.size[i])) continue;
    detections += f.count[i];
    if (filter.kind >= 0 && filter.kind !== f.kind[i]) continue;
    if (f.kind[i] === unlabelledKind) unlabelled += f.count[i];
    else wrong += f.count[i];
  }
  detections += found;
  const total = objects + detections;
  return {
    objects, found, missed, false: wrong, unlabelled, detections,
    precision: detections ? found / detections : null,
    recall: objects ? found / objects : null,
    f1: total ? (2 * found) / total : null,
  };
}

// Return the confusion matrix as rows of counts, with the background as last row and column.
// A class keeps only its row and its column.
function confusionCounts(run, step, filter, numClasses) {
  const counts = Array.from({ length: numClasses + 1 }, () => new Array(numClasses + 1).fill(0));
  const { objects: o, pairs: p } = run;
  for (let i = 0; i < o.count.length; i++) {
    if (filter.size < 0 || filter.size === o.size[i]) counts[o.label[i]][numClasses] += o.count[i];
  }
  for (let i = 0; i < p.count.length; i++) {
    if (p.step[i] < step || (filter.size >= 0 && filter.size !== p.size[i])) continue;
    counts[p.object[i]][p.label[i]] += p.count[i];
    if (p.object[i] < numClasses) counts[p.object[i]][numClasses] -= p.count[i];
  }
  if (filter.label >= 0) {
    counts.forEach((row, i) => row.forEach((_, j) => {
      if (i !== filter.label && j !== filter.label) row[j] = 0;
    }));
  }
  return counts;
}

// Return the objects and detections of an image at a threshold, each with its outcome:
// found (the detection of a found object), missed, false, unlabelled. `cell` is the row and column in the confusion matrix.
function imageMarks(image, run, step, { numClasses, unlabelledKind }) {
  const marks = [], found = new Set(), paired = new Set();
  const { objects } = image, { detections, kinds } = image.runs[run];
  for (const [x1, y1, x2, y2, label, score, size, kind, object, partner, ignored] of detections) {
    if (score < step * 10 || ignored) continue;
    if (partner >= 0) paired.add(partner);
    const outcome = object >= 0 ? "found" : kind === unlabelledKind ? "unlabelled" : "false";
    if (object >= 0) found.add(object);
    marks.push({
      outcome, box: [x1, y1, x2, y2], label, score, kind, object, partner,
      size: object >= 0 ? objects[object][5] : size,
      cell: [partner >= 0 ? objects[partner][4] : numClasses, label],
    });
  }
  objects.forEach(([x1, y1, x2, y2, label, size, crowd], object) => {
    if (crowd) return;
    const cell = paired.has(object) ? null : [label, numClasses];
    if (!found.has(object)) {
      marks.push({ outcome: "missed", box: [x1, y1, x2, y2], label, score: null, kind: kinds[object], object, size, cell });
    }
  });
  return marks;
}

// Return the marks that pass the filter. A kind keeps only errors. `outcome` is "" for all.
function filteredMarks(marks, filter, outcome) {
  return marks.filter((mark) =>
    passesFilter(filter, mark.label, mark.size) && (filter.kind < 0 || filter.kind === mark.kind) &&
    (!outcome || outcome === mark.outcome));
}

// Return the number of marks of each outcome.
function countMarks(marks) {
  const counts = { found: 0, missed: 0, false: 0, unlabelled: 0 };
  for (const mark of marks) counts[mark.outcome] += 1;
  return counts;
}

// Return the marks in a cell of the confusion matrix, given as a row and a column; a pair has two marks or one.
function cellMarks(marks, [row, column]) {
  return marks.filter((mark) => mark.cell && mark.cell[0] === row && mark.cell[1] === column);
}

// Return the objects of an image that one run finds and another misses, as marks of the first run.
function onlyFound(marks, otherMarks) {
  const other = new Set(otherMarks.filter((mark) => mark.outcome === "found").map((mark) => mark.object));
  return marks.filter((mark) => mark.outcome === "found" && !other.has(mark.object));
}

// Return the classes of the largest confusion table that is drawn: those with most errors, in their order.
function tableClasses(counts, most) {
  const n = counts.length - 1;
  const errors = Array.from({ length: n }, (_, k) =>
    counts[k].reduce((sum, count, j) => sum + (j === k ? 0 : count), 0) +
    counts.reduce((sum, row, i) => sum + (i === k ? 0 : row[k]), 0));
  const order = errors.map((_, k) => k).sort((a, b) => errors[b] - errors[a] || a - b);
  return order.slice(0, most).sort((a, b) => a - b);
}
