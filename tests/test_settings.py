"""Settings: one declaration, its origins, and one clear message for each problem."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from worker.cli.check import shown
from worker.cli.main import main
from worker.cli.parser import COMMANDS
from worker.errors import SettingsError
from worker.settings import (
    FIRST_OPTIONS,
    WorkerTopics,
    child_environment,
    load,
    options,
    plain_values,
)
from worker.settings.sections import PATTERNS


def test_flags_override_environment_file_and_defaults(tmp_path: Path) -> None:
    config = tmp_path / "s.toml"
    config.write_text('[kafka]\ngroup_id = "file"\nclient_id = "file"\n[input]\ntopic = "file"\n')
    environ = {"STREAMLABEL_KAFKA_GROUP_ID": "env", "STREAMLABEL_KAFKA_CLIENT_ID": "env"}
    loaded = load({"kafka.group_id": "flag"}, config, environ)
    settings = loaded.settings
    assert (settings.kafka.group_id, settings.kafka.client_id) == ("flag", "env")
    assert (settings.input.topic, settings.output.topic) == ("file", "texts.labelled")
    assert loaded.file == config
    assert loaded.origins == {
        "kafka.group_id": "flag --group-id",
        "kafka.client_id": "environment STREAMLABEL_KAFKA_CLIENT_ID",
        "input.topic": f"file {config}",
    }


def test_every_option_has_unique_names_a_description_and_a_unit() -> None:
    assert len(options()) > 40
    flags = [option.flag for option in options()]
    names = [name for option in options() for name in option.env]
    assert len(set(flags)) == len(flags)
    assert len(set(names)) == len(names)
    for option in options():
        assert option.field.description, option.path
        numeric = re.search(r"\b(int|float)\b", str(option.field.annotation))
        if numeric:
            assert option.field.metadata, f"{option.path} has no bound"
            text = f"{option.path} {option.field.description}".lower()
            counted = ("token", "record", "port", "thread", "schemas", "window", "label")
            units = ("second", "_ms", "byte", "probabilit", *counted)
            assert any(unit in text for unit in units), f"{option.path} has no unit"


def test_the_first_sentence_of_a_description_fits_in_a_table() -> None:
    for option in options():
        description = option.field.description or ""
        first, _, _ = description.partition(". ")
        assert len(first) <= 100, option.path
        assert description.endswith((".", "...")), option.path


def test_the_first_options_are_options() -> None:
    paths = [option.path for option in options()]
    assert len(FIRST_OPTIONS) == 10
    assert set(FIRST_OPTIONS) <= set(paths)


def test_every_pattern_is_explained_in_words() -> None:
    patterns = {
        item.pattern
        for option in options()
        for item in option.field.metadata
        if getattr(item, "pattern", None)
    }
    assert patterns
    assert patterns <= set(PATTERNS)


def topics_of(**flags: Any) -> WorkerTopics:
    named = {path.replace("__", "."): value for path, value in flags.items()}
    return load(named, environ={}).settings.topics


def test_settings_name_every_topic_of_a_worker() -> None:
    topics = topics_of(input__topic="a", output__topic="b")
    assert topics.inputs == ("a",)
    assert topics.outputs == ("b", "texts.dead")
    assert topics.all == ("a", "b", "texts.dead")


@pytest.mark.parametrize("value", ["a, b", ["a", "b"]])
def test_several_inputs_share_an_output_or_have_one_each(value: Any) -> None:
    topics = topics_of(input__topics=value)
    assert topics.inputs == ("a", "b")
    assert topics.feeds == (("texts.labelled", ("a", "b")),)
    topics = topics_of(input__topics=value, output__topic="x.{topic}.y")
    assert topics.feeds == (("x.a.y", ("a",)), ("x.b.y", ("b",)))
    assert topics.all == ("a", "b", "x.a.y", "x.b.y", "texts.dead")


def test_one_input_may_be_named_in_both_ways() -> None:
    assert topics_of(input__topic="a", input__topics="a").inputs == ("a",)
    assert topics_of(input__topics=[]).inputs == ("texts.in",), "an empty list is none"


def test_a_pattern_matches_whole_names() -> None:
    topics = topics_of(input__topic_pattern="posts|(?:news-[0-9]+)", output__topic="{topic}.x")
    names = ["news-2", "posts", "posts.x", "news-1", "my posts", "news-1a"]
    assert topics.inputs == ()
    assert topics.among(names).inputs == ("news-1", "news-2", "posts")
    assert topics.among([]).outputs == ("texts.dead",)
    assert list(topics.among(names).conflicts()) == []


def test_a_topic_that_is_found_must_not_have_an_output_that_the_pattern_matches() -> None:
    """The worker would read its own results, and then their results."""
    topics = topics_of(input__topic_pattern="posts.*", output__topic="{topic}.labelled")
    (conflict,) = topics.among(["posts"]).conflicts()
    assert conflict.startswith(
        "output.topic = '{topic}.labelled' gives input 'posts' the output 'posts.labelled', which "
        "input.topic_pattern = 'posts.*' matches"
    )


@pytest.mark.parametrize(
    "pattern", ["texts.*", "texts.in|.*ed|.*ad", "(?i)texts.*", "(?i)(?s)Text.*"]
)
def test_the_advice_against_a_loop_works(pattern: str) -> None:
    """Each line's advice is enough, also for two outputs that match."""
    with pytest.raises(SettingsError) as refused:
        load({"input.topic_pattern": pattern}, environ={})
    both = re.findall(r"is an output.*as with '(.*)' ", str(refused.value))
    assert len(both) == 2
    for advice in both:
        topics = topics_of(input__topic_pattern=advice)
        assert topics.among(["texts.in", *topics.outputs]).inputs == ("texts.in",)


