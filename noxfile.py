"""The checks in environments of their own: `nox --list` names them. The workflows run the same sessions.

What a session runs in its environment is a target of the Makefile, so that the two cannot differ.
"""

import tarfile
from pathlib import Path

import nox

nox.options.default_venv_backend = "uv"
OLDEST = "3.11"
PYTHONS = [OLDEST, "3.12", "3.13", "3.14"]

USE = """
import torch, segue
scores = segue.create_model("enet", num_classes=3).eval()(torch.zeros(1, 3, 64, 64))
print(f"segue {segue.__version__} on torch {torch.__version__}: {tuple(scores.shape)}")
"""


def install_locked(session: nox.Session) -> None:
    session.install("--require-hashes", "-r", "requirements.lock")
    session.install("--no-deps", "--editable", ".")


def make(session: nox.Session, target: str) -> None:
    """The target of the Makefile, without setting up .venv."""
    session.run("make", target, "READY=", f"BIN={session.bin}", external=True)


@nox.session(python=OLDEST)
def lint(session: nox.Session) -> None:
    """Style, types and layers."""
    install_locked(session)
    make(session, "check")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The whole suite, with the versions of requirements.lock."""
    install_locked(session)
    make(session, "test")


@nox.session(python=OLDEST)
def coverage(session: nox.Session) -> None:
    """The whole suite, which must pass through enough of the code."""
    install_locked(session)
    make(session, "coverage")


@nox.session(python=OLDEST)
def lowest(session: nox.Session) -> None:
    """The whole suite, with the lowest versions that pyproject.toml allows."""
    session.install("--resolution", "lowest-direct", "--editable", ".[dev]")
    make(session, "test")


@nox.session(python=OLDEST)
def bare(session: nox.Session) -> None:
    """The whole suite without any extra: tests of what needs one are skipped."""
    session.install("--editable", ".", "hypothesis", "pytest", "pytest-randomly", "pytest-xdist")
    make(session, "test")


@nox.session(python=PYTHONS[-2])
def smoke(session: nox.Session) -> None:
    """What every system must do: install, import, answer, calculate."""
    session.install(".")
    session.run("segue", "--help")
    session.run("segue", "models")
    session.run("python", "-c", USE)


@nox.session(python=OLDEST)
def docs(session: nox.Session) -> None:
    """The pages that the code writes are those that are committed, and what pages say is so."""
    install_locked(session)
    make(session, "docs")
    session.run("git", "diff", "--exit-code", "--", "docs", external=True)
    session.run("python", "-m", "pytest", "tests/docs")


@nox.session(python=OLDEST)
def sdist(session: nox.Session) -> None:
    """The whole suite of the source distribution, as it is unpacked."""
    folder = Path(session.create_tmp())
    session.run("uv", "build", "--sdist", "--clear", "--out-dir", str(folder / "dist"), external=True)
    (archive,) = (folder / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    session.chdir(folder / archive.name.removesuffix(".tar.gz"))
    session.install("--require-hashes", "-r", "requirements.lock")
    session.install("--no-deps", ".")
    make(session, "test")
