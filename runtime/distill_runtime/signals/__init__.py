"""What a teacher says about targets, as bytes: kinds, codec, output head, addresses.

- A signal's key covers the sequence, the teacher and the signal's spec, nothing of the training.
- What is read is what was written, or an error that names the object.
- The output head is published once per teacher and travels with its description (scale, softcap, bias, vocabulary).

How signals get from teacher to student is `transport`'s business.
"""
