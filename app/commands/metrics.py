"""`attnscope metrics`: the catalog of metrics."""

__all__ = ["metrics"]


def metrics() -> None:
    """List the metrics: name, unit, axes, what they need, and their papers."""
    from attnscope.app.screen import plain_table, screen
    from attnscope.metrics import CATALOG

    table = plain_table("name", "unit", "axes", "needs", "paper")
    for metric in CATALOG:
        axes, needs = ", ".join(metric.axes), ", ".join(metric.needs)
        table.add_row(metric.name, metric.unit, axes, needs, metric.paper)
    table.columns[0].no_wrap = True
    screen().print(table)
