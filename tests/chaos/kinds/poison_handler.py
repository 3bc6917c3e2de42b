import os
import signal
import time

from sluice.kinds.poison import Inputs, Outputs

from functions.engine.handler import Step


def run(_task: Inputs, _step: Step) -> Outputs:
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)
    return Outputs()
