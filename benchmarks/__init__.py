"""What docs/performance.md reports: each figure beside a raw floor of the same run."""
