"""Runs N whole workers on one machine under one parent: `streamlabel run --processes N`.

Owns: the processes, their pipes and their combined metrics.
Thread: the parent's main thread steps the slots; `reports-PID` and `asks-PID` serve each child's
    pipes; http asks for health, metrics and answers. `entry` runs in the child.
Must not import: torch, transformers or kafka, in the parent: it reads no record and loads no model.

Parent and child talk over the child's standard streams::

    stdin   one line with the slot's number and settings (secrets stay out of `ps` and of the
            environment); then the page's questions, one line each, each sent after the answer to
            the one before, and orders to change the model. End of file tells the child that the
            parent is gone.
    stdout  a report a second, one line each: health, metrics, the page's notes, the model; with an
            answer, one at once. The last report follows the drain and has the reason why the child
            ends.
    stderr  the log, shared with the parent.

Modules::

    shares      each slot's settings
    reports     the lines on stdout, both ends
    totals      merges the processes' metrics; counters outlive their process
    questions   writes to a child's stdin, from the parent
    orders      obeys orders to change the model, in the child
    model_round changes the model of one process after the other
    child       one process, from start to end
    entry       the child's main function
    memory_kills    why a process was killed by SIGKILL
    slot        restarts a process, with backoff, until it has failed too often
    ask         picks the process that answers a question of the page
    supervisor  all slots: start, health, stop
"""
