# SPDX-License-Identifier: Apache-2.0
"""The training loop.

Randomness in a step depends only on the recipe's seed, the number of the step and the process. A run that
was killed therefore continues from its last saved state as if nothing had happened, and the state needs no
random generators. Under ``torchrun`` every process takes its share of each batch
(DistributedDataParallel; gloo on CPUs, NCCL on GPUs).
"""

from __future__ import annotations

import copy
import hashlib
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.utils.data import DataLoader
from torch.utils.hooks import RemovableHandle

from rowvit.errors import RowvitError, replacing
from rowvit.model import store
from rowvit.model.prune import set_pruning
from rowvit.model.store import Card
from rowvit.model.vit import VisionTransformer, standardise
from rowvit.photos import Photos, one_way
from rowvit.quant.aware import activation_scales, quantisation_aware
from rowvit.quant.quantise import refuse_what_does_not_run
from rowvit.quant.smooth import centre_keys
from rowvit.train.apart import Apart
from rowvit.train.data import TrainingSet, collate
from rowvit.train.loss import features, loss, mix, rows, unfocused
from rowvit.train.recipe import Phase, Recipe

LOG = logging.getLogger("rowvit")
CALIBRATION_PHOTOS = 256  # of a quantisation-aware phase

#: called in the first process after every step, with steps done, total steps, phase and loss
Progress = Callable[[int, int, Phase, float], None]


