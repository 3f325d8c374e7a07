"""`accelerate launch` as a process that dies with the run that has started it."""

import os

from disp_engine.parentage import PARENT_VARIABLE, die_with_parent

if __name__ == "__main__":
    die_with_parent()
    os.environ[PARENT_VARIABLE] = str(os.getpid())  # the ranks' parent is this process

    from accelerate.commands.launch import main

    main()
