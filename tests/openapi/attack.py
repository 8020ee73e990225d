"""Sends what schemathesis makes of the shop's document to the gateway and to the shop itself, and compares.

    attack.py GATEWAY SHOP EXAMPLES

Whatever the shop would refuse must not get through the gateway, and whatever the gateway refuses the shop must refuse
too. Ends with 1 where they differ, and says how.
"""

import sys
from collections import Counter

import hypothesis
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.generation import GenerationMode

gateway, shop, examples = sys.argv[1], sys.argv[2], int(sys.argv[3])
session = requests.Session()
session.trust_env = False
counts: Counter = Counter()
differences: list[str] = []


def send(case, base_url, headers):
    prepared = requests.Request(**case.as_transport_kwargs(base_url=base_url, headers=headers)).prepare()
    return prepared, session.send(prepared, timeout=10, allow_redirects=False)


def compare(mode, case):
    prepared, through = send(case, gateway, {})
    _, direct = send(case, shop, {"X-Direct": "1"})
    passed, taken = through.status_code < 400, direct.status_code < 400
    counts[mode, passed, taken] += 1
    if passed != taken and not explained(case, through, direct):
        body = prepared.body if prepared.body is None or len(prepared.body) < 500 else prepared.body[:500]
        differences.append(
            f"{mode.value}: {prepared.method} {prepared.url}\n  {dict(prepared.headers)}\n  {body!r}\n"
            f"  gateway {through.status_code} {through.text[:300]}\n  shop {direct.status_code} {direct.text[:300]}"
        )
    elif mode is GenerationMode.POSITIVE and not passed and not explained(case, through, direct):
        differences.append(f"valid, and refused by both: {prepared.method} {prepared.url} {prepared.body!r} {through.text}")


def explained(case, through, direct):
    """What is valid by the document and cannot be written: null in a parameter, controls in the name of a part."""
    places = (case.path_parameters, case.query, case.headers, case.cookies)
    nulls = any(value is None or value == "null" for place in places for value in (place or {}).values())
    if nulls and through.status_code == direct.status_code == 422:
        return True
    names = case.body if isinstance(case.body, dict) else {}
    controls = any(ord(letter) < 0x20 or ord(letter) == 0x7F for name in names for letter in name)
    return controls and "malformed head" in through.text


def attack(operation, mode):
    @hypothesis.seed(2026)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def run(case):
        compare(mode, case)

    run()


schema = schemathesis.openapi.from_url(f"{shop}/openapi.json")
for result in schema.get_all_operations():
    operation = result.ok()
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
        try:
            attack(operation, mode)
        except hypothesis.errors.Unsatisfiable:
            counts[mode, "nothing to send", operation.label] += 1

for (mode, *rest), count in sorted(counts.items(), key=str):
    print(mode.value, *rest, count)
for difference in differences[:40]:
    print(difference)
print(len(differences), "differences")
sys.exit(bool(differences))
