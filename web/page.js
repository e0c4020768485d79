// The page: a model, photos or the camera, and what the model says of them.
import * as ort from "./ort.wasm.min.mjs";
import { describe } from "./model_file.js";
import { planes, prepare } from "./preparing.js";
import { best, color, counts, found, nameOf, paintLabels, paintMask, shares } from "./results.js";

ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;

const element = (id) => document.getElementById(id);
const canvas = element("picture");
let model = null; // {session, about, name}
let photo = null; // what was painted last: an ImageBitmap
let last = Promise.resolve(); // what is done now, and what waits for it
let said = "No model yet."; // before something went wrong

function tell(text, wrong = false) {
  if (!wrong) said = text;
  element("status").textContent = text;
  element("status").classList.toggle("wrong", wrong);
}

/** Run something that may fail, after what was asked for before; what it throws is told until something goes well. */
function guarded(action) {
  last = last.then(async () => {
    try {
      await action();
      tell(said);
    } catch (error) {
      tell(`${error.message ?? error}`, true);
    }
  });
  return last;
}

async function openModel(bytes, name) {
  tell(`Opening ${name} ...`);
  const about = describe(bytes);
  const start = performance.now();
  const session = await ort.InferenceSession.create(bytes);
  await model?.session.release(); // its memory is not garbage that is collected
  model = { session, about, name };
  const classes = about.classes.length ? `, ${about.classes.length} classes` : "";
  tell(`${name}: ${about.task}${classes}. Opened in ${Math.round(performance.now() - start)} ms.`);
  if (photo) await predict(photo);
}

function pixels(image) {
  const own = new OffscreenCanvas(image.width, image.height).getContext("2d", { willReadFrequently: true });
  own.drawImage(image, 0, 0);
  return own.getImageData(0, 0, image.width, image.height);
}

async function predict(image) {
  if (image !== photo) photo?.close(); // its memory is not garbage that is collected in time, and a camera gives many
  photo = image;
  const start = performance.now();
  if (!model) {
    show(image);
    throw new Error("Choose a model first: a file that `eyetoy export` wrote.");
  }
  const input = prepare(pixels(image), model.about);
  const tensor = new ort.Tensor("float32", planes(input), [1, 3, input.height, input.width]);
  const prepared = performance.now();
  const outputs = await model.session.run({ [model.session.inputNames[0]]: tensor });
  const ran = performance.now();
  show(image);
  const rows = paint(outputs, input);
  element("legend").replaceChildren(...rows.map(row));
  const times = [prepared - start, ran - prepared, performance.now() - ran].map((ms) => ms.toFixed(0));
  element("times").textContent =
    `${image.width} x ${image.height} pixels, ${input.width} x ${input.height} for the model: ` +
    `prepared in ${times[0]} ms, model ${times[1]} ms, painted in ${times[2]} ms.`;
}

function show(image) {
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.getContext("2d").drawImage(image, 0, 0);
}

/** Paint what the model gave over the photo; returns the rows of the legend. */
function paint(outputs, input) {
  const { about } = model;
  if (outputs.boxes) return paintBoxes(outputs, input);
  if (outputs.scores)
    return best(outputs.scores, 5).map(({ label, share }) => [color(about, label), nameOf(about, label), share]);
  if (!outputs.labels) throw new Error(`this page does not show ${about.task}; it has ${Object.keys(outputs)}`);
  overlay(paintLabels(outputs.labels.data, about, 150), input);
  return shares(outputs.labels.data).map(({ label, share }) => [color(about, label), nameOf(about, label), share]);
}

/** Put an image of the size that the model saw over its place in the photo. */
function overlay(data, { width, height, place }) {
  const own = new OffscreenCanvas(width, height);
  own.getContext("2d").putImageData(new ImageData(data, width, height), 0, 0);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(own, place.left, place.top, width * place.x, height * place.y);
}

function paintBoxes(outputs, input) {
  const { about } = model;
  const context = canvas.getContext("2d");
  const objects = found(outputs, input.place, Number(element("threshold").value));
  if (outputs.masks) {
    const [, ...grid] = outputs.masks.dims;
    const area = grid[0] * grid[1];
    for (const { label, box, index } of objects) {
      const mask = outputs.masks.data.subarray(index * area, (index + 1) * area);
      const covered = paintMask(mask, grid, box, [...color(about, label), 130], canvas);
      if (covered.data.length) overlay(covered.data, covered);
    }
  }
  context.lineWidth = Math.max(2, canvas.width / 320);
  context.font = `${Math.max(12, canvas.width / 40)}px system-ui, sans-serif`;
  for (const { label, score, box } of objects) {
    context.strokeStyle = context.fillStyle = `rgb(${color(about, label)})`;
    context.strokeRect(box[0], box[1], box[2] - box[0], box[3] - box[1]);
    const name = `${nameOf(about, label)} ${score.toFixed(2)}`;
    if (context.measureText(name).width <= box[2] - box[0] + 4) // many small ones would hide each other
      context.fillText(name, box[0] + 2, Math.max(box[1] - 4, 12));
  }
  return counts(objects).map(({ label, count, score }) => {
    const name = nameOf(about, label) + (count > 1 ? `, ${count} times, up to` : "");
    return [color(about, label), name, score];
  });
}

function row([rgb, name, share]) {
  const line = document.createElement("tr");
  const swatch = document.createElement("span");
  swatch.className = "swatch";
  swatch.style.background = `rgb(${rgb})`;
  [swatch, name, `${(100 * share).toFixed(1)} %`].forEach((content) => line.insertCell().append(content));
  return line;
}

// --- Where models and photos come from ---

async function open(file) {
  if (file.name.endsWith(".onnx")) await openModel(new Uint8Array(await file.arrayBuffer()), file.name);
  else await predict(await createImageBitmap(file, { colorSpaceConversion: "none" })); // as OpenCV reads it
}

for (const id of ["model", "photo"])
  element(id).addEventListener("change", ({ target }) => target.files[0] && guarded(() => open(target.files[0])));
element("threshold").addEventListener("change", () => photo && guarded(() => predict(photo)));

const drop = element("drop");
drop.addEventListener("dragover", (event) => (event.preventDefault(), drop.classList.add("over")));
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  guarded(async () => {
    for (const file of event.dataTransfer.files) await open(file);
  });
});

let stream = null;
element("camera").addEventListener("click", async () => {
  if (stream) {
    stream.getTracks().forEach((track) => track.stop());
    stream = null;
    element("camera").textContent = "Camera";
    return;
  }
  element("camera").disabled = true; // a second camera would never be stopped
  await guarded(async () => {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    element("camera").textContent = "Stop";
  });
  element("camera").disabled = false;
  const video = document.createElement("video");
  video.muted = video.playsInline = true;
  video.srcObject = stream;
  if (stream) await video.play();
  while (stream) {
    await guarded(async () => predict(await createImageBitmap(video)));
    await new Promise(requestAnimationFrame);
  }
});

// A model that is beside the page, as `make web MODEL=...` puts it, is there from the start.
guarded(async () => {
  const beside = await fetch("model.onnx");
  if (beside.ok) await openModel(new Uint8Array(await beside.arrayBuffer()), "model.onnx");
});