def test_the_advice_excludes_the_outputs_of_later_topics_too() -> None:
    topics = topics_of(input__topic_pattern="posts.*", output__topic="{topic}.labelled")
    (conflict,) = topics.among(["posts"]).conflicts()
    (advice,) = re.findall("as with '(.*)'", conflict)
    excluding = topics_of(input__topic_pattern=advice, output__topic="{topic}.labelled")
    found = excluding.among(["posts", "posts-2", "posts.labelled", "posts-2.labelled"])
    assert found.inputs == ("posts", "posts-2")
    assert list(found.conflicts()) == []


def test_values_from_the_environment_are_converted() -> None:
    loaded = load(environ={"STREAMLABEL_HTTP_PORT": "8080", "STREAMLABEL_HTTP_ENABLED": "false"})
    assert (loaded.settings.http.port, loaded.settings.http.enabled) == (8080, False)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (
            {"http.port": "70000"},
            "http.port = '70000': must be a whole number from 0 to 65535 (from flag --http-port)",
        ),
        ({"http.port": "http"}, "http.port = 'http': must be a whole number from 0 to 65535"),
        ({"model.threads": 1.5}, "model.threads = 1.5: must be a whole number from 1 to 1024"),
        ({"stall_timeout": "soon"}, "stall_timeout = 'soon': must be a number above 0"),
        ({"commit_interval": "nan"}, "must be a number above 0, at most 60"),
        ({"http.page": "maybe"}, "http.page = 'maybe': must be true or false"),
        ({"delivery": "exact"}, "delivery = 'exact': must be one of at_least_once, exactly_once"),
        ({"kafka.sasl_mechanism": "X"}, "must be one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512"),
        ({"kafka.group_id": ""}, "kafka.group_id = '': must not be empty"),
        ({"http.token": "short"}, "http.token: must have at least 16 characters"),
        ({"input": 3}, "input: must be a table"),
        ({"kafka.bootstrap_server": "a:1"}, "did you mean kafka.bootstrap_servers?"),
        (
            {"input.topic": "texts.dead"},
            "the topics must differ: input.topic and output.dead_letter_topic are both 'texts.dead'",
        ),
        (
            {"input.topics": "a,texts.dead"},
            "the topics must differ: input.topics and output.dead_letter_topic are both 'texts.dead'",
        ),
        (
            {"input.topic": "a", "output.topic": "a", "output.dead_letter_topic": "a"},
            "input.topic, output.topic and output.dead_letter_topic are all 'a' (input.topic from",
        ),
        ({"input.topics": "a,b,a"}, "input.topics names a topic twice (a, b, a)"),
        ({"input.topics": "a,__consumer_offsets"}, "is an internal topic of Kafka"),
        ({"input.topics": "a b"}, "input.topics = 'a b': must be 1 to 249 letters"),
        ({"input.topics": "a", "input.topic": "b"}, "input.topic and input.topics are set: keep"),
        (
            {"input.topics": "a", "input.topic_pattern": "a"},
            "input.topics and input.topic_pattern are set: keep one of them",
        ),
        ({"input.topic_pattern": "(a"}, "'(a': is no regular expression: missing )"),
        ({"input.topic_pattern": "[[:alpha:]]"}, "is no regular expression: Possible nested set"),
        ({"input.topic_pattern": ""}, "input.topic_pattern = '': must not be empty"),
        (
            {"input.topic_pattern": ".*", "output.topic": "{topic}-x"},
            "output.dead_letter_topic = 'texts.dead' is an output, which input.topic_pattern = '.*'",
        ),
        ({"output.topic": "{topic}"}, "output.topic = '{topic}' is the input itself: add to the"),
        ({"output.topic": "{topic}{topic}"}, "and {topic} at most once"),
        ({"output.topic": "{name}"}, "and {topic} at most once"),
        ({"output.dead_letter_topic": "{topic}.dead"}, "must be 1 to 249 letters, digits, dots"),
        (
            {"input.topics": "texts,b", "output.topic": "{topic}.dead"},
            "gives input 'texts' the output 'texts.dead', which is output.dead_letter_topic",
        ),
        (
            {"input.topics": "a,a.x", "output.topic": "{topic}.x"},
            "gives input 'a' the output 'a.x', which is an input too",
        ),
        (
            {"input.topic": "a" * 249, "output.topic": "{topic}.x"},
            "whose 251 characters are more than Kafka's 249",
        ),
        ({"output.mode": "enrich", "input.format": "text"}, "plain text has no object"),
        (
            {
                "output.mode": "enrich",
                "input.format": "protobuf",
                "output.format": "protobuf",
                "registry.url": "http://r",
            },
            "with output.format = 'protobuf': it adds to avro to avro, json to json, json_schema to",
        ),
        (
            {
                "output.mode": "enrich",
                "input.format": "avro",
                "output.format": "avro",
                "registry.url": "http://r",
                "registry.subject_name_strategy": "record_name",
            },
            "would get the subject of the input's",
        ),
        ({"max_inflight_bytes": 1000}, "input.max_bytes (1000000) is more than"),
        ({"cache.max_bytes": 10}, "cache.max_bytes (10) is too small for a useful cache"),
        ({"drift.reference_records": 99}, "drift.reference_records (99) is too few to tell"),
        (
            {"model.max_tokens": 500, "batch.forward_tokens": 499},
            "the longest text would not fit in a forward pass",
        ),
        ({"rebalance_drain_timeout": 400}, "must be below kafka.max_poll_interval (300)"),
        ({"kafka.security_protocol": "SASL_SSL"}, "needs kafka.sasl_mechanism"),
        (
            {"kafka.sasl_password": "x"},
            "kafka.sasl_password set, but kafka.security_protocol = 'PLAINTEXT'",
        ),
        ({"kafka.ssl_cafile": __file__}, "use SSL or SASL_SSL"),
        ({"kafka.ssl_cafile": "/no/ca.pem"}, "kafka.ssl_cafile = '/no/ca.pem': no such file"),
        ({"kafka.bootstrap_servers": "nocolon"}, "kafka.bootstrap_servers = 'nocolon'"),
        ({"kafka.bootstrap_servers": "a:1,b"}, "'b' has no port: write b:9092"),
        (
            {"kafka.bootstrap_servers": "a:70000"},
            "the port of 'a:70000' is not between 1 and 65535",
        ),
        ({"kafka.bootstrap_servers": "kafka://a:1"}, "'kafka://a:1' has a scheme"),
        ({"kafka.bootstrap_servers": []}, "no broker, or an extra comma"),
        ({"kafka.bootstrap_servers": "a:1,"}, "no broker, or an extra comma"),
        ({"kafka.bootstrap_servers": [1]}, "must be host:port, comma-separated or a list"),
        ({"input.topic": "bad!"}, "input.topic = 'bad!': must be 1 to 249 letters, digits, dots"),
        ({"input.text_path": "a..b"}, "'a..b': must be keys separated by single dots"),
        ({"kafka.session_timeout": 400}, "is more than kafka.max_poll_interval"),
        (
            {"kafka.security_protocol": "SSL", "kafka.ssl_keyfile": __file__},
            "kafka.ssl_keyfile needs kafka.ssl_certfile",
        ),
    ],
)
def test_a_wrong_value_is_named_with_what_is_accepted(flags: dict[str, Any], expected: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(flags, environ={})
    assert expected in str(refused.value)


FOUND_WITH_SCHEMA = {
    "input.topic_pattern": "posts-[a-z]+",
    "output.topic": "{topic}.labelled",
    "output.format": "avro",
    "registry.url": "http://a:1,http://b:1",
}


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({"registry.timeout": 15}, None),
        (
            {"registry.timeout": 16},
            "registry.timeout (16) times the addresses in registry.url (2) is",
        ),
        ({"registry.timeout": 16}, "more than a quarter of stall_timeout (120): when input.topic_"),
        ({"registry.timeout": 16}, "Set registry.timeout to at most 15 ("),
        ({"stall_timeout": 600, "registry.timeout": 37.5}, None),
        (
            {"stall_timeout": 600, "registry.timeout": 38},
            "quarter of kafka.max_poll_interval (300)",
        ),
        (
            {"registry.url": "http://a:1", "registry.timeout": 31},
            "registry.timeout (31) times the addresses in registry.url (1)",
        ),
        ({"registry.timeout": 99, "output.topic": "labelled"}, None),
        ({"registry.timeout": 99, "output.format": "json"}, None),
        ({"registry.timeout": 99, "input.format": "avro", "output.mode": "enrich"}, None),
    ],
)
def test_polling_waits_only_briefly_for_a_registry(
    times: dict[str, Any], expected: str | None
) -> None:
    """The schema of a found topic's results is registered on the poll thread."""
    flags = FOUND_WITH_SCHEMA | times
    if expected is None:
        load(flags, environ={})
    else:
        with pytest.raises(SettingsError) as refused:
            load(flags, environ={})
        assert expected in str(refused.value)


