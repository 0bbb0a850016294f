from attnscope.metrics import CATALOG, METRICS


def test_every_metric_is_listed_with_its_axes_needs_and_paper(run):
    result = run("metrics")
    assert result.exit_code == 0
    assert all(f" {metric.name} " in result.stdout for metric in CATALOG)
    row = next(line for line in result.stdout.splitlines() if " waad " in line)
    assert row.split()[:5] == ["waad", METRICS["waad"].unit, "layer,", "head,", "query"]
    assert "arXiv:2303.06296" in result.stdout
