"""What is in `deploy/` and in the `Dockerfile`, read, and run on this machine without an engine."""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import redis
import yaml

from bucketwatch.local.servers import LOOPBACK, ServerProcess, free_port, redis_server_binary
from tests.support.processes import ROOT, Program
from tests.support.waiting import eventually

DEPLOY = ROOT / "deploy"
# What pytest's own environment says of the product, which a container does not have.
_UNSET = {"SECRET_KEY": "", "REDIS_URL": "", "DJANGO_SETTINGS_MODULE": "bucketwatch.settings"}


def compose(*overrides: str) -> dict[str, Any]:
    """Read `compose.yaml`, and the services of other files over it, one level deep."""
    document: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    for name in overrides:
        for service, changes in yaml.safe_load((DEPLOY / name).read_text())["services"].items():
            document["services"][service]["environment"] |= changes.get("environment", {})
            document["services"][service]["secrets"] += changes.get("secrets", [])
    return document


# --- the Dockerfile


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction; ``text`` is what follows its name, on one line."""

    name: str
    text: str

    def words(self) -> list[str]:
        """Read an instruction in JSON form, with or without options before it."""
        words: list[str] = json.loads(self.text[self.text.index("[") :])
        return words


def dockerfile() -> list[list[Step]]:
    """Read the stages of the Dockerfile; lines before the first FROM are left out."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    stages: list[list[Step]] = []
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        name, _, rest = line.partition(" ")
        if name == "FROM":
            stages.append([])
        if name and stages:
            stages[-1].append(Step(name, rest.strip()))
    return stages


def ignored(path: Path) -> bool:
    """Tell if `.dockerignore` keeps a file out of the image although it lets the top folder in."""
    kept_out = {ROOT / "bucketwatch/demo", ROOT / "bucketwatch/local"}
    return "__pycache__" in path.parts or not kept_out.isdisjoint(path.parents)


def build(directory: Path) -> None:
    """Do what the build stage does, in ``directory`` instead of /app.

    Only packages are not installed again: those of this test run are used instead.
    """
    here = "import site; print(site.getsitepackages()[0])"
    packages = subprocess.check_output([sys.executable, "-c", here], text=True).strip()
    for step in dockerfile()[0]:
        if step.name == "COPY":
            source, target = step.text.split()
            _copy(ROOT / source, directory / target / (source if target == "./" else ""))
        elif step.name == "RUN":
            for command in step.text.split(" && "):
                if "pip" in shlex.split(command)[:3]:
                    [lib] = directory.glob(".venv/lib/python*/site-packages")
                    (lib / "tests.pth").write_text(f"{packages}\n")
                    continue
                path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
                subprocess.run(
                    ["sh", "-euc", command],
                    cwd=directory,
                    env={**os.environ, "PATH": path, "DJANGO_SETTINGS_MODULE": ""} | _UNSET,
                    check=True,
                    timeout=120,
                )


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_file():
        shutil.copy(source, target / source.name if target.is_dir() else target)
        return
    for file in source.rglob("*"):
        if file.is_file() and not ignored(file):
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)


# --- Compose


