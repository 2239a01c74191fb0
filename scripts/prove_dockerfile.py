#!/usr/bin/env python3
"""Carry out a Dockerfile's steps in clean Debian roots, without Docker.

    sudo scripts/prove_dockerfile.py Dockerfile --scratch /var/tmp/proof

Every stage gets a root made by debootstrap, of the Debian release that its FROM names. RUN is
carried out there by chroot with the stage's shell, environment, folder and user; COPY copies from
the repository or from an earlier stage. In the end the entry point is asked for its help, an index
is built as the image's user, and a server is started whose health check must succeed.

Nothing of this machine can be written from inside: ``--show`` makes a folder visible there, for
reading alone, and copies a file, where packages come from a mirror. The roots' mounts are in a
namespace of their own and end with it.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dockerfile_parse import DockerfileParser

SUITES = {"debian:bookworm-slim": "bookworm", "debian:trixie-slim": "trixie"}
USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CERTIFICATES = "/etc/certificates-of-the-mirror.pem"
APART = "--apart"
PASSED_ON = ("PIP_", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "NO_PROXY")


@dataclass
class Stage:
    """A stage as far as it has come."""

    name: str
    root: Path
    shell: list[str] = field(default_factory=lambda: ["/bin/sh", "-c"])
    environment: dict[str, str] = field(
        default_factory=lambda: {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        }
    )
    folder: str = "/"
    user: str = "0"
    extra: dict[str, str] = field(default_factory=dict)
    healthcheck: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)

    def command(self, words: Sequence[str]) -> list[str]:
        """Return the command that carries out ``words`` inside."""
        passed = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
        settings = {
            "HOME": "/root" if self.user == "0" else "/tmp",
            **passed,
            **self.extra,
            **self.environment,
        }
        inside = [f"{name}={value}" for name, value in settings.items()]
        place = ["sh", "-c", 'cd "$0" && exec "$@"', self.folder]
        user = [f"--userspec={self.user}:{self.user}"]
        return ["env", "-i", *inside, "chroot", *user, str(self.root), *place, *words]

    def run(self, words: Sequence[str]) -> None:
        """Carry out ``words`` inside; the whole proof ends where they fail."""
        print(f"[{self.name}] {shlex.join(words)[:140]}", flush=True)
        subprocess.run(self.command(words), check=True)


def furnish(stage: Stage, shown: Sequence[Path], certificates: Path | None) -> None:
    """Give the root /proc, a few devices and what is shown; the namespace takes them away."""
    mount(stage, "/proc", "--types", "proc", "proc")
    mount(stage, "/dev/shm", "--types", "tmpfs", "tmpfs")
    for device in ("null", "zero", "random", "urandom"):
        place = stage.root / "dev" / device
        if not place.exists():
            place.touch()
        mount(stage, f"/dev/{device}", "--bind", f"/dev/{device}")
    for path in shown:
        if path.is_dir():
            mount(stage, str(path), "--options", "bind,ro", str(path))
            inside = stage.root / path.relative_to("/")
            if not os.statvfs(inside).f_flag & os.ST_RDONLY:
                sys.exit(f"{path} could be written from inside: refused")
        else:
            into = stage.root / path.relative_to("/")
            into.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, into)
    if certificates is not None:
        shutil.copy2(certificates, stage.root / CERTIFICATES.lstrip("/"))
        stage.extra["PIP_CERT"] = CERTIFICATES


def mount(stage: Stage, place: str, *words: str) -> None:
    """Mount inside the root."""
    target = stage.root / place.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        target.mkdir()
    subprocess.run(["mount", *words, str(target)], check=True)


def new_stage(image: str, name: str, scratch: Path, mirror: str) -> Stage:
    """Make a clean root; a second one of the same release is a copy of the first."""
    clean = scratch / f"clean-{SUITES[image]}"
    if not clean.is_dir():
        command = ["debootstrap", "--variant=minbase", SUITES[image], str(clean), mirror]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    root = scratch / f"stage-{name}"
    subprocess.run(["cp", "--archive", "--reflink=auto", str(clean), str(root)], check=True)
    return Stage(name, root)


def copy(stage: Stage, words: list[str], context: Path, stages: dict[str, Stage]) -> None:
    """Carry out COPY."""
    origin = context
    if words[0].startswith("--from="):
        origin = stages[words.pop(0).removeprefix("--from=")].root
    *sources, target = words
    place = stage.root / os.path.normpath(Path(stage.folder, target)).lstrip("/")
    for source in sources:
        path = origin / source.lstrip("/")
        print(f"[{stage.name}] copy {source} to {target}", flush=True)
        if path.is_dir():
            shutil.copytree(
                path,
                place,
                symlinks=True,
                dirs_exist_ok=True,
                ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
            )
        else:
            into = place / path.name if target.endswith("/") else place
            into.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, into)


def listed(value: str) -> list[str]:
    """Return a JSON list, or what a shell would make of the words."""
    found: list[str] = json.loads(value) if value.startswith("[") else shlex.split(value)
    return found


def carry_out(
    path: Path, scratch: Path, shown: Sequence[Path], certificates: Path | None, mirror: str
) -> None:
    """Carry out all stages, then look at the last one."""
    stages: dict[str, Stage] = {}
    for step in DockerfileParser(str(path)).structure:
        kind, value = step["instruction"], step["value"]
        if kind == "COMMENT":
            continue
        if kind == "FROM":
            words = value.split()
            name = words[2] if len(words) == 3 else "last"
            stage = stages[name] = new_stage(words[0], name, scratch, mirror)
            furnish(stage, shown, certificates)
        elif kind == "RUN":
            stage.run([*stage.shell, value])
        elif kind == "COPY":
            copy(stage, value.split(), path.parent, stages)
        elif kind == "ENV":
            for pair in shlex.split(value):
                key, _, text = pair.partition("=")
                stage.environment[key] = text.replace("$PATH", stage.environment["PATH"])
        elif kind == "WORKDIR":
            stage.folder = value
            (stage.root / value.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif kind == "USER":
            stage.user = value
        elif kind == "SHELL":
            stage.shell = listed(value)
        elif kind == "ENTRYPOINT":
            stage.entrypoint = listed(value)
        elif kind == "HEALTHCHECK":
            stage.healthcheck = listed(value[value.index("CMD") + 3 :].strip())
        elif kind not in ("CMD", "EXPOSE", "VOLUME"):
            sys.exit(f"{path}: this proof knows no {kind}")
    look_at(stage)


def look_at(stage: Stage) -> None:
    """Use the image: help, an index, a server and its health check, all as the image's user."""
    if stage.user in ("0", "root"):
        sys.exit("the image runs as root")
    stage.run([*stage.entrypoint, "--help"])
    stage.run([*stage.entrypoint, "index", "muse", "bundled", "-o", "/data/index"])
    serve = [*stage.entrypoint, "serve", "/data/index", "--port", "8080"]
    server = subprocess.Popen(stage.command(serve))
    try:
        for _ in range(60):
            time.sleep(1)
            if server.poll() is not None:
                sys.exit(f"the server ended with status {server.returncode}")
            asked = subprocess.run(
                stage.command(stage.healthcheck), capture_output=True, check=False
            )
            if asked.returncode == 0:
                break
        else:
            sys.exit("the health check never succeeded")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=60)
    print("every step was carried out; the image's user built an index and served it")


def main() -> None:
    """Read the arguments and go, in a mount namespace of our own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("dockerfile", type=Path)
    parser.add_argument("--scratch", type=Path, help="a folder. [default: a temporary one]")
    parser.add_argument("--show", type=Path, action="append", default=[])
    parser.add_argument("--certificates", type=Path, help="what pip trusts, where that is special")
    parser.add_argument("--mirror", default="http://deb.debian.org/debian")
    parser.add_argument(APART, action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.apart:
        path = given.dockerfile.resolve()
        carry_out(path, given.scratch.resolve(), given.show, given.certificates, given.mirror)
        return
    # The folder is emptied when the namespace, and every mount in it, has ended.
    with tempfile.TemporaryDirectory() as temporary:
        scratch = given.scratch or Path(temporary)
        scratch.mkdir(parents=True, exist_ok=True)
        command = ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv]
        done = subprocess.run([*command, APART, "--scratch", str(scratch)], check=False)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
