"""A fake Ascend host: its tools, /dev, /sys and configuration under a root of their own."""
