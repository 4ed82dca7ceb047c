"""Plant faults in segue, one at a time, and show whether the tests catch each: python tests/tools/planted_faults.py

It works on a copy of the tree, in a folder for temporary files. A fault's own tests are run first, and all tests if these pass.
Faults are found by what they change, and tests by their names, so that both may move between files. Exit status: 1 if a fault is
caught by no test, if what it changes is not there exactly once, or if its tests fail without it.
"""

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, STDOUT, CompletedProcess, run
from typing import NamedTuple

# Of each fault: its name, and the tests that are to catch it, by their names or by a part of their file's name, both without
# "test_"; then what stands in one place in src, behind "-", and what is planted there, behind "+", as in a patch. A fault that is
# there twice has two forms, of which one is tried: the older source has the first, and the newer one the other.
TABLE = r"""
dilation-enet: the_table_in_the_docs_is_what_is_found
-dilated(32, 8), asymmetric(32), dilated(32, 16)]
+dilated(32, 8), asymmetric(32), dilated(32, 8)]
skip-of-wrong-stage-dfn: each_border_goes_on_from_all_before_it
-post(stages[-1] + resize(x,
+post(first + resize(x,
align-corners-flipped: scores_are_doubled_as_by_a_fixed_transposed_convolution
-mode="bilinear", align_corners=aligned)
+mode="bilinear", align_corners=not aligned)
align-corners-lost-bisenet: contexts_corners_stay_on_corners
-resize(context, c4.shape[-2:], aligned=True)
+resize(context, c4.shape[-2:])
unpooled-without-places: enet_unpools_where_the_encoder_found_the_maxima
-max_unpool(self.main(x), indices, branch.shape[-2:])
+F.interpolate(self.main(x), branch.shape[-2:])
places-by-columns: exported_unpooling_equals_torchs_also_where_maxima_tie
-== 2 * rows[:, None] + columns
+== rows[:, None] + 2 * columns
batch-norm-eps-enet: every_norm_has_the_authors_eps
-nn.BatchNorm2d(channels, eps=1e-3)
+nn.BatchNorm2d(channels)
folded-with-wrong-eps: folded_it_gives_the_same_scores
-torch.rsqrt(variance.double() + eps)
+torch.rsqrt(variance.double() + 1e-5)
void-counts-in-mean-loss: a_mean_does_not_change_when_the_batch_is_doubled_or_ignored_pixels_are_added
-divisor = counted.sum()
+divisor = torch.tensor(counted.numel())
void-in-border-loss: sigmoid_focal_is_its_formula_and_draws_towards_the_truth
-return focal.where(counted, 0).sum() / counted
+return focal.sum() / counted
mean-for-sum-loss: it_is_the_plain_formula
-    if reduction == "sum":
-        return total
+    if reduction == "sum":
+        return total / target.numel()
border-weights-sigma: weights_are_those_of_the_plain_definition
-np.exp(-(sums**2) / (2 * sigma**2))
+np.exp(-(sums**2) / sigma**2)
class-weights-without-void: enet_weights_are_those_of_the_paper
-share = counts.pixels[:-1] / max(1, counts.pixels.sum())
+share = counts.pixels[:-1] / max(1, counts.pixels[:-1].sum())
poly-power: schedules_begin_and_end_where_they_should
-max(0.0, 1 - progress) ** 0.9
+max(0.0, 1 - progress) ** 2
resume-skips-an-epoch: resumed_it_ends_with_the_same_weights
-weights_only=True)["epoch"]) + 1
+weights_only=True)["epoch"]) + 2
void-is-class-0: counts_are_those_of_the_plain_definition
-row[IGNORE] = (classes + 1) ** 2
+row[IGNORE] = 0
precision-for-recall: scores_are_the_formulas_of_the_paper
-divide(self.counts.diagonal(), self.counts.sum(axis=1))
+divide(self.counts.diagonal(), self.counts.sum(axis=0))
train-ids-swapped: mask_ids_become_classes
-    (27, "truck", 14, "vehicle"),
-    (28, "bus", 15, "vehicle"),
+    (27, "truck", 15, "vehicle"),
+    (28, "bus", 14, "vehicle"),
iiou-weight-inverted: an_instance_weighs_as_much_as_an_average_one
-weight = AVERAGE_SIZE[name] / size
+weight = size / AVERAGE_SIZE[name]
confidence-bins-off-by-one: the_edges_belong_to_the_bin_below_and_both_ends_are_counted
-np.ceil(certain * BINS) - 1
+np.floor(certain * BINS)
bootstrap-unpaired: identical_predictions_differ_by_nothing
-[shares(weights @ right, weights @ union) for
+[shares((w := draws(random, len(weights), len(images))) @ right, w @ union) for
tiling-rounds-down: within_reach_tiles_give_the_result_of_the_whole
-count = 1 if side == length else -(-(length - shared) // (side - shared))
+count = 1 if side == length else (length - shared) // (side - shared)
upsampled-half-a-pixel-off: labels_are_those_of_torch
-ratio * (places + 0.5).astype(np.float32) - np.float32(0.5)
+ratio * places.astype(np.float32)
cache-marked-before-written: samples_are_marked_when_they_are_whole
-        if pack(sample, place):
-            memory[index] = 1
+        memory[index] = 1
+        memory[index] = pack(sample, place)
pipeline-out-of-order: results_keep_their_order_and_few_are_made_ahead
-        for item in items:
-            under_way.append(pool.submit(function, item))
+        for item in items:
+            under_way.append(pool.submit(function, item))
+            under_way.rotate(-next((i for i, future in enumerate(under_way) if future.done()), 0))
order-of-every-epoch-alike: order_follows_from_seed_and_epoch
-np.random.default_rng([self.seed, self.epoch])
+np.random.default_rng([self.seed])
draws-of-every-epoch-alike: draws_follow_from_seed_epoch_and_index
-with seeded(self.seed, epoch, index):
+with seeded(self.seed, index):
gather-drops-a-share: two_processes_of_torchrun_score_as_one
-for value in received or [] if value is not None
+for value in (received or [])[: self.count - 1] if value is not None
evaluation-drops-the-rest: evaluation_covers_each_sample_once
-self.indices = range(process, len(samples), processes)
+self.indices = range(process, len(samples) // processes * processes, processes)
void-lost-in-augmentation: padding_is_ignored
-"mask": (cv2.INTER_NEAREST, IGNORE),
+"mask": (cv2.INTER_NEAREST, 0),
mask-is-not-flipped: image_and_mask_stay_aligned flip_mirrors_exactly_half_of_the_time
-    if mirror:
-        part = cv2.flip
+    if mirror and interpolation == cv2.INTER_LINEAR:
+        part = cv2.flip
grey-of-bgr: saturation_keeps_the_brightness
-grey = np.array([0.299, 0.587, 0.114])
+grey = np.array([0.114, 0.587, 0.299])
channels-bgr: pngs_of_16_bits
-array = array[..., [2, 1, 0, *range(3, array.shape[2])]]
+array = array[..., [0, 1, 2, *range(3, array.shape[2])]]
paeth-of-left: every_filter_is_undone
-r_before, g_before, b_before = r_above, g_above, b_above
+r_before, g_before, b_before = r, g, b
rename-lost: a_file_is_there_when_it_is_whole
-        part.write_bytes(data)
-        part.replace(path)
+        path.write_bytes(data)
rename-lost: a_file_is_there_when_it_is_whole
-        yield new
-        if new.exists():
-            new.replace(path)
+        yield path
tie-points-lost: georeference_is_kept_and_pixels_without_data_are_void
-GEOREFERENCE = (33550, 33922, 34264,
+GEOREFERENCE = (33550, 34264,
first-frame-dropped: each_frame_is_tinted_with_its_own_labels_at_the_same_rate_and_size
-islice(chain([first], shots), frames or None)
+islice(shots, frames or None)
crf-kernel-sign: it_is_near_the_sum_over_all_pairs mean_field_is_the_plain_one
-unary + smoothness(q) + appearance(q)
+unary + smoothness(q) - appearance(q)
crf-normalised-on-one-side: the_smoothness_kernel_is_exact
-self.norm * self.sum(self.norm * q)
+self.norm**2 * self.sum(q)
palette-off-by-one: the_palette_is_vocs
-((index + 1) >> (3 * bit + channel) & 1)
+(index >> (3 * bit + channel) & 1)
labels-off-by-one-nyuv2: nyuv2
-{i: i - 1 for i in range(1, 41)}
+{i: i % 40 for i in range(1, 41)}
depth-scale-nyuv2: nyuv2
-millimetres.astype(np.float32) / np.float32(1000)
+millimetres.astype(np.float32) / np.float32(10_000)
depth-not-rotated-sunrgbd: sunrgbd
-((stored >> 3) | (stored << 13)).astype
+(stored >> 3).astype
path-check-lost: leads_outside
-return path.startswith(("/", "\\")) or
+return
mean-and-std-swapped: normalisation_is_value_over_255_less_mean_over_std
-1 / (255 * np.array(std)), -np.array(mean) / np.array(std)
+1 / (255 * np.array(mean)), -np.array(std) / np.array(mean)
mirrored-view-stays-mirrored: mirrored_images_of_odd_width_come_back_in_place
-scores.columns[::-1]) if mirrored
+scores.columns) if mirrored
dropout-stays-on: monte_carlo_dropout_is_sure_where_dropout_changes_nothing
-                dropout.eval()
+                dropout.train()
quantization-threshold: eight_bits_may_cost_half_a_point
-DROP = 0.005
+DROP = 0.5
onnx-output-dtype: the_file_says_what_the_checkpoint_says
-axis=1, keepdims=0), to=onnx.TensorProto.UINT8)
+axis=1, keepdims=0), to=onnx.TensorProto.INT64)
"""


