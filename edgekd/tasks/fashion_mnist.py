"""`fashion-mnist`: 28x28 grey images of ten kinds of clothing (Xiao et al. 2017, arXiv:1708.07747; MIT licence)."""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import ConfigurationError
from edgekd.records import Training
from edgekd.tasks.contract import Split, Task, Teacher

logger = logging.getLogger(__name__)

CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
DEBIAN_DIRECTORY = Path("/usr/share/datasets/fashion-mnist")
DOWNLOAD_FROM = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
VALIDATION_IMAGES = 5000

# sha256 of the files' decompressed contents: the same however they were compressed again.
CONTENT_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def load(directory: str = "", train_images: int = 12000, download_from: str = DOWNLOAD_FROM) -> Task:
    """The task: the last 5,000 training images validate, the official test images test.

    Args:
        directory: where the four IDX files are, plain or .gz. Empty: Debian's directory, then the cache,
            then a download whose hash is checked.
        train_images: how many of the other 55,000 training images to train on.
        download_from: base address of the download.

    Raises:
        ConfigurationError: files missing, damaged or with a wrong hash, or a bad number of images.
    """
    if not 10 <= train_images <= 60000 - VALIDATION_IMAGES:
        raise ConfigurationError(f"task fashion-mnist: train_images = {train_images} must be 10 to 55000")
    folder = _find(directory, download_from)
    images, labels = _idx(folder, "train-images-idx3-ubyte"), _idx(folder, "train-labels-idx1-ubyte")
    test_images, test_labels = _idx(folder, "t10k-images-idx3-ubyte"), _idx(folder, "t10k-labels-idx1-ubyte")
    mean = float(images[:train_images].mean()) / 255
    spread = float(images[:train_images].std()) / 255

    def split(pictures: NDArray[np.uint8], classes: NDArray[np.uint8]) -> Split:
        inputs = ((pictures[:, None].astype(np.float32) / 255 - mean) / spread).astype(np.float32)
        return Split(inputs, classes.astype(np.int64))

    def teacher() -> object:
        from edgekd.tasks.teachers import residual_teacher

        return residual_teacher(1, 10, (24, 48, 96), (3, 3), dropout=0.3)

    return Task(
        name="fashion-mnist",
        kind="image",
        classes=CLASSES,
        train=split(images[:train_images], labels[:train_images]),
        validation=split(images[-VALIDATION_IMAGES:], labels[-VALIDATION_IMAGES:]),
        test=split(test_images, test_labels),
        teacher=Teacher(teacher, Training(epochs=12, learning_rate=2e-3, patience=12)),  # type: ignore[arg-type]
        preprocessing="pixels / 255, standardised with the training images' mean and spread",
        distill=Training(epochs=15, learning_rate=3e-3, patience=15),
        notes=(f"{train_images} of 55000 training images; validation is the last {VALIDATION_IMAGES} of 60000",),
    )


def _find(directory: str, download_from: str) -> Path:
    if directory:
        folder = Path(directory).expanduser()
        if not folder.is_dir():
            raise ConfigurationError(f"task fashion-mnist: directory {folder} does not exist")
        return folder
    if DEBIAN_DIRECTORY.is_dir():
        return DEBIAN_DIRECTORY
    from platformdirs import user_cache_path

    cache = user_cache_path("edgekd") / "fashion-mnist"
    for name in CONTENT_SHA256:
        if not (cache / f"{name}.gz").exists():
            _download(f"{download_from}/{name}.gz", cache / f"{name}.gz", CONTENT_SHA256[name])
    return cache


def _download(address: str, target: Path, content_sha256: str) -> None:
    logger.info("downloading %s", address)
    hint = "or install Debian's dataset-fashion-mnist, or set task.options.directory"
    try:
        with urllib.request.urlopen(address, timeout=60) as response:  # noqa: S310 - a fixed http address
            packed: bytes = response.read(64 << 20)
        content = gzip.decompress(packed)
    except (urllib.error.URLError, TimeoutError, OSError, EOFError) as error:
        raise ConfigurationError(
            f"task fashion-mnist: cannot download {address}: {error}; try again, {hint}"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != content_sha256:
        raise ConfigurationError(
            f"task fashion-mnist: {address} has content of sha256 {found}, expected {content_sha256}; {hint}"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(packed)
    Path(temporary).replace(target)


def _idx(folder: Path, name: str) -> NDArray[np.uint8]:
    """An IDX file of unsigned bytes (its format: four magic bytes, then big-endian sizes, then the data)."""
    packed, plain = folder / f"{name}.gz", folder / name
    path = packed if packed.exists() else plain
    try:
        content = gzip.decompress(path.read_bytes()) if path == packed else path.read_bytes()
    except FileNotFoundError as error:
        raise ConfigurationError(f"task fashion-mnist: {plain}[.gz] does not exist") from error
    except (OSError, EOFError) as error:
        raise ConfigurationError(f"task fashion-mnist: cannot read {path}: {error}") from error
    dimensions = content[3] if len(content) > 3 else 0
    header = 4 + 4 * dimensions
    shape = tuple(int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions))
    if content[:3] != b"\x00\x00\x08" or len(content) != header + int(np.prod(shape)):
        raise ConfigurationError(f"task fashion-mnist: {path} is not a whole IDX file of bytes")
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)
