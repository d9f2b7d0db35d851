"""The first role: reads data and models, and leaves plans and `prepared.json`. No GPU is asked for before it ends.

- Everything that can be known to be wrong without running a model ends here, in one sentence.
- Each output lies under the digest of what made it; what exists is not made again. A second run of the same job reads
  `prepared.json`, compares the fingerprint and imports no engine.
- `inputs` resolves, `plans` tokenises, `checks` refuses, `student` makes an initial student, `addresses` has the
  digests, `facts` counts, `role` puts them in order.
"""
