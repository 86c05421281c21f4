"""The printed line of an epoch: at most 80 columns, and every metric."""

import pytest

from fastpets.training.history import EpochPrinter, EpochResult


def result(epoch: int, metrics: dict[str, float]) -> EpochResult:
    return EpochResult(
        phase="frozen",
        epoch=epoch,
        batches=10,
        train_loss=5.276841,
        valid_loss=23.624624,
        error_rate=0.986486,
        metrics=metrics,
        seconds=754,
        images_per_sec=12345.6,
        input_share=0.29,
    )


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        ((), ["time", "images/s", "waiting"]),
        (("macro_f1",), ["macro_f1", "time", "images/s", "waiting"]),
        (("accuracy", "top5"), ["accuracy", "top5", "time", "waiting"]),
        (("accuracy", "top5", "macro_f1"), ["accuracy", "top5", "macro_f1", "time"]),
    ],
)
def test_the_line_fits_80_columns(names: tuple[str, ...], columns: list[str], capsys: pytest.CaptureFixture) -> None:
    printer = EpochPrinter()
    for epoch in range(2):
        printer.on_epoch_end(None, result(epoch, {**dict.fromkeys(names, 0.123456), "recall/a class": 0.5}))
    phase, heading, *lines = capsys.readouterr().out.splitlines()
    assert phase == "frozen"
    assert heading.split() == ["epoch", "train_loss", "valid_loss", "error_rate", *columns]
    assert len(lines) == 2
    for line in lines:
        assert len(line) == len(heading) <= 80
        assert len(line.split()) == len(heading.split())
        assert line.count("0.123456") == len(names)


def test_metrics_for_which_there_is_no_room_are_printed_below(capsys: pytest.CaptureFixture) -> None:
    metrics = {f"my_long_metric_{n}": n / 7 for n in range(9)}
    EpochPrinter().on_epoch_end(None, result(0, metrics))
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    for name, value in metrics.items():
        assert name in printed
        assert f"{value:.6f}" in printed
    assert "\N{NO-BREAK SPACE}" not in printed
