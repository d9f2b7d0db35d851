"""What runs inside the containers of a DistillJob: prepare, teacher, student and evaluation.

Importing this package imports no engine. The operator imports `distill_runtime.contract` and nothing else of it;
this package imports nothing of the operator.
"""
