"""The teacher: reads sequences, yields hidden states at the positions before their targets.

- Ids go to the engine, never text. No prefix cache. Each answer has one row per token, finite, for the ids asked.
- Before a replica takes work it scores a canary alone and in a batch, and compares with what the first replica stored.
- `engine` is the interface; `vllm_engine` and `transformers_engine` are the two engines; `worker` is the loop.
"""
