"""From text to sequences: sources, chat templates and target masks, the plan, the order of training.

- The unit is the sequence: ids and a target mask. `target_mask[i]` means that token i is predicted; the signal of that
  target is the teacher's state at position i - 1. Index 0 is never a target.
- A plan is stored under the digest of its inputs; its data digest covers ids and masks in the order of the data.
- Which sequences make step N is a pure function of (seed, N); see `order`.

Tensors of models, and what the teacher says, live elsewhere.
"""
