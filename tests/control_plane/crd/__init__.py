"""The DistillJob as the API server takes, refuses, changes and shows it."""
