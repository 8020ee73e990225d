"""What a run printed: the machine, a table for each scenario, and the figures of each round."""

import os
import re
from pathlib import Path

from material import PROJECT, Trouble, call


def machine(programs, proxy_on, load_on):
    """What the figures depend on beside the configurations, as pairs."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^(?:model name|Model|CPU part)\s*: (.*)$", cpuinfo, re.MULTILINE)
    virtual = " (a virtual machine)" if re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo, re.MULTILINE) else ""
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) >> 20
    system = re.search(r'^PRETTY_NAME="?(.*?)"?$', Path("/etc/os-release").read_text(), re.MULTILINE)
    told = [
        ("processor", f"{model[1] if model else os.uname().machine}, {os.cpu_count()} of them{virtual}"),
        ("memory", f"{memory} GiB"),
        ("system", f"{system[1] if system else 'Linux'}, kernel {os.uname().release}"),
        ("proxy on", f"CPU {listed(proxy_on)}; origin and load on CPU {listed(load_on)}"),
        ("load average before", Path("/proc/loadavg").read_text().split()[0]),
    ]
    told += [(name, programs.version(name)) for name in programs.found if name not in ("origin", "relay", "pace")]
    told.append(("relay, origin, pace", compiler()))
    told.append(("sources", commit()))
    return told


def listed(processors):
    return ", ".join(str(processor) for processor in processors)


def compiler():
    try:
        return call("cc", "--version").splitlines()[0]
    except Trouble:
        return "?"


def commit():
    try:
        head = call("git", "-C", PROJECT, "rev-parse", "--short", "HEAD").strip()
        return head + (
            " with changes" if call("git", "-C", PROJECT, "status", "--porcelain", "--", "src", "Cargo.lock") else ""
        )
    except Trouble:
        return "not a git checkout"


class Table:
    """One scenario's results: rows by contestant, sorted, formatted."""

    def __init__(self, scenario, result):
        self.scenario, self.result = scenario, result
        self.titles = [scenario.name, *(column.title for column in scenario.columns)]
        ranked = sorted(result["rows"].items(), key=lambda row: row[1][scenario.sorted_by])
        self.rows = [
            [name, *(cell(row.get(column.key), column.decimals) for column in scenario.columns)] for name, row in ranked
        ]

    def text(self):
        lines = [self.heading(), *self.notes()]
        widths = [max(len(row[index]) for row in [self.titles, *self.rows]) for index in range(len(self.titles))]
        for row in [self.titles, *self.rows]:
            lines.append(
                "  ".join(
                    text.ljust(width) if index == 0 else text.rjust(width)
                    for index, (text, width) in enumerate(zip(row, widths))
                )
            )
        return "\n".join(lines)

    def markdown(self):
        lines = [f"### {self.scenario.name}", "", self.heading() + ".", *self.notes(), ""]
        lines.append("| " + " | ".join(self.titles) + " |")
        lines.append("|---|" + "---:|" * (len(self.titles) - 1))
        for row in self.rows:
            name = f"**{row[0]}**" if row[0].startswith("passerelle") else row[0]
            lines.append("| " + " | ".join([name, *row[1:]]) + " |")
        return "\n".join(lines)

    def raw(self):
        """The figures of each round, in the order in which they were taken."""
        keys = [column for column in self.scenario.columns if column.key != "ratio"]
        lines = [self.scenario.name]
        for number, contestant, row in self.result["rounds"]:
            told = " ".join(
                f"{column.title.replace(' ', '-')}={cell(row.get(column.key), column.decimals)}" for column in keys
            )
            lines.append(f"  round {number}: {contestant}: {told}")
        return "\n".join(lines)

    def heading(self):
        result = self.result
        return (
            f"{self.scenario.name}: {self.scenario.about}; medians of {result['of']} rounds of {result['seconds']} s, "
            f"{result['connections']} connections"
        )

    def notes(self):
        notes = [f"{name} is missing: {why}" for name, why in self.result["missing"].items()]
        notes += [f"{name} failed: {why}" for name, why in self.result["failed"].items()]
        return notes + [f"{name}: {value}" for name, value in self.result["prepared"].items()]


def cell(value, decimals):
    return "-" if value is None else f"{value:.{decimals}f}"


def text(machine, tables):
    width = max(len(name) for name, _ in machine)
    head = "\n".join(f"{name.ljust(width)}  {value}" for name, value in machine)
    raw = "\n".join(table.raw() for table in tables)
    return "\n\n".join([head, *(table.text() for table in tables), "Each round:\n" + raw])


def markdown(machine, tables):
    head = "\n".join(["| the machine | |", "|---|---|", *(f"| {name} | {value} |" for name, value in machine)])
    raw = "\n".join(table.raw() for table in tables)
    return "\n\n".join([head, *(table.markdown() for table in tables), "### Raw output", "```text\n" + raw + "\n```"])
