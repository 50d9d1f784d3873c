"""What a scrape gets, read as Prometheus reads it."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from txservices.monitoring.metrics import exposition

Sample = tuple[str, dict[str, str], float]


class Scrape:
    """The metrics of the process at the moment when this is made.

    Attributes:
        samples: the name, labels and value of each.
    """

    def __init__(self) -> None:
        self.text = exposition()[0].decode()
        families = text_string_to_metric_families(self.text)
        self.samples = [(each.name, each.labels, each.value) for family in families for each in family.samples]

    def found(self, name: str, **labels: str) -> list[Sample]:
        """The samples of a name with at least these labels."""
        return [each for each in self.samples if each[0] == name and labels.items() <= each[1].items()]

    def value(self, name: str, **labels: str) -> float:
        """The value of the only such sample."""
        (sample,) = self.found(name, **labels)
        return sample[2]