class Trainer:
    """One run: a network, photos and a recipe.

    Parameters
    ----------
    model : VisionTransformer
        Trained in place.
    card : Card
        Mean, standard deviation and resizing of the network's input; `save` notes the training in it.
    photos : Photos
    recipe : Recipe
    state : Path
        Where the state is saved during the run.
    teacher : (VisionTransformer, Card), optional
        For phases with distillation; it has the same classes. Where its input has another size, it sees the
        same photos scaled.
    workers : int
        Processes that decode photos; with 0 they are decoded between the steps.
    save_every : float
        Seconds between two states.

    Raises
    ------
    RowvitError
        If photos, network, teacher and recipe do not fit each other.
    """

    def __init__(
        self,
        model: VisionTransformer,
        card: Card,
        photos: Photos,
        recipe: Recipe,
        state: Path,
        teacher: tuple[VisionTransformer, Card] | None = None,
        workers: int = 0,
        save_every: float = 60.0,
    ) -> None:
        if recipe.photos:
            photos = photos.subset(recipe.photos, recipe.seed)
        self.trained_on = photos.name
        require_fit(model, photos, recipe, teacher)
        self.rank, self.world, self.device = _processes()
        self.bf16 = in_bf16(recipe.precision, self.device)
        if recipe.batch % self.world:
            raise RowvitError(
                f"a batch of {recipe.batch} cannot be split evenly among {self.world} processes"
            )
        self.batch = min(recipe.batch, len(photos) // self.world * self.world)
        if not self.batch:
            raise RowvitError(f"photos cannot be split among processes: {len(photos)} among {self.world}")
        if self.batch < recipe.batch:
            LOG.info("a batch has %d photos instead of %d, as there are no more", self.batch, recipe.batch)
        if model.config.pruning and any(phase.prune_layers for phase in recipe.phases):
            LOG.info("the recipe's pruning takes the place of the network's own")
        self.model, self.card, self.recipe, self.state, self.teacher = model, card, recipe, state, teacher
        self.workers, self.save_every = workers, save_every
        augmentation = recipe.augmentation
        focused = any(phase.focus for phase in recipe.phases)
        side = model.config.image_size
        self.data = TrainingSet(photos, side, card.resize, augmentation, recipe.seed, focused, card.crop)
        self.per_epoch = len(photos) // self.batch
        epochs = [round(phase.epochs * self.per_epoch) for phase in recipe.phases]
        self.steps = [
            max(1, phase.min_steps, steps) for phase, steps in zip(recipe.phases, epochs, strict=True)
        ]
        self.fingerprint = self._fingerprint(photos)
        self.done = 0  # steps
        self._written = time.monotonic()  # the state

    def run(self, progress: Progress = lambda *_: None) -> None:
        """Train, from the saved state if there is one; `save` or `forget` ends the run."""
        saved = self._read_state()
        self.model.to(self.device)
        if self.teacher is not None:
            self.teacher[0].to(self.device).eval().requires_grad_(False)
        first = 0
        patches = self.model.config.tokens - self.model.config.prefix
        for phase, steps in zip(self.recipe.phases, self.steps, strict=True):
            if phase.prune_layers:  # also if the phase is over: later ones keep its schedule
                set_pruning(self.model, phase.schedule(patches))
            if self.done < first + steps:
                trained: nn.Module = Apart(self.model) if phase.apart else self.model
                if self.world > 1:
                    # what finds unused parameters, such as those of no class token, never changes the order
                    # of its sums, which a training that goes on could not know
                    trained = nn.parallel.DistributedDataParallel(trained, find_unused_parameters=True)
                self._phase(trained, phase, first, steps, saved, progress)
                saved = None
            first += steps
        self.model.token_drop = 0.0
        self.model.cpu().eval()

    def save(self, output: Path, recipe: str) -> bool:
        """Save the network, with a line of history that names the recipe, and `forget` the state.

        Returns
        -------
        bool
            Whether this is the first process, which alone saves the network.

        Raises
        ------
        RowvitError
            The file cannot be written.
        """
        phases = ", ".join(phase.name or f"{phase.epochs:g} epochs" for phase in self.recipe.phases)
        self.card.history.append(f"trained by {recipe} ({phases}) on {self.trained_on}")
        self.card.accuracy = {}
        if self.rank == 0:
            store.save(output, self.model, self.card)
        self.forget()
        return self.rank == 0

    def forget(self) -> None:
        """Delete the saved state and leave torchrun's process group."""
        if self.rank == 0:
            self.state.unlink(missing_ok=True)
        if self.world > 1:
            dist.barrier()  # who leaves early closes connections that the others may still use
            dist.destroy_process_group()

    def _phase(
        self, wrapped: nn.Module, phase: Phase, first: int, steps: int, saved: dict | None, progress: Progress
    ) -> None:
        recipe, model = self.recipe, self.model
        model.train()
        model.token_drop = phase.token_drop
        pruning = model.config.pruning
        optimizer = torch.optim.AdamW(_groups(model, phase), lr=phase.lr, betas=(0.9, 0.999))
        if saved is not None and self.done > first:
            optimizer.load_state_dict(saved["optimizer"])
        scales = None
        if phase.quantise:
            scales = saved["scales"] if saved is not None and self.done > first else self._scales()
        for images, labels in self._batches(first, steps):
            torch.manual_seed(hash((recipe.seed, self.done, self.rank)) & 0x7FFF_FFFF)
            # the same in all processes
            draw = np.random.default_rng([recipe.seed, self.done]).random()
            set_pruning(model, pruning if draw < phase.prune_share else ())
            rate = _rate(phase, (self.done - first) / steps)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            with quantisation_aware(model, scales) if scales else nullcontext():
                try:
                    images, labels = images.to(self.device), labels.to(self.device)
                    value = self._step(wrapped, optimizer, phase, images, labels)
                except torch.OutOfMemoryError as error:
                    raise RowvitError(
                        f"a batch of {self.batch} does not fit into the memory of {self.device}",
                        "use a smaller one",
                    ) from error
            self.done += 1
            if not math.isfinite(value):
                raise RowvitError(
                    f"the loss is {value} in step {self.done} ('{phase.name}')", "lower the learning rate"
                )
            if self.rank == 0:
                progress(self.done, sum(self.steps), phase, value)
            if time.monotonic() - self._written >= self.save_every:
                self._write_state(optimizer, scales)
                self._written = time.monotonic()
        set_pruning(model, pruning)

    def _scales(self) -> dict[str, float]:
        """Centre the keys and calibrate the activations of the network as it is now, in every process."""
        photos = self.data.photos.subset(CALIBRATION_PHOTOS, self.recipe.seed)
        pixels = photos.prepared(self.data.side, self.card.resize, self.card.crop)
        mean, std = self.card.mean, self.card.std
        centred = centre_keys(copy.deepcopy(self.model).cpu(), mean, std, pixels)
        self.model.load_state_dict(centred.state_dict())
        return activation_scales(centred, mean, std, pixels)

    def _step(
        self,
        wrapped: nn.Module,
        optimizer: torch.optim.Optimizer,
        phase: Phase,
        pixels: Tensor,
        labels: Tensor,
    ) -> float:
        pixels, targets = mix(pixels.float() / 255, labels, self.model.config.classes, phase)
        pixels, masks = pixels[:, :3], pixels[:, 3:]
        hidden: list[Tensor] = []
        streams: dict[str, Tensor] = {}  # behind each block
        taught: dict[str, Tensor] = {}  # the teacher's residual stream, and its logits

        def observe(name: str, activation: Tensor) -> None:
            if phase.row_penalty and name.endswith(".hidden"):
                hidden.append(activation)
            if phase.features and name.endswith(".ffn"):
                streams[name] = activation

        def learn(name: str, activation: Tensor) -> None:
            if name in ("embed", "logits") or name.endswith((".attn", ".ffn")):
                taught[name] = activation

        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            if phase.taught and self.teacher is not None:
                teacher, card = self.teacher
                seen, side = pixels, teacher.config.image_size
                if side != self.model.config.image_size:
                    seen = nn.functional.interpolate(pixels, size=side, mode="bilinear", antialias=True)
                with torch.no_grad():
                    teacher(standardise(seen, card.mean, card.std), learn)
            images = standardise(pixels, self.card.mean, self.card.std)
            with ScoreRecorder(self.model) if phase.focus else nullcontext() as scores:
                apart, logits = wrapped(images, taught) if phase.apart else (0.0, wrapped(images, observe))
        value = apart + loss(logits.float(), targets, taught["logits"].float() if taught else None, phase)
        if phase.features:
            blocks = phase.feature_layers or (self.model.config.depth - 1,)
            behind = [f"layers.{block}.ffn" for block in blocks]
            far = [features(streams[name], self.model.tokens, taught[name]) for name in behind]
            value = value + phase.features * torch.stack(far).mean()
        if scores and scores.scores:
            share = nn.functional.avg_pool2d(masks, self.model.config.patch_size).flatten(1)
            value = value + phase.focus * unfocused(scores.scores, scores.tokens, share)
        if hidden:
            value = value + phase.row_penalty * rows(hidden)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        optimizer.step()
        return float(value.detach())

    def _batches(self, first: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The share of every batch for this process, from the next step to the last of the phase."""
        batch, seed = self.batch, self.recipe.seed
        while self.done < first + steps:
            epoch, begin = divmod(self.done, self.per_epoch)
            order = np.random.default_rng([seed, epoch, 1]).permutation(len(self.data))
            end = min(self.per_epoch, begin + first + steps - self.done)
            shares = [
                order[step * batch + self.rank : (step + 1) * batch : self.world].tolist()
                for step in range(begin, end)
            ]
            self.data.epoch = epoch
            loader = DataLoader(self.data, batch_sampler=shares, num_workers=self.workers, collate_fn=collate)
            for found in loader:
                if isinstance(found, RowvitError):
                    advice = "put a whole picture of this name in its place, and the same command goes on"
                    raise RowvitError(found.message, advice)
                yield found

    # -- state ----------------------------------------------------------------------------------

    def _fingerprint(self, photos: Photos) -> str:
        """Hash of what must be the same to continue from a saved state."""
        networks = [(self.model, self.card), *([self.teacher] if self.teacher else [])]
        cards = [(model.config, card.mean, card.std, card.resize, card.crop) for model, card in networks]
        files = [file.name if isinstance(file, Path) else len(file) for file in photos.files]
        told = self.recipe, photos.name, photos.classes, files, cards
        sha = hashlib.sha256(repr(told).encode())
        if any(least := [phase.min_steps for phase in self.recipe.phases]):
            sha.update(repr(least).encode())
        sha.update(photos.labels.tobytes())
        for model, _ in networks:
            for name, tensor in sorted(model.state_dict().items()):
                sha.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return sha.hexdigest()

    def _write_state(self, optimizer: torch.optim.Optimizer, scales: dict[str, float] | None) -> None:
        if self.rank:
            return
        state = {"fingerprint": self.fingerprint, "done": self.done, "optimizer": optimizer.state_dict()}
        state |= {"model": self.model.state_dict(), "scales": scales}
        try:
            with replacing(self.state) as part:
                torch.save(state, part)
        except RuntimeError as error:  # of torch's writer, on a full disk
            raise RowvitError(
                f"{self.state}: cannot be written ({error})", "free some space and run it again"
            ) from error

    def _read_state(self) -> dict | None:
        """The saved state; the first process reads it and sends it to the others."""
        shared = [self._saved() if self.rank == 0 else None]
        if self.world > 1:
            dist.broadcast_object_list(shared)
        saved = shared[0]
        if saved is not None:
            self.model.load_state_dict(saved["model"])
            self.done = saved["done"]
            LOG.info("continuing after step %d of %d", self.done, sum(self.steps))
        return saved

    def _saved(self) -> dict | None:
        if not self.state.exists():
            return None
        try:
            saved = torch.load(self.state, map_location="cpu", weights_only=True)
            fits = saved["fingerprint"] == self.fingerprint
        except Exception as error:  # torch raises many types for a foreign file
            raise RowvitError(f"{self.state}: cannot be read as a training state", "delete it") from error
        if not fits:
            text = f"{self.state}: from a run with another recipe, network, teacher or data"
            raise RowvitError(text, "delete it to start over")
        return saved


class ScoreRecorder:
    """In its context, collects the scores of every block that prunes, and which patches they belong to.

    For one pass of the network; ``tokens`` [B, live] counts patches from 0, and prefix tokens below it.
    """

    def __init__(self, model: VisionTransformer) -> None:
        self.model = model
        self.scores: list[Tensor] = []
        self.tokens: list[Tensor] = []
        self._live = torch.arange(model.config.tokens) - model.config.prefix
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> ScoreRecorder:
        for block in self.model.blocks:
            if block.keep is not None:
                self._hooks.append(block.attn.register_forward_hook(self._attention))
                self._hooks.append(block.register_forward_hook(self._block))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _attention(self, _: nn.Module, __: tuple, output: tuple[Tensor, Tensor]) -> None:
        score = output[1]
        self._live = self._live.to(score.device).expand(len(score), -1)
        self.scores.append(score)
        self.tokens.append(self._live)

    def _block(self, _: nn.Module, __: tuple, output: tuple[Tensor, Tensor | None]) -> None:
        rows = output[1]
        self._live = self._live if rows is None else self._live.gather(1, rows)


def require_fit(
    model: VisionTransformer, photos: Photos, recipe: Recipe, teacher: tuple[VisionTransformer, Card] | None
) -> None:
    """`RowvitError` if photos, network, teacher and recipe do not fit each other."""
    for network in (model, *(teacher[:1] if teacher else ())):
        if network.config.image_width:
            height, width = network.config.size
            raise RowvitError(
                f"training takes square images, and a network takes {height} x {width} pixels"
                " (height x width)"
            )
    classes = len(photos.classes)
    if model.config.classes != classes:
        raise RowvitError(f"the network has {model.config.classes} classes and the photos have {classes}")
    if classes == 1:
        raise RowvitError("one class leaves nothing to learn: every answer is right", "train two or more")
    if recipe.taught and teacher is None:
        raise RowvitError("the recipe has distillation", "name the teacher with --teacher")
    if recipe.taught and teacher is not None:
        pairs = [("classes", teacher[0].config.classes, classes)]
        if any(phase.features or phase.apart for phase in recipe.phases):
            pairs += [
                ("tokens", teacher[0].config.tokens, model.config.tokens),
                ("channels", teacher[0].config.dim, model.config.dim),
            ]
        if any(phase.feature_layers or phase.apart for phase in recipe.phases):
            pairs.append(("blocks", teacher[0].config.depth, model.config.depth))
        for what, theirs, ours in pairs:
            if theirs != ours:
                raise RowvitError(f"the teacher has {theirs} {what}, and the network {ours}")
        names = [one_way(name) for name in teacher[1].classes]
        if sorted(names) == sorted(photos.classes) and names != list(photos.classes):
            raise RowvitError(
                "the teacher has the classes in another order", "import both with the same --class-names"
            )
        other = [pair for pair in zip(photos.classes, names, strict=False) if pair[0] != pair[1]]
        if other:
            LOG.warning("the teacher calls class '%s' '%s': it teaches by their order", *other[0])
    drops = bool(model.config.pruning)
    for phase in recipe.phases:
        drops |= bool(phase.prune_layers)
        if phase.feature_layers and drops:
            raise RowvitError(
                f"phase '{phase.name}' has feature_layers, but the network drops tokens by then",
                "leave them out: the features behind the last block are of the tokens that are left",
            )
        if phase.features and teacher is not None and teacher[0].config.pruning:
            raise RowvitError(
                f"phase '{phase.name}' has features, but the teacher drops tokens", "use one with all of them"
            )
        if any(not 0 <= layer < model.config.depth for layer in phase.prune_layers):
            raise RowvitError(f"phase '{phase.name}' prunes in a block that the network does not have")
        if any(not 0 <= layer < model.config.depth for layer in phase.feature_layers):
            raise RowvitError(f"phase '{phase.name}' has feature_layers that the network does not have")
        if phase.apart and (drops or (teacher is not None and teacher[0].config.pruning)):
            raise RowvitError(f"phase '{phase.name}' is apart, but a network drops tokens")
    if any(phase.quantise for phase in recipe.phases):
        refuse_what_does_not_run(model)


def in_bf16(precision: str, device: torch.device) -> bool:
    """Whether matrix products are in bfloat16 on this device, for a recipe's ``precision``."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    # PyTorch has no public name for it; without it, bf16 is emulated
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def _processes() -> tuple[int, int, torch.device]:
    """Rank, number of processes and the device of this one; joins torchrun's process group."""
    device = torch.device("cpu")
    if torch.cuda.is_available():
        local, present = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if local >= present:
            raise RowvitError(f"process {local} has no GPU, there are {present}", "start fewer processes")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    if "WORLD_SIZE" not in os.environ:
        return 0, 1, device
    if not dist.is_initialized():
        try:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        except (ValueError, RuntimeError) as error:
            raise RowvitError(
                f"the processes cannot connect to each other ({error})", "start them with torchrun"
            ) from error
    return dist.get_rank(), dist.get_world_size(), device


def _rate(phase: Phase, done: float) -> float:
    """Learning rate after the share ``done`` of a phase."""
    if done < phase.warmup:
        return phase.lr * max(done, min(1e-3, phase.warmup)) / phase.warmup
    cosine = (1 + math.cos(math.pi * (done - phase.warmup) / max(1 - phase.warmup, 1e-9))) / 2
    return phase.final_lr + (phase.lr - phase.final_lr) * cosine


def _groups(model: VisionTransformer, phase: Phase) -> list[dict]:
    """Parameter groups by depth and weight decay."""
    depth = model.config.depth
    groups: dict[tuple[int, bool], dict] = {}
    for name, parameter in model.named_parameters():
        if name.startswith("blocks."):
            level = 1 + int(name.split(".")[1])
        else:
            level = 0 if name.startswith(("patch_embed", "cls_token", "pos_embed", "norm_pre")) else depth + 1
        decays = parameter.ndim > 1 and name not in ("cls_token", "pos_embed")
        group = groups.setdefault(
            (level, decays),
            {
                "params": [],
                "factor": phase.layer_decay ** (depth + 1 - level),
                "weight_decay": phase.weight_decay if decays else 0.0,
            },
        )
        group["params"].append(parameter)
    return list(groups.values())
