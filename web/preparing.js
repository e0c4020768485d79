// What the test pipeline of a config does to a photo before the model sees it. Images are {data, width, height}: RGBA.

// Weight of a pixel at a distance, of pixels, and the distance from which on it is 0. Libraries have their own cubic ones.
const triangle = { reach: 1, weight: (d) => 1 - d };
const cubic = (a) => ({
  reach: 2,
  weight: (d) => (d < 1 ? ((a + 2) * d - (a + 3)) * d * d + 1 : ((d - 5) * d + 8) * d * a - 4 * a),
});
const FILTERS = { cv2: { bilinear: triangle, bicubic: cubic(-0.75) }, pillow: { bilinear: triangle, bicubic: cubic(-0.5) } };

/** For each place of a new axis: [first, weights] of the old axis, consecutive pixels. */
function taps(length, newLength, backend, interpolation) {
  const scale = length / newLength;
  const filter = FILTERS[backend]?.[interpolation];
  if (!filter) throw new Error(`the file asks for ${interpolation} resizing by ${backend}, which this page does not have`);
  // Pillow widens the filter where an image becomes smaller and leaves out what is beyond the ends; OpenCV does neither.
  const widening = backend === "pillow" ? Math.max(scale, 1) : 1;
  return Array.from({ length: newLength }, (_, i) => {
    const place = (i + 0.5) * scale - 0.5;
    const first = Math.ceil(place - filter.reach * widening);
    const weights = new Map();
    for (let at = first; at < place + filter.reach * widening; at++) {
      const inside = Math.min(Math.max(at, 0), length - 1);
      const distance = Math.abs(at - place) / widening;
      if (distance >= filter.reach || (backend === "pillow" && at !== inside)) continue;
      weights.set(inside, (weights.get(inside) ?? 0) + filter.weight(distance));
    }
    const sum = [...weights.values()].reduce((a, b) => a + b);
    return [weights.keys().next().value, [...weights.values()].map((weight) => weight / sum)];
  });
}

/**
 * Resize as OpenCV or Pillow does.
 * @param how a step's backend, "cv2" or "pillow", and interpolation, "bilinear" or "bicubic"
 */
export function resize({ data, width, height }, newWidth, newHeight, how = {}) {
  if (newWidth === width && newHeight === height) return { data, width, height };
  const backend = how.backend ?? "cv2";
  const interpolation = how.interpolation ?? "bilinear";
  const columns = taps(width, newWidth, backend, interpolation);
  const rows = taps(height, newHeight, backend, interpolation);
  const Between = backend === "pillow" ? Uint8ClampedArray : Float32Array; // which Pillow rounds; 13 may take rows first
  const between = new Between(newWidth * height * 4);
  for (let y = 0; y < height; y++)
    columns.forEach(([first, weights], x) => {
      for (let c = 0; c < 4; c++) {
        let sum = 0;
        for (let i = 0; i < weights.length; i++) sum += weights[i] * data[(y * width + first + i) * 4 + c];
        between[(y * newWidth + x) * 4 + c] = sum;
      }
    });
  const out = new Uint8ClampedArray(newWidth * newHeight * 4);
  const stride = newWidth * 4;
  rows.forEach(([first, weights], y) => {
    for (let at = 0; at < stride; at++) {
      let sum = 0;
      for (let i = 0; i < weights.length; i++) sum += weights[i] * between[(first + i) * stride + at];
      out[y * stride + at] = sum;
    }
  });
  return { data: out, width: newWidth, height: newHeight };
}

/** Spread each colour over 0..255, from its darkest to its brightest; in this order of operations, as mmcv truncates. */
function autoContrast({ data, width, height }) {
  const out = new Uint8ClampedArray(data);
  for (let c = 0; c < 3; c++) {
    let [low, high] = [255, 0];
    for (let i = c; i < data.length; i += 4) {
      low = Math.min(low, data[i]);
      high = Math.max(high, data[i]);
    }
    if (low >= high) continue;
    const scale = 255 / (high - low);
    const offset = -low * scale;
    for (let i = c; i < data.length; i += 4) out[i] = Math.trunc(data[i] * scale + offset);
  }
  return { data: out, width, height };
}

