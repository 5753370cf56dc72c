"""What an Ascend host has, read from npu-smi, hccn_tool and device files: devices, health, addresses, CPUs."""
