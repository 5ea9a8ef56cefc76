"""`torchrun ... -m training.run`: `simclr pretrain` in several processes."""

import sys

from core.command_line.command import main
from training.run.command import COMMAND

if __name__ == "__main__":
    sys.exit(main(COMMAND))
