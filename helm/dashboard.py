#!/usr/bin/env python3
"""Writes the Grafana dashboard: python3 helm/dashboard.py

A dashboard of Grafana is thousands of lines of JSON of which a few hundred are somebody's thought; those are here. The
output, helm/velro/files/dashboard.json, is kept in the repository, and tests/tests/monitoring compares it with this file
(`--check`), asks a real Prometheus every query, and wants an answer to each.

What every process reports alike (queue, credits, problems) is max(); what each counts itself is sum(rate()).
"""

import json
import pathlib
import sys

OUTPUT = pathlib.Path(__file__).parent / "velro" / "files" / "dashboard.json"

# Filters: the whole installation, one process or more, one provider or more.
N = 'namespace=~"$namespace"'
I = N + ', instance=~"$instance"'
P = N + ', provider=~"$provider"'
PI = I + ', provider=~"$provider"'


def rate(metric, labels, by=""):
    """Events per second, over all processes that are shown."""
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def quantile(q, metric, labels, by=""):
    """A quantile of a histogram."""
    by = f"{by}, le" if by else "le"
    return f"histogram_quantile({q}, sum by ({by}) (rate({metric}_bucket{{{labels}}}[$__rate_interval])))"


def quantiles(metric, labels, qs=(0.5, 0.95, 0.99)):
    return [(f"p{q * 100:g}", quantile(q, metric, labels)) for q in qs]


def whole(metric, labels=N, by=""):
    """A gauge of the whole installation, which every process reports."""
    return f"max by ({by}) ({metric}{{{labels}}})"


# A threshold: (value, colour) pairs; the first colour is for everything below.
GOOD_IS_ZERO = [(None, "green"), (1, "red")]
GOOD_IS_ONE = [(None, "red"), (1, "green")]
RATIO = [(None, "green"), (0.01, "orange"), (0.05, "red")]


def stat(title, description, unit, expr, thresholds=None, **more):
    return dict(kind="stat", title=title, description=description, unit=unit, queries=[("", expr)],
                thresholds=thresholds, width=4, height=4, **more)


def lines(title, description, unit, *queries, **more):
    return dict(kind="timeseries", title=title, description=description, unit=unit, queries=list(queries),
                width=more.pop("width", 8), height=8, **more)


def bars(title, description, unit, *queries, **more):
    return lines(title, description, unit, *queries, stack=True, **more)


