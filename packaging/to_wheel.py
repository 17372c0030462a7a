"""packaging/to_wheel.py BINARY FOLDER: a wheel that holds the binary, so that `pip install` puts it on
the PATH. Prints the wheel's path. Its tag says which glibc the binary asks for; see PEP 600."""

import os
import platform
import re
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path

from wheel.wheelfile import WheelFile

ROOT = Path(__file__).resolve().parent.parent


def glibc(binary):
    """The newest version of glibc of which the binary uses a symbol."""
    symbols = subprocess.run(["objdump", "-T", binary], check=True, capture_output=True, text=True)
    versions = re.findall(r"GLIBC_(\d+)\.(\d+)", symbols.stdout)
    return max((int(major), int(minor)) for major, minor in versions)


def main(binary, folder):
    package = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]
    version = package["version"]
    tag = "py3-none-manylinux_{}_{}_{}".format(*glibc(binary), platform.machine())
    info = f"tidemill-{version}.dist-info"
    metadata = [
        "Metadata-Version: 2.4",
        "Name: tidemill",
        f"Version: {version}",
        f"Summary: {package['description']}",
        f"License-Expression: {package['license']}",
        "License-File: LICENSE",
        "Requires-Python: >=3.8",
        "Description-Content-Type: text/markdown",
        "",
        (ROOT / "README.md").read_text(),
    ]
    made = ["Wheel-Version: 1.0", "Generator: tidemill", "Root-Is-Purelib: false", f"Tag: {tag}"]
    when = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time())))[:6]
    path = Path(folder) / f"tidemill-{version}-{tag}.whl"
    with WheelFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:

        def add(name, data, mode):
            entry = zipfile.ZipInfo(name, when)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o100000 | mode) << 16
            wheel.writestr(entry, data)

        add(f"tidemill-{version}.data/scripts/tidemill", Path(binary).read_bytes(), 0o755)
        add(f"{info}/licenses/LICENSE", (ROOT / "LICENSE").read_bytes(), 0o644)
        add(f"{info}/METADATA", "\n".join(metadata).encode(), 0o644)
        add(f"{info}/WHEEL", ("\n".join(made) + "\n").encode(), 0o644)
    print(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
