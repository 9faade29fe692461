"""A command that a warm Python runs does what one does that starts cold."""

import subprocess
import sys
from pathlib import Path

import pytest

from support import warm_commands
from support.commands import environment
from support.warm_commands import run_warm

PROGRAM = """
import os, sys
print(sys.argv[1:], sys.path[0], os.getcwd(), os.environ["TOLD"], __name__)
print(sys.stdin.read(), "to the other one", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("script", ["script.py", "-m program"])
def test_arguments_folder_environment_and_exit_status_are_those_of_a_cold_start(script: str, tmp_path: Path) -> None:
    for name in ("script.py", "program.py"):
        (tmp_path / name).write_text(PROGRAM)
    called = [str(tmp_path / script)] if script.endswith(".py") else script.split()
    env = environment(tmp_path / "cache") | {"TOLD": "this"}
    arguments = [*called, "3", "two words", ""]
    warm = run_warm(arguments, cwd=tmp_path, env=env, timeout_s=60)
    cold = subprocess.run(
        [sys.executable, *arguments], cwd=tmp_path, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert warm.returncode == cold.returncode == 3
    assert (warm.stdout, warm.stderr) == (cold.stdout, cold.stderr) and "two words" in warm.stdout


def test_a_mistake_and_a_signal_end_it_as_they_would(tmp_path: Path) -> None:
    (tmp_path / "raises.py").write_text("raise ValueError('no')")
    (tmp_path / "killed.py").write_text("import os; os.kill(os.getpid(), 9)")
    env = environment(tmp_path / "cache")
    raised = run_warm([str(tmp_path / "raises.py")], cwd=tmp_path, env=env, timeout_s=60)
    assert raised.returncode == 1 and raised.stderr.endswith("ValueError: no\n")
    assert run_warm([str(tmp_path / "killed.py")], cwd=tmp_path, env=env, timeout_s=60).returncode == -9


@pytest.mark.slow
def test_what_takes_too_long_is_killed(tmp_path: Path) -> None:
    late = tmp_path / "late.txt"
    (tmp_path / "slow.py").write_text(f"import time; time.sleep(3); open({str(late)!r}, 'w')")
    with pytest.raises(subprocess.TimeoutExpired):
        run_warm([str(tmp_path / "slow.py")], cwd=tmp_path, env=environment(tmp_path / "cache"), timeout_s=0.5)
    subprocess.run([sys.executable, "-c", "import time; time.sleep(3)"], check=True)
    assert not late.exists()


def test_only_what_libraries_read_at_import_makes_a_command_start_cold(tmp_path: Path) -> None:
    env = environment(tmp_path / "cache")
    assert warm_commands._suits(env | {"TORCHINDUCTOR_CACHE_DIR": "/tmp/inductor"}), "torch sets it when it compiles"
    assert not warm_commands._suits(env | {"OMP_NUM_THREADS": "7"})


def test_nothing_of_ours_is_in_it_beforehand(tmp_path: Path) -> None:
    (tmp_path / "loaded.py").write_text(
        "import sys; print([n for n, m in sys.modules.items() if (getattr(m, '__file__', None) or '').startswith("
        f"{str(Path(__file__).parent.parent)!r}) and 'site-packages' not in m.__file__])"
    )
    done = run_warm([str(tmp_path / "loaded.py")], cwd=tmp_path, env=environment(tmp_path / "cache"), timeout_s=60)
    assert done.stdout in ("[]\n", "['__mp_main__']\n")  # warm_python.py itself


@pytest.mark.slow
def test_another_setting_of_the_threads_starts_cold(tmp_path: Path) -> None:
    (tmp_path / "threads.py").write_text("import torch; print(torch.get_num_threads())")
    env = environment(tmp_path / "cache") | {"OMP_NUM_THREADS": "1"}
    assert run_warm([str(tmp_path / "threads.py")], cwd=tmp_path, env=env, timeout_s=60).stdout == "1\n"
