"""Compiles the load generator and the floor."""

import shutil
import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).parent / "load"


def build(folder: Path) -> None:
    """Compile wsload (with TLS if the headers of libssl are installed) and rawlimit into a folder."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        sys.exit("The benchmarks need a C compiler: apt install gcc")
    output = ["-O2", "-o", str(folder / "wsload"), str(SOURCES / "wsload.c")]
    with_tls = [compiler, "-DWITH_TLS", *output, "-lssl", "-lcrypto"]
    if subprocess.run(with_tls, capture_output=True, check=False).returncode:
        print("No libssl headers (apt install libssl-dev): the TLS workload is skipped.", file=sys.stderr)
        subprocess.run([compiler, *output], check=True)
    subprocess.run([compiler, "-O2", "-o", folder / "rawlimit", SOURCES / "rawlimit.c"], check=True)


def knows_tls(folder: Path) -> bool:
    """Whether wsload was compiled with TLS."""
    answer = subprocess.run(
        [folder / "wsload", "--tls", "--help"], capture_output=True, text=True, check=False
    )
    return "unrecognized" not in answer.stderr
