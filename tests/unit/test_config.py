"""What the file may say, what it means, and that what it may not say is told all at once."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from coordd.access import Role
from coordd.config import ConfigError, Settings, load, parse_length, section_model
from coordd.config.settings import OPEN_ADDRESS
from coordd.core.lengths import spell_length
from coordd.core.limits import DAY, HOUR, MINUTE, NAMESPACES_MAX, SECOND
from coordd.core.rules import LimitRule, PoolRule, TypeRule

ROOT = Path(__file__).parents[2]
HASH = "0123456789abcdef" * 4
BOSS = f'b = {{ role = "operator", token_sha256 = ["{HASH}"] }}'
# Those with a `min_interval` are gone.
ONLY_ANALYSIS = "\n".join(f"kinds.{kind}.enabled = false" for kind in ("quote", "reply", "like"))


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def _read(text: str, **environment: str) -> Settings:
        path = tmp_path / "c.toml"
        path.write_text(text)
        return load(path, environment)

    return _read


@pytest.fixture
def problems(read: Any, tmp_path: Path) -> Any:
    def _problems(text: str, **environment: str) -> list[str]:
        with pytest.raises(ConfigError) as refusal:
            read(text, **environment)
        return [line.removeprefix(f"{tmp_path / 'c.toml'}: ") for line in refusal.value.problems]

    return _problems


# ---------------------------------------------------------------------- defaults and examples


def test_defaults() -> None:
    settings = load(None, {})
    assert settings.server.address == "127.0.0.1:7651"
    assert settings.store.path == Path("var/coordd.db")
    assert settings.store.history_retention_ns == 90 * DAY
    rules = settings.rules()
    assert {name: kind.min_interval_ns for name, kind in rules.kinds.items()} == {
        "quote": DAY,
        "reply": DAY,
        "like": DAY,
        "analysis": 0,
    }
    assert rules.kinds["quote"].bypass_quality > 1
    assert rules.pools == {
        "api_tweets": PoolRule(limit=LimitRule(windows={HOUR: 50})),
        "api_requests": PoolRule(limit=LimitRule(windows={15 * MINUTE: 900})),
        "content_pipeline": PoolRule(capacity=100),
    }
    assert rules.types["content"] == TypeRule(pool="content_pipeline")
    assert rules.types["api_quota"].pools["fetch"] == "api_requests"
    assert len(rules.types) == 7
    assert rules.limits == {}


def test_the_example_is_the_defaults() -> None:
    assert load(ROOT / "examples/coordd.toml", {}).rules() == load(None, {}).rules()
    written, defaults = load(ROOT / "examples/coordd.toml", {}), load(None, {})
    for section in (
        "server",
        "store",
        "log",
        "locks",
        "aging",
        "waits",
        "recovery",
        "requests",
        "scheduling",
        "sharing",
        "escalation",
        "sessions",
        "quotas",
    ):
        assert getattr(written, section) == getattr(defaults, section)
        assert getattr(written, section).model_fields_set == set(type(getattr(written, section)).model_fields)


def test_glitchbot() -> None:
    rules = load(ROOT / "examples/glitchbot.toml", {}).rules()
    assert {name: (tuple(rule.windows.items()), rule.is_fair) for name, rule in rules.limits.items()} == {
        "search_tweets": (((15 * MINUTE, 180), (HOUR, 720), (DAY, 17_280)), True),
        "post_tweet": (((15 * MINUTE, 50), (HOUR, 200), (DAY, 2_400)), False),
        "fetch_mentions": (((15 * MINUTE, 75), (HOUR, 300), (DAY, 7_200)), True),
    }
    assert rules.pools == load(None, {}).rules().pools


def test_everything_reaches_the_rules(read: Any) -> None:
    rules = read("""
        locks.exclusive = "item_and_kind"
        aging = { medium = "2s", high = "4s", critical = "1h", quality = "1500ms" }
        waits.resume_grace = "5s"
        recovery.grace = "6s"
        requests.memory = "7s"
        scheduling.horizon = "8s"
        kinds.like = { ttl = "1s", lock_delay = "0s", min_interval = "2s", bypass_quality = 1 }
        limits.x = { windows = { "1h" = 2, "1m" = 1 }, use_within = "1s", claim_window = "2s" }
        pools.x = { windows = { "1h" = 2 }, use_within = "1s" }
    """).rules()
    assert rules.is_exclusive_by_kind
    assert rules.boost_ns == {1: 0, 2: 2 * SECOND, 3: 4 * SECOND, 4: HOUR}
    assert rules.quality_boost_ns == 1_500_000_000
    assert rules.resume_grace_ns == 5 * SECOND
    assert rules.recovery_grace_ns == 6 * SECOND
    assert rules.request_memory_ns == 7 * SECOND
    assert rules.schedule_horizon_ns == 8 * SECOND
    like = rules.kinds["like"]
    assert (like.ttl_ns, like.lock_delay_ns, like.min_interval_ns, like.bypass_quality) == (
        SECOND,
        0,
        2 * SECOND,
        1,
    )
    limit = LimitRule(
        windows={MINUTE: 1, HOUR: 2}, use_within_ns=SECOND, claim_window_ns=2 * SECOND, forecast_max=0.5
    )
    assert rules.limits["x"] == limit
    assert list(rules.limits["x"].windows) == [MINUTE, HOUR]  # shortest first, whatever the file's order
    assert rules.pools["x"] == PoolRule(limit=LimitRule(windows={HOUR: 2}, use_within_ns=SECOND))


# ---------------------------------------------------------------------- merging with the defaults


def test_a_kind_is_changed_key_by_key_added_and_removed(read: Any) -> None:
    kinds = (
        read("""
        kinds.quote.ttl = "5m"
        kinds.like.enabled = false
        kinds.follow.min_interval = "7d"
    """)
        .rules()
        .kinds
    )
    assert list(kinds) == ["quote", "reply", "analysis", "follow"]
    assert (kinds["quote"].ttl_ns, kinds["quote"].min_interval_ns) == (5 * MINUTE, DAY)
    assert (kinds["follow"].ttl_ns, kinds["follow"].min_interval_ns) == (15 * MINUTE, 7 * DAY)


def test_a_pool_may_change_its_nature(read: Any) -> None:
    pools = (
        read("""
        pools.api_tweets.capacity = 7
        pools.api_requests.use_within = "1m"
        pools.content_pipeline.windows = { "1h" = 3 }
    """)
        .rules()
        .pools
    )
    assert pools["api_tweets"] == PoolRule(capacity=7)
    assert pools["api_requests"].limit == LimitRule(windows={15 * MINUTE: 900}, use_within_ns=MINUTE)
    assert pools["content_pipeline"] == PoolRule(limit=LimitRule(windows={HOUR: 3}))


def test_built_in_types_outlive_removed_pools(read: Any) -> None:
    types = (
        read("""
        pools.content_pipeline.enabled = false
        pools.api_tweets.enabled = false
        types.content.ttl = "1m"
    """)
        .rules()
        .types
    )
    assert types["content"] == TypeRule(ttl_ns=MINUTE)
    assert types["api_quota"].pools == {"search": "api_requests", "fetch": "api_requests"}


def test_a_type_may_change_its_pool(read: Any) -> None:
    types = (
        read("""
        types.api_quota.pool = "content_pipeline"
        types.content.pools = { a = "api_tweets" }
        types.cpu.pool = ""
    """)
        .rules()
        .types
    )
    assert types["api_quota"] == TypeRule(pool="content_pipeline")
    assert types["content"] == TypeRule(pools={"a": "api_tweets"})
    assert types["cpu"] == TypeRule()


# ---------------------------------------------------------------------- lengths of time


@pytest.mark.parametrize(
    ("text", "length_ns"),
    [("250ms", 250_000_000), ("0s", 0), ("15m", 15 * MINUTE), ("1h30m", 90 * MINUTE), ("1d", DAY)],
)
def test_lengths(text: str, length_ns: int) -> None:
    assert parse_length(text) == length_ns
    assert spell_length(length_ns) == text


@pytest.mark.parametrize("text", ["", "5", "5 m", "-5m", "1.5h", "m", "5x", "5M", "\u0661s"])
def test_not_lengths(text: str) -> None:
    with pytest.raises(ValueError, match="is not a length of time"):
        parse_length(text)


@pytest.mark.parametrize("value", ["5", "5.0", "true", "[]", "1979-05-27T07:32:00Z"])
def test_bare_values_are_refused_with_a_hint(problems: Any, value: str) -> None:
    (problem,) = problems(f"server.drain_timeout = {value}")
    assert re.match(r'server.drain_timeout: a length of time needs a unit, for instance "30s"', problem)


# ---------------------------------------------------------------------- problems


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("server.adress = 1", "server.adress: unknown key; did you mean 'address'?"),
        ("kinds.like.zzz = 1", "kinds.like.zzz: unknown key; there are: enabled, ttl, lock_delay, "),
        ("zzz = 1", "zzz: unknown key; there are: server, "),
        ("server = 1", "server: must be a table"),
        ("kinds = 1", "kinds: must be a table"),
        ("kinds.like = 1", "kinds.like: must be a table"),
        ('server.address = "localhost"', "server.address: 'localhost' is not HOST:PORT"),
        ('server.address = "a:65536"', "server.address: 'a:65536' is not HOST:PORT"),
        (
            "server.max_message_bytes = 1",
            "server.max_message_bytes: should be greater than or equal to 524288",
        ),
        (
            "server.max_message_bytes = true",
            "server.max_message_bytes: should be a valid integer; it is True",
        ),
        ('log.level = "loud"', "log.level: should be 'debug', 'info', 'warning' or 'error'; it is 'loud'"),
        ('kinds.like.ttl = "99ms"', "kinds.like.ttl: 99ms is outside 100ms .. 1d"),
        ("kinds.like.bypass_quality = 1.1", "kinds.like.bypass_quality: should be less than or equal to 1"),
        ("kinds.like.bypass_quality = nan", "kinds.like.bypass_quality: should be a finite number"),
        (
            'kinds.like.min_interval = "91d"',
            "kinds.like.min_interval: is longer than store.history_retention",
        ),
        (
            (
                'store.history_retention = "1h"\nlocks.memory = "1h"\nkinds.quote.enabled = false\n'
                "kinds.reply.enabled = false"
            ),
            "kinds.like.min_interval: is longer than store.history_retention",
        ),
        (
            'store.history_retention = "2d"\nkinds.quote.min_interval = "3d"',
            "kinds.quote.min_interval: is longer than store.history_retention, 2d: a restart would",
        ),
        (
            (
                f'store.history_retention = "2h"\nlocks.memory = "2h"\n{ONLY_ANALYSIS}\n'
                'kinds.analysis.lock_delay = "3h"'
            ),
            "kinds.analysis.lock_delay: is longer than store.history_retention, 2h: a restart would",
        ),
        (
            f'store.history_retention = "2h"\nlocks.memory = "2h"\n{ONLY_ANALYSIS}\nrequests.memory = "3h"',
            "requests.memory: is longer than store.history_retention, 2h: a restart would",
        ),
        ('store.path = ""', "store.path: is empty; it names a file"),
        ('store.path = "a\\u0000b"', "store.path: has a NUL in it"),
        ("store.path = 5", "store.path: "),
        ('kinds."a/b" = {}', "kinds.\"a/b\": a name is 1..64 bytes of printable text without '/'"),
        ('kinds."" = {}', 'kinds."": a name is'),
        (f"kinds.{'x' * 65} = {{}}", f"kinds.{'x' * 65}: a name is"),
        ('kinds."a\\nb" = {}', 'kinds."a\\nb": a name is'),
        ("pools.x = {}", "pools.x: needs either `capacity` or `windows`"),
        (
            'pools.x = { capacity = 1, windows = { "1h" = 1 } }',
            "pools.x: `capacity` and `windows` exclude each other",
        ),
        ('pools.x = { capacity = 1, use_within = "1s" }', "pools.x: `use_within` goes with `windows` only"),
        ("pools.x.capacity = 0", "pools.x.capacity: should be greater than or equal to 1; it is 0"),
        ("pools.x.capacity = 1_000_000_001", "pools.x.capacity: should be less than or equal to 1000000000"),
        (
            'types.x.pool = "nope"',
            "types.x.pool: there is no pool 'nope' (there are: api_tweets, api_requests, content_pipeline)",
        ),
        ('types.x.pools = { a = "nope" }', "types.x.pools.a: there is no pool 'nope'"),
        (
            'types.x = { pool = "api_tweets", pools = { a = "api_tweets" } }',
            "types.x: `pool` and `pools` exclude each other",
        ),
        ("limits.x = {}", "limits.x.windows: is required"),
        ("limits.x.windows = {}", "limits.x.windows: has 0 windows; 1..8 are possible"),
        (
            'limits.x.windows = { "1h" = 1, "60m" = 1 }',
            "limits.x.windows: '1h' and '60m' are the same window",
        ),
        ('limits.x.windows = { "5" = 1 }', "limits.x.windows.5: '5' is not a length of time"),
        ('limits.x.windows = { "1ms" = 1 }', "limits.x.windows.1ms: 1ms is outside 1s .. 31d"),
        ('limits.x.windows = { "1h" = 0 }', "limits.x.windows.1h: should be greater than or equal to 1"),
        (
            'limits.x.windows = { "15m" = 10, "1h" = 5 }',
            "limits.x.windows: the windows contradict each other: 5 in 1h is less than 10 in 15m",
        ),
        (
            'pools.x.windows = { "15m" = 10, "1h" = 41 }',
            "pools.x.windows: the windows contradict each other: 41 in 1h can't be reached",
        ),
        ('aging.high = "1m"', "aging.high: 1m is not above medium's 1m"),
        ('aging.critical = "1m"', "aging.critical: 1m is not above high's 2m"),
        ('aging.medium = "0s"', "aging.medium: 0s is not above low's 0s"),
        ('aging.quality = "1m"', "aging.quality: 1m is not below the step from low to medium, 1m"),
    ],
)
def test_refused(problems: Any, text: str, problem: str) -> None:
    assert problems(text)[0].startswith(problem)


def test_all_problems_are_told_one_a_line(problems: Any) -> None:
    found = problems("""
        log.format = "xml"
        kinds.like.ttl = 5
        types.x.pool = "nope"
        limits.x.windows = { "1h" = 1, "15m" = 2 }
        aging.high = "1m"
        colour = "red"
    """)
    assert [line.split(":")[0] for line in found] == [
        "log.format",
        "kinds.like.ttl",
        "types.x.pool",
        "limits.x.windows",
        "aging.high",
        "colour",
    ]
    assert not any("\n" in line for line in found)


def test_a_wrong_table_hides_no_problem_of_its_neighbours(problems: Any) -> None:
    found = problems("""
        kinds.reply.ttl = 5
        kinds.like.min_interval = "91d"
        types.x.ttl = 5
        types.y.pool = "nope"
        types.z.pools = { a = "nope", b = "neither" }
    """)
    assert [line.split(":")[0] for line in found] == [
        "kinds.reply.ttl",
        "kinds.like.min_interval",
        "types.x.ttl",
        "types.y.pool",
        "types.z.pools.a",
        "types.z.pools.b",
    ]


def test_what_refers_to_a_wrong_table_is_not_judged(problems: Any) -> None:
    found = problems("""
        store = { path = "", history_retention = "200d" }
        kinds.like.min_interval = "100d"
    """)
    assert [line.split(":")[0] for line in found] == ["store.path"]


def test_a_kind_that_is_removed_needs_no_history(read: Any) -> None:
    settings = read("""
        store.history_retention = "1h"
        locks.memory = "1h"
        [kinds]
        quote.enabled = false
        reply.enabled = false
        like.enabled = false
        analysis = { lock_delay = "1h" }
    """)
    assert list(settings.kinds) == ["analysis"]


def test_a_pool_that_is_wrong_is_told_once(problems: Any) -> None:
    assert problems('pools.x.capacity = 0\ntypes.x.pool = "x"') == [
        "pools.x.capacity: should be greater than or equal to 1; it is 0"
    ]


@pytest.mark.parametrize(("content", "reason"), [(b"a = ", "is not TOML"), (b"\xff", "is not TOML")])
def test_not_toml(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "c.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=reason):
        load(tmp_path / "c.toml", {})


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nope\.toml: can't be read: No such file"):
        load(tmp_path / "nope.toml", {})


# ---------------------------------------------------------------------- environment


def test_the_environment_goes_before_the_file(read: Any) -> None:
    settings = read(
        'server.address = "localhost:1"\nstore.path = "b"',
        COORDD_ADDRESS="[::1]:2",
        COORDD_DATA_PATH="/d",
        COORDD_LOG_LEVEL="debug",
        SERVER="{}",
        COORDD_NOPE="x",
    )
    assert (settings.server.address, settings.store.path, settings.log.level) == (
        "[::1]:2",
        Path("/d"),
        "debug",
    )


def test_an_empty_variable_is_as_none(read: Any) -> None:
    assert read('server.address = "[::1]:1"', COORDD_ADDRESS="").server.address == "[::1]:1"


def test_a_wrong_variable_is_named(problems: Any) -> None:
    (told,) = problems('server = { address = "a:1" }', COORDD_ADDRESS="x")
    assert told.startswith("COORDD_ADDRESS: 'x' is not HOST:PORT, for instance")


# ---------------------------------------------------------------------- changes


def test_changes_go_before_the_file_and_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('limits.post.windows = { "15m" = 50, "1h" = 100 }')
    changes = [
        "limits.post.windows.1h=200",
        'limits.post.pace = "even"',
        'log.level="error"',
        'log={format="json"}',
    ]
    settings = load(file, {"COORDD_LOG_LEVEL": "debug"}, changes=changes)
    assert settings.limits["post"].windows == {15 * MINUTE: 50, HOUR: 200}
    assert (settings.limits["post"].pace, settings.log.level, settings.log.format) == (
        "even",
        "error",
        "json",
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("log", "log: is no KEY=VALUE"),
        ("log.level=debug", "log.level=debug: is not TOML"),
        ('log.level="loud"', 'log.level="loud": should be'),
        ("colour=1", "colour=1: unknown key"),
        ("log=1", "log=1: must be a table"),
        ("limits.post.windows={}", "limits.post.windows={}: has 0 windows"),
        (
            "pools.api_tweets.windows={1h=50,2h=40}",
            "defaults: pools.api_tweets.windows with pools.api_tweets.windows={1h=50,2h=40}: the windows con",
        ),
        ('aging.high="30s"', 'aging.high="30s": 30s is not above medium'),
        ('aging.medium="3m"', "defaults: aging.high: 2m is not above medium"),
    ],
)
def test_a_wrong_change_is_named(change: str, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(None, {}, changes=[change])
    [told] = refused.value.problems
    assert told.startswith(problem)


def test_a_change_that_contradicts_the_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('limits.post.windows = { "15m" = 50, "1h" = 100 }')
    with pytest.raises(ConfigError) as refused:
        load(file, {}, changes=["limits.post.windows.1h=400"])
    [told] = refused.value.problems
    assert told == (
        f"{file}: limits.post.windows with limits.post.windows.1h=400: "
        "the windows contradict each other: 400 in 1h can't be reached with 50 in 15m"
    )


# ---------------------------------------------------------------------- namespaces


def namespaces(tmp_path: Path, **files: str) -> Path:
    """Write a main file and one for each namespace, in a folder below it; return the main one."""
    (tmp_path / "fleets").mkdir()
    for name, text in files.items():
        (tmp_path / "fleets" / f"{name}.toml").write_text(text)
    main = tmp_path / "c.toml"
    main.write_text("\n".join(f'namespaces.{name}.file = "fleets/{name}.toml"' for name in files))
    return main


def test_a_namespace_has_settings_of_its_own_and_its_data_beside_the_main_file_s(tmp_path: Path) -> None:
    main = namespaces(tmp_path, blue="kinds.zap = {}", green='store.path = "elsewhere.db"')
    worlds = load(main, {"COORDD_DATA_PATH": str(tmp_path / "data" / "coordd.db")}).worlds
    assert list(worlds) == ["default", "blue", "green"]
    assert [world.store.path for world in worlds.values()] == [
        tmp_path / "data" / "coordd.db",
        tmp_path / "data" / "blue.db",
        Path("elsewhere.db"),
    ]
    assert ["zap" in world.rules().kinds for world in worlds.values()] == [False, True, False]
    assert load(main, {}).worlds["blue"].store.path == Path("var/blue.db")


def test_every_problem_in_the_files_of_namespaces_is_told_as_in_the_main_one(tmp_path: Path) -> None:
    main = namespaces(tmp_path, blue='kinds.zap.ttl = 3\nserver.address = "x"\nstor = {}', green="not TOML")
    main.write_text(
        main.read_text() + "\nnamespaces.gone.file = 'no.toml'\nnamespaces.red.file = 3\ncolour = 1"
    )
    with pytest.raises(ConfigError) as refusal:
        load(main, {})
    fleets = tmp_path / "fleets"
    assert [
        line.partition(";")[0].removesuffix(" (at line 1, column 5)") for line in refusal.value.problems
    ] == [
        f"{fleets / 'blue.toml'}: server: belongs to the main file",
        f'{fleets / "blue.toml"}: kinds.zap.ttl: a length of time needs a unit, for instance "30s" or "15m"',
        f"{fleets / 'blue.toml'}: stor: unknown key",
        f"{fleets / 'green.toml'}: is not TOML: Expected '=' after a key in a key/value pair",
        f"{tmp_path / 'no.toml'}: can't be read: No such file or directory",
        f"{main}: namespaces.red.file: is not a valid path for <class 'pathlib.Path'>",
        f"{main}: colour: unknown key",
    ]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("default", "namespaces.default: is this file itself"),
        ("Blue", "namespaces.Blue: a namespace is named by 1..64 of a-z"),
        ('"a/b"', 'namespaces."a/b": a namespace is named by'),
        ("a" * 65, f"namespaces.{'a' * 65}: a namespace is named by"),
    ],
)
def test_a_namespace_s_name_is_a_header_and_a_file(
    problems: Any, tmp_path: Path, name: str, problem: str
) -> None:
    (tmp_path / "x.toml").touch()
    [told] = problems(f"[namespaces.{name}]\nfile = 'x.toml'")
    assert told.startswith(problem)


@pytest.mark.parametrize("path", ["one.db", "../{directory}/one.db"])
def test_two_namespaces_never_share_a_data_file(tmp_path: Path, path: str) -> None:
    other = path.format(directory=Path.cwd().name)
    main = namespaces(tmp_path, blue="store.path = 'one.db'", green=f"store.path = {other!r}")
    with pytest.raises(ConfigError) as refusal:
        load(main, {})
    assert refusal.value.problems == (
        f"{main}: namespaces.green.file: its data file is that of namespace 'blue', too",
    )


def test_there_may_be_only_so_many_namespaces(problems: Any, tmp_path: Path) -> None:
    for number in range(NAMESPACES_MAX + 1):
        (tmp_path / f"{number}.toml").touch()
    [told] = problems("\n".join(f"namespaces.n{n}.file = '{n}.toml'" for n in range(NAMESPACES_MAX + 1)))
    assert told.startswith(f"namespaces: Dictionary should have at most {NAMESPACES_MAX} items")


# ---------------------------------------------------------------------- documentation


def test_every_key_is_described() -> None:
    for name, section in Settings.model_fields.items():
        model = section_model(section.annotation)
        assert model.__doc__, name
        for key, field in model.model_fields.items():
            assert field.description, f"{name}.{key}"


def test_the_address_s_description_warns_of_doing_without_tls_and_identities() -> None:
    description = (
        section_model(Settings.model_fields["server"].annotation).model_fields["address"].description
    )
    assert description is not None
    assert "Without `[tls]` only on loopback" in description
    assert "without `[identities]` whoever reaches it may do anything" in description


def test_the_documentation_is_fresh() -> None:
    generated = subprocess.run(
        [sys.executable, ROOT / "tools/gen_config_docs.py"], capture_output=True, text=True, check=True
    )
    assert generated.stdout == (ROOT / "docs/configuration.md").read_text()


# ---------------------------------------------------------------------- who may reach it


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:1", "127.8.9.1:1", "[::1]:1", "localhost:1", "unix:/run/coordd/coordd.sock"],
)
def test_addresses_of_this_machine_need_no_tls(read: Any, address: str) -> None:
    assert read(f'server.address = "{address}"').server.address == address


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "a.example:1", "localhost.example:1", "127.0.0.1.example:1"],
)
def test_any_other_address_needs_tls_or_to_be_called_insecure(read: Any, problems: Any, address: str) -> None:
    (told,) = problems(f'server.address = "{address}"')
    assert told == f"server.address: {OPEN_ADDRESS}"
    assert read(f'server = {{ address = "{address}", insecure = true }}').server.insecure
    assert read(f'server.address = "{address}"\ntls = {{ certificate = "c", key = "k" }}').tls.key == Path(
        "k"
    )


@pytest.mark.parametrize(
    "address", ["unix:", "unix:relative", "unix:/" + "x" * 103, "unix:/a\nb", "unix:///a:b\0"]
)
def test_an_address_that_is_no_socket(address: str) -> None:
    with pytest.raises(ConfigError, match="is not unix: and an absolute path of at most 103 bytes"):
        load(None, {"COORDD_ADDRESS": address})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('tls.certificate = "c"', "tls.key: is required where there is a `certificate`"),
        ('tls.key = "k"', "tls.certificate: is required where there is a `key`"),
        ('tls.client_ca = "ca"', "tls.client_ca: needs a `certificate` and a `key`"),
        ('tls.key = ""', "tls.key: is empty; leave it out for none"),
        (
            'server.socket_mode = "rw"',
            "server.socket_mode: String should match pattern '^0?[0-7]{3}$'; it is 'rw'",
        ),
        (
            'identities.a.role = "worker"',
            "identities.a: can't be recognised: it has neither `token_sha256` nor `certificates`",
        ),
        (
            f'[identities]\na = {{ role = "worker", token_sha256 = ["{HASH}"] }}\n{BOSS}',
            "identities.b.token_sha256: has one that is a's, too",
        ),
        (
            'identities.a = { role = "worker", certificates = ["a"] }',
            "identities.a.certificates: needs [tls] client_ca: nobody else is asked for a certificate",
        ),
        ("identities.a = {}", "identities.a.role: is required"),
    ],
)
def test_who_may_call_contradicts_itself(problems: Any, text: str, told: str) -> None:
    assert problems(text) == [told]


@pytest.mark.parametrize(
    "secret", ['"coordd_secret"', '["coordd_secret"]', f'["{"A" * 64}", "coordd_secret"]', "7"]
)
def test_a_token_in_the_place_of_its_hash_is_not_repeated(problems: Any, secret: str) -> None:
    (told,) = problems(f'identities.a = {{ role = "worker", token_sha256 = {secret} }}')
    assert told == (
        "identities.a.token_sha256: is a list of SHA-256 sums in hex, 64 digits each, not of tokens; "
        "`coordd token` makes both"
    )


def test_a_worker_without_names_acts_in_its_own(read: Any) -> None:
    settings = read(
        f'identities.w1 = {{ role = "worker", token_sha256 = ["{HASH}"] }}\n'
        'identities.fleet = { role = "worker", workers = ["a-*"], certificates = ["f.example"] }\n'
        'tls = { certificate = "c", key = "k", client_ca = "ca" }'
    )
    w1, fleet = (settings.identities[name].identity(name) for name in ("w1", "fleet"))
    assert (w1.name, w1.role, "w1" in w1.workers, "w2" in w1.workers) == ("w1", Role.WORKER, True, False)
    assert ("fleet" in fleet.workers, "a-1" in fleet.workers) == (False, True)
    assert settings.directory().of_certificate(["f.example"]) == fleet
