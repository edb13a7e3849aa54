"""What the benchmark of faults claims of what became of requests."""

from __future__ import annotations

from collections import Counter

from benchmarks.trust import Row, figures_of


def missed(*rows: Row) -> set[str]:
    return {figure.name for figure in figures_of(rows) if figure.holds is False}


def test_a_request_that_is_lost_or_wrong_misses_the_claim_and_names_the_fault() -> None:
    fine = Row("disk full", 5, Counter(answered=50, refused=7, broken=3), [0.1, 0.2])
    assert missed(fine) == set()
    lost = Row("SIGSTOP", 1, Counter(answered=50, lost=1), [0.1])
    assert missed(fine, lost) == {"requests lost", "SIGSTOP: lost"}
    wrong = Row("kill -9", 1, Counter(answered=50, wrong=1), [0.1])
    assert missed(wrong) == {"answers or receipts wrong", "kill -9: wrong"}


def test_a_daemon_that_comes_back_late_misses_the_claim() -> None:
    late = Row("kill -9", 3, Counter(answered=50), [0.9, 1.0, 2.1])
    (name,) = missed(late)
    assert "worst of 3" in name
    assert missed(Row("one model hangs", 1, Counter(answered=1), [2.1])) == set()
