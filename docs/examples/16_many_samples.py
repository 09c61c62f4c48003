"""
A thousand samples here, a million elsewhere
============================================

``generate`` draws any number of samples into a folder, in as many processes as there
are, and goes on after any interruption. Sample i is a function of the seed and of i
alone, so that all machines draw one set.
"""

# %%
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import scoresde
from scoresde import plot

network = scoresde.load("digits")
folder = Path(tempfile.mkdtemp(), "digits")
options = {"method": "unipc2", "steps": 8, "shard_size": 250, "batch_size": 250}

# %%
# Begin with 500 of 1,000, as if the job had been stopped, and go on with the same
# call:

began = time.perf_counter()
first = scoresde.generate(folder, network.sde, network.score(), 500, **options)
rest = scoresde.generate(
    folder, network.sde, network.score(), 1000, extend=True, **options
)
seconds = time.perf_counter() - began
print(
    f"{first.made} shards, then {rest.made} more; complete:",
    scoresde.sets.verify(folder).complete,
)

# %%
# On paper: what a million would take on machines like this one, by the number of
# processes. There is no other work to share than the samples themselves, so that the
# time falls with the number of processes.

each = seconds / 1000
for processes in (1, 8, 64):
    print(f"{processes:3d} processes: {1e6 * each / processes / 60:.0f} minutes")

# %%
# The set is a dataset; here are samples 0, 100, 200 and so on.

data = scoresde.sets.Samples(folder)
x = data.all()["x"][::100]
fig, ax = plt.subplots(figsize=(7, 1.4), layout="constrained")
plot.image_table(x[None], columns=[str(i) for i in range(0, 1000, 100)], ax=ax)
plt.show()
