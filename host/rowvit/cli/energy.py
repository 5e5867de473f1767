# SPDX-License-Identifier: Apache-2.0
"""Tables of estimated energy: of ``rowvit profile --energy``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rowvit.cli.common import OUT, right_aligned, say

if TYPE_CHECKING:
    from rowvit.measure.energy import Energies, Estimate
    from rowvit.measure.speed.profile import Profile


def print_energy(found: Profile, energies: Energies, savings: dict[str, Estimate] | None) -> None:
    """By layer, by what the energy is spent in, and by what pruning and skipping save."""
    from rowvit.measure import energy

    assert found.activity is not None
    say(
        f"\nEnergy of this image, {energy.LABEL}: counts of the {found.source}, published energies at"
        f" {energies.process}; nothing is measured. By layer, lanes that multiplied, DDR words, and µJ"
    )
    layers = right_aligned("layer", "lanes clocked", "DDR words", *energy.PARTS, "sum, µJ")
    counted = dict(zip((layer.name for layer in found.layers), found.activity, strict=True))
    total = energy.added(found.activity)
    for name, counts in {**counted, "total": total}.items():
        parts = dict.fromkeys(energy.PARTS, 0.0)
        for item in energy.items(found.config, counts, energies):
            parts[item.part] += item.picojoules
        layers.add_row(
            name,
            f"{counts['fires'] * found.config.lanes:,.0f}",
            f"{energy.ddr_words(counts):,.0f}",
            *(f"{value / 1e6:.2f}" for value in (*parts.values(), sum(parts.values()))),
        )
    items = energy.items(found.config, total, energies)
    whole = sum(item.picojoules for item in items)
    layers.add_row("share", "", "", *(f"{value / whole:.1%}" for value in parts.values()))
    OUT.print(layers)
    table = right_aligned("", "", "bits", "count or reads", "writes", "µJ", "share", left=2)
    for item in items:
        table.add_row(
            item.part,
            item.name,
            item.bits,
            f"{item.count:,.0f}",
            "" if item.writes is None else f"{item.writes:,.0f}",
            f"{item.picojoules / 1e6:.3f}",
            f"{item.picojoules / whole:.1%}",
        )
    say("\nWhat it is spent in; bits of a word, or of the factors of each product")
    OUT.print(table)
    if savings is None:
        say("\nWhat pruning and skipping save takes the model package, not a program")
        return
    table = right_aligned("skipped", *energy.PARTS, "sum, µJ", "of dense", "TOPS/W", "all counted", left=1)
    dense = savings["dense"]
    for name, one in savings.items():
        table.add_row(
            name,
            *(f"{value / 1e6:.1f}" for value in (one.ddr, one.sram, one.arithmetic, one.total)),
            f"{one.total / dense.total:.1%}",
            f"{one.tops_per_watt:.2f}",
            f"{one.tops_per_watt_dense:.2f}",
        )
    say(
        f"\nWhat pruning and skipping save, {energy.LABEL} with the model's counts. TOPS/W are of the chip,"
        " without DDR, by the multiplications that are left, and by all of the dense network; the paper has"
        f" {energy.PAPER_TOPS_PER_WATT}"
    )
    OUT.print(table)
    say(f"\n{energy.prediction(savings)}")
