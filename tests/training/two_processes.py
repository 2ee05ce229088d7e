"""Run by test_trainer.py under torchrun, in two processes: trainings to be compared with those in one."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from tiny import make_trainer, outcome

folder = Path(sys.argv[1])
rows = json.loads((folder / "rows.json").read_text())
outcomes = {}
for name, batch_size, accumulation in (("2x4", 4, 1), ("2x2x2", 2, 2)):
    trainer = make_trainer(
        rows,
        folder / name,
        batch_norm="frozen",
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
    )
    trainer.train()
    outcomes[name] = outcome(trainer)

# Three steps an epoch: the checkpoint at step 4 lies within the second.
unbroken = {"batch_norm": "frozen", "per_device_train_batch_size": 2, "save_strategy": "steps", "save_steps": 4}
trainer = make_trainer(rows, folder / "resumed", **unbroken)
trainer.train()
outcomes["unbroken"] = outcome(trainer)
trainer = make_trainer(rows, folder / "resumed", **unbroken)
trainer.train(resume_from_checkpoint=str(folder / "resumed" / "checkpoint-4"))
outcomes["resumed"] = outcome(trainer)

if trainer.is_world_process_zero():
    torch.save(outcomes, folder / "outcomes.pt")
# Without these, gloo now and then aborts at exit.
dist.barrier()
dist.destroy_process_group()
