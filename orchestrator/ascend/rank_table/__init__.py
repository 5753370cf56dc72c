"""HCCL rank tables: builds, reads, merges and validates them by every rule of HCCL."""