function crop({ data, width, height }, newWidth, newHeight) {
  newWidth = Math.min(newWidth, width);
  newHeight = Math.min(newHeight, height);
  // mmcv rounds half to even, as Python does
  const half = (length) => (length % 4 === 1 ? (length - 1) / 2 : Math.round(length / 2));
  const left = Math.max(0, half(width - newWidth));
  const top = Math.max(0, half(height - newHeight));
  const out = new Uint8ClampedArray(newWidth * newHeight * 4);
  for (let y = 0; y < newHeight; y++) {
    const start = ((top + y) * width + left) * 4;
    out.set(data.subarray(start, start + newWidth * 4), y * newWidth * 4);
  }
  return { data: out, width: newWidth, height: newHeight, left, top };
}

const pair = (value) => (Array.isArray(value) ? value : [value, value]);

/** Size of an image after a step that resizes, as mmcv and mmpretrain compute it. */
function resized(step, width, height) {
  if (step.type === "ResizeEdge") {
    const short = Math.min(width, height);
    const long = Math.max(width, height);
    const edge = { short, long, width, height }[step.edge ?? "short"];
    return [Math.trunc((width * step.scale) / edge), Math.trunc((height * step.scale) / edge)];
  }
  const times = (x, y) => [Math.trunc(width * x + 0.5), Math.trunc(height * y + 0.5)];
  const scale = step.scale ? pair(step.scale) : times(...pair(step.scale_factor));
  if (!step.keep_ratio) return scale;
  const [long, short] = [Math.max(...scale), Math.min(...scale)];
  const factor = Math.min(long / Math.max(width, height), short / Math.min(width, height));
  return times(factor, factor);
}

// Settings of each step that are followed, or do not touch the image.
const SETTINGS = {
  Resize: ["scale", "scale_factor", "keep_ratio", "backend", "interpolation", "clip_object_border"],
  ResizeEdge: ["scale", "edge", "backend", "interpolation"],
  CenterCrop: ["crop_size", "clip_object_border"],
  AutoContrast: ["prob", "level", "min_mag", "max_mag"],
};

/** Throw where a step would not be done here as the toolbox does it. */
function check({ type, ...settings }) {
  if (!Object.hasOwn(SETTINGS, type))
    throw new Error(`the file asks for the step ${type} before the model, which this page does not have`);
  const other = Object.keys(settings).find((name) => settings[name] && !SETTINGS[type].includes(name));
  if (other) throw new Error(`the file asks for the step ${type} with ${other}, which this page does not have`);
  if (type === "AutoContrast" && settings.prob !== 1)
    throw new Error("the file asks for the step AutoContrast by chance; with prob=1.0 in its config it is for every image");
}

/**
 * A photo as the model of a file takes it.
 * @param {{data: Uint8ClampedArray, width: number, height: number}} photo
 * @param {object} about what `describe` gave
 * @returns the image, with the place of its corner (left, top) and its scale (x, y), in pixels of the photo
 */
export function prepare(photo, about) {
  let image = photo;
  let place = { left: 0, top: 0, x: 1, y: 1 };
  const to = ([width, height], how) => {
    place = { ...place, x: place.x * (image.width / width), y: place.y * (image.height / height) };
    image = resize(image, width, height, how);
  };
  for (const step of about.before) {
    check(step);
    if (step.type === "AutoContrast") image = autoContrast(image);
    else if (step.type === "CenterCrop") {
      image = crop(image, ...pair(step.crop_size));
      place = { ...place, left: place.left + image.left * place.x, top: place.top + image.top * place.y };
    } else to(resized(step, image.width, image.height), step);
  }
  if (about.size) to([about.size[1], about.size[0]]);
  return { data: image.data, width: image.width, height: image.height, place }; // an ImageData does not spread
}

/** RGBA of 8 bits -> planes of red, green and blue, 0..255. */
export function planes({ data, width, height }) {
  const out = new Float32Array(3 * width * height);
  for (let i = 0; i < width * height; i++)
    for (let c = 0; c < 3; c++) out[c * width * height + i] = data[4 * i + c];
  return out;
}
