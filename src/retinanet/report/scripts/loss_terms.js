// The numbers of the loss microscope, as in analysis/loss_microscope.py, which derives the formulas and compares them
// with training. data: the value of report.loss_microscope.microscope_data. alpha null: every example has the weight 1.

const lossTerms = (() => {
  // log(1 + exp(z)) without overflow.
  const softplus = (z) => Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z)));

  // Return loss and absolute gradient of an example with the weight 1 and the wrong logit z, for one gamma.
  function exampleTerms(z, gamma) {
    const positivePart = softplus(z), minusLog = softplus(-z), power = Math.exp(-gamma * minusLog);
    return [power * positivePart, power * (Math.exp(-minusLog) + gamma * Math.exp(-positivePart) * positivePart)];
  }

  // Return the weights of objects and of background.
  const lossWeights = (alpha) => (alpha === null ? [1, 1] : [alpha, 1 - alpha]);

  const isBackground = (group) => group.kind.endsWith("background");

  // Return the sums of loss, gradient and squared gradient of each group: [[loss, gradient, squares], ...].
  function groupSums(data, [positive, negative], gamma) {
    return data.groups.map((group) => {
      const weight = isBackground(group) ? negative : positive;
      const sums = [0, 0, 0];
      group.logits.forEach((z, bin) => {
        const [loss, gradient] = exampleTerms(z, gamma).map((value) => weight * value);
        sums[0] += group.counts[bin] * loss;
        sums[1] += group.counts[bin] * gradient;
        sums[2] += group.counts[bin] * gradient * gradient;
      });
      return sums;
    });
  }

  const total = (values) => values.reduce((sum, value) => sum + value, 0);

  // Return each value as a share of their sum.
  const shares = (values) => values.map((value) => value / (total(values) || 1));

  // Return what each loss sees: name, shares of the groups in loss and gradient, number of used and effective examples.
  function comparedLosses(data, alpha, gamma) {
    const weights = lossWeights(alpha);
    const everything = total(data.groups.flatMap((group) => group.counts));
    const rows = [
      ["focal loss, this setting", groupSums(data, weights, gamma), everything],
      ["cross-entropy", groupSums(data, [1, 1], 0), everything],
      ["alpha-balanced cross-entropy", groupSums(data, weights, 0), everything],
      ["weighted cross-entropy (YOLO)", groupSums(data, [1, data.negativeWeight], 0), everything],
      ...data.mined.map(({ name, sums, examples }) => [name, sums, examples]),
    ];
    return rows.map(([name, sums, examples]) => {
      const [loss, gradient, squares] = [0, 1, 2].map((i) => sums.map((values) => values[i]));
      const effective = total(squares) > 0 ? total(gradient) ** 2 / total(squares) : 0;
      return { name, loss: shares(loss), gradient: shares(gradient), gradientSum: total(gradient), examples, effective };
    });
  }

  // Return the shares of the kinds of groups from those of the groups, in the order of data.kinds.
  const sharesByKind = (data, values) =>
    data.kinds.map((kind) => total(values.filter((_, group) => data.groups[group].kind === kind)));

  // Return the places with the largest gradient: [[index in data.places, gradient], ...], the largest first.
  function rankedPlaces(data, alpha, gamma) {
    const weights = lossWeights(alpha);
    const ranked = data.places.map(({ object, logits }, index) => [
      index, weights[object ? 0 : 1] * total(logits.map((z) => exampleTerms(z, gamma)[1])),
    ]);
    return ranked.sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, data.shown);
  }

  // Return the gradient of each bin of the drawn histograms: {objects, "rare objects", background} -> values.
  function drawnGradients(data, alpha, gamma) {
    const weights = lossWeights(alpha), { perUnit, half } = data.drawn;
    const found = Object.fromEntries(["objects", "rare objects", "background"].map((kind) => [kind, Array(2 * half).fill(0)]));
    for (const group of data.groups) {
      const back = isBackground(group), bins = found[back ? "background" : group.kind];
      group.logits.forEach((z, b) => {
        const bin = Math.min(Math.max(Math.floor((back ? z : -z) * perUnit) + half, 0), 2 * half - 1);
        bins[bin] += weights[back ? 1 : 0] * exampleTerms(z, gamma)[1] * group.counts[b];
      });
    }
    return found;
  }

  // Return a setting in words, and the options of `retinanet train` for it.
  const settingText = (alpha, gamma) => `${alpha === null ? "equal weights" : `alpha ${alpha.toFixed(2)}`} and gamma ${gamma}`;
  const trainOptions = (alpha, gamma) =>
    alpha === null && gamma === 0 ? "--loss ce" : `--loss focal --alpha ${(alpha ?? 0.5).toFixed(2)} --gamma ${gamma}`;

  // Return a share in percent: "12%" or "0.3%".
  const percentText = (share) => `${(100 * share).toFixed(share >= 0.0995 || share === 0 ? 0 : 1)}%`;

  return {
    comparedLosses, drawnGradients, exampleTerms, percentText, rankedPlaces, settingText, sharesByKind, total, trainOptions,
  };
})();
