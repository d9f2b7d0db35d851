"""The student: a model and an objective in one module under DeepSpeed ZeRO, trained from a plan and signals.

- The result does not depend on world size, micro-batch, packing, ZeRO stage or transport.
- The learning rate is a function of (step, total steps of the job).
- Every rank makes the same number of micro-steps.
- Checkpoints are our own format, manifest last, fenced by attempt.
"""
