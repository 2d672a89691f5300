// Named pieces of the data: inside the page, or files beside it that are loaded when they are looked at.

const overview = iirParts.get("overview");
iirParts.delete("overview");

const KEPT_PARTS = 64; // of those that can be loaded again; some 30 MB
const loading = new Map();

function part(name) {
  if (iirParts.has(name)) {
    const value = iirParts.get(name);
    // A Map keeps the order of insertion: what was used last goes to the end.
    iirParts.delete(name);
    iirParts.set(name, value);
    return Promise.resolve(value);
  }
  if (!loading.has(name)) loading.set(name, load(name));
  return loading.get(name);
}

// A page from file:// may not fetch, but it may run a script, which hands its data to iirPart.
function load(name) {
  const file = `${overview.folder}/${name}.js`;
  const script = document.createElement("script");
  script.src = `${encodeURIComponent(overview.folder)}/${name}.js`;
  return new Promise((resolve, reject) => {
    script.onload = () => resolve(iirParts.get(name));
    script.onerror = () => reject(new Error(`${file} cannot be read; the report needs its folder beside it.`));
    document.head.append(script);
  }).finally(() => {
    script.remove();
    loading.delete(name);
    for (const oldest of iirParts.keys()) {
      if (iirParts.size <= KEPT_PARTS) break;
      iirParts.delete(oldest);
    }
  });
}

function decodeBytes(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; ++i) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

function decodeFloats(text) {
  const bytes = new DataView(decodeBytes(text).buffer);
  return Float32Array.from({ length: bytes.byteLength / 4 }, (_, i) => bytes.getFloat32(4 * i, true));
}
