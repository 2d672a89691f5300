// One image with its maps, decoded; what is made of it is made when it is first asked for.

class Record {
  constructor(raw, thumbnail) {
    this.thumbnail = thumbnail;
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

  // Predicted box at a threshold; only the last one is kept.
  box(map, tau) {
    const key = `${map} ${tau}`;
    if (this.boxKey !== key) {
      const grey = this.grey(map);
      this.boxKey = key;
      this.lastBox = largestBox(grey, cutLevel(grey, tau));
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
  return new Record(raw, thumbnail);
}
