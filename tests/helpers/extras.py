"""What a test needs and a machine may lack: there, or a skip that tells what brings it."""

import importlib
import os
from pathlib import Path
from typing import Any

import pytest

EXTRAS = {"nibabel": "medical", "matplotlib": "bench"} | dict.fromkeys(
    ("nncf", "onnx", "onnxruntime", "onnxscript", "openvino"), "export"
)


def needed(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        way = f"'segue[{EXTRAS[package]}]'" if package in EXTRAS else package
        pytest.skip(f"needs {package}: pip install {way}", allow_module_level=True)


def real_data(name: str) -> Path:
    """The folder of a data set that is not drawn."""
    folder = Path(os.environ.get("SEGUE_DATA", ""), name)
    if "SEGUE_DATA" not in os.environ or not folder.is_dir():
        pytest.skip(f"needs the data set {name}: set SEGUE_DATA to the folder that has it as {name}/")
    return folder
