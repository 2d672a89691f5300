// One image with its maps, decoded; what is made of it is made when it is first asked for.

class Record {
  constructor(raw, thumbnail, size) {
    this.thumbnail = thumbnail;
    this.size = size; // width and height of the image itself
    this.trueBoxes = raw.trueBoxes;
    [this.height, this.width] = raw.size;
    this.maps = decodeFloats(raw.maps);
    this.cams = Float32Array.from(decodeBytes(raw.cams), (value) => value / 255);
    this.made = new Map();
  }

  // 8-bit image of "cam-a", "cam-b" or a map's map.
  grey(name) {
    return this.once(`grey ${name}`, () => {
      const cam = ["cam-a", "cam-b"].indexOf(name);
      const area = this.height * this.width, start = (cam >= 0 ? cam : overview.maps.indexOf(name)) * area;
      const map = (cam >= 0 ? this.cams : this.maps).subarray(start, start + area);
      return greyLevels(map, this.height, this.width);
    });
  }

  heat(name) {
    return this.once(`heat ${name}`, () => paintPixels(this.grey(name), heatColours));
  }

  // Predicted box at a threshold, in pixels of the image; only the last one is kept.
  box(map, tau) {
    const key = `${map} ${tau}`;
    if (this.boxKey !== key) {
      const grey = this.grey(map);
      this.boxKey = key;
      this.lastBox = scaleBox(largestBox(grey, cutLevel(grey, tau)), this.size);
    }
    return this.lastBox;
  }

  once(key, make) {
    if (!this.made.has(key)) this.made.set(key, make());
    return this.made.get(key);
  }
}

async function openRecord(number) {
  const shard = await part(String(Math.floor(number / overview.shard)).padStart(4, "0"));
  const raw = shard[number % overview.shard];
  const thumbnail = new Image();
  thumbnail.src = `data:image/jpeg;base64,${raw.thumbnail}`;
  await thumbnail.decode();
  return new Record(raw, thumbnail, index.sizes[number]);
}

// The file that the image was read from, which lies where it lay when the page was made, or nowhere.
async function openOriginal(number) {
  const [width, height] = index.sizes[number];
  const path = `${overview.originals}/${index.ids[number]}`;
  const original = new Image();
  original.src = path.split("/").map(encodeURIComponent).join("/");
  await original.decode().catch(() => {
    throw new Error(`${path} cannot be shown: it is not there, seen from this page, or the browser cannot read it.`);
  });
  if (original.naturalWidth !== width || original.naturalHeight !== height)
    throw new Error(
      `${path} is ${original.naturalWidth} × ${original.naturalHeight} pixels here, and the run read it as ` +
      `${width} × ${height}: boxes would not fit.`);
  return original;
}
