"""Starts `python main.py …` as often as asked without importing torch again: reads one JSON request a line, forks, and
answers with the child's process number. A forked child is a process like any other: it can be killed.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parents[2]))

# what a fit imports late; no tensor is touched here, so there are no threads that a fork would lose
import torch.utils.tensorboard  # noqa: F401

import cli.lightning_cli  # noqa: F401
from cli import main


def child(request: dict) -> None:
    os.environ.update(request["environment"])
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.argv = ["main.py", *request["arguments"]]
    code = 1
    try:
        code = main(request["arguments"])
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


for line in sys.stdin:
    request = json.loads(line)
    if "wait" in request:
        _, status = os.waitpid(request["wait"], 0 if request["block"] else os.WNOHANG)
        ended = _ == request["wait"]
        answer = os.waitstatus_to_exitcode(status) if ended else None
    else:
        answer = os.fork()
        if answer == 0:
            child(request)
    print(json.dumps(answer), flush=True)
