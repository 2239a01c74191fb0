"""Training on the vocabulary rows that occur against training on the whole table.

Both sides take the same steps of the transfer stage with the same optimiser on pairs of a question
and its gold passage; at the end the compact table is written back and all weights are compared.
"""

from __future__ import annotations

from clrelkt.encoders import MuseEncoder
from harness import DisagreementError, Options, Report, compare, main, timed
from stage import TransferStage, adam

PAIRS = 16
TOLERANCE = 1e-6


def largest_difference(ours: MuseEncoder, theirs: MuseEncoder) -> float:
    """Return the largest difference between two weights in the same place."""
    other = dict(theirs.named_parameters())
    return max(
        float((other[name] - parameter).detach().abs().max())
        for name, parameter in ours.named_parameters()
    )


def measure(options: Options) -> Report:
    """Run the benchmark."""
    stage = TransferStage(options, "passage")
    compact = stage.compact()
    bank = stage.bank_of(compact)
    whole = stage.base.write_back(compact)
    optimisers = {side: adam(list(side.parameters())) for side in (compact, whole)}
    steps = 3 if options.quick else 50
    batches = stage.batches(steps, PAIRS)
    turns = {side: iter(batches) for side in (compact, whole)}
    comparison = compare(
        f"compact vocabulary, step of {PAIRS} pairs",
        lambda: timed(lambda: stage.step(compact, bank, optimisers[compact], next(turns[compact]))),
        lambda: timed(lambda: stage.step(whole, stage.bank, optimisers[whole], next(turns[whole]))),
        rounds=steps,
        target=1.5,
    )
    difference = largest_difference(stage.base.write_back(compact), whole)
    if difference > TOLERANCE:
        raise DisagreementError(
            f"after {steps} steps a weight differs by {difference:.1e} between the compact and "
            f"the whole table; expected at most {TOLERANCE:.0e}"
        )
    rows = [encoder.network.embedding.shape[0] for encoder in (compact, whole)]
    notes: dict[str, str | float] = {
        "rows of the table": f"{rows[0]} compact, {rows[1]} whole",
        f"largest difference of a weight after {steps} steps": difference,
    }
    return Report("compact_vocabulary", (comparison,), notes)


if __name__ == "__main__":
    main(__doc__, measure)
