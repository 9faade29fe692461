"""Starts the processes of a run on this machine and ends them together: torch's elastic agent, with our exit codes.

The agent starts a process for each GPU and restarts all of them when one dies. What it lacks, and what is added here:
an error of the user's is not tried again; processes that wait for a dead one are gone within ten seconds (the agent
alone gives them thirty); a signal to the launcher leaves them the time to save; the launcher ends as the first failing
process did.
"""

import os
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.distributed import DistNetworkError
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.multiprocessing.api import SubprocessContext
from torch.distributed.elastic.rendezvous import RendezvousParameters, registry

from common.errors import UserError
from common.log import LOG
from common.processors import n_processors
from common.signals import KILL, signal_group
from parallel.heartbeat import FOLDER_VARIABLE, STACK_TRACE_SIGNAL, HeartbeatMonitor
from parallel.rendezvous import Meeting

KILL_AFTER_S = 5  # what the others get to end by themselves when one of them has died
FOLLOW_WITHIN_S = 30.0  # and where one has ended on purpose, as all of them do
SAVE_WITHIN_S = 300  # after a signal to the launcher; a second one ends them at once
INTERRUPTED = (130, 143)
ON_PURPOSE = frozenset({2, 3, 4, 5, *INTERRUPTED})  # a restart would only say it again
STACK_TRACE_WITHIN_S = 2.0  # how long processes get to print where they hang
TAIL_LINES = 30


@dataclass(frozen=True)
class Launch:
    """What to start, and where. rdzv_endpoint "host:port" is on the machine of node_rank 0; "" for one machine."""

    command: Sequence[str]
    n_processes: int
    nnodes: int = 1
    node_rank: int = 0
    rdzv_endpoint: str = ""
    max_restarts: int = 0
    hang_timeout_s: float = 0.0  # a process that does nothing for so long is ended like a dead one; 0: never


@dataclass(frozen=True)
class Failure:
    """The process that began it: its number on this machine, and its exit code, 128 + n for signal n."""

    local_rank: int
    exit_code: int
    log: str  # what it said; "" where that went to the terminal
    hung_s: float = 0.0  # it hung and was killed for it

    def __str__(self) -> str:
        if self.hung_s:
            how = "it hung, or waits for one: --hang_timeout"
            return f"process {self.local_rank} did nothing for {self.hung_s:.0f} s ({how})"
        by = f"was killed by signal {self.exit_code - 128}" if self.exit_code > 128 else f"exited with {self.exit_code}"
        return f"process {self.local_rank} {by}"


def processes_here(asked: int | None) -> int:
    """As many as asked for, else one a GPU. UserError for more than there are GPUs; without any they run on CPU."""
    n_gpus = torch.cuda.device_count()
    if n_gpus == 0:
        LOG.warning("this machine has NO GPU: training in %d CPU processes on gloo, which is slow", asked or 1)
        return asked or 1
    if asked is not None and asked > n_gpus:
        raise UserError(f"--n_gpus {asked}, but this machine has {n_gpus}; ask for at most {n_gpus}")
    return asked or n_gpus


def first_cause(exit_codes: Mapping[int, int]) -> int:
    """Of processes that failed within one look: a killed one, as the others fail when it is gone."""
    return min(exit_codes, key=lambda rank: (exit_codes[rank] >= 0, rank))


class Agent(LocalElasticAgent):
    """The agent of one machine, with another opinion on what a failure is and how long to wait."""

    failure: Failure | None = None
    watch: HeartbeatMonitor | None = None

    def exit_codes(self) -> dict[int, int]:
        """Of the processes that have ended, by their number on this machine; negative for a signal."""
        if not isinstance(self._pcontext, SubprocessContext):  # none was started yet
            return {}
        polled = {rank: one.proc.poll() for rank, one in self._pcontext.subprocess_handlers.items()}
        return {rank: code for rank, code in polled.items() if code is not None}

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        failure = self._first_failure() or self._find_hung()
        if failure is not None:
            assert self._pcontext is not None
            self.failure = failure
            if failure.exit_code in ON_PURPOSE:
                self._remaining_restarts = 0
                self._wait_for_others()
            elif self._remaining_restarts:
                LOG.warning("%s; starting all again, %d more times at most", failure, self._remaining_restarts)
            self._pcontext.close(signal.SIGTERM, KILL_AFTER_S)
            self._kill_process_groups()
            if self.watch is not None:
                self.watch.reset()
        return super()._monitor_workers(worker_group)

    def _first_failure(self) -> Failure | None:
        failed = {rank: code for rank, code in self.exit_codes().items() if code}
        if not failed:
            return None
        assert self._pcontext is not None
        rank = first_cause(failed)
        return Failure(rank, failed[rank] if failed[rank] > 0 else 128 - failed[rank], self._pcontext.stderrs[rank])

    def _find_hung(self) -> Failure | None:
        """After each process was asked to print where it is; one that is stopped can't."""
        rank = None if self.watch is None else self.watch.find_hung(ended=self.exit_codes())
        if self.watch is None or rank is None:
            return None
        assert self._pcontext is not None
        for pid in self._pcontext.pids().values():
            if STACK_TRACE_SIGNAL is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, STACK_TRACE_SIGNAL)
        time.sleep(STACK_TRACE_WITHIN_S)
        return Failure(rank, 128 + KILL, self._pcontext.stderrs[rank], self.watch.timeout_s)

    def _wait_for_others(self) -> None:
        deadline = time.monotonic() + FOLLOW_WITHIN_S
        while len(self.exit_codes()) < self._worker_group.spec.local_world_size and time.monotonic() < deadline:
            time.sleep(self._worker_group.spec.monitor_interval)

    def _kill_process_groups(self) -> None:
        """Loader processes, whose parents are gone; each process leads a process group of its own."""
        assert self._pcontext is not None
        for pid in self._pcontext.pids().values():
            signal_group(pid, KILL)

    def _shutdown(self, death_sig: signal.Signals = signal.SIGTERM, timeout: int = 0) -> None:
        """Passes the launcher's signal on. A lost terminal (SIGHUP) is no reason to lose the run: it saves as well."""
        passed_on = signal.SIGINT if death_sig == signal.SIGINT else signal.SIGTERM
        if self._pcontext is not None:  # here, as PyTorch 2.11 would wait by its own patience
            self._pcontext.close(passed_on, SAVE_WITHIN_S)
        super()._shutdown(passed_on)


