#!/usr/bin/env bash
# nibabel saves an array of floats under a header whose type is integer with a slope of its own, so that whole numbers do not come
# back whole: labels 0, 1, 2, 4 under uint8 are read as 0, 1.0039, 1.9922, 4, and a cast to integers makes 1 of 2. It is how labels
# are saved that went through get_fdata() with the old header; nothing is said.
# Seen with nibabel 5.4.2, numpy 2.4.6.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check nibabel==5.4.2 numpy==2.4.6
cat > "$folder/show.py" << 'PYTHON'
import nibabel
import numpy as np

labels = np.array([0, 1, 2, 4], np.uint8).reshape(2, 2, 1)
nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), "labels.nii")
image = nibabel.load("labels.nii")
nibabel.save(nibabel.Nifti1Image(image.get_fdata(), image.affine, image.header), "again.nii")
again = nibabel.load("again.nii")
print("slope:", round(float(again.dataobj.slope), 5))
print("read again:", again.get_fdata().reshape(-1).round(4).tolist())
print("cast to integers:", again.get_fdata().reshape(-1).astype(int).tolist())
PYTHON
cd "$folder"
seen=$(./venv/bin/python show.py)
echo "$seen"
grep -qF "read again: [0.0, 1.0039, 1.9922, 4.0]" <<< "$seen"
grep -qF "cast to integers: [0, 1, 1, 4]" <<< "$seen"
