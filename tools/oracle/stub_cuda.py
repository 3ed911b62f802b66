# SPDX-License-Identifier: MPL-2.0
"""Stand-ins for the CUDA libraries that torch's x86-64 wheel links, so that torch imports without 3 GB of them.

Usage: stub_cuda.py VENV/lib/python3.11/site-packages/torch/lib (needs gcc and binutils). Nothing may run on a GPU then.
"""

import collections
import re
import subprocess
import sys
import tempfile
from pathlib import Path

# Library, and what its unversioned symbols look like.
LIBRARIES = {
    "libcudnn": r"cudnn",
    "libnccl": r"p?nccl",
    "libcusparseLt": r"cusparseLt",
    "libnvshmem_host": r"nvshmem",
    "libcufile": r"cuFile",
    "libcupti": r"cupti",
    "libcufft": r"cufft",
    "libcusparse": r"cusparse(?!Lt)",
    "libcublasLt": r"cublasLt",
    "libcublas": r"cublas(?!Lt)",
    "libcusolver": r"cusolver",
    "libnvrtc": r"nvrtc",
    "libcudart": r"(cuda|__cuda)",
}


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def stem(library):
    return library.split(".so")[0]


def survey(folder):
    """Needed libraries, symbol versions of each, undefined symbols by version ("" without), defined symbols."""
    needed, versions, undefined, defined = set(), collections.defaultdict(list), collections.defaultdict(set), set()
    for file in folder.glob("*.so*"):
        if stem(file.name) in LIBRARIES:
            continue
        headers = output("objdump", "-p", str(file))
        needed |= {n for n in re.findall(r"NEEDED\s+(\S+)", headers) if stem(n) in LIBRARIES}
        library = None
        for line in headers.split("Version References:")[-1].splitlines():
            if found := re.match(r"\s+required from (\S+):", line):
                library = found[1]
            elif library and (found := re.match(r"\s+0x\S+\s+0x\S+\s+\d+\s+(\S+)", line)):
                if found[1] not in versions[library]:
                    versions[library].append(found[1])
        for line in output("nm", "-D", str(file)).splitlines():
            kind, symbol = line.split()[-2:]
            base, _, version = symbol.replace("@@", "@").partition("@")
            if kind == "U":
                undefined[version].add(base)
            elif kind not in "wv":
                defined.add(base)
    return needed, versions, undefined, defined


def main():
    folder = Path(sys.argv[1])
    needed, versions, undefined, defined = survey(folder)
    for library in sorted(needed):
        done, script = set(), []
        for version in versions[library]:
            symbols = undefined[version] - done
            done |= symbols
            script.append(f"{version} {{ global: {' '.join(s + ';' for s in sorted(symbols))} }};")
        loose = {s for s in undefined[""] - defined - done if re.match(LIBRARIES[stem(library)], s)}
        # 100 is cudaErrorNoDevice.
        source = "\n".join(f"int {s}(void) {{ return 100; }}" for s in sorted(done | loose)) or "int stub;"
        with tempfile.TemporaryDirectory() as work:
            c, map_file = Path(work, "stub.c"), Path(work, "stub.map")
            c.write_text(source)
            command = ["gcc", "-shared", "-fPIC", "-fno-builtin", "-w", f"-Wl,-soname,{library}"]
            command += ["-o", str(folder / library), str(c)]
            if script:
                map_file.write_text("\n".join(script))
                command.append(f"-Wl,--version-script={map_file}")
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
