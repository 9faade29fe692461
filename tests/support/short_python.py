"""What `python` is in the commands of a guide: a training takes two steps of a tiny model, all else is as written.

    short_python.py WORDS...

A Python that is warm already runs it, see warm_python.py; its socket is named by WARM_PYTHON. TINY are the settings of
the tiny model, SHORT_TRAINING the program that begins with a base voice of few sentences.
"""

import json
import os
import socket
import sys


def shortened(words: list[str]) -> list[str]:
    """Its limits in place of those that are written; of its settings those that are not."""
    if words[0] == "evaluate.py" and "-n" not in words:
        return [*words, "-n", "1"]
    if "train.py" not in words or "--show-params" in words:
        return words
    limits = {"--max-steps": "2"}
    if "--optimize-hyperparams" in words:
        limits["--n-trials"] = "1"
    if "--from-base" in words:
        limits["--base-steps"] = "2"
        words = [os.environ["SHORT_TRAINING"] if word == "train.py" else word for word in words]
    kept = [word for before, word in zip(["", *words], words, strict=False) if {before, word}.isdisjoint(limits)]
    written = ",".join(value for name, value in zip(words, words[1:], strict=False) if name == "--hparams")
    named = {setting.partition("=")[0] for setting in written.split(",")}
    tiny = [setting for setting in os.environ["TINY"].split(",") if setting.partition("=")[0] not in named]
    return [*kept, *(word for limit in limits.items() for word in limit), "--hparams", ",".join(tiny)]


def main(words: list[str]) -> int:
    own = ("WARM_PYTHON", "TINY", "SHORT_TRAINING", "GUIDE_PATH", "GUIDE_HOME", "PWD", "OLDPWD", "SHLVL", "_")
    environment = {name: value for name, value in os.environ.items() if name not in own}
    environment |= {"PATH": os.environ["GUIDE_PATH"], "HOME": os.environ["GUIDE_HOME"]}
    request = {"arguments": shortened(words), "cwd": os.getcwd(), "environment": environment}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ["WARM_PYTHON"])
        socket.send_fds(connection, [json.dumps(request).encode()], [0, 1, 2])
        with connection.makefile() as answers:
            answers.readline()  # the process id
            return int(answers.readline())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) & 0xFF)
