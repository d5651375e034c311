"""Endpoints that fail again and again are left alone for a while."""

from collections.abc import Sequence
from dataclasses import dataclass

from capnp_rig.client.policies.endpoint import Endpoint
from capnp_rig.client.policies.policy import Attempt, Policy
from capnp_rig.objects.errors import Disconnected, RemoteError, UsageError


@dataclass(slots=True)
class _Record:
    failures: int = 0
    ejections: int = 0
    until_s: float = 0.0
    # When the last one was counted.
    failed_s: float = float("-inf")


class OutlierEjection(Policy):
    """Ejects an endpoint after `failures` failures in a row: no attempts for a while.

    What the server has answered is no failure, but `Overloaded` is; the calls that one connection
    loses together are one. The first time lasts `base_s` seconds, each further one without a
    success in between twice as long, at most `longest_s`. The first attempt after that decides: if
    it fails, the endpoint is ejected again. At most the part `most_ejected` of the endpoints is out
    at a time, so a single one never is: Envoy's outlier detection, Finagle's failure accrual.
    """

    __slots__ = ("_base_s", "_count", "_failures", "_longest_s", "_most_ejected", "_records")

    def __init__(
        self,
        failures: int = 5,
        *,
        base_s: float = 1.0,
        longest_s: float = 30.0,
        most_ejected: float = 0.5,
    ) -> None:
        """Set the limits.

        Raises:
            UsageError: `failures` is less than 1, a time not above 0, or the part not 0 to 1.
        """
        if failures < 1 or not 0 < base_s <= longest_s or not 0 <= most_ejected <= 1:
            raise UsageError(
                "an ejection takes failures >= 1, 0 < base_s <= longest_s and 0 <= most_ejected <= "
                f"1, not {failures}, {base_s}, {longest_s} and {most_ejected}"
            )
        self._failures = failures
        self._base_s = base_s
        self._longest_s = longest_s
        self._most_ejected = most_ejected
        # Of endpoints that have failed since their last success.
        self._records: dict[Endpoint, _Record] = {}
        self._count = 0

    def joined(self, endpoint: Endpoint) -> None:
        """Count an endpoint."""
        self._count += 1

    def left(self, endpoint: Endpoint) -> None:
        """Forget an endpoint."""
        self._count -= 1
        self._records.pop(endpoint, None)

    def is_ejected(self, endpoint: Endpoint, now_s: float) -> bool:
        """Return whether an endpoint is to get no attempts now."""
        record = self._records.get(endpoint)
        return record is not None and now_s < record.until_s

    def narrow(self, endpoints: Sequence[Endpoint], now_s: float) -> Sequence[Endpoint]:
        """Return those that are not ejected, all if all are."""
        if not self._records:
            return endpoints
        return [each for each in endpoints if not self.is_ejected(each, now_s)] or endpoints

    def ended(self, attempt: Attempt) -> None:
        """Count a failure, or forget them all after an answer."""
        if attempt.was_given_up:
            return
        error = attempt.error
        if error is None or (isinstance(error, RemoteError) and not error.did_not_run):
            record = self._records.get(attempt.endpoint)
            # One that had begun before the ejection says nothing of the time after it.
            if record is not None and attempt.started_s >= record.until_s:
                del self._records[attempt.endpoint]
            return
        now_s = attempt.ended_s
        assert now_s is not None
        record = self._records.setdefault(attempt.endpoint, _Record())
        # A connection that ends takes all of its calls with it: that is one failure.
        if isinstance(error, Disconnected) and attempt.started_s <= record.failed_s:
            return
        record.failed_s = now_s
        record.failures += 1
        if record.failures < self._failures or attempt.started_s < record.until_s:
            return
        out = sum(now_s < each.until_s for each in self._records.values())
        if out + 1 <= self._most_ejected * self._count:
            lasts_s = min(self._base_s * 2.0**record.ejections, self._longest_s)
            record.until_s = now_s + lasts_s
            record.ejections += 1
