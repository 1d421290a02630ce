"""Bounded fuzzing: damaged files, odd names and wrong answers must not break more than themselves.

    python -m tests.fuzz --cases 5000
    python -m tests.fuzz --target spool --seed 17    # one case again

Each case is made from its seed alone. What is claimed of each:

- no exception but those of `collector/errors`, and each text that a user sees is one short line without control
  characters;
- it ends in time, and takes at most 300 MB of memory more than the process had before the first case;
- a second run in the same store, spool or folder is the same before and after.

A target (`target.Target`) is a class that makes cases from seeds and runs them. `loop` runs them in a process of its
own, and judges them. `__main__` starts the loops, survives them and counts. Seeds that failed once are in
`seeds.txt`, and run first.
"""
