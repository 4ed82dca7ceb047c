#!/usr/bin/env bash
# Pillow gives other numbers than a grey TIFF or PNG stores, which matters where they are labels: 8 bits whose zero is white
# (PhotometricInterpretation 0, what Fiji writes for masks with an inverting look-up table) come inverted, while 16 bits do not;
# 4 bits come times 17 and 2 bits times 85. No option and no warning tells. tifffile gives what is stored.
# Seen with pillow 13.0.0, tifffile 2026.3.3, numpy 2.4.6.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 tifffile==2026.3.3 numpy==2.4.6
cat > "$folder/show.py" << 'PYTHON'
import struct

import numpy as np
import tifffile
from PIL import Image


def write(path, rows, bits, photometric, sparse=False):
    """A TIFF of 8 x 8 grey pixels, uncompressed, a strip a row."""
    data, size = b"".join(rows), len(rows[0])
    offsets, counts = [8 + i * size for i in range(8)], [size] * 8
    if sparse:
        offsets[0] = counts[0] = 0
    at = 8 + len(data)
    tags = [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, bits), (259, 3, 1, 1), (262, 3, 1, photometric), (273, 4, 8, at)]
    tags += [(277, 3, 1, 1), (278, 3, 1, 1), (279, 4, 8, at + 32)]
    file = b"II*\0" + struct.pack("<I", at + 64) + data + struct.pack("<16I", *offsets, *counts)
    file += struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + struct.pack("<I", 0)
    with open(path, "wb") as out:
        out.write(file)


labels = np.arange(64, dtype=np.uint8).reshape(8, 8) % 3
write("white8.tif", [row.tobytes() for row in labels], 8, 0)
write("white16.tif", [row.astype("<u2").tobytes() for row in labels], 16, 0)
write("grey4.tif", [(row[::2] << 4 | row[1::2]).tobytes() for row in labels], 4, 1)
print("stored in all three:", np.unique(labels).tolist())
for name in ("white8", "white16", "grey4"):
    print(f"Pillow on {name}:", np.unique(np.array(Image.open(f"{name}.tif"))).tolist())
for name in ("white8", "white16"):
    print(f"tifffile on {name}:", np.unique(tifffile.imread(f"{name}.tif")).tolist())
PYTHON
cd "$folder"
seen=$(./venv/bin/python show.py)
echo "$seen"
grep -qF "Pillow on white8: [253, 254, 255]" <<< "$seen"
grep -qF "Pillow on white16: [0, 1, 2]" <<< "$seen"
grep -qF "Pillow on grey4: [0, 17, 34]" <<< "$seen"
grep -qF "tifffile on white8: [0, 1, 2]" <<< "$seen"
