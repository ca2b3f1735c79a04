"""`python -m fuzz TARGET [libFuzzer options]`: fuzz one target, starting from the seeds in corpus/TARGET."""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["aphlict"]):
    from fuzz.targets import TARGETS


def main(arguments: list[str]) -> None:
    """Fuzz until interrupted, or until the target raises."""
    if not arguments or arguments[0] not in TARGETS:
        sys.exit(f"usage: python -m fuzz {'|'.join(TARGETS)} [-max_total_time=SECONDS] [FOLDER OR FILE …]")
    name, *options = arguments
    seeds = Path(__file__).with_name("corpus") / name
    if not any(not option.startswith("-") for option in options):
        work = Path("build") / "fuzz" / name  # new inputs are written there, not among the seeds
        work.mkdir(parents=True, exist_ok=True)
        options += [str(work), str(seeds)]
    atheris.Setup([sys.argv[0], *options], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
