"""A command that looks like train.py to the tuner: records in metrics.jsonl, a checkpoint, exit codes; no torch.

Its score falls with training, and the nearer learning_rate is to 1e-3, the lower. STAND_IN says what else it does:
`die` exit 1 with a last line, `nan` no finite gradient, `hang` never ends, `deaf` hangs and ignores SIGTERM, `killed`
kills itself the first time, `all_but_0` dies unless it is trial 0, `slow` takes a twentieth of a second a step,
`memory` is killed each time, `full` finds no room the first two times, `luck` has the same score for all seeds but
the search's own. A learning_rate over 0.01 has no finite gradient.
"""

import errno
import json
import math
import os
import signal
import sys
import time
from pathlib import Path

TIMES = {"time": time.time(), "step_s": 0.5, "duration_s": 2.0}


def main() -> int:
    words = [word for word in sys.argv[1:] if word != "--warm-start"]
    arguments = dict(zip(words[::2], words[1::2], strict=False))
    directory = Path(arguments["-o"])
    values = dict(pair.split("=", 1) for pair in arguments["--hparams"].split(",") if "[" not in pair)
    behaviour = os.environ.get("STAND_IN", "")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "command.json").write_text(json.dumps(sys.argv[1:]))
    launches = directory / "launches"
    first = not launches.exists()
    with launches.open("a") as f:
        f.write("x")
    if behaviour == "die" or (behaviour == "all_but_0" and not directory.name.endswith("_00000")):
        print("RuntimeError: this trial was made to die")
        return 1
    if behaviour == "full" and len(launches.read_text()) <= 2:
        print(f"not saved: steps 1 to 4 ({os.strerror(errno.ENOSPC)})")
        return 2
    if behaviour == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    steps, every = int(arguments["--max-steps"]), int(values["validate_interval"])
    epochs = float(values["epochs"])
    is_sick = behaviour == "nan" or float(values["learning_rate"]) > 0.01
    is_level = behaviour == "luck" and "seed" in values
    with (directory / "metrics.jsonl").open("a") as metrics:
        for step in range(1, steps + 1):
            total = math.nan if is_sick else 1.0
            line = {"type": "step", "step": step, "epoch": epochs * step / steps, "losses": {"total": total}, **TIMES}
            metrics.write(json.dumps(line) + "\n")
            if step % every == 0 or step == steps:
                judged = evaluated(step, epochs * step / steps, values, is_level=is_level)
                metrics.write(json.dumps(judged) + "\n")
            metrics.flush()
            time.sleep(0.05 if behaviour == "slow" else 0)
        if behaviour == "memory" or (behaviour == "killed" and first):
            os.kill(os.getpid(), signal.SIGKILL)
        while behaviour in ("hang", "deaf") or is_sick:
            time.sleep(0.05)
    (directory / "checkpoints").mkdir(exist_ok=True)
    (directory / "checkpoints" / "step_00000001.pt").write_text("weights")
    return 0


def evaluated(step: int, epoch: float, values: dict[str, str], *, is_level: bool) -> dict[str, object]:
    distance = 0.3 + 0.1 * (is_level or abs(math.log(float(values["learning_rate"]) / 1e-3))) + 0.5 / step
    free = {"alignment": 0.9, "mel_distance": distance, "stop_rate": 1.0, "duration_error": 0.0}
    return {
        "type": "eval", "step": step, "epoch": epoch, "losses": {"mel_post": 0.5}, "free_running": free,
        "score": distance + 0.05, **TIMES,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
