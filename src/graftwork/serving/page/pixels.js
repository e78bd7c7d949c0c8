"use strict";
// Draws predictions that have one number per pixel.

const PALETTE = [
  [78, 121, 167], [242, 142, 43], [225, 87, 89], [118, 183, 178], [89, 161, 79], [237, 201, 72], [176, 122, 161], [255, 157, 167],
  [156, 117, 95], [186, 176, 172],
];

function paletteColour(index) {
  const [r, g, b] = PALETTE[index % PALETTE.length];
  const dim = 1 - 0.25 * (Math.floor(index / PALETTE.length) % 3);
  return [r * dim, g * dim, b * dim];
}

// From dark violet over teal to light yellow: ordered in lightness, so that it also reads in grey.
function ramp(share) {
  const stops = [[48, 18, 84], [40, 96, 138], [46, 160, 130], [150, 208, 90], [250, 232, 120]];
  const place = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const low = Math.min(Math.floor(place), stops.length - 2);
  return stops[low].map((value, channel) => value + (place - low) * (stops[low + 1][channel] - value));
}

function drawMap(rows, colour, label) {
  const height = rows.length, width = rows[0].length;
  const canvas = make("canvas", { width, height, className: "pixels", role: "img", ariaLabel: label });
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  rows.forEach((row, y) => row.forEach((value, x) => {
    const place = 4 * (y * width + x);
    const [r, g, b] = value === null ? [128, 128, 128] : colour(value);
    image.data.set([r, g, b, 255], place);
  }));
  context.putImageData(image, 0, 0);
  return canvas;
}

const tidy = (number) => number === null ? "none" : Number(number.toPrecision(4)).toLocaleString("en", { maximumFractionDigits: 6 });

function drawNumbers(rows, label, low, high) {
  let least = Infinity, most = -Infinity;
  for (const row of rows) for (const value of row) if (value !== null) { least = Math.min(least, value); most = Math.max(most, value); }
  const from = low === undefined ? least : low, to = high === undefined ? most : high;
  const canvas = drawMap(rows, (value) => ramp((value - from) / (to - from || 1)), `${label}: from ${tidy(least)} to ${tidy(most)}`);
  const scale = make("p", { className: "scale" }, make("span", {}, tidy(from)), make("i"), make("span", {}, tidy(to)));
  return make("div", {}, canvas, scale);
}

function drawPrediction(task, prediction) {
  if (prediction.classes) {
    const present = new Set(prediction.map.flat());
    const legend = [...present].sort((a, b) => a - b).map((index) => {
      const swatch = make("i");
      swatch.style.background = `rgb(${paletteColour(index).join(",")})`;
      return make("li", {}, swatch, prediction.classes[index]);
    });
    return make("div", {}, drawMap(prediction.map, paletteColour, `${task.name} by pixel`), make("ul", { className: "legend" }, ...legend));
  }
  if (prediction.map) return drawNumbers(prediction.map, task.name, ...(task.kind === "binary" ? [0, 1] : []));
  if (task.kind === "normals") {
    const [right, up, near] = prediction.maps;
    const mixed = right.map((row, y) => row.map((_, x) => [right[y][x], up[y][x], near[y][x]]));
    return drawMap(mixed, (vector) => vector.map((part) => 127.5 * (1 + (part || 0))), `${task.name}: directions as colours`);
  }
  return make("div", { className: "maps" }, ...prediction.maps.map((rows, index) => drawNumbers(rows, `${task.name} ${index}`)));
}