class Stack:
    """The services of `compose.yaml` as processes of this machine.

    Each has an address of its own in 127.0.0.0/8; volumes, secrets and mounted files are in
    ``directory``. Names and paths in commands, scripts and settings are translated to that.
    """

    def __init__(self, directory: Path, *, database_port: int, **env_file: str) -> None:
        self.directory = directory
        self.services: dict[str, Any] = compose()["services"]
        network = f"127.{secrets.randbelow(200) + 10}.{secrets.randbelow(250)}"
        self.nodes = [name for name in self.services if name.startswith(("redis-", "sentinel-"))]
        self.addresses = {name: f"{network}.{n}" for n, name in enumerate(self.nodes, 1)}
        self.redis_port, self.sentinel_port = free_port(), free_port()
        self.url = f"http://{LOOPBACK}:{(web_port := free_port())}"
        self._programs: list[Program] = []
        self._nodes: dict[str, ServerProcess] = {}
        self._env_file = env_file | {
            "REDIS_PORT": str(self.redis_port),
            "REDIS_SENTINEL_PORT": str(self.sentinel_port),
        }
        self._own = {"HOST": LOOPBACK, "PORT": str(web_port)}
        self._make_secrets(database_port)
        self._make_valkey()

    @property
    def password(self) -> str:
        return self._secret("redis_password").read_text().strip()

    def _secret(self, name: str) -> Path:
        return self.directory / "secrets" / name

    def _make_secrets(self, database_port: int) -> None:
        shutil.copy(DEPLOY / "make-secrets.sh", self.directory)
        subprocess.run(["sh", "make-secrets.sh"], cwd=self.directory, check=True)
        url = self._secret("database_url")
        url.write_text(url.read_text().replace("@postgres/", f"@{LOOPBACK}:{database_port}/"))

    def _make_valkey(self) -> None:
        """Write the programs of Valkey's image, by their names there."""
        programs = self.directory / "bin"
        programs.mkdir()
        # Not links: a server of another name does not know a link's as a sentinel's.
        for name, mode in {"valkey-server": "", "valkey-sentinel": " --sentinel"}.items():
            program = programs / name
            program.write_text(f'#!/bin/sh\nexec {redis_server_binary()} "$@"{mode}\n')
            program.chmod(0o755)

    def _translated(self, text: str, service: str) -> str:
        """Put this machine's addresses and paths into ``text``, a service's file or setting."""
        names = "|".join(self.addresses)
        text = re.sub(rf"(?<![\w/-])({names})\b", lambda m: self.addresses[m[1]], text)
        text = text.replace("/run/secrets", str(self.directory / "secrets"))
        text = text.replace("/etc/bucketwatch", str(self.directory / "mounted" / service))
        text = re.sub(r"(?<![\w/-])/data\b", str(self._volume(service)), text)
        ports = {"26379": str(self.sentinel_port), "6379": str(self.redis_port)}
        text = re.sub(r"\b(26379|6379)\b", lambda m: ports[m[1]], text)
        bind = f"bind {self.addresses.get(service)}"
        return re.sub(r"^(dir .*)$", rf"\1\n{bind}", text, flags=re.MULTILINE)

    def _volume(self, service: str) -> Path:
        mounts: list[str] = self.services[service]["volumes"]
        [volume] = [name for name, path, *_ in (m.split(":") for m in mounts) if path == "/data"]
        path = self.directory / "volumes" / volume
        path.mkdir(parents=True, exist_ok=True)
        return path

    # --- Redis

    def start_redis(self) -> None:
        for name in self.nodes:
            self.start_node(name)
        eventually(self._can_fail_over)

    def start_node(self, name: str) -> None:
        """Start a data node or a sentinel, by the entry point and with the files of Compose."""
        mounted = self.directory / "mounted" / name
        mounted.mkdir(parents=True, exist_ok=True)
        for file in (DEPLOY / "redis").iterdir():
            (mounted / file.name).write_text(self._translated(file.read_text(), name))
        service = self.services[name]
        environ = {k: self._translated(v, name) for k, v in service["environment"].items()}
        path = f"{self.directory / 'bin'}:{os.environ['PATH']}"
        node = ServerProcess(
            [self._translated(word, name) for word in service["entrypoint"]],
            log=self.directory / f"{name}.log",
            environ={**os.environ, "PATH": path, **environ},
        )
        node.wait_until(lambda: self._answers(name), what=name)
        self._nodes[name] = node

    def kill_node(self, name: str) -> None:
        self._nodes[name].kill()

    def client(self, name: str) -> redis.Redis:
        port = self.sentinel_port if name.startswith("sentinel") else self.redis_port
        return redis.Redis(
            host=self.addresses[name], port=port, password=self.password, decode_responses=True
        )

    def master(self) -> str:
        """Ask a sentinel which service is the master."""
        with self.client("sentinel-2") as sentinel:
            host, _ = sentinel.sentinel_get_master_addr_by_name("mymaster")
        named: list[str] = [name for name, address in self.addresses.items() if address == host]
        return named[0]

    def _answers(self, name: str) -> bool:
        try:
            with self.client(name) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def _can_fail_over(self) -> bool:
        with self.client("sentinel-2") as sentinel:
            known = sentinel.sentinel_master("mymaster")
        return (known["num-slaves"], known["num-other-sentinels"]) == (2, 2)

    # --- bucketwatch

    def environ(self, name: str) -> dict[str, str]:
        settings = self.services[name]["environment"]
        given = {key: self._translated(value, name) for key, value in settings.items()}
        return _UNSET | self._env_file | given | self._own

    def start(self, name: str) -> Program:
        """Start a service of bucketwatch with its command."""
        python, *arguments = self.services[name]["command"]
        assert python == "python"
        program = Program(arguments, log=self.directory / f"{name}.log", environ=self.environ(name))
        self._programs.append(program)
        return program

    def stop(self) -> None:
        """End whatever runs; the sentinels first, so that nobody fails over."""
        for program in self._programs:
            program.clear_away()
        for name in sorted(self._nodes, reverse=True):
            self._nodes[name].kill()


# --- PostgreSQL


class Postgres:
    """A PostgreSQL server with the database of Compose, for machines that have one installed."""

    def __init__(self) -> None:
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="bucketwatch-postgres-"))
        self.directory.chmod(0o777)
        self._user = "nobody" if os.getuid() == 0 else None  # it refuses to run as root
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def is_installed() -> bool:
        return all(shutil.which(program) for program in ("initdb", "postgres"))

    def start(self, password: str) -> None:
        data, given = self.directory / "data", self.directory / "password"
        given.write_text(password)
        given.chmod(0o644)
        initdb = ["initdb", f"--pgdata={data}", "--username=bucketwatch", f"--pwfile={given}"]
        options = ["--auth=scram-sha-256", "--no-sync", "--no-instructions"]
        subprocess.run(
            [*initdb, *options],
            check=True,
            user=self._user,
            cwd=self.directory,
            stdout=subprocess.DEVNULL,
        )
        listen = ["-h", LOOPBACK, "-p", str(self.port), "-k", str(self.directory)]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["postgres", "-D", str(data), *listen, "-F"],
                user=self._user,
                cwd=self.directory,
                stderr=log,
            )
        eventually(lambda: self._make_database(password))

    def _make_database(self, password: str) -> bool:
        try:
            with psycopg.connect(
                host=LOOPBACK,
                port=self.port,
                user="bucketwatch",
                password=password,
                dbname="postgres",
                autocommit=True,
            ) as connection:
                connection.execute("CREATE DATABASE bucketwatch")
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # does not wait for connections to end
            self._process.wait(30)
        shutil.rmtree(self.directory)
