"""The numbers of a replica, in Prometheus' terms.

One registry a replica, of `prometheus_client`; each series gets the label `replica`, and `GET
/metrics` tells those of all. Ray's own metrics are exported by each node's agent, which a laptop
has no use for and a cluster scrapes anyway; these are the server's, and come with it everywhere.

Labels are routes, codes, statuses, models, labels of models and names of tokens: none that a caller
could make up.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, generate_latest
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from serving.account import Account

LOCAL: Final = "local"
"""The name of the replica of a server that is one process."""

SECONDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5,
    10, 30,
)  # fmt: skip
"""From the parsing of a short mail to the default time limit of a request."""
_MAILS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS: Final = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_SHARES: Final = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75)


class Metrics:
    """What a replica counts; `text` is all of it. Of any thread."""

    def __init__(self, replica: str = LOCAL) -> None:
        self.replica = replica
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = self._counter(
            "requests", "Requests that have ended; 499: the caller went away.",
            "route", "method", "status",
        )  # fmt: skip
        self._seconds = self._histogram(
            "request_seconds", "Whole requests, from first byte to last.", SECONDS,
            "route", "status_class",
        )  # fmt: skip
        self._refusals = self._counter("refusals", "Requests refused, by the error's code.", "code")
        self._limited = self._counter("rate_limited", "Requests beyond a token's rate.", "token")
        self._retried = self._counter(
            "requests_retried", "Requests that a replica which died had been asked before."
        )
        self._received = self._counter("received_bytes", "Bytes of request bodies.")
        self._mails = self._counter(
            "mails", "Mails: `verdict`, or why one of many could not be read.", "outcome"
        )
        self._verdicts = self._counter(
            "verdicts", "Labels given; `none` where a mail got none.",
            "model", "version", "label", "unsure",
        )  # fmt: skip
        stages = self._histogram("stage_seconds", "Where a mail's time went.", SECONDS, "stage")
        self._stages = [stages.labels(stage) for stage in ("parse", "tokenize", "queue", "forward")]
        self._explain = self._histogram("explain_seconds", "Explanations.", SECONDS)
        self._kept = self._counter("feedback", "Feedback that was kept, each mail's once.")
        self._batch_mails = self._histogram("batch_mails", "Mails of a batch.", _MAILS)
        self._batch_tokens = self._histogram(
            "batch_tokens", "Tokens of a batch, padding included.", _TOKENS
        )
        self._batch_padding = self._histogram(
            "batch_padding_ratio", "The share of a batch's tokens that is padding.", _SHARES
        )
        self._mail_tokens = self._histogram(
            "mail_tokens", "Tokens of a mail that the encoder reads.", _TOKENS
        )
        self._tokens = self._counter("tokens", "Tokens scored, without padding.")
        self._padding = self._counter("padding_tokens", "Tokens of padding.")
        self._failed = self._counter("batches_failed", "Forwards that failed.")
        self._halved = self._counter("batches_halved", "Of them those scored anew in halves.")

    def request(self, account: Account) -> None:
        """Count a request that has ended."""
        self._requests.labels(account.route, account.method, account.status).inc()
        self._seconds.labels(account.route, f"{account.status // 100}xx").observe(account.seconds)
        self._received.inc(account.bytes_in)
        if account.tries > 1:
            self._retried.inc()
        if account.code:
            self._refusals.labels(account.code).inc()
            if account.code == "rate_limited":
                self._limited.labels(account.caller).inc()
        for code in account.refused:
            self._mails.labels(code).inc()
        if account.explained is not None:
            self._explain.observe(account.explained[1])
        if not account.mails:
            return
        self._mails.labels("verdict").inc(len(account.mails))
        for mail in account.mails:
            verdict, took = mail.scored.verdict, mail.scored.timings
            spans = (mail.parse_ms, took.tokenize, took.queue, took.forward)
            for stage, span in zip(self._stages, spans, strict=True):
                stage.observe(span / 1000)
            for label in verdict.labels or ("none",):
                unsure = "true" if verdict.unsure else "false"
                self._verdicts.labels(verdict.model, verdict.version, label, unsure).inc()

    def feedback(self) -> None:
        """Count feedback that was kept and not there before."""
        self._kept.inc()

    def batch(self, lengths: Sequence[int]) -> None:
        """Count a batch of mails with so many tokens each; the longest decides the padding."""
        tokens, padded = sum(lengths), max(lengths) * len(lengths)
        self._batch_mails.observe(len(lengths))
        self._batch_tokens.observe(padded)
        self._batch_padding.observe(1 - tokens / max(1, padded))
        for length in lengths:
            self._mail_tokens.observe(length)
        self._tokens.inc(tokens)
        self._padding.inc(padded - tokens)

    def failed(self, mails: int) -> None:
        """Count a forward of so many mails that failed; of more than one, halves are tried."""
        self._failed.inc()
        if mails > 1:
            self._halved.inc()

    def text(self) -> str:
        """All of it in Prometheus' text format, each series with this replica's name."""
        return generate_latest(_Named(self.registry, self.replica)).decode()

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"mailray_{name}", meaning, labels, registry=self.registry)

    def _histogram(
        self, name: str, meaning: str, buckets: Sequence[float], *labels: str
    ) -> Histogram:
        return Histogram(
            f"mailray_{name}", meaning, labels, registry=self.registry, buckets=buckets
        )


class _Named(Collector):
    """A registry's series, each with the name of the replica."""

    def __init__(self, registry: CollectorRegistry, replica: str) -> None:
        self._registry = registry
        self._replica = replica

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            named = Metric(family.name, family.documentation, family.type)
            named.samples = [
                sample._replace(labels={**sample.labels, "replica": self._replica})
                for sample in family.samples
                # When each series began: as many again, and of no use where processes come and go.
                if not sample.name.endswith("_created")
            ]
            yield named


def merged(texts: Iterable[str], *, openmetrics: bool = False) -> str:
    """The series of several replicas in one text, each family once; in OpenMetrics, if wanted."""
    families: dict[str, list[str]] = {}
    for text in texts:
        said = iter(text.split("\n"))  # not splitlines: a label's value may have other ends
        family: list[str] = []
        for line in said:
            if line.startswith("# HELP "):
                family = families.setdefault(line.split(" ", 3)[2], [line, next(said)])
            elif line:
                family.append(line)
    for name, family in families.items():
        if openmetrics and family[1].endswith(" counter"):
            short = name.removesuffix("_total")
            family[:2] = [line.replace(f" {name} ", f" {short} ", 1) for line in family[:2]]
    lines = [line for family in families.values() for line in family]
    return "\n".join([*lines, *(["# EOF"] if openmetrics else []), ""])