ROWS = [
    ("Overview", [
        stat("Firing alerts", "Does anything need somebody now? docs/runbooks.md has a section per alert.", "none",
             f'count(ALERTS{{{N}, alertname=~"Velro.+", alertstate="firing"}}) or vector(0)', GOOD_IS_ZERO),
        stat("API processes", "How many processes serve the API?", "none",
             f'count(velro_build_info{{{N}, role=~"all|api"}})', GOOD_IS_ONE),
        stat("Workers", "How many processes work on generations?", "none",
             f'count(velro_build_info{{{N}, role=~"all|worker"}})', GOOD_IS_ONE),
        stat("Waiting", "How many generations wait for their turn?", "none",
             f'sum({whole("velro_queue_waiting", P, "provider")})'),
        stat("Oldest in the queue", "How long has whoever waits longest been waiting?", "s",
             whole("velro_queue_oldest_age_seconds"), [(None, "green"), (300, "orange"), (900, "red")]),
        stat("Failed requests", "Which share of all requests was answered with a 5xx?", "percentunit",
             f'(sum(rate(velro_http_requests_total{{{I}, status="5xx"}}[$__rate_interval])) or vector(0)) / '
             f'sum(rate(velro_http_requests_total{{{I}}}[$__rate_interval]))', RATIO),
        bars("Generations that ended", "What did users get in this time: files, errors, or a cancel?", "none",
             ("{{verdict}}", rate("velro_settlements_total", PI, "verdict")), width=12, per_minute=True),
        lines("From submit to end", "How long do users wait, and did it change?", "s",
              *quantiles("velro_generation_duration_seconds", PI), width=12),
        dict(kind="table", title="Versions", unit="none", width=24, height=5,
             description="Which version runs where? More than one is normal during an upgrade only.",
             queries=[("", f"max by (instance, role, version, commit) (velro_build_info{{{I}}})")]),
    ]),
    ("Money", [
        stat("Ledger faults", "Do the books add up? 0 is the only good value.", "none",
             whole("velro_ledger_faults"), GOOD_IS_ZERO),
        stat("Last ledger check", "When were the books recomputed last?", "dateTimeFromNow",
             f"1000 * {whole('velro_ledger_checked_timestamp_seconds')}"),
        stat("Unknown outcomes", "How many paid requests does nobody know the outcome of?", "none",
             whole("velro_attempts_unknown"), GOOD_IS_ZERO),
        stat("Held too long", "How many generations hold credits for longer than any model may take?", "none",
             whole("velro_held_too_long"), GOOD_IS_ZERO),
        stat("Charged without output", "How many generations were paid for and have no file recorded? Of the last ledger check.", "none",
             whole("velro_charged_without_output"), GOOD_IS_ZERO),
        stat("Orders in trouble", "How many payments does a person have to look at?", "none",
             whole("velro_orders_in_trouble"), GOOD_IS_ZERO),
        bars("Credits settled", "How much is earned and how much given back, by provider?", "none",
             ("captured {{provider}}", rate("velro_captured_credits_total", PI, "provider")),
             ("released {{provider}}", rate("velro_released_credits_total", PI, "provider")), per_minute=True),
        lines("Credits held and owed", "How much is reserved for what runs, and how much do reversed purchases leave open?",
              "none", ("held", whole("velro_held_credits")), ("debt", whole("velro_debt_credits"))),
        lines("Oldest unknown outcome", "For how long has a user waited for a decision of ours?", "s",
              ("age", whole("velro_oldest_unknown_age_seconds"))),
        bars("Submits", "What becomes of what users ask for: accepted, no credits, invalid, unavailable?", "none",
             ("{{outcome}}", rate("velro_submits_total", I, "outcome")), per_minute=True),
        bars("Units that providers billed", "What will the providers' bills say? In their own units.", "none",
             ("{{provider}}, {{unit}}", rate("velro_provider_billed_units_total", PI, "provider, unit")), per_minute=True),
        bars("Dollars that providers billed", "What will the providers' bills say, where they say it in dollars?", "currencyUSD",
             ("{{provider}}", rate("velro_provider_billed_dollars_total", PI, "provider")), per_minute=True),
        lines("Ledger check", "How long does it take to recompute the books, and does it grow?", "s",
              ("duration", whole("velro_ledger_check_duration_seconds"))),
        bars("Orders", "Do people buy, and does the payment provider take the orders?", "none",
             ("{{outcome}}", rate("velro_orders_total", I, "outcome")), per_minute=True),
        bars("Payment events", "What does the payment provider tell, and is it booked?", "none",
             ("{{type}}: {{outcome}}", rate("velro_payment_events_total", I, "type, outcome")), per_minute=True),
        lines("Payment event lag", "How long after the payment are the credits there?", "s",
              *quantiles("velro_payment_event_lag_seconds", I, (0.5, 0.9))),
    ]),
    ("Queue", [
        lines("Waiting", "Whose queue grows?", "none",
              ("{{provider}}", whole("velro_queue_waiting", P, "provider"))),
        lines("Running", "How many slots are occupied, and does it move?", "none",
              ("{{provider}}", whole("velro_queue_running", P, "provider"))),
        lines("Oldest in the queue", "Does anybody wait for too long?", "s",
              ("age", whole("velro_queue_oldest_age_seconds"))),
        lines("Where the time goes", "Is it the queue, the provider, or copying the files? 95 of 100 are quicker.", "s",
              ("{{stage}}", quantile(0.95, "velro_generation_stage_duration_seconds", PI, "stage"))),
        lines("Time by verdict", "Do failures come quickly, or only after users have waited?", "s",
              ("{{verdict}}", quantile(0.95, "velro_generation_duration_seconds", PI, "verdict"))),
        lines("Generations by status", "How much is there of everything?", "none",
              ("{{status}}", whole("velro_generations", N, "status"))),
        lines("Stopped by operators", "What has somebody paused or drained? Nothing is drawn while everything runs.", "none",
              ("{{scope}} {{mode}}", whole("velro_paused", N, "scope, mode"))),
        bars("Leases that changed hands", "Do workers die with jobs in their hands (adopted), or hand them on (released)?",
             "none", ("{{kind}}", rate("velro_leases_total", I, "kind")), per_minute=True),
        lines("Webhook lag", "How long do webhooks wait until a worker takes their step?", "s",
              ("{{provider}}", quantile(0.9, "velro_webhook_lag_seconds", PI, "provider"))),
    ]),
    ("Providers", [
        bars("Attempts", "Who delivers, who fails, who rejects, whose outcome is unknown?", "none",
             ("{{provider}} {{outcome}}", rate("velro_attempts_total", PI, "provider, outcome")), per_minute=True),
        bars("Requests", "What do the providers answer us?", "reqps",
             ("{{provider}} {{result}}", rate("velro_provider_requests_total", PI, "provider, result"))),
        lines("Requests without an answer", "Which share of our requests ends in a 5xx, a time-out or a broken line?",
              "percentunit",
              ("{{provider}}",
               f'(sum by (provider) (rate(velro_provider_requests_total{{{PI}, '
               f'result=~"5xx|not_sent|timeout|reset|too_large"}}[$__rate_interval])) or on (provider) '
               f'0 * {rate("velro_provider_requests_total", PI, "provider")}) / '
               + rate("velro_provider_requests_total", PI, "provider"))),
        lines("Time of a request", "How quickly do they answer? 95 of 100 are quicker.", "s",
              ("{{provider}}", quantile(0.95, "velro_provider_request_duration_seconds", PI, "provider"))),
        lines("Time of a generation at the provider", "Who has become slow? Half are quicker, and 95 of 100.", "s",
              ("{{provider}} p50",
               quantile(0.5, "velro_generation_stage_duration_seconds", PI + ', stage="provider"', "provider")),
              ("{{provider}} p95",
               quantile(0.95, "velro_generation_stage_duration_seconds", PI + ', stage="provider"', "provider"))),
        lines("Breakers", "Who is not asked at present? 0 closed, 1 half open, 2 open.", "none",
              ("{{provider}}", whole("velro_provider_breaker", PI, "provider"))),
        bars("Reroutes", "Who hands generations over to whom, and why?", "none",
             ("{{from}} to {{to}}: {{reason}}", rate("velro_reroutes_total", I, "from, to, reason")), per_minute=True),
        bars("Faults of provider code", "Whose library or declaration does not work?", "none",
             ("{{provider}}", rate("velro_provider_faults_total", PI, "provider")), per_minute=True),
        bars("Webhooks", "Do the providers' webhooks arrive, and are they believed?", "none",
             ("{{provider}} {{outcome}}", rate("velro_webhooks_total", PI, "provider, outcome")), per_minute=True),
        lines("Edits of the registry", "Was an edit of providers.toml taken up, or refused?", "none",
              ("{{outcome}}", f"max by (outcome) (velro_registry_reloads_total{{{I}}})"),
              ("refused now", whole("velro_registry_edit_refused", I)), width=12),
        dict(kind="table", title="Registry in use", unit="none", width=12, height=8,
             description="Do all processes use the same providers.toml?",
             queries=[("", f"max by (instance, revision) (velro_registry_info{{{I}}})")]),
    ]),
    ("API", [
        bars("Requests", "How much is asked, and how is it answered?", "reqps",
             ("{{status}}", rate("velro_http_requests_total", I, "status"))),
        lines("Time of a request", "Do people wait for us? Event streams count until they begin.", "s",
              *quantiles("velro_http_request_duration_seconds", I)),
        lines("Submit, stage by stage", "Is it the checks, the database (hold) or the queue? 95 of 100 are quicker.", "s",
              ("{{stage}}", quantile(0.95, "velro_submit_stage_duration_seconds", I, "stage"))),
        lines("Slowest routes", "Which routes are slow? The ten with the highest p95.", "s",
              ("{{method}} {{route}}",
               f'topk(10, {quantile(0.95, "velro_http_request_duration_seconds", I, "method, route")})'), width=12),
        lines("Busiest routes", "What is asked most?", "reqps",
              ("{{method}} {{route}}",
               f'topk(10, {rate("velro_http_requests_total", I, "method, route")})'), width=12),
        bars("Refused by limits", "Who is throttled by which limit?", "none",
             ("{{policy}}", rate("velro_rate_limited_total", I, "policy")), per_minute=True),
        bars("Refused under load", "How many requests are turned away because too many are at work at once?", "none",
             ("{{instance}}", rate("velro_shed_requests_total", I, "instance")), per_minute=True),
        lines("Open event streams", "How many people watch?", "none",
              ("{{instance}}", f"velro_sse_connections{{{I}}}")),
        lines("Failed requests by route", "Where do 5xx come from?", "none",
              ("{{method}} {{route}}",
               f'sum by (method, route) (rate(velro_http_requests_total{{{I}, status="5xx"}}[$__rate_interval]))'),
              per_minute=True),
    ]),
    ("Process", [
        lines("CPU", "Which process is busy? 1 is one core.", "none",
              ("{{instance}}", f"rate(process_cpu_seconds_total{{{I}}}[$__rate_interval]) and on (instance) velro_build_info")),
        lines("Memory", "Does a process grow?", "bytes",
              ("{{instance}}", f"process_resident_memory_bytes{{{I}}} and on (instance) velro_build_info")),
        lines("File descriptors", "How close is a process to its limit?", "percentunit",
              ("{{instance}}",
               f"process_open_fds{{{I}}} / process_max_fds and on (instance) velro_build_info")),
        lines("Uptime", "When did a process start again?", "s",
              ("{{instance}}", f"time() - process_start_time_seconds{{{I}}} and on (instance) velro_build_info")),
        lines("Database", "Is the database there? 1 is yes.", "none",
              ("{{instance}}", f"velro_database_up{{{I}}}"), max=1),
        lines("Database connections", "Are there enough connections?", "none",
              ("{{instance}} {{pool}}: {{state}}", f"sum by (instance, pool, state) (velro_database_connections{{{I}}})")),
        lines("Redis", "Is Redis there? 1 is yes; nothing is drawn when none is configured.", "none",
              ("{{instance}}", f"velro_redis_up{{{I}}}"), max=1),
        bars("Without Redis", "Which part went on without Redis, and how often?", "none",
             ("{{part}}", rate("velro_redis_fallbacks_total", I, "part")), per_minute=True),
        lines("Age of the gauges", "Are queue, credits and problems on this page of now? Above 30 s they are not.", "s",
              ("{{instance}}", f"time() - velro_gauges_refreshed_timestamp_seconds{{{I}}}")),
        lines("Clock offset", "How wrong is the clock of the machine, compared with the database's?", "s",
              ("{{instance}}", f"velro_clock_offset_seconds{{{I}}}"), width=12),
        lines("Provider libraries", "How many replaced libraries are still loaded?", "none",
              ("{{instance}} {{state}}", f"sum by (instance, state) (velro_plugin_libraries{{{I}}})"), width=12),
    ]),
]

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def target(ref, legend, expr, is_table):
    more = {"format": "table", "instant": True, "range": False} if is_table else {"range": True}
    return {"refId": ref, "datasource": DATASOURCE, "editorMode": "code", "expr": expr, "legendFormat": legend or "__auto",
            **more}


