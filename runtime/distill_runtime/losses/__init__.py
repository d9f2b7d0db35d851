"""Objectives: divergences between teacher and student over the vocabulary, and the fused linear form that trains.

- `reference` has the plain formulas; `fused_linear` computes the same over chunks of tokens, so that
  `[tokens, vocabulary]` never exists. Both are compared in loss and gradient.
- Sums over targets, never means: who calls divides by the targets of the global batch.
- Accumulation in float32, log-space throughout; padding rows of the vocabulary have no probability on either side.
"""
