"""HCCL rank tables: built, read, merged, and judged by every rule of HCCL."""
