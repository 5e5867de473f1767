# SPDX-License-Identifier: Apache-2.0
"""What the core does for an image, counted without running it: from its instructions and their data.

The counts are those of `rowvit.hardware.activity`; ``tests/network/test_activity.py`` compares with the RTL.
"""

from __future__ import annotations

from collections import Counter

from rowvit.cycles.data import Statistics, assumed
from rowvit.cycles.jobs import Job, jobs
from rowvit.formats.program import Program
from rowvit.hardware.activity import COUNTS
from rowvit.hardware.config import HardwareConfig
from rowvit.hardware.isa import INSTRUCTION_BYTES, Dst, Engine, Flag, LoadKind, NormKind, Op
from rowvit.hardware.pipeline import NORM_ROWS, SEARCH_SCANS


def activity(
    program: Program, config: HardwareConfig, statistics: Statistics | None = None
) -> list[dict[str, float]]:
    """Predict the counts of one image.

    Parameters
    ----------
    program : Program
    config : HardwareConfig
        What the program was compiled for.
    statistics : list of LayerStatistics, optional
        From `measured` or, by default, `assumed`.

    Returns
    -------
    list of dict
        `hardware.activity.COUNTS` of embedding, every layer and head. A load counts for the layer that uses
        it. The passes over the scores of a selection are `pipeline.SEARCH_SCANS`, and what the softmax makes
        of rows and groups without a token is taken as not zero.
    """
    part, found = program.passes[0], statistics or assumed(program)
    depth = program.meta["architecture"]["depth"]
    layers = [_Counted(config) for _ in range(depth + 2)]
    for job in jobs(program, part, config, [found]):
        layer = layers[job.slice.layer + 1]
        layer.counts["axi_beats"] += INSTRUCTION_BYTES // 8
        if not job.void:
            layer.add(job, found)
    # header and end, and the header again for the end of the pass
    layers[0].counts["axi_beats"] += 3 * INSTRUCTION_BYTES // 8
    return [{name: float(layer.counts[name]) for name in COUNTS} for layer in layers]


class _Counted:
    """Counts of one layer."""

    def __init__(self, config: HardwareConfig) -> None:
        self.config, self.counts = config, Counter[str]()
        self.banks = config.rows * config.groups

    def add(self, job: Job, statistics: Statistics) -> None:
        """What an instruction does."""
        fields, op = job.instruction.fields, job.instruction.op
        if op is Op.MATMUL:
            self._matmul(job)
        elif op is Op.ATTN:
            self._attention(job)
        elif op is Op.LOAD:
            self._load(job)
        elif op is Op.NORM:
            self._norm(job)
        elif op is Op.SELECT:
            kept = statistics[job.slice.layer].after
            scans = 1 if kept in (1, job.live) else SEARCH_SCANS
            self.counts.update(score_reads=scans * job.live, selected=kept, send_words=1 + -(-kept // 4))
        elif op is Op.RECV:
            rows, words = fields["rows"], fields["row_words"]
            self.counts.update(recv_words=(rows - fields["prefix"]) * words, token_writes=rows * words)
        if Flag.MARK in job.instruction.flags and job.slice.engine is Engine.EXEC:
            self.counts.update(send_words=2)

    def _matmul(self, job: Job) -> None:
        config, fields, flags = self.config, job.instruction.fields, job.instruction.flags
        first = fields["band0"]
        end = min(config.bands(job.live), first + fields["bands"])
        bands, groups, lanes, dst = end - first, fields["groups"], config.lanes, fields["dst"]
        if bands <= 0:
            return
        rows = min(end * config.rows, job.live) - first * config.rows
        if Flag.SPARSE in flags:
            self.counts.update(
                fires=job.work[first:end].sum() * groups,
                weight_reads=job.lines[first:end].sum() * groups,
                token_reads=job.packed[first:end].sum(),
            )
        else:
            k = fields["k"]
            self.counts.update(
                fires=k * rows * groups, weight_reads=k * bands * groups, token_reads=rows * k // 8
            )
        drained = lanes * (groups if dst == Dst.STREAM else rows if Flag.GATHER in flags else bands)
        self.counts.update(drained=drained)
        if Flag.GATHER in flags:
            self.counts.update(gathers=bands)
        if flags & {Flag.ROPE, Flag.GATED}:
            self.counts.update(rotated=drained)
        values = rows * groups * lanes
        if dst == Dst.RESIDUAL:
            self.counts.update(
                residual_sums=drained, residual_reads=drained * self.banks, residual_writes=values
            )
        elif dst in (Dst.KEY, Dst.VALUE):
            self.counts.update(weight_bytes=values)
        elif dst == Dst.STREAM:
            self.counts.update(send_words=1 + -(-fields["count"] // 4))
        elif dst == Dst.HIDDEN and fields["mask_bands"]:
            whole, rest = divmod(bands, fields["mask_bands"])
            masks = whole + bool(rest and Flag.JOIN not in flags)
            self.counts.update(token_writes=job.packed[first:end].sum(), mask_writes=masks * groups)
        else:
            self.counts.update(token_writes=values // 8)

    def _attention(self, job: Job) -> None:
        config, fields = self.config, job.instruction.fields
        bands, groups, lanes, live = config.bands(job.live), fields["groups"], config.lanes, job.live
        tiles, head_dim = -(-live // lanes), fields["head_dim"]
        # segments of rows and groups that there are not
        absent = bands * self.banks - live * groups
        self.counts.update(
            fires=tiles * head_dim * live * groups + job.work.sum(),
            weight_reads=tiles * head_dim * bands * groups + job.lines.sum(),
            token_reads=tiles * head_dim * live * groups // 8 + job.packed.sum(),
            token_writes=live * groups * lanes // 8
            + job.packed.sum()
            + absent * (tiles + sum(-(-min(lanes, live - lanes * tile) // 8) for tile in range(tiles))),
            drained=lanes * bands * (tiles + 1),
            logits=live * bands,
            exponentials=lanes * tiles * bands,
            reciprocals=bands,
        )
        if Flag.SCORE in job.instruction.flags:
            self.counts.update(exponentials=groups * live, scores=groups * live)

    def _load(self, job: Job) -> None:
        kind, rows = job.slice.load, job.instruction.fields["rows"]
        self.counts.update(
            axi_beats=job.words, mask_reads=job.scan * (1 + (Flag.REST in job.instruction.flags))
        )
        if kind is LoadKind.WEIGHT:
            self.counts.update(weight_bytes=8 * job.words)
        elif kind is LoadKind.PARAM:
            self.counts.update(parameter_writes=job.words)
        elif kind is LoadKind.NORM:
            self.counts.update(norm_parameter_writes=rows)
        elif kind is LoadKind.RESIDUAL:
            self.counts.update(residual_writes=rows * self.banks)
        else:
            self.counts.update(rotary_writes=rows)

    def _norm(self, job: Job) -> None:
        config, fields, live = self.config, job.instruction.fields, job.live
        dim, kind = fields["dim"], fields["kind"]
        if kind == NormKind.DUMP:
            self.counts.update(residual_reads=live * dim * self.banks, send_words=1 + live * dim // 4)
            return
        parts = -(-live // min(config.rows, NORM_ROWS))
        reads = parts * config.lanes * -(-dim // config.tile)
        self.counts.update(
            norm_parts=parts, norm_sums=reads, norm_values=reads, residual_reads=2 * reads * self.banks
        )
        if kind == NormKind.TOKENS:
            self.counts.update(send_words=1 + parts * fields["dst_stride"])
        else:
            self.counts.update(token_writes=live * -(-dim // 8))
