"""Stand-ins for an Ascend host: its tools, /dev, /sys and conf under a root of their own."""