class Fault(NamedTuple):
    name: str
    hints: tuple[str, ...]
    old: str
    new: str


class Outcome(NamedTuple):
    fault: str
    file: str
    caught: bool
    by: str
    """The first test that failed, or why there is none."""
    seconds: float


def read_table(table: str) -> Iterator[Fault]:
    for name, hints, lines in re.findall(r"^([\w-]+): (.+)\n((?:[-+].*\n)+)", table, re.MULTILINE):
        old, new = ("\n".join(line[1:] for line in lines.split("\n") if line.startswith(sign)) for sign in "-+")
        yield Fault(name, tuple(hints.split()), old, new)


class Copy:
    """The files of a tree that git knows or would add, as they are now, in another folder, and pytest there."""

    def __init__(self, root: Path, folder: Path, python: str) -> None:
        self.root, self.python = folder.resolve() / "tree", python
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = run(command, cwd=root, stdout=PIPE, check=True, text=True).stdout
        for name in filter(None, listed.split("\0")):
            if (root / name).is_file():  # and was not just removed
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, self.root / name)
        # What numba compiles is kept between faults. It goes by a file's path, size and time, so a planted file is compiled anew;
        # segue's compiled loops use no code of other files.
        self.environment = {**os.environ, "PYTHONPATH": f"{self.root / 'src'}", "NUMBA_CACHE_DIR": f"{folder / 'numba'}"}
        self.environment |= {"OMP_NUM_THREADS": "1"}
        self.options = ["-x", "-rfE", "--tb=no", "-p", "no:cacheprovider", "-p", "no:randomly"]
        for plugin, option in (("xdist", "-n0"), ("hypothesis", "--hypothesis-seed=0")):
            self.options += [option] if self.call("-c", f"import {plugin}").returncode == 0 else []
        imported = self.call("-c", "import segue; print(segue.__file__)").stdout.strip()
        if not Path(imported).is_relative_to(self.root / "src"):
            sys.exit(f"{python} imports segue from {imported}, not from {self.root / 'src'}")
        self.sources = {path: path.read_text("utf-8") for path in sorted((self.root / "src" / "segue").rglob("*.py"))}
        self.tests = {path: path.read_text("utf-8") for path in sorted((self.root / "tests").rglob("test_*.py"))}

    def call(self, *arguments: str) -> CompletedProcess[str]:
        return run([self.python, *arguments], cwd=self.root, env=self.environment, text=True, stdout=PIPE, stderr=STDOUT)

    def places(self, fault: Fault) -> list[Path]:
        return [path for path, text in self.sources.items() for _ in range(text.count(fault.old))]

    @contextmanager
    def planted(self, path: Path, fault: Fault) -> Iterator[None]:
        times = path.stat()
        path.write_text(self.sources[path].replace(fault.old, fault.new), "utf-8")
        try:
            yield
        finally:
            path.write_text(self.sources[path], "utf-8")
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    def select(self, *hints: str) -> list[str]:
        """What pytest is told to run the tests that hints name, and the files; nothing if there are none."""
        files = [
            f"{path.relative_to(self.root)}"
            for path, text in self.tests.items()
            if any(f"def test_{hint}" in text or hint in path.stem for hint in hints)
        ]
        return [*files, "-k", " or ".join(hints)] if files else []

    def failing(self, arguments: list[str]) -> str:
        """The first test that fails; empty if all pass. RuntimeError if pytest cannot tell, as without an import."""
        done = self.call("-m", "pytest", *self.options, *arguments)
        found = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
        if done.returncode > 1 or (done.returncode == 1 and not found):
            raise RuntimeError(f"pytest ended with {done.returncode}: {done.stdout[-500:]}")
        return found[1] if done.returncode and found else ""


