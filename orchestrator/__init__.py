"""Trains SDNet on clusters of Ascend hosts, through whatever fails, from one file and one command."""
