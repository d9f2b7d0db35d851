"""Fault drills: whatever dies while a job runs, it ends as if nothing had happened, or as it should.

`make drills` runs all and prints a table, `make drill NAME=…` one of them. Every drill has a job of its own with a
store of its own; the losses of all are compared with those of one undisturbed run.
"""
