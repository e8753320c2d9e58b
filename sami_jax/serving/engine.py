"""The engine that `config.sampling.engine` names: our own sampler, or a server, one at a time, of whichever model is asked next."""

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

import jax
from ml_collections import ConfigDict

from sami_jax.data.jsonl import read_appended, write_jsonl
from sami_jax.errors import TryAgain, UserError
from sami_jax.export.gguf import gguf_entries, write_gguf
from sami_jax.ground import hosts
from sami_jax.ground.display import doing
from sami_jax.ground.endpoint import Endpoint
from sami_jax.ground.terminal import say
from sami_jax.models.pretrained import ModelFolder, open_model
from sami_jax.sampling.decoding import Response
from sami_jax.sampling.drawing import SamplingOptions
from sami_jax.sampling.samplers import OwnSampler, Prompt, Sampler
from sami_jax.serving.agreement import agreement
from sami_jax.serving.completions import Completions
from sami_jax.serving.in_order import AHEAD, in_order
from sami_jax.serving.process import ServerProcess, free_port, wait_until_ready

LOG, AGREEMENT, SERVED = "server.log", "agreement.jsonl", "served"  # in the folder of what is sampled for


class Engine(Protocol):
    def sampler(self, model: ModelFolder, params: dict, exported: Path | None = None) -> Sampler:
        """
        Args:
          params: weights in the compute dtype.
          exported: folder of the same model as a whole, where `model` has adapters beside it.
        """
        ...

    def rest(self) -> None:
        """Frees what sampling alone needs, as before training."""
        ...


@contextlib.contextmanager
def open_engine(config: ConfigDict, mesh: jax.sharding.Mesh, folder: Path) -> Iterator[Engine]:
    """What samples until the block is left.

    Args:
      config: a run's.
      folder: for the server's log, and for how far it was from the model.
    """
    if config.sampling.engine == "own":
        yield OwnEngine(mesh, config.sampling.batch_size)
        return
    engine = ServerEngine(config, mesh, folder)
    try:
        yield engine
    finally:
        engine.rest()


def check_server(config: ConfigDict, model: ModelFolder) -> None:
    """What can be known of a server before anything costly.

    Raises:
      UserError: no such program; no package to ask it with; an address that is none; a model that no GGUF file can hold.
    """
    s = config.server
    if config.sampling.engine == "own":
        return
    if s.command and hosts.first() and shutil.which(s.command[0]) is None:
        raise UserError(f"config.server.command: no program {s.command[0]!r} here; install it, or give its whole path")
    Endpoint(s.address or "http://127.0.0.1:1/v1", "none", "completions", s.key_variable)
    if s.gguf:
        gguf_entries(model)


@dataclasses.dataclass(frozen=True)
class OwnEngine:
    mesh: jax.sharding.Mesh
    batch_size: int

    def sampler(self, model: ModelFolder, params: dict, exported: Path | None = None) -> Sampler:
        return OwnSampler(model, params, self.mesh, self.batch_size)

    def rest(self) -> None:
        pass


class _Serving(NamedTuple):
    """What a server has loaded."""

    folder: Path
    completions: Completions


