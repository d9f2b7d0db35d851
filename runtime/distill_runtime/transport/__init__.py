"""How signals get from teachers to students: one interface, `interface`, and its planes (`objectstore`).

- The student asks for sequences in its order and doesn't know where they come from.
- The teacher asks for the next missing shard and doesn't know who reads it.
- A claim only saves work; the first manifest written wins.
"""
