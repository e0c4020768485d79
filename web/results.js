// From the outputs of a file to what is shown.

/** The colour of a class: the file's, else one of its own, far from those of its neighbours. */
export function color(about, label) {
  if (about.palette?.[label]) return about.palette[label];
  const hue = (label * 137.508) % 360; // the golden angle
  const channel = (n) => {
    const k = (n + hue / 30) % 12;
    return Math.round(255 * (0.55 - 0.35 * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return [channel(0), channel(8), channel(4)];
}

export const nameOf = (about, label) => about.classes[label] ?? String(label);

/** How much of an image each class has, the largest first: [{label, share}]. */
export function shares(labels) {
  const counts = new Map();
  for (const label of labels) counts.set(Number(label), (counts.get(Number(label)) ?? 0) + 1);
  return [...counts]
    .map(([label, count]) => ({ label, share: count / labels.length }))
    .sort((a, b) => b.share - a.share);
}

/** The colours of a label map, RGBA; what is out of the palette stays clear. */
export function paintLabels(labels, about, alpha) {
  const out = new Uint8ClampedArray(4 * labels.length);
  const colors = new Map();
  labels.forEach((value, i) => {
    const label = Number(value);
    if (!colors.has(label)) colors.set(label, color(about, label));
    out.set([...colors.get(label), alpha], 4 * i);
  });
  return out;
}

/** Boxes of a file with at least a score, in pixels of the photo: [{label, score, box: [x1, y1, x2, y2], index}]. */
export function found({ boxes, scores, labels }, place, threshold) {
  const out = [];
  scores.data.forEach((score, index) => {
    if (score < threshold) return;
    const [x1, y1, x2, y2] = boxes.data.subarray(4 * index, 4 * index + 4);
    const box = [place.left + x1 * place.x, place.top + y1 * place.y, place.left + x2 * place.x, place.top + y2 * place.y];
    out.push({ label: Number(labels.data[index]), score, box, index });
  });
  return out;
}

/** How many objects of each class there are, with the best score, the most first: [{label, count, score}]. */
export function counts(objects) {
  const classes = new Map();
  for (const { label, score } of objects) {
    const one = classes.get(label) ?? { label, count: 0, score: 0 };
    classes.set(label, { label, count: one.count + 1, score: Math.max(one.score, score) });
  }
  return [...classes.values()].sort((a, b) => b.count - a.count || b.score - a.score);
}

// Along an axis of a photo: the first pixel that the cells of a mask reach, and of each the cell before and how far on.
function spread(start, end, count, length) {
  const size = (end - start) / count;
  const first = Math.max(0, Math.floor(start - size));
  const places = [];
  for (let pixel = first; pixel < Math.min(length, end + size); pixel++) {
    const at = (pixel + 0.5 - start) / size - 0.5;
    places.push([Math.floor(at), at - Math.floor(at)]);
  }
  return { first, places };
}

/**
 * What an object covers of a photo: its mask is a grid (rows, columns) of probabilities on its box, spread as by `paste`
 * in the program that `eyetoy export` prints.
 * @returns RGBA of the pixels around the box, and their place in the photo
 */
export function paintMask(mask, [rows, columns], box, rgba, photo) {
  const across = spread(box[0], box[2], columns, photo.width);
  const down = spread(box[1], box[3], rows, photo.height);
  const [width, height] = [across.places.length, down.places.length];
  const cell = (row, column) =>
    row >= 0 && row < rows && column >= 0 && column < columns ? mask[row * columns + column] : 0;
  const data = new Uint8ClampedArray(4 * width * height);
  down.places.forEach(([row, lower], y) => {
    across.places.forEach(([column, right], x) => {
      const upperMean = cell(row, column) * (1 - right) + cell(row, column + 1) * right;
      const lowerMean = cell(row + 1, column) * (1 - right) + cell(row + 1, column + 1) * right;
      if (upperMean * (1 - lower) + lowerMean * lower >= 0.5) data.set(rgba, 4 * (y * width + x));
    });
  });
  return { data, width, height, place: { left: across.first, top: down.first, x: 1, y: 1 } };
}

/** The best classes of the first image: [{label, share}]. */
export function best(scores, count) {
  return Array.from(scores.data.subarray(0, scores.dims[1]), (share, label) => ({ label, share }))
    .sort((a, b) => b.share - a.share)
    .slice(0, count);
}
