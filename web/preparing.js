// What the test pipeline of a config does to a photo before the model sees it. Images are {data, width, height}: RGBA.

/** Resize with linear interpolation, as OpenCV does by default. */
export function resize({ data, width, height }, newWidth, newHeight) {
  if (newWidth === width && newHeight === height) return { data, width, height };
  const out = new Uint8ClampedArray(newWidth * newHeight * 4);
  const places = (length, newLength) =>
    Array.from({ length: newLength }, (_, i) => {
      const place = Math.min(Math.max(((i + 0.5) * length) / newLength - 0.5, 0), length - 1);
      const low = Math.floor(place);
      return [low, Math.min(low + 1, length - 1), place - low];
    });
  const columns = places(width, newWidth);
  places(height, newHeight).forEach(([top, bottom, down], y) => {
    columns.forEach(([left, right, across], x) => {
      for (let c = 0; c < 4; c++) {
        const at = (row, column) => data[(row * width + column) * 4 + c];
        const upper = at(top, left) * (1 - across) + at(top, right) * across;
        const lower = at(bottom, left) * (1 - across) + at(bottom, right) * across;
        out[(y * newWidth + x) * 4 + c] = upper * (1 - down) + lower * down;
      }
    });
  });
  return { data: out, width: newWidth, height: newHeight };
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

/** Size of an image after a step that resizes, as mmcv and mmpretrain compute it; null for other steps. */
export function resized(step, width, height) {
  if (step.type === "ResizeEdge") {
    const short = Math.min(width, height);
    const long = Math.max(width, height);
    const edge = { short, long, width, height }[step.edge ?? "short"];
    return [Math.trunc((width * step.scale) / edge), Math.trunc((height * step.scale) / edge)];
  }
  if (step.type !== "Resize") return null;
  if (!step.scale) {
    const factors = pair(step.scale_factor);
    return [Math.round(width * factors[0]), Math.round(height * factors[1])];
  }
  if (!step.keep_ratio) return pair(step.scale);
  const [a, b] = pair(step.scale);
  const factor = Math.min(Math.max(a, b) / Math.max(width, height), Math.min(a, b) / Math.min(width, height));
  return [Math.trunc(width * factor + 0.5), Math.trunc(height * factor + 0.5)];
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
  const to = (width, height) => {
    place = { ...place, x: place.x * (image.width / width), y: place.y * (image.height / height) };
    image = resize(image, width, height);
  };
  for (const step of about.before) {
    const size = resized(step, image.width, image.height);
    if (size) to(...size);
    else if (step.type === "CenterCrop") {
      const [width, height] = pair(step.crop_size);
      image = crop(image, width, height);
      place = { ...place, left: place.left + image.left * place.x, top: place.top + image.top * place.y };
    } else throw new Error(`the file asks for the step ${step.type} before the model, which this page does not have`);
  }
  if (about.size) to(about.size[1], about.size[0]);
  return { data: image.data, width: image.width, height: image.height, place }; // an ImageData does not spread
}

/** RGBA of 8 bits -> planes of red, green and blue, 0..255. */
export function planes({ data, width, height }) {
  const out = new Float32Array(3 * width * height);
  for (let i = 0; i < width * height; i++)
    for (let c = 0; c < 3; c++) out[c * width * height + i] = data[4 * i + c];
  return out;
}
