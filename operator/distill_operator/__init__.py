"""The operator's side: the resource, what it renders to, the command line. No torch, no vllm.

It imports `distill_runtime.contract` and nothing else of the runtime.
"""
