"""What `make demo-cluster` shows of a job, from the lines that kubectl writes."""

from tests.cluster.job_rows import Rows

HEADER = "NAME         PHASE   STEP   PROGRESS   LOSS   TEACHER   STUDENT   AGE"
NEW = "quickstart                                                            0s"
PREPARING = "quickstart   Preparing                        0/0       0/0       {age}"
HALF = "quickstart   Distilling   0/88   0%                0/1       2/2       20s"
BOTH = "quickstart   Distilling   1/88   1%      3.25      1/1       2/2       40s"
ALONE = "quickstart   Distilling   2/88   2%      2.25      0/0       2/2       50s"
DONE = "quickstart   Succeeded    88/88   100%    1.25      0/0       0/0       2m"


def shown(*lines: str) -> list[str]:
    """What is shown of these lines; `pods` where the pods would be."""
    found: list[str] = []
    rows = Rows(found.append, lambda: found.append("pods"))
    for line in lines:
        rows.take(line)
    return found


def test_a_row_whose_age_alone_is_new_is_left_out() -> None:
    lines = [HEADER, NEW, *(PREPARING.format(age=age) for age in ("1s", "5s"))]
    assert shown(*lines) == lines[:3]


def test_a_new_watch_repeats_neither_header_nor_row() -> None:
    assert shown(HEADER, HALF, HEADER, HALF.replace("20s", "21s"), DONE) == [HEADER, HALF, DONE]


def test_pods_are_shown_once_when_both_halves_run() -> None:
    lines = [HEADER, PREPARING.format(age="1s"), HALF, BOTH, BOTH.replace("1/88", "2/88"), ALONE]
    assert shown(*lines) == [*lines[:4], "pods", *lines[4:]]


def test_the_last_row_is_known() -> None:
    rows = Rows(lambda line: None, lambda: None)
    for line in (HEADER, NEW, BOTH):
        rows.take(line)
        assert not rows.ended
    rows.take(DONE)
    assert rows.ended
