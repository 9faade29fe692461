"""What of this machine a trial gets: its share of the processors, and GPUs that no other trial has, while they last."""

import os
from collections.abc import Sequence

import torch

from common.errors import UserError
from common.processors import n_processors
from run_directory.run_info import launch_id


def visible_gpus() -> list[str]:
    """As CUDA_VISIBLE_DEVICES names them; all of the machine where it is not set."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    return [str(i) for i in range(torch.cuda.device_count())]


def check_gpus(gpus: Sequence[str], *, n_jobs: int, each: int) -> None:
    """UserError where trials of several GPUs would have to share them. Trials of one may, in turn."""
    if each > 1 and gpus and n_jobs * each > len(gpus):
        fitting = len(gpus) // each
        advice = f"at most --n-jobs {fitting} fit" if fitting else f"ask for at most {len(gpus)}"
        raise UserError(
            f"--n-jobs {n_jobs} with --gpus-per-trial {each} needs {n_jobs * each} GPUs, and {len(gpus)} can be seen "
            f"({','.join(gpus)}); {advice}"
        )


def dealt(gpus: Sequence[str], slot: int, *, each: int) -> list[str]:
    """Those of one slot: no two slots have the same one as long as there are enough."""
    return [gpus[(slot * each + i) % len(gpus)] for i in range(each)] if gpus else []


def environment(slot: int, *, n_jobs: int, each: int) -> dict[str, str]:
    """Ours, with this slot's share of the processors and its GPUs; one launch for all restarts of a trial."""
    shared = {"TACOTRON2_LAUNCH_ID": launch_id()}
    if n_jobs * each > 1:
        threads = max(1, n_processors() // (n_jobs * each))
        shared["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS") or str(threads)
    if gpus := dealt(visible_gpus(), slot, each=each):
        shared["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    return dict(os.environ) | shared
