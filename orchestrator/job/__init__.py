"""SDNet's job: one file becomes patches, a trained network and its evaluation.

`spec/` reads the file, `plan.py` works it out, `launch.py` runs it stage by stage (`stages/`), and `workload.py` is
SDNet as a user of the engine. `run_directory.py` lists the paths of all files of a run.
"""
