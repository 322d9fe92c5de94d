from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from riwoa.paths import StatePaths
from riwoa.web.access import MOST_BODY_BYTES, RateLimiter, RefusedError
from riwoa.web.access import Rate as ARate
from riwoa.web.tokens import TokenStore
from tests.ctl.support import daemon, status_object
from tests.storage.samples import alter

from .conftest import bearer, page

RUN = "/api/v1/runs/latest"


def found(client: TestClient, path: str, **parameters: Any) -> Any:
    answer = client.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


# -- what there is to read ---------------------------------------------------------------------------------------------


def test_runs_come_newest_first_with_their_leaders(client: TestClient) -> None:
    newest, oldest = found(client, "/api/v1/runs")
    assert (newest["run_id"], newest["generations"], newest["evaluations"]) == (2, 4, 12)
    assert (newest["metric"], newest["target_ms"], newest["leader"]["generation"]) == ("accuracy", 12.5, 3)
    assert (oldest["run_id"], oldest["generations"]) == (1, 1)
    assert found(client, RUN)["run_id"] == 2
    assert found(client, "/api/v1/runs/1")["run_id"] == 1


@pytest.mark.parametrize("order", ["newest", "oldest", "best", "fastest"])
def test_cursors_lead_through_all_candidates_once_in_order(client: TestClient, order: str) -> None:
    seen, cursor = [], None
    for _ in range(9):
        page = found(client, f"{RUN}/individuals", order=order, limit=5, **({"cursor": cursor} if cursor else {}))
        seen += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len({(c["generation"], c["slot"]) for c in seen}) == len(seen) == 12
    key = {
        "newest": lambda c: (-c["generation"], -c["slot"]),
        "oldest": lambda c: (c["generation"], c["slot"]),
        "best": lambda c: -c["fitness"],
        "fastest": lambda c: c["latency_ms"],
    }[order]
    assert seen == sorted(seen, key=key)


def test_a_cursor_stays_where_it_was_while_more_is_committed(client: TestClient, state: Path) -> None:
    first = found(client, f"{RUN}/individuals", order="oldest", limit=5)
    alter(state / "journal.db", "DELETE FROM individuals WHERE generation = 0 AND run_id = 2")
    second = found(client, f"{RUN}/individuals", order="oldest", limit=5, cursor=first["next_cursor"])
    assert [(c["generation"], c["slot"]) for c in second["items"]] == [(1, 2), (2, 0), (2, 1), (2, 2), (3, 0)]


def test_filters_choose_candidates(client: TestClient) -> None:
    (one,) = found(client, f"{RUN}/individuals", operator="semantic")["items"]
    assert (one["generation"], one["slot"], one["parent"], one["request_id"]) == (1, 0, "0/2", "2/0/2")
    fast = found(client, f"{RUN}/individuals", most_ms=10.5, least=0.52)["items"]
    assert [(c["generation"], c["slot"]) for c in fast] == [(3, 0), (2, 0)]
    assert found(client, f"{RUN}/individuals", status="failed")["items"] == []
    assert one in found(client, f"{RUN}/individuals", name=one["name"][:8])["items"]


def test_a_candidate_tells_its_ancestors_what_changed_and_the_model_s_words(client: TestClient) -> None:
    detail = found(client, f"{RUN}/individuals/1/0")
    (ancestor,) = detail["ancestors"]
    assert (ancestor["generation"], ancestor["slot"], ancestor["changed"]) == (0, 2, {"width": [0, 1]})
    assert ancestor["gain"] == pytest.approx(0.51 - 0.502)
    assert "größer" in detail["words"]["prompt"]
    assert '{"kernel":5}' in detail["words"]["text"]
    assert detail["words"]["verdict"] == "won"
    assert len(found(client, f"{RUN}/individuals/3/1")["ancestors"]) == 3


