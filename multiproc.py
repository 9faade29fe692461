"""Trains on several GPUs or machines: `python multiproc.py train.py -o output -l logs --n_gpus 4`.

docs/gpu_and_several_machines.md says more.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from common.cli import Parser, int_at_least, run_command
from common.errors import UserError
from common.log import LOG
from common.signals import end_on_signal

EXAMPLES = """examples:
  python multiproc.py train.py -o output -l logs --n_gpus 4 --hparams "distributed_run=True,batch_size=16"
two machines with 8 GPUs each, the first named here host1; the same filelists and recordings on both:
  host1$ python multiproc.py --n_gpus 8 --nnodes 2 --node_rank 0 --rdzv_endpoint host1:29500 train.py -o output -l logs
  host2$ python multiproc.py --n_gpus 8 --nnodes 2 --node_rank 1 --rdzv_endpoint host1:29500 train.py -o output -l logs

Each process takes batch_size utterances a step. Arguments that are not listed here are passed on to train.py.
"""


def parser() -> Parser:
    usage = "multiproc.py [launcher flags] train.py [train flags] [launcher flags]"
    p = Parser(description=__doc__, epilog=EXAMPLES, usage=usage)

    def add(name: str, **more: object) -> None:
        p.add_argument(name, name.replace("_", "-"), **more)  # type: ignore[arg-type]

    add("--n_gpus", type=int_at_least(1), metavar="N", help="processes on this machine (default: one for each GPU)")
    add("--nnodes", type=int_at_least(1), default=1, metavar="N", help="number of machines (default 1)")
    add("--node_rank", type=int_at_least(0), metavar="R", help="number of this machine; machine 0 writes the run")
    add("--rdzv_endpoint", default="", metavar="HOST:PORT", help="where the machines meet: a free port on machine 0")
    restarts = "restart at most N times after a process died (default 0)"
    add("--max_restarts", type=int_at_least(0), default=0, metavar="N", help=restarts)
    text = "end a process without a sign of life for S seconds; must be longer than a step; 0: never (default 600)"
    add("--hang_timeout", type=int_at_least(0), default=600, metavar="S", help=text)
    return p


def script_of(command: Sequence[str]) -> Path | None:
    """The script to start, here or beside this file; None where the first argument names none."""
    places = (Path(), Path(__file__).resolve().parent) if command else ()
    return next((place / command[0] for place in places if (place / command[0]).is_file()), None)


def check(args: argparse.Namespace, command: Sequence[str]) -> None:
    """UserError with all that is wrong."""
    problems = []
    if script_of(command) is None:
        given = f"{command[0]} is none" if command else "none is given"
        problems.append(f"the first argument that is not a launcher flag must be a script, train.py: {given}")
    if args.nnodes > 1 and (args.node_rank is None or not args.rdzv_endpoint):
        problems.append(f"--nnodes {args.nnodes} needs --node_rank R and --rdzv_endpoint HOST:PORT on each machine")
    host, _, port = args.rdzv_endpoint.rpartition(":")
    if args.rdzv_endpoint and not (host and port.isdigit()):
        problems.append(f"--rdzv_endpoint {args.rdzv_endpoint} must be HOST:PORT, such as host1:29500")
    if (args.node_rank or 0) >= args.nnodes:
        problems.append(f"--node_rank {args.node_rank} must be under --nnodes {args.nnodes}; it counts from 0")
    if problems:
        raise UserError("\n".join(problems))


def launch(args: argparse.Namespace, command: Sequence[str]) -> int:
    check(args, command)
    from parallel import launcher  # imports torch, which takes seconds

    # the agent's own messages name its classes and pids; what a person needs of them is said in launching.py
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed.elastic")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    n_processes = launcher.processes_here(args.n_gpus)
    return launcher.run(
        launcher.Launch(
            [str(script_of(command)), *command[1:]],
            n_processes,
            nnodes=args.nnodes,
            node_rank=args.node_rank or 0,
            rdzv_endpoint=args.rdzv_endpoint,
            max_restarts=args.max_restarts,
            hang_timeout_s=args.hang_timeout,
        )
    )


def main(argv: Sequence[str] | None = None) -> int:
    args, command = parser().parse_known_args(argv)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    LOG.setLevel(logging.INFO)
    with end_on_signal():
        return run_command(lambda: launch(args, command))


if __name__ == "__main__":
    sys.exit(main())
