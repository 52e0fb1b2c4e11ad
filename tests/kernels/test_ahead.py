"""Our Triton programs compile for every chip, spill nothing and fit; docs/triton.md says what the compiler makes of them."""

import re

import pytest
import triton

from kernels.ahead import MATRIX, PAGE, Row, faults, line, measure, page, tasks
from kernels.chips import CHIPS

CURRENT = f"Triton {triton.__version__} " in PAGE.read_text()  # another compiler gives other numbers


def check(rows: list[Row]) -> None:
    assert not faults(rows)
    assert {row.chip for row in rows} == {chip.name for chip in CHIPS}
    assert all(re.fullmatch(MATRIX, row.matrix) for row in rows if "fp32" not in row.program)  # products of tiles run as such
    if CURRENT:
        written = PAGE.read_text().splitlines()
        assert [line(row) for row in rows if line(row) not in written] == []


def test_the_common_programs() -> None:
    check(measure(tasks(common=True)))


@pytest.mark.slow
def test_all_programs() -> None:
    rows = measure(tasks(common=False))
    check(rows)
    assert not CURRENT or page(rows) == PAGE.read_text()


def test_every_program_is_on_the_page() -> None:
    operations = re.findall(r"^\| (\w+) \| (?:.*) \| (?:sm_|gfx)", PAGE.read_text(), re.MULTILINE)
    assert sorted(operations) == sorted(task.operation for task in tasks(common=False))


def test_faults_are_told() -> None:
    good = Row("o", "p", "gfx942", 100, 0, 65536, "v_mfma_f32_32x32x8")
    assert not faults([good])
    assert faults([good._replace(spills=4)]) == ["o: p on gfx942 spills 4"]
    assert faults([good._replace(shared=65537)]) == ["o: p on gfx942 takes 65537 bytes of shared memory of 65536"]
