"""The data of a job: what there is, where its files are, and whether a run was trained with them."""
