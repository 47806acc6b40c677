"""Builds the wheel (PEP 517): the package, and libgrug inside it.

The library is the file that GRUG_LIBRARY names, or else a build of the repository this folder lies in.
"""

import base64
import hashlib
import os
import platform
import re
import subprocess
import sysconfig
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
NAMES = {"Darwin": "libgrug.dylib", "Windows": "grug.dll"}


def _library() -> Path:
    given = os.environ.get("GRUG_LIBRARY")
    if given:
        return Path(given)
    root = HERE.parent.parent
    subprocess.run(["cargo", "build", "--profile", "dist", "--lib", "--no-default-features"], cwd=root, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    return target / "dist" / NAMES.get(platform.system(), "libgrug.so")


def _project(field: str) -> str:
    text = (HERE / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(rf'^{field} = "(.*)"$', text, re.MULTILINE)
    assert found, field
    return found.group(1)


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    version = _project("version")
    tag = "py3-none-" + re.sub(r"[-.]", "_", sysconfig.get_platform())
    info = f"grug-{version}.dist-info"
    files = {f"grug/{path.name}": path.read_bytes() for path in sorted((HERE / "grug").glob("*.py*"))}
    files["grug/py.typed"] = b""
    library = _library()
    files[f"grug/{NAMES.get(platform.system(), 'libgrug.so')}"] = library.read_bytes()
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    metadata = (
        f"Metadata-Version: 2.1\nName: grug\nVersion: {version}\nSummary: {_project('description')}\n"
        f"License: MIT\nRequires-Python: {_project('requires-python')}\n"
        f"Description-Content-Type: text/markdown\n\n{readme}"
    )
    files[f"{info}/METADATA"] = metadata.encode()
    wheel = f"Wheel-Version: 1.0\nGenerator: grug\nRoot-Is-Purelib: false\nTag: {tag}\n"
    files[f"{info}/WHEEL"] = wheel.encode()
    record = []
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record.append(f"{name},sha256={digest},{len(data)}")
    record.append(f"{info}/RECORD,,")
    files[f"{info}/RECORD"] = ("\n".join(record) + "\n").encode()

    name = f"grug-{version}-{tag}.whl"
    with zipfile.ZipFile(Path(wheel_directory) / name, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            archive.writestr(zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return name


def build_sdist(sdist_directory, config_settings=None):
    raise NotImplementedError("build from the repository: the library is not part of this folder")