def test_a_contradiction_names_the_origins_of_its_values() -> None:
    with pytest.raises(
        SettingsError, match=r"input\.topic from environment STREAMLABEL_INPUT_TOPIC"
    ):
        load(environ={"STREAMLABEL_INPUT_TOPIC": "texts.dead"})


@pytest.mark.parametrize(("name", "value"), [("stride", 8), ("max_windows", 3), ("combine", "max")])
def test_an_option_of_windows_is_refused_where_it_has_no_effect(name: str, value: object) -> None:
    path = f"input.{name}"
    with pytest.raises(SettingsError) as refused:
        load({path: value}, environ={})
    assert f'{path} = {value!r} needs input.overflow = "windows"' in str(refused.value)
    load({path: value, "input.overflow": "windows"}, environ={})


@pytest.mark.parametrize(("name", "value"), [("stride", 64), ("max_windows", 1)])
def test_an_option_of_further_windows_is_refused_beside_the_first(name: str, value: int) -> None:
    """Even the default is refused, since the user expects an effect of it."""
    one = {"input.overflow": "windows", "input.combine": "first"}
    load(one, environ={})
    with pytest.raises(SettingsError, match=f"{name} has no effect") as refused:
        load(one | {f"input.{name}": value}, environ={})
    assert f"Leave input.{name} out, or choose another combine" in str(refused.value)


