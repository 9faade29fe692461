"""Every recommended configuration trains: the whole model, one step."""

import shutil
from math import isfinite
from pathlib import Path

import pytest
import yaml

from hparams import create_hparams
from run_directory.metrics_log import read_metrics
from support.commands import run, write_dataset
from support.documented import RECOMMENDED

pytestmark = pytest.mark.spec

N_STEPS = 1
QUICK = ("quality", "distributed")  # between them they use all that the others do; those run with the campaigns


@pytest.fixture(scope="module")
def cwd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with three recordings to train on and one to validate with, and a cache that all share."""
    folder = tmp_path_factory.mktemp("recommended")
    write_dataset(folder)
    return folder


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.campaign) for name in RECOMMENDED if name not in QUICK)]
)
def test_a_recommended_configuration_trains(name: str, cwd: Path) -> None:
    output = cwd / name
    run_of = ("-o", output, "-l", cwd / "logs" / output.name, "--max-steps", str(N_STEPS))
    done = run("train.py", *run_of, "--hparams", RECOMMENDED[name], cwd=cwd, cache=cwd / "cache")
    assert done.returncode == 0, done.stderr
    hp = create_hparams(RECOMMENDED[name])
    assert yaml.safe_load((output / "hparams.yaml").read_text()) == hp.canonical()
    (trained,) = (record for record in read_metrics(output) if record["type"] == "step")
    assert trained["step"] == N_STEPS and trained["skipped"] == 0
    assert all(map(isfinite, trained["losses"].values())), trained["losses"]
    expected = {"guided_attention": hp.use_guided_attn, "mmi": hp.use_mmi, "ddc": hp.use_ddc_loss}
    assert {part: part in trained["losses"] for part in expected} == expected
    assert (output / "checkpoints" / f"step_{N_STEPS:08d}.pt").is_file()
    shutil.rmtree(output / "checkpoints")  # 340 to 550 MB
