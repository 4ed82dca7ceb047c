#!/usr/bin/env bash
# torch.onnx.export (dynamo) writes the exporting machine's folders into the file it makes: each node carries a stack trace
# (metadata "pkg.torch.onnx.stack_trace") with the absolute paths of the source files, user name and all, and these texts can be
# more than half of a small model. Whoever ships such a file ships that too; onnx.checker and onnxruntime say nothing of it.
# Seen with torch 2.15.0, onnx 1.23.2, onnxscript 0.7.2.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 onnx==1.23.2 onnxscript==0.7.2 numpy==2.4.6
cat > "$folder/private_place.py" << 'PYTHON'
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*[nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()) for _ in range(8)])

    def forward(self, x):
        return self.layers(x)


program = torch.onnx.export(Net().eval(), (torch.zeros(1, 4, 16, 16),), dynamo=True, verbose=False)
program.save("net.onnx", external_data=False)

import onnx

model = onnx.load("net.onnx")
with_paths = sum("private_place.py" in p.value for node in model.graph.node for p in node.metadata_props)
before = model.ByteSize()
for node in model.graph.node:
    del node.metadata_props[:]
for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
    del value.metadata_props[:]
after = model.ByteSize()
print(f"nodes whose stack trace names the source file: {with_paths} of {len(model.graph.node)}")
print(f"bytes: {before}, and {after} without these texts")
PYTHON
cd "$folder"
seen=$(./venv/bin/python private_place.py 2> /dev/null)
echo "$seen"
grep -q "names the source file: 16 of 16" <<< "$seen"