class ServerEngine:
    """A server by the group `server` of a config. The first process of a run starts and asks it."""

    def __init__(self, config: ConfigDict, mesh: jax.sharding.Mesh, folder: Path):
        self._server, self._batch_size = config.server, config.sampling.batch_size
        self._mesh, self._folder = mesh, folder
        self._serving: _Serving | None = None
        self._process: ServerProcess | None = None  # None where it is not ours, or not this process's

    def sampler(self, model: ModelFolder, params: dict, exported: Path | None = None) -> Sampler:
        """
        Raises:
          UserError: adapters without a folder that holds the whole model.
        """
        if model.adapter and not exported:
            raise UserError(
                f"{model.place}: config.sampling.engine='server' serves whole models, and these are adapters; give the model that they are merged into"
            )
        return ServedSampler(model, OwnSampler(model, params, self._mesh, self._batch_size), exported, self)

    def rest(self) -> None:
        """Ends the server, where it is ours."""
        self._serving = None
        if process := self._process:
            process.end()
            self._process = None
            _gguf_file(self._folder, self._server.gguf).unlink(missing_ok=True)

    def responses(
        self,
        sampler: "ServedSampler",
        prompts: Sequence[Prompt],
        options: SamplingOptions,
        decode: Callable[[list[int]], str],
    ) -> Iterator[Response]:
        """As `Sampler` has it.

        Raises:
          UserError: the server did not start, or failed, or is not of the model.
        """
        if not prompts:
            return
        serving, unknown = self._of(sampler, prompts, options.max_new_tokens), 0

        def ask(prompt: Prompt) -> Response:
            return serving.completions.complete(prompt.ids, prompt.seed, options, decode).response

        for response in self._everywhere(ask, prompts):
            unknown += bool(response.text and not response.token_ids)
            yield response
        if unknown:
            say(
                f"  of {unknown} of {len(prompts)} responses the server gave no tokens that spell them: their texts are encoded anew"
            )

    def _of(self, sampler: "ServedSampler", prompts: Sequence[Prompt], longest: int) -> _Serving:
        """The server, once it has the sampler's model and is seen to agree with it."""
        folder = (sampler.exported or sampler.model.folder).absolute()
        if self._serving and self._serving.folder == folder:
            return self._serving
        self.rest()
        if self._server.gguf and self._server.command:
            self._write_gguf(folder)
        self._serving = self._begun(folder, sampler.model, prompts[0].ids)
        try:
            self._check(self._serving, sampler, prompts, longest)
        except TryAgain as failed:
            raise self._fault() or failed from None
        return self._serving

    def _write_gguf(self, folder: Path) -> None:
        file, model = _gguf_file(self._folder, self._server.gguf), open_model(folder)
        hosts.once(lambda: file.parent.mkdir(parents=True, exist_ok=True))
        write_gguf(model.load(self._mesh, "float32"), model, self._server.gguf, file, gguf_entries(model))

    def _begun(self, folder: Path, model: ModelFolder, prompt: list[int]) -> _Serving:
        """Starts the server, or has the one that is there load the model."""
        s, address, served = self._server, self._server.address, str(folder)
        if s.command:
            port = hosts.once(free_port)
            address = f"http://127.0.0.1:{port}/v1"
            served = str(_gguf_file(self._folder, s.gguf).absolute()) if s.gguf else served
        endpoint = Endpoint(address, s.name or served, "completions", s.key_variable, s.timeout)
        if s.command and hosts.first():
            filled = [part.replace("{model}", served).replace("{port}", str(port)) for part in s.command]
            self._process = ServerProcess(filled, self._folder / LOG)
        takes_ids = hosts.once(lambda: self._ready(endpoint, address, folder, model, prompt))
        if not takes_ids:
            say("  the server takes and gives texts: they are encoded again, and what reads otherwise then is counted")
        return _Serving(folder, Completions(endpoint, model, takes_ids))

    def _ready(self, endpoint: Endpoint, address: str, folder: Path, model: ModelFolder, prompt: list[int]) -> bool:
        """Waits for it; whether it takes ids."""
        s = self._server
        if self._process:
            probe = Completions(endpoint.with_retries(0), model)
            title = f"starting {Path(s.command[0]).name}"
            return wait_until_ready(self._process, lambda: probe.try_out(prompt), s.start_within, title)
        if s.load:
            (path, field), parts = s.load, urlsplit(address)
            with doing(f"having {folder} loaded"):
                endpoint.post(f"{parts.scheme}://{parts.netloc}{path}", {field: str(folder)})
        return Completions(endpoint, model).try_out(prompt)

    def _check(self, serving: _Serving, sampler: "ServedSampler", prompts: Sequence[Prompt], longest: int) -> None:
        """
        Raises:
          UserError: it is further from the model than `server.disagreement`.
        """
        name = serving.folder.name if serving.folder.name != "model" else f"{serving.folder.parent.name}/model"
        with doing(f"holding the server against {name}"):  # work of its own: what it samples is no response
            found = agreement(serving.completions, sampler.own, prompts, longest, self._server.concurrency)
        say(f"  server and trainer differ in {name} by {found.told()}")
        file = self._folder / AGREEMENT
        rows = hosts.once(lambda: read_appended(file))
        write_jsonl(file, [*rows, {"model": str(serving.folder), **found._asdict()}])
        if not found.mean <= self._server.disagreement:
            raise UserError(
                f"{serving.folder}: the server differs from the model by {found.told()}; at most config.server.disagreement="
                f"{self._server.disagreement:g} is allowed: it has other weights, or computes otherwise"
            )

    def _everywhere(self, ask: Callable[[Prompt], Response], prompts: Sequence[Prompt]) -> Iterator[Response]:
        """In all processes, what the first is answered: at once where it is alone, else some at a time."""
        size = self._server.concurrency
        try:
            if hosts.count() == 1:
                yield from in_order(ask, prompts, size)
                return
            for start in range(0, len(prompts), AHEAD * size):
                some = prompts[start : start + AHEAD * size]
                for text, ids, tokens, reason in hosts.once(lambda some=some: list(in_order(ask, some, size))):
                    yield Response(text, tuple(ids), tokens, reason)
        except TryAgain as failed:
            raise self._fault() or failed from None

    def _fault(self) -> UserError | None:
        """Where the server was ours and has ended: that is why it does not answer."""
        return self._process.gone() if self._process and not self._process.runs else None


@dataclasses.dataclass(frozen=True)
class ServedSampler:
    model: ModelFolder
    own: OwnSampler  # of the same model, which the server is held against
    exported: Path | None
    engine: ServerEngine

    def responses(
        self, prompts: Sequence[Prompt], options: SamplingOptions, decode: Callable[[list[int]], str]
    ) -> Iterator[Response]:
        return self.engine.responses(self, prompts, options, decode)


def _gguf_file(folder: Path, kind: str) -> Path:
    return folder / SERVED / f"model-{kind}.gguf"
