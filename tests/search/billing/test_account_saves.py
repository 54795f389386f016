"""When the bill is written, and by which thread."""

import threading
import time
from pathlib import Path

import pytest

from joulefront.search.billing.account import Account
from joulefront.search.energy import Ledger
from joulefront.search.records.bill import SessionBill, read_bill

from .conftest import Constant


def test_the_bill_is_not_written_at_every_epoch(account: Account) -> None:
    account.save_sometimes()
    first = account.file.read_text()
    time.sleep(0.01)
    account.save_sometimes()
    assert account.file.read_text() == first
    account.save()
    assert account.file.read_text() != first


def test_every_checkpoint_of_the_ledger_writes_the_bill(account: Account, ledger: Ledger) -> None:
    ledger.after_checkpoint = account.save_at_checkpoint
    ledger.sample()
    ledger.checkpoint()
    first = read_bill(account.file)
    time.sleep(0.01)
    ledger.sample()
    ledger.checkpoint()
    second = read_bill(account.file)
    assert first.total_joules is not None
    assert second.total_joules is not None
    assert 0.0 < first.total_joules < second.total_joules
    account.save(closed=True)
    closed = account.file.read_text()
    time.sleep(0.01)
    ledger.checkpoint()
    assert account.file.read_text() == closed


def test_the_ledgers_thread_never_waits_for_a_bill_that_another_thread_is_writing(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, written, files = threading.Event(), threading.Event(), list[int]()

    def slow(file: Path, data: object) -> None:
        files.append(threading.get_ident())
        writing.set()
        assert written.wait(10)

    monkeypatch.setattr("joulefront.search.billing.account.write_json", slow)
    worker = threading.Thread(target=account.save)
    worker.start()
    assert writing.wait(10)
    account.save_at_checkpoint()  # returns at once
    written.set()
    worker.join(10)
    assert files == [worker.ident]


@pytest.mark.slow
def test_trials_that_open_and_end_while_the_ledger_writes_the_bill_are_all_in_it(tmp_path: Path) -> None:
    with Ledger([Constant()], file=tmp_path / "ledger.jsonl", interval_seconds=0.001, checkpoint_seconds=0.003) as ledger:
        account = Account(ledger, SessionBill("now"), [], None, tmp_path / "bill.json")
        ledger.after_checkpoint = account.save_at_checkpoint

        def work(first: int) -> None:
            for number in range(first, first + 30):
                meter = account.open(number, None)
                time.sleep(0.002)
                account.close(meter, state="ok", cpu_seconds=0.001)
                account.save()

        threads = [threading.Thread(target=work, args=(first,)) for first in (0, 100, 200)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        account.save(closed=True)
        assert not [text for text in ledger.total().meter["troubles"] if "reads the meters" in text]
    bill = read_bill(account.file)
    assert account.session.open_trials == {}
    assert sum(bill.by_state.values()) == pytest.approx(bill.total_joules, rel=1e-6)
    assert bill.by_state["complete"] > 0
