#!/usr/bin/env bash
# Pillow shows the bytes of a TIFF's own header as pixels where a strip was never written (offset and length 0: GDAL's SPARSE_OK,
# documented, and read as nodata or 0 by GDAL and tifffile). In a mask these are labels that nobody has drawn; nothing is said.
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


write("sparse.tif", [bytes([3]) * 8] * 8, 8, 1, sparse=True)
print("Pillow, first row:", np.array(Image.open("sparse.tif"))[0].tolist())
print("tifffile, first row:", tifffile.imread("sparse.tif")[0].tolist())
PYTHON
cd "$folder"
seen=$(./venv/bin/python show.py)
echo "$seen"
grep -qF "Pillow, first row: [73, 73, 42, 0," <<< "$seen"
grep -qF "tifffile, first row: [0, 0, 0, 0, 0, 0, 0, 0]" <<< "$seen"