def panel(number, spec, x, y):
    kind = spec["kind"]
    per_minute = spec.get("per_minute", False)
    queries = [(legend, f"60 * {expr}" if per_minute else expr) for legend, expr in spec["queries"]]
    steps = [{"value": value, "color": colour} for value, colour in spec.get("thresholds") or [(None, "text")]]
    defaults = {"unit": spec["unit"], "thresholds": {"mode": "absolute", "steps": steps}, "noValue": "nothing"}
    if kind == "timeseries":
        defaults["min"] = 0
        defaults["custom"] = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 10, "showPoints": "never",
                              "axisLabel": "per minute" if per_minute else "", "spanNulls": False}
        if spec.get("stack"):
            defaults["custom"].update({"fillOpacity": 40, "stacking": {"mode": "normal", "group": "A"}})
        if "max" in spec:
            defaults["max"] = spec["max"]
        if spec["title"] == "Clock offset":
            del defaults["min"]
    options = {
        "stat": {"colorMode": "value", "graphMode": "none", "reduceOptions": {"calcs": ["lastNotNull"]}},
        "timeseries": {"legend": {"displayMode": "list", "placement": "bottom"},
                       "tooltip": {"mode": "multi", "sort": "desc"}},
        "table": {"showHeader": True},
    }[kind]
    made = {
        "id": number,
        "type": kind,
        "title": spec["title"],
        "description": spec["description"],
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": spec["width"], "h": spec["height"]},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [target(chr(ord("A") + at), legend, expr, kind == "table") for at, (legend, expr) in enumerate(queries)],
    }
    if kind == "table":
        hidden = {"Time": True, "Value": True}
        made["transformations"] = [{"id": "organize", "options": {"excludeByName": hidden}}]
    return made


