"""PNG files with a palette, which are a third as large as those of a browser."""

import base64
import struct
import zlib

from tests.browser.driving import Tab

# At most 255 colours of an image, the most frequent ones that differ; and for each pixel the number of the nearest
# one, as base64.
REDUCE = """async (png) => {
  const image = new Image();
  image.src = `data:image/png;base64,${png}`;
  await image.decode();
  const { naturalWidth: width, naturalHeight: height } = image;
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.drawImage(image, 0, 0);
  const pixels = new Uint32Array(context.getImageData(0, 0, width, height).data.buffer);
  const counts = new Map();
  pixels.forEach((pixel) => counts.set(pixel, (counts.get(pixel) ?? 0) + 1));
  const split = (pixel) => [pixel & 255, (pixel >> 8) & 255, (pixel >> 16) & 255];
  const distance = (one, other) => one.reduce((sum, value, index) => sum + (value - other[index]) ** 2, 0);
  const palette = [];
  for (const [pixel] of [...counts].sort((one, other) => other[1] - one[1])) {
    if (palette.length < 255 && palette.every((colour) => distance(colour, split(pixel)) > 30)) {
      palette.push(split(pixel));
    }
  }
  const nearest = new Map();
  for (const pixel of counts.keys()) {
    const distances = palette.map((colour) => distance(colour, split(pixel)));
    nearest.set(pixel, distances.indexOf(Math.min(...distances)));
  }
  const numbers = Uint8Array.from(pixels, (pixel) => nearest.get(pixel));
  let text = "";
  for (let at = 0; at < numbers.length; at += 8192) {
    text += String.fromCharCode(...numbers.subarray(at, at + 8192));
  }
  return { width, height, palette: palette.flat(), numbers: btoa(text) };
}"""


def with_palette(tab: Tab, png: bytes) -> bytes:
    """Return a PNG with at most 255 colours. `tab` has a page that may show images of `data:` URLs."""
    found = tab.evaluate(REDUCE, base64.b64encode(png).decode())
    width, height, numbers = found["width"], found["height"], base64.b64decode(found["numbers"])
    rows = b"".join(b"\0" + numbers[at : at + width] for at in range(0, len(numbers), width))
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),  # 8 bits, with a palette
        (b"PLTE", bytes(found["palette"])),
        (b"IDAT", zlib.compress(rows, 9)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