def test_front_progress_replies_events_generations_and_settings_are_told(client: TestClient) -> None:
    front = found(client, f"{RUN}/front")
    assert [p["candidate"]["slot"] for p in front["points"]] == [0, 1, 2]
    assert [p["leader"] for p in front["points"]] == [False, False, True]
    steps = found(client, f"{RUN}/progress")
    assert [(s["generation"], s["evaluations"], s["latency_ms"]) for s in steps] == [
        (generation, 3 * (generation + 1), 12.0) for generation in range(4)
    ]
    (reply,) = found(client, f"{RUN}/replies")["items"]
    assert (reply["candidate_generation"], reply["candidate_slot"]) == (1, 0)
    events = found(client, f"{RUN}/events", limit=1)
    assert events["items"][0]["payload"] == {"candidates": 6}
    assert found(client, f"{RUN}/events", cursor=events["next_cursor"])["items"][0]["payload"] == {"candidates": 5}
    assert [g["generation"] for g in found(client, f"{RUN}/generations")["items"]] == [3, 2, 1, 0]
    assert found(client, f"{RUN}/config")[0]["config"] == {"search": {"population": 3}}
    assert found(client, f"{RUN}/adapters") == []
    assert found(client, f"{RUN}/operators") == ["init", "semantic", "spiral"]


def test_the_front_takes_in_what_is_committed_later(client: TestClient, state: Path) -> None:
    assert len(found(client, f"{RUN}/front")["points"]) == 3
    alter(state / "journal.db", "UPDATE individuals SET run_id = 2, generation = 4 WHERE run_id = 1 AND slot = 0")
    alter(
        state / "journal.db",
        'UPDATE individuals SET individual_id = 99, metrics = \'{"accuracy":0.9,"latency_ms":1}\' WHERE generation = 4',
    )
    (point,) = found(client, f"{RUN}/front")["points"]
    assert point["candidate"]["generation"] == 4


def test_before_the_first_run_the_page_is_there_and_empty(tmp_path: Path) -> None:
    with page(StatePaths(tmp_path)) as client:
        assert found(client, "/api/v1/runs") == []
        assert found(client, "/api/v1/status")["state"] == "none"
        assert client.get(RUN).status_code == 404
        assert client.get("/readyz").status_code == 200
        assert client.get("/metrics").status_code == 200
        assert "<title>riwoa</title>" in client.get("/").text


def test_a_broken_journal_is_not_ready_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"nothing of the kind" * 300)
    with page(StatePaths(tmp_path)) as client:
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert "journal.db" in answer.json()["reason"]
        assert client.get("/healthz").status_code == 200
        assert client.get("/api/v1/runs").status_code == 503
        status = found(client, "/api/v1/status")
        assert (status["state"], "journal.db" in status["message"]) == ("unhealthy", True)
        assert client.get("/metrics").status_code == 200