def panels():
    """The panels of every row, from left to right, 24 columns wide."""
    made, number, y = [], 0, 0
    for title, specs in ROWS:
        number += 1
        made.append({"id": number, "type": "row", "title": title, "collapsed": False, "panels": [],
                     "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}})
        y += 1
        x = line_height = 0
        for spec in specs:
            if x + spec["width"] > 24:
                x, y = 0, y + line_height
                line_height = 0
            number += 1
            made.append(panel(number, spec, x, y))
            x += spec["width"]
            line_height = max(line_height, spec["height"])
        y += line_height
    return made


def choice(name, label, query, description):
    return {"type": "query", "name": name, "label": label, "description": description, "datasource": DATASOURCE,
            "definition": query, "query": {"query": query, "refId": name}, "refresh": 2, "sort": 1, "multi": True,
            "includeAll": True, "allValue": ".*", "current": {"text": ["All"], "value": ["$__all"]}}


def dashboard():
    return {
        "title": "Velro",
        "uid": "velro",
        "description": "Velro: is money safe, is anything stuck, who is failing, is the service healthy? "
                       "Made by helm/dashboard.py.",
        "tags": ["velro"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "annotations": {"list": [
            {"name": "Alerts", "enable": True, "iconColor": "red", "datasource": DATASOURCE,
             "expr": f'ALERTS{{{N}, alertname=~"Velro.+", alertstate="firing"}}', "titleFormat": "{{alertname}}",
             "step": "60s"},
        ]},
        "templating": {"list": [
            {"type": "datasource", "name": "datasource", "label": "Prometheus", "query": "prometheus", "current": {}},
            choice("namespace", "Installation", "label_values(velro_build_info, namespace)",
                   "One installation per namespace; empty where there is no such label."),
            choice("instance", "Process", f"label_values(velro_build_info{{{N}}}, instance)",
                   "For what each process counts itself."),
            choice("provider", "Provider", f"label_values(velro_queue_waiting{{{N}}}, provider)",
                   "For queue, attempts and requests."),
        ]},
        "panels": panels(),
    }


def main():
    text = json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"
    if sys.argv[1:] == ["--check"]:
        if not OUTPUT.exists() or OUTPUT.read_text(encoding="utf-8") != text:
            sys.exit(f"{OUTPUT} is not what helm/dashboard.py makes; type: python3 helm/dashboard.py")
        return
    OUTPUT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
