// What `eyetoy export` keeps in an ONNX file beside the graph: onnxruntime-web does not give it, so it is read here.

const METADATA_PROPS = 14; // of onnx.proto's ModelProto; each is a key (1) and a value (2)

/** The fields of a protobuf message, [number, content]; content is bytes where the field has a length, else null. */
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      if (at >= bytes.length) throw new Error("the file is cut short");
      const byte = bytes[at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const kind = tag % 8;
    let content = null;
    if (kind === 0) varint();
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else if (kind === 2) {
      const length = varint();
      content = bytes.subarray(at, at + length);
      at += length;
    } else throw new Error("this is not an ONNX file");
    if (at > bytes.length) throw new Error("the file is cut short");
    yield [Math.floor(tag / 8), content];
  }
}

/**
 * What an exported file says of itself.
 * @param {Uint8Array} bytes the file
 * @returns {{task: string, classes: string[], palette: number[][]?, before: object[], size: number[]?}}
 */
export function describe(bytes) {
  const text = new TextDecoder();
  const found = {};
  for (const [number, content] of fields(bytes)) {
    if (number !== METADATA_PROPS || content === null) continue;
    const entry = Object.fromEntries(fields(content));
    found[text.decode(entry[1])] = text.decode(entry[2]);
  }
  const task = found["eyetoy.task"];
  if (!task) throw new Error("the file was not made by `eyetoy export`: it does not say what it does");
  const json = (key) => (found[`eyetoy.${key}`] ? JSON.parse(found[`eyetoy.${key}`]) : null);
  const size = found["eyetoy.size"];
  return {
    task,
    classes: json("classes") ?? [],
    palette: json("palette"),
    before: json("before") ?? [],
    size: size && size !== "any" ? JSON.parse(size) : null,
  };
}