def agent_of(launch: Launch, logs: Path) -> Agent:
    """logs: folder for what all processes but the first of this machine say; that one speaks to the terminal."""
    is_alone = launch.nnodes == 1
    parameters = RendezvousParameters(
        backend="c10d" if is_alone else "static",
        endpoint="localhost:0" if is_alone else launch.rdzv_endpoint,
        run_id=uuid.uuid4().hex if is_alone else "none",
        min_nodes=launch.nnodes,
        max_nodes=launch.nnodes,
        local_addr="localhost" if is_alone else None,
        **({} if is_alone else {"rank": launch.node_rank}),
    )
    spec = WorkerSpec(
        role="train",
        local_world_size=launch.n_processes,
        entrypoint=sys.executable,
        args=tuple(launch.command),
        rdzv_handler=registry.get_rendezvous_handler(parameters),
        max_restarts=launch.max_restarts,
        monitor_interval=0.1,
        local_addr="localhost" if is_alone else None,
    )
    quiet = {rank: Std.ALL for rank in range(1, launch.n_processes)}
    return Agent(spec, logs_specs=DefaultLogsSpecs(log_dir=str(logs), redirects=quiet))


def run(launch: Launch) -> int:
    """Runs them to their common end. -> the exit code: 0, the first failing process's, 130 or 143 for a signal.

    UserError where machines can't meet.
    """
    threads = max(1, n_processors() // launch.n_processes)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # of each; more than there are cores would fight for them
    with tempfile.TemporaryDirectory(prefix="tacotron2-processes-") as folder, all_machines(launch):
        agent = agent_of(launch, Path(folder) / "logs")
        if launch.hang_timeout_s:
            heartbeats = Path(folder) / "heartbeats"
            heartbeats.mkdir()
            os.environ[FOLDER_VARIABLE] = str(heartbeats)  # which the processes inherit
            agent.watch = HeartbeatMonitor(heartbeats, timeout_s=launch.hang_timeout_s)
        try:
            agent.run()
        except SignalException as stopped:
            return after_signal(stopped.sigval, agent.exit_codes())
        except DistNetworkError as error:
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"the machines can't meet at --rdzv_endpoint {launch.rdzv_endpoint or 'of this one'} ({reason}); it "
                "must be a free port of machine 0 that the others reach"
            ) from None
        finally:
            agent.get_worker_group().spec.rdzv_handler.shutdown()
        if agent.failure is None or agent.get_worker_group().state is not WorkerState.FAILED:
            return 0
        print_failure(agent.failure, agent.exit_codes())
        return agent.failure.exit_code


@contextmanager
def all_machines(launch: Launch) -> Iterator[None]:
    """Waits for the other machines' launchers. That of machine 0 holds the store that their agents meet at."""
    store = None
    if launch.nnodes > 1:
        store = Meeting.of_machines(launch.rdzv_endpoint, launch.node_rank, launch.nnodes).store()
    yield
    del store


def after_signal(number: int, exit_codes: Mapping[int, int]) -> int:
    """128 + the signal, unless a process ended in another way than by it, or all had finished already."""
    others = [code for code in exit_codes.values() if code > 0 and code not in INTERRUPTED]
    if others:
        return others[0]
    is_finished = bool(exit_codes) and not any(exit_codes.values())
    return 0 if is_finished else 128 + (signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)


def print_failure(failure: Failure, exit_codes: Mapping[int, int]) -> None:
    """Which process failed, and the end of what it said, unless the terminal has the same from the first one."""
    if failure.exit_code in ON_PURPOSE and exit_codes.get(0) == failure.exit_code:
        return
    LOG.error("%s; the others were ended", failure)
    if failure.log:
        lines = Path(failure.log).read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
        LOG.error("the end of what it said:\n  %s", "\n  ".join(lines) or "(nothing)")