def test_both_options_of_further_windows_are_refused_in_one_sentence() -> None:
    given = {"overflow": "windows", "combine": "first", "stride": 8, "max_windows": 4}
    flags = {f"input.{name}": value for name, value in given.items()}
    with pytest.raises(SettingsError, match=r"stride and input\.max_windows have no effect"):
        load(flags, environ={})


def test_several_problems_are_reported_at_once() -> None:
    with pytest.raises(SettingsError) as refused:
        load({"http.port": -1, "batch.max_records": 0}, environ={})
    assert len(str(refused.value).splitlines()) == 2


def test_a_secret_is_never_shown() -> None:
    secret = {"kafka.sasl_password": "hunter2", "kafka.sasl_username": "me"}
    secret |= {"kafka.sasl_mechanism": "PLAIN", "kafka.security_protocol": "SASL_PLAINTEXT"}
    settings = load(secret, environ={}).settings
    values = [shown(option, settings) for option in options()]
    assert "(hidden)" in values
    assert not any("hunter2" in value for value in [*values, repr(settings)])
    with pytest.raises(SettingsError) as refused:
        load({"kafka.sasl_password": ["hunter2"]}, environ={})
    assert "hunter2" not in str(refused.value)


def test_a_misspelt_variable_is_a_warning() -> None:
    loaded = load(environ={"STREAMLABEL_INPUT_TOPICC": "x", "STREAMLABEL_SERVICE_HOST": "10.0.0.1"})
    (warning,) = loaded.warnings
    assert "STREAMLABEL_INPUT_TOPICC is not a setting" in warning
    assert "did you mean STREAMLABEL_INPUT_TOPIC?" in warning


