"""Names of Kubernetes' own objects, labels and folders, as types."""

from typing import Annotated

from pydantic import StringConstraints

LabelKey = Annotated[
    str,
    StringConstraints(
        pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$", max_length=317
    ),
]
"""A label's or annotation's name, with an optional prefix."""
LabelValue = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$", max_length=63)]
"""A label's value."""
ObjectName = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", min_length=1, max_length=253)
]
"""Name of an object: a DNS-1123 subdomain."""
VolumeName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=63)]
"""Name of a volume: a DNS-1123 label."""
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=256)]
"""Name of an environment variable."""
DataKey = Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]+$", min_length=1, max_length=253)]
"""A key in a Secret or ConfigMap."""
AbsolutePath = Annotated[
    str, StringConstraints(pattern=r"^(/([^/:.][^/:]*|\.[^/:.][^/:]*|\.\.[^/:]+))+$", max_length=1024)
]
"""A path from the root that means one place only: no `.` or `..` in it, no `/` at its end."""
RelativePath = Annotated[
    str,
    StringConstraints(
        pattern=r"^([^/.][^/]*|\.[^/.][^/]*|\.\.[^/]+)(/([^/.][^/]*|\.[^/.][^/]*|\.\.[^/]+))*$", max_length=1024
    ),
]
"""A path that stays in its folder."""
