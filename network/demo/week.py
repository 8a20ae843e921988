"""The script of the live demo: a week of customer service, as calls of the REST service. Pure: one seed, one week.

Each day is a list of waves. The calls of a wave go out together and touch different things, but for the few that are
meant to collide.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, NamedTuple

SERVICE: Final = "ServiceMSP"
BILLING: Final = "BillingMSP"
FIELD: Final = "FieldMSP"
CUSTOMER: Final = "CustomerMSP"
DEPARTMENTS: Final = {"service": SERVICE, "billing": BILLING, "field": FIELD}

PROFILE_COLLECTION: Final = "service-billing"
"""Kept by Service and Billing; the customers' organisation is no member."""

SEED: Final = 7
DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
REGIONS: Final = ("north", "south", "riverside", "old town", "harbour")
NAMES: Final = (
    *("王芳", "李伟", "张敏", "陈静", "刘洋", "赵磊", "孙丽", "周强", "吴秀英", "黄杰"),
    *("Anna Müller", "José García", "Siân Evans", "Zoë Lambert", "Ömer Şahin", "Marta Nowak", "Lars Åkesson"),
)
SUBJECTS: Final = {
    "billing": ("Amount of the last invoice", "账单金额有误", "Change of the bank account", "退费申请"),
    "complaint": ("Waiting time on the telephone", "对服务不满意", "Letter arrived twice"),
    "connection": ("New connection", "新装用电申请", "Move to another flat"),
    "meter": ("Meter reading", "电表读数异常", "Meter does not turn"),
    "outage": ("No power since this morning", "停电报修", "Lights flicker"),
    "inspection": ("Yearly inspection", "安全检查"),
}
QUEUES: Final = {
    "billing": "billing",
    "complaint": "service",
    "connection": "service",
    "meter": "field",
    "outage": "field",
    "inspection": "field",
}
RESOLUTIONS: Final = ("explained and agreed", "已处理", "corrected", "repaired on site", "已上门维修", "refund ordered")


class Call(NamedTuple):
    """One call of the REST service: whose service is called, and with what. It is made as the organisation's agent.

    `status`: what HTTP has to answer; None for one of several that collide, of which some win.
    """

    organization: str
    path: str
    body: dict[str, Any]
    status: int | None = 201


@dataclass
class Week:
    """The week, day by day; `customers` and `requests` count what has to be in the tables at the end."""

    chance: Random
    customers: int = 24
    requests_per_day: int = 12
    profiles: list[str] = field(default_factory=list)
    requests: int = 0
    _open: list[str] = field(default_factory=list)
    _assigned: list[str] = field(default_factory=list)
    _resolved: list[str] = field(default_factory=list)
    _category: dict[str, str] = field(default_factory=dict)

    def days(self) -> Iterator[tuple[str, list[list[Call]]]]:
        """Give each day with its waves."""
        for day in DAYS:
            waves = []
            if day == DAYS[0]:
                waves.append([self._registration(number) for number in range(self.customers)])
                waves.append([self._profile(reference) for reference in self.profiles])
            # What was begun the day before goes on while new requests come in.
            going_on = [self._closing(request) for request in self._some(self._resolved, 0.6)]
            going_on += [self._resolution(request) for request in self._some(self._assigned, 0.8)]
            waves.append(going_on + [self._opening() for _ in range(self.requests_per_day)])
            colliding = self._collision()
            refused = self._refused()
            assigned = [self._assignment(request) for request in self._some(self._open[:-1], 0.8)]
            waves.append(colliding + refused + assigned)
            yield day, waves

    def _registration(self, number: int) -> Call:
        body: dict[str, Any] = {
            "customer_id": f"C{number:04d}",
            "kind": self.chance.choice(("household", "household", "company")),
            "region": self.chance.choice(REGIONS),
        }
        if number % 2 == 0:
            reference = self.chance.randbytes(16).hex()
            self.profiles.append(reference)
            body["profile_ref"] = reference
        return Call(self.chance.choice((SERVICE, CUSTOMER)), "/v1/customers", body)

    def _profile(self, reference: str) -> Call:
        body = {
            "collection": PROFILE_COLLECTION,
            "reference": reference,
            "name": self.chance.choice(NAMES),
            "phone": f"+00 {self.chance.randrange(10**8):08d}",
        }
        return Call(BILLING, "/v1/customers/profiles", body)

    def _opening(self) -> Call:
        self.requests += 1
        request = f"R{self.requests:04d}"
        category = self.chance.choice(tuple(SUBJECTS))
        self._category[request] = category
        self._open.append(request)
        body: dict[str, Any] = {
            "request_id": request,
            "customer": f"C{self.chance.randrange(self.customers):04d}",
            "category": category,
            "title": self.chance.choice(SUBJECTS[category]),
            "priority": self.chance.randint(1, 5),
        }
        if category == "billing":
            body["amount_cents"] = self.chance.randrange(1_000, 90_000)
        return Call(self.chance.choice((SERVICE, CUSTOMER)), "/v1/requests", body)

    def _assignment(self, request: str) -> Call:
        self._open.remove(request)
        self._assigned.append(request)
        department = QUEUES[self._category[request]]
        body = {"department": department}
        return Call(DEPARTMENTS[department], f"/v1/requests/{request}/assignment", body, 200)

    def _resolution(self, request: str) -> Call:
        self._assigned.remove(request)
        self._resolved.append(request)
        body = {"resolution": self.chance.choice(RESOLUTIONS), "minutes_spent": self.chance.randrange(5, 240)}
        organization = DEPARTMENTS[QUEUES[self._category[request]]]
        return Call(organization, f"/v1/requests/{request}/resolution", body, 200)

    def _closing(self, request: str) -> Call:
        self._resolved.remove(request)
        return Call(CUSTOMER, f"/v1/requests/{request}/closing", {"rating": self.chance.randint(1, 5)}, 200)

    def _collision(self) -> list[Call]:
        """Two agents of one department take the same request at the same moment."""
        request = self._open[0]
        self._open.remove(request)
        self._assigned.append(request)
        department = QUEUES[self._category[request]]
        call = Call(DEPARTMENTS[department], f"/v1/requests/{request}/assignment", {"department": department}, None)
        return [call, call]

    def _refused(self) -> list[Call]:
        """Calls that have to fail: the wrong department, and input that is none."""
        request = self._open[-1]
        stranger = BILLING if QUEUES[self._category[request]] != "billing" else FIELD
        own = next(name for name, organization in DEPARTMENTS.items() if organization != stranger)
        wrong_department = Call(stranger, f"/v1/requests/{request}/assignment", {"department": own}, 403)
        body = {"request_id": "R9999", "customer": "C0000", "category": "weather", "title": "Rain"}
        return [wrong_department, Call(SERVICE, "/v1/requests", body, 400)]

    def _some(self, requests: list[str], share: float) -> list[str]:
        return self.chance.sample(requests, round(len(requests) * share))


def scripted_week(seed: int = SEED) -> Week:
    """Give the week of a seed."""
    return Week(Random(seed))  # noqa: S311  # the same week each time
