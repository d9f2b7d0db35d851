"""Whole jobs in pods: vLLM and DeepSpeed on the processor, a tiny model, several teams."""