def test_prometheus_reads_status_and_journal_with_units(client: TestClient, state: Path) -> None:
    server = {"url": "u", "night_in": 90, "night_out": 9, "run_in": 70, "run_out": 7, "budget": 500, "night_cost": 0.5}
    proposals = {"model": "http:m", "waiting": 0, "answered": 3, "server": server}
    with daemon(state, {"ok": True, "status": status_object(proposals=proposals)}):
        lines = client.get("/metrics").text.splitlines()
    for line in (
        "riwoa_model_tokens_night_in 90.0",
        "riwoa_model_tokens_night_budget 500.0",
        "riwoa_model_cost_night 0.5",
        "riwoa_model_tokens_read_total 70.0",
        "riwoa_up 1.0",
        'riwoa_state{state="running"} 1.0',
        "riwoa_evaluations_total 130.0",
        "riwoa_best_latency_seconds 0.0017",
        "riwoa_latency_target_seconds 0.0019",
        'riwoa_workers{state="busy"} 1.0',
        "riwoa_last_generation_duration_seconds 1.5",
    ):
        assert line in lines
    assert any(line.startswith("riwoa_journal_bytes ") for line in lines)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/runs/99", 404),
        ("/api/v1/runs/nope", 400),
        (f"/api/v1/runs/{'9' * 18}/front", 404),
        (f"/api/v1/runs/{'9' * 40}", 400),
        (f"{RUN}/individuals/0/99", 404),
        (f"{RUN}/individuals/0/x", 400),
        (f"{RUN}/individuals?limit=0", 400),
        (f"{RUN}/individuals?limit=5&limit=6", 400),
        (f"{RUN}/individuals?order=worst", 400),
        (f"{RUN}/individuals?most_ms=nan", 400),
        (f"{RUN}/individuals?cursor=nonsense", 400),
        (f"{RUN}/individuals?cursor=WyJiZXN0IiwgMS4wLCAxXQ", 400),  # another order's
        (f"{RUN}/individuals?name=x*", 400),
        (f"{RUN}/individuals?operator={'x' * 201}", 400),
        ("/api/v1/runs/latest/..%2f..%2fjournal.db", 404),
        ("/../../etc/passwd", 404),
        ("/static/../../journal.db", 404),
    ],
)
def test_a_wrong_request_is_told_what_to_do_in_json(client: TestClient, path: str, status: int) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    assert answer.json()["error"]


def test_the_document_describes_every_route_and_its_answers(client: TestClient) -> None:
    document = found(client, "/api/v1/openapi.json")
    routes = {route.path for route in client.app.routes}  # type: ignore[attr-defined]
    assert set(document["paths"]) == {r for r in routes if r.startswith("/api/")} - {"/api/v1/openapi.json"}
    schemas = document["components"]["schemas"]
    text = json.dumps(document)
    assert {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]} <= set(schemas)
    assert set(found(client, RUN)) == set(schemas["RunView"]["properties"])
    (one, *_) = found(client, f"{RUN}/individuals")["items"]
    assert set(one) == set(schemas["Candidate"]["properties"])


# -- who may what ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "unlike",
    [
        {"host": "evil.example"},  # whose name leads to 127.0.0.1
        {"x-forwarded-for": "203.0.113.9"},
        {"forwarded": "for=203.0.113.9"},
    ],
)
def test_reading_is_open_on_this_machine_alone(client: TestClient, unlike: dict[str, str]) -> None:
    assert client.get("/api/v1/status").status_code == 200
    answer = client.get("/api/v1/status", headers=unlike)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_from_elsewhere_reading_needs_a_token(paths: StatePaths) -> None:
    with page(paths, client=("203.0.113.9", 5000)) as client:
        for path in ("/api/v1/status", "/api/v1/stream", "/metrics", RUN):
            assert client.get(path).status_code == 401
        assert client.get("/").status_code == 200  # it holds nothing of the search
        assert client.get(RUN, headers=bearer(paths, "read")).status_code == 200


def test_a_token_may_be_required_on_this_machine_too(paths: StatePaths) -> None:
    with page(paths, open_reading=False) as client:
        assert client.get(RUN).status_code == 401


def test_control_needs_a_token_with_that_scope_and_tells_the_daemon_whose(
    client: TestClient, paths: StatePaths, state: Path
) -> None:
    with daemon(state, {"ok": True, "message": "pausing"}) as requests:
        assert client.post("/api/v1/pause").status_code == 401
        assert client.post("/api/v1/pause", headers=bearer(paths, "read", name="reader")).status_code == 403
        assert requests == []
        headers = bearer(paths, "control")
        answer = client.post("/api/v1/pause", headers=headers)
        assert (answer.status_code, answer.json()["message"]) == (200, "pausing")
        assert requests == [{"verb": "pause", "by": "token eva", "state": str(state)}]
        assert client.get("/api/v1/pause", headers=headers).status_code == 405
    assert client.post("/api/v1/pause", headers=headers).status_code == 503  # no daemon runs