def try_fault(copy: Copy, fault: Fault, hints_only: bool) -> Outcome:
    start, path, hinted, caught = time.monotonic(), copy.places(fault)[0], copy.select(*fault.hints), False
    try:
        with copy.planted(path, fault):
            by = copy.failing(hinted) if hinted else ""
            further = not by and not hints_only
            by = copy.failing([]) if further else by
        caught = bool(by)
        if further and by and copy.failing([by]):
            caught, by = False, f"{by}, which fails without the fault too"
    except RuntimeError as error:
        by = f"{error}"
    file, seconds = path.relative_to(copy.root / "src" / "segue").as_posix(), round(time.monotonic() - start, 1)
    return Outcome(fault.name, file, caught, by or "no test", seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[], help="these faults alone")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[2], help="the tree that is copied")
    parser.add_argument("--python", default="", help="by default that of the tree's .venv, or else this one")
    parser.add_argument("--out", type=Path, help="write the outcomes as JSON")
    parser.add_argument("--check", action="store_true", help="only see that the faults' own tests pass without them")
    parser.add_argument("--hints-only", action="store_true", help="run a fault's own tests alone, not all if these pass")
    options = parser.parse_args()
    root, faults = options.root.resolve(), [*read_table(TABLE)]
    if unknown := set(options.only) - {fault.name for fault in faults}:
        sys.exit(f"there is no fault {', '.join(sorted(unknown))}")
    faults = [fault for fault in faults if not options.only or fault.name in options.only]
    own = root / ".venv" / "bin" / "python"
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="segue-faults-") as folder:
        copy = Copy(root, Path(folder), options.python or f"{own if own.exists() else sys.executable}")
        for name in dict.fromkeys(fault.name for fault in faults):
            found = [len(copy.places(fault)) for fault in faults if fault.name == name]
            if sum(found) != 1:
                sys.exit(f"{name}: what it changes must be there once, and is there {sum(found)} times")
        faults = [fault for fault in faults if copy.places(fault)]
        for fault in faults:
            if not copy.select(*fault.hints):
                print(f"{fault.name}: no test is called {' or '.join(fault.hints)}")
        start = time.monotonic()
        if failed := copy.failing(copy.select(*(hint for fault in faults for hint in fault.hints))):
            sys.exit(f"{failed} fails without any fault")
        print(f"without a fault the tests pass ({time.monotonic() - start:.0f} s)", flush=True)
        for fault in [] if options.check else faults:
            outcomes.append(outcome := try_fault(copy, fault, options.hints_only))
            verdict = "caught by" if outcome.caught else "NOT caught:"
            print(f"{fault.name:32} {outcome.file:28} {outcome.seconds:5.1f} s  {verdict} {outcome.by}", flush=True)
            if options.out:
                options.out.write_text(json.dumps([outcome._asdict() for outcome in outcomes], indent=1) + "\n")
    caught, seconds = sum(outcome.caught for outcome in outcomes), sum(outcome.seconds for outcome in outcomes)
    print(f"{caught} of {len(outcomes)} faults are caught, in {seconds:.0f} s")
    sys.exit(int(caught < len(outcomes)))


if __name__ == "__main__":
    main()
