"""Memory and time to stream an atlas file of 500 MB, made from copies of one real HPA entry with changed ids.

    python benchmarks/hpa_xml.py ENSG00000134057.xml [--megabytes 500]

The entry is an XML file of one gene as the Human Protein Atlas hands it out. Each measurement is a process of
its own: imports alone, one entry, the whole file plain and gzipped, and with a list of three genes. Peak
resident memory is Linux's VmHWM, since that of the resource module would count the parent's at the fork.
Writes benchmarks/results/hpa_xml.json.
"""

from __future__ import annotations

import argparse
import gzip
import json
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from common import write_result

WORK = """
import json, re, sys, time
from pathlib import Path
from pci_core.data.hpa_xml import Tally, entry_rows, read_entries
path, genes = sys.argv[1], sys.argv[2].split(",") if sys.argv[2] else None
start, rows, tally = (time.perf_counter(), time.process_time()), 0, Tally()
for entry in read_entries(path, genes, tally) if path else ():
    rows += len(entry_rows(entry))
seconds, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
print(json.dumps({"entries": tally.entries, "given": tally.given, "rows": rows, "seconds": seconds, "cpu_seconds": cpu, "peak_mb": peak}))
"""


def write_atlas(entry: Path, plain: Path, megabytes: int) -> int:
    """Write copies of an entry into one file, each with its own ids and symbol; return their number."""
    text = entry.read_text(encoding="utf-8")
    start, end = text.index("<entry"), text.index("</entry>") + len("</entry>")
    head, body, tail = text[:start], text[start:end], text[end:]
    gene = re.search(r'identifier id="(ENSG\d{11})"', body)
    symbol = re.search(r"<name>([^<]+)</name>", body)
    if not gene or not symbol:
        raise SystemExit(f"{entry} has no Ensembl id or name where an entry of HPA has them")
    copies = megabytes * 1_000_000 // len(body.encode()) + 1
    with open(plain, "w", encoding="utf-8") as handle:
        handle.write(head)
        for i in range(copies):
            handle.write(body.replace(gene[1], f"ENSG{i:011d}").replace(f"<name>{symbol[1]}<", f"<name>GENE{i}<"))
        handle.write(tail)
    return copies


def measure(path: Path | str, genes: str = "") -> dict[str, float]:
    """Stream `path` in a process of its own."""
    done = subprocess.run([sys.executable, "-c", WORK, str(path), genes], capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entry", type=Path, help="XML of one gene")
    parser.add_argument("--megabytes", type=int, default=500)
    options = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory() as scratch:
        plain, packed = Path(scratch) / "atlas.xml", Path(scratch) / "atlas.xml.gz"
        copies = write_atlas(options.entry, plain, options.megabytes)
        with open(plain, "rb") as source, gzip.open(packed, "wb", compresslevel=1) as target:
            while block := source.read(1 << 20):
                target.write(block)
        some = f"GENE0,ENSG{copies // 2:011d},GENE{copies - 1}"
        cases = [
            ("imports alone", "", ""),
            ("one entry", options.entry, ""),
            ("atlas", plain, ""),
            ("atlas, gzipped", packed, ""),
            ("atlas, three genes", plain, some),
        ]
        for name, path, genes in cases:
            size = Path(path).stat().st_size / 1e6 if path else 0.0
            run = {"what": name, "file_mb": size, **measure(path, genes)}
            if run["entries"] != {"": 0, options.entry: 1}.get(path, copies):
                raise SystemExit(f"{name}: {run['entries']} entries were read, {copies} written")
            runs.append(run)
            print(
                f"{name:20} {size:7.1f} MB {run['entries']:5.0f} entries {run['rows']:6.0f} rows "
                f"{run['seconds']:7.2f} s (cpu {run['cpu_seconds']:.2f}) peak {run['peak_mb']:6.1f} MiB",
                flush=True,
            )
    write_result("hpa_xml", {"system": platform.platform(), "python": platform.python_version(), "runs": runs})


if __name__ == "__main__":
    main()