@pytest.mark.parametrize("header", [{"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}])
def test_another_site_s_page_cannot_control_even_with_a_token(
    client: TestClient, paths: StatePaths, header: dict[str, str]
) -> None:
    assert client.post("/api/v1/stop", headers={**bearer(paths, "control"), **header}).status_code == 403


@pytest.mark.parametrize(("code", "status"), [(77, 409), (78, 422), (69, 503)])
def test_the_daemon_s_refusal_is_passed_on(
    client: TestClient, paths: StatePaths, state: Path, code: int, status: int
) -> None:
    with daemon(state, {"ok": False, "error": "run.seed needs --new-run", "exit_code": code}):
        answer = client.post("/api/v1/reload", headers=bearer(paths, "control"))
    assert (answer.status_code, answer.json()["error"]) == (status, "run.seed needs --new-run")


def test_a_revoked_an_expired_a_changed_and_a_foreign_token_open_nothing(paths: StatePaths) -> None:
    with page(paths, open_reading=False) as client:
        good = bearer(paths, "read")
        assert client.get(RUN, headers=good).status_code == 200
        TokenStore(paths).revoke("eva")
        changed = {"authorization": bearer(paths, "read", name="b")["authorization"][:-1] + "~"}
        expired = bearer(paths, "read", expires_s=0.0, name="c")
        foreign = {"authorization": f"Bearer riwoa-{'0' * 8}-{'x' * 43}"}
        path = {"authorization": f"Bearer riwoa-../../xx-{'x' * 43}"}
        for headers in (good, changed, expired, foreign, path, {"authorization": "Basic eDp5"}):
            assert client.get(RUN, headers=headers).status_code == 401


def test_only_a_hash_of_a_token_is_stored_for_its_owner_s_eyes(paths: StatePaths) -> None:
    secret = bearer(paths, "control")["authorization"].rpartition("-")[2]
    (file,) = (paths.state / "web-tokens").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert secret not in file.read_text()


def test_whoever_guesses_tokens_is_put_off(paths: StatePaths) -> None:
    good = bearer(paths, "read")
    with page(paths, open_reading=False) as client:
        wrong = {"authorization": f"Bearer riwoa-{'0' * 8}-{'x' * 43}"}
        answers = [client.get(RUN, headers=wrong).status_code for _ in range(12)]
        assert answers == [401] * 10 + [429] * 2
        assert client.get(RUN, headers=good).status_code == 429  # of that address, for a while


def test_a_rate_recovers_with_time_and_one_client_does_not_spend_another_s() -> None:
    now_s = 0.0
    limiter = RateLimiter(ARate(2, 0.5), clock=lambda: now_s)
    limiter.spend("a")
    limiter.spend("a")
    with pytest.raises(RefusedError) as refused:
        limiter.spend("a")
    assert refused.value.response().headers["retry-after"] == "2"
    limiter.spend("b")
    now_s = 2.0
    limiter.spend("a")


@pytest.mark.parametrize("length", [str(MOST_BODY_BYTES + 1), "9" * 30, "-1", "x"])
def test_a_body_too_large_or_of_no_size_is_refused_unread(client: TestClient, paths: StatePaths, length: str) -> None:
    headers = {**bearer(paths, "control"), "content-length": length}
    assert client.post("/api/v1/pause", headers=headers, content=b"x").status_code == 413


@pytest.mark.parametrize("path", ["/", "/app.js", "/api/v1/status", "/api/v1/nope", "/metrics"])
def test_every_answer_carries_the_security_headers_and_opens_to_no_other_site(client: TestClient, path: str) -> None:
    headers = client.get(path, headers={"origin": "http://evil.example"}).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert not [name for name in headers if name.startswith("access-control-")]


def test_the_page_holds_no_script_or_style_inline_and_asks_no_other_host(client: TestClient) -> None:
    html = client.get("/").text
    assert html.count("<script") == 1
    assert ' src="app.js"' in html
    assert not any(word in html for word in ("style=", "onclick", "<style", "https://", "http://"))
