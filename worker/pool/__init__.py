"""`streamlabel run --processes N`: N whole workers on one machine, watched by one parent.

The parent reads no record and loads no model; it imports neither torch nor transformers nor kafka,
and nothing here may. Parent and child talk over the child's standard streams::

    stdin   the order: slot and settings, one line (secrets show neither in `ps` nor in the
            environment). Then the box's questions, one line each, and none before the last one is
            answered. Its end tells the child that the parent is gone.
    stdout  a report a second, one line each: health, metrics, the last posts; and one at once with
            each answer. The last one comes after the drain, with the reason for which the child
            ends.
    stderr  the log, the parent's own.

Rooms::

    shares      what each slot is given: settings, environment, its part of the cores
    reports     the lines on stdout, both ends
    totals      one set of metrics out of many; counters that outlive a process
    questions   what goes to stdin, the parent's end
    child       one life of a slot's process
    slot        when a slot is started again, and when no more
    ask         which process is asked what somebody types
    supervisor  all slots: start, health, stop
"""
