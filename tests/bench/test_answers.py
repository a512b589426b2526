"""What the benchmark of fast answers counts."""

import pytest

from benchmarks import answers


def test_cpu_time_and_memory_are_those_of_the_process():
    idle = answers.cost("import time; time.sleep(0.5)", [], {})
    busy = answers.cost("import time\nwhile time.process_time() < 0.5: pass\nx = b'1' * 2**27", [], {})
    assert idle.seconds < 0.4 < busy.seconds
    assert busy.mib - idle.mib == pytest.approx(128, abs=32)


def test_versions_take_turns(monkeypatch, tmp_path, datasets_path):
    calls = []
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets_path))
    monkeypatch.setattr(answers, "cost", lambda *call: calls.append(call) or answers.Cost(1.0, 10.0))
    found = answers.measure({"now": answers.ROOT, "before": tmp_path}, repeats=2)
    assert {len(costs) for costs in found.values()} == {2}
    assert found.keys() == {("import torch", "")} | {
        (name, version) for name in answers.ANSWERS for version in ("now", "before")
    }
    paths = [environment.get("PYTHONPATH") for _, _, environment in calls]
    assert paths[2:6] == [str(answers.ROOT), str(tmp_path)] * 2