def test_servers_may_be_a_list_in_the_file(tmp_path: Path) -> None:
    config = tmp_path / "s.toml"
    config.write_text('[kafka]\nbootstrap_servers = ["a:1", "[::1]:2 "]\n')
    assert load(config=config, environ={}).settings.kafka.bootstrap_servers == "a:1,[::1]:2"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('[kafkaa]\nsasl_password = "hunter2"\n', "[kafkaa]: no such table; did you mean [kafka]?"),
        ('[kafka]\nsasl_pasword = "hunter2"\n', "did you mean kafka.sasl_password?"),
        ('[kafka]\ntext_path = "hunter2"\n', "did you mean input.text_path?"),
        ('group_id = "hunter2"\n', "group_id: no such setting; did you mean kafka.group_id?"),
        ('[kafka.tls]\nca = "hunter2"\n', "kafka.tls: no such setting (from"),  # it has many
        (
            '[prepare]\nlowercase = "hunter2"\n',
            "no such setting; prepare has preset, html, unicode,",
        ),
        ('groupid = "hunter2"\n', "groupid: no such setting; did you mean kafka.group_id?"),
        ("[zzz]\n[qqq]\na = 1\n", "[qqq]: no such table (from file"),
    ],
)
def test_a_misspelt_name_is_reported_with_the_nearest_one_and_without_its_value(
    content: str, expected: str, tmp_path: Path
) -> None:
    config = tmp_path / "s.toml"
    config.write_text(content)
    with pytest.raises(SettingsError) as refused:
        load(config=config, environ={})
    assert expected in str(refused.value)
    assert f"(from file {config})" in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_suggests_the_nearest_flag(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The value after the flag may be a secret: it is not shown."""
    needed = {
        "classify": ["a text"],
        "model": ["fetch"],
        "topics": ["describe"],
        "completion": ["bash"],
        "plan": ["--rate", "1", "--latency-goal", "1"],
        "backfill": ["--from", "1h"],
        "dead-letters": ["list"],
        "offsets": ["show"],
        "shadow": ["report"],
        "routes": ["list"],
        "calibrate": ["--texts", "t.csv"],
    }
    with pytest.raises(SystemExit) as ended:
        main([command, *needed.get(command, []), "--hepl=hunter2"])
    errors = capsys.readouterr().err
    assert ended.value.code == 2
    assert "unrecognized arguments: --hepl; did you mean --help?" in errors
    assert "hunter2" not in errors


def test_commands_that_show_no_settings_warn_of_a_misspelt_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("STREAMLABEL_INPUT_TOPICC", "x")
    main(["plan", "--rate", "1", "--latency-goal", "1", "--from", str(tmp_path / "none.json")])
    assert "did you mean STREAMLABEL_INPUT_TOPIC?" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["not toml", '[kafka]\nbrokers = "a"\n', "input = 3\n"])
def test_a_broken_file_is_refused(tmp_path: Path, content: str) -> None:
    config = tmp_path / "s.toml"
    config.write_text(content)
    with pytest.raises(SettingsError):
        load(config=config, environ={})


def test_an_empty_variable_counts_as_unset() -> None:
    loaded = load(environ={"KAFKA_BOOTSTRAP_SERVERS": "", "STREAMLABEL_MODEL_REVISION": ""})
    assert loaded.settings == load(environ={}).settings


def test_a_child_inherits_none_of_our_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLABEL_DELIVERY", "exactly_once")
    environment = child_environment(EXTRA="1")
    assert environment["EXTRA"] == "1"
    assert "STREAMLABEL_DELIVERY" not in environment


def test_settings_survive_the_way_to_a_child(tmp_path: Path) -> None:
    """Every option, secrets included, is passed as JSON."""
    certificate = tmp_path / "ca.pem"
    certificate.touch()
    flags = {"kafka.sasl_password": "hunter2", "kafka.sasl_username": "me", "commit_interval": 0.1}
    flags |= {"kafka.sasl_mechanism": "PLAIN", "kafka.security_protocol": "SASL_SSL"}
    settings = load(flags | {"kafka.ssl_cafile": str(certificate)}, environ={}).settings
    received = json.loads(json.dumps(plain_values(settings)))
    assert load(received, environ={}).settings == settings
    assert received.keys() == flags.keys() | {"kafka.ssl_cafile"}


def test_a_child_gets_several_topics_without_the_default_of_one() -> None:
    """Both together are refused."""
    settings = load({"input.topics": "a,b"}, environ={}).settings
    received = json.loads(json.dumps(plain_values(settings)))
    assert load(received, environ={}).settings.topics.inputs == ("a", "b")
