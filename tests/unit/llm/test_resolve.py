import pytest

from hector.llm.resolve import OPENAI_URL, LlmEntry, ModelChoice, ResolveError, resolve

KEY = {"OPENAI_API_KEY": "sk-from-environ"}


@pytest.mark.parametrize(
    ("written", "provider", "model"),
    [
        ("gpt-4o", "openai", "gpt-4o"),
        ("gpt-4o-mini", "openai", "gpt-4o-mini"),
        ("chatgpt-4o-latest", "openai", "chatgpt-4o-latest"),
        ("o1", "openai", "o1"),
        ("o3-mini", "openai", "o3-mini"),
        ("o4-mini", "openai", "o4-mini"),
        ("ft:gpt-4o-mini:acme::abc", "openai", "ft:gpt-4o-mini:acme::abc"),
        ("openai:whatever-7b", "openai", "whatever-7b"),
        (" openai: gpt-4o ", "openai", "gpt-4o"),
        ("openai:gpt-oss:20b", "openai", "gpt-oss:20b"),
        ("local", "local", ""),
        ("local:", "local", ""),
        ("local:qwen", "local", "qwen"),
        ("scripted", "scripted", ""),
        ("scripted:recall", "scripted", "recall"),
        (LlmEntry(type="openai", model="mine"), "openai", "mine"),
        (LlmEntry(type="openai", model="openai:mine"), "openai", "mine"),
        (LlmEntry(type="local"), "local", ""),
        (LlmEntry(model="gpt-4o"), "openai", "gpt-4o"),
        (LlmEntry(model="llama3.2:1b", host="localhost:11434"), "openai", "llama3.2:1b"),
        (LlmEntry(model="claude-3-5-sonnet", host="localhost:4000"), "openai", "claude-3-5-sonnet"),
        (LlmEntry(model="openai:mine", host="localhost:4000"), "openai", "mine"),
    ],
)
def test_a_name_leads_to_its_provider_and_model(written: str | LlmEntry, provider: str, model: str) -> None:
    choice = resolve(written, KEY)
    assert (choice.provider, choice.model) == (provider, model)


@pytest.mark.parametrize(
    ("written", "key", "text"),
    [
        ("", "model", "needs a type or a model"),
        ("openai:", "model", "needs the name of a model"),
        (LlmEntry(type="openai"), "model", "needs the name of a model"),
        ("claude-3-5-sonnet", "model", "'claude-3-5-sonnet' is a model of anthropic, which this release"),
        ("anthropic:claude-x", "model", "is a model of anthropic, which this release does not support"),
        ("gemini-2.5-pro", "model", "is a model of google, which this release does not support"),
        (LlmEntry(type="anthropic"), "type", "'anthropic' this release does not support; what works is"),
        (LlmEntry(type="opnai", model="x"), "type", "no provider is named 'opnai' (known: openai, local,"),
        (LlmEntry(model="m", host="ftp://me:secret@x"), "host", "host: what it holds is no host or URL"),
        ("mistral-large", "model", "cannot tell whose model 'mistral-large' is; what works is"),
        ("o1000x", "model", "cannot tell whose model"),
        ("gpt4", "model", "cannot tell whose model"),
        (LlmEntry(model="m", host="ftp://x"), "host", "'ftp://x' is no host or URL"),
        (LlmEntry(model="m", host="http://"), "host", "is no host or URL"),
        (LlmEntry(model="m", host="http://x:port"), "host", "is no host or URL"),
        (
            LlmEntry(type="openai", model="m", api_key="two words"),
            "api_key",
            "api_key holds a character that no key has",
        ),
        (
            LlmEntry(type="openai", model="m", api_key="schlüssel"),
            "api_key",
            "api_key holds a character that no key has",
        ),
    ],
)
def test_what_cannot_work_is_said_with_what_would(written: str | LlmEntry, key: str, text: str) -> None:
    with pytest.raises(ResolveError) as raised:
        resolve(written, KEY)
    assert text in str(raised.value)
    assert raised.value.key == key


@pytest.mark.parametrize("environ", [{}, {"OPENAI_API_KEY": ""}, {"OPENAI_API_KEY": " \n"}])
def test_a_missing_key_names_the_variable(environ: dict[str, str]) -> None:
    with pytest.raises(ResolveError, match="environment variable OPENAI_API_KEY") as raised:
        resolve("gpt-4o", environ)
    assert raised.value.key == "api_key"


def test_a_key_with_a_line_break_at_its_end_is_that_key() -> None:
    assert resolve("gpt-4o", {"OPENAI_API_KEY": "sk-1\n"}).api_key == "sk-1"


def test_the_key_of_the_entry_comes_before_that_of_the_environment() -> None:
    assert resolve(LlmEntry(model="gpt-4o", api_key="sk-own"), KEY).api_key == "sk-own"


def test_a_given_host_needs_no_key_and_never_sees_that_of_the_environment() -> None:
    choice = resolve(LlmEntry(model="m", host="http://localhost:1234"), KEY)
    assert choice.api_key is None


@pytest.mark.parametrize(
    ("host", "base_url"),
    [
        ("http://localhost:11434", "http://localhost:11434/v1"),
        ("http://localhost:11434/", "http://localhost:11434/v1"),
        ("localhost:11434", "http://localhost:11434/v1"),
        ("192.168.1.7:8000", "http://192.168.1.7:8000/v1"),
        ("[::1]:8000", "http://[::1]:8000/v1"),
        ("llm.internal", "http://llm.internal/v1"),
        ("api.groq.com/openai/v1", "https://api.groq.com/openai/v1"),
        ("https://openrouter.ai/api/v1/", "https://openrouter.ai/api/v1"),
    ],
)
def test_a_host_becomes_a_base_url(host: str, base_url: str) -> None:
    assert resolve(LlmEntry(model="m", host=host), {}).base_url == base_url


def test_without_a_host_the_base_url_is_that_of_the_environment_or_openai() -> None:
    assert resolve("gpt-4o", KEY).base_url == OPENAI_URL
    environ = {**KEY, "OPENAI_BASE_URL": "http://localhost:1/api/"}
    assert resolve("gpt-4o", environ) == ModelChoice(
        provider="openai",
        model="gpt-4o",
        api_key="sk-from-environ",
        base_url="http://localhost:1/api",
        base_url_from="the environment variable OPENAI_BASE_URL",
    )
    assert (
        resolve(LlmEntry(model="m", host="localhost:1"), {}).base_url_from == "host in its entry under llms"
    )


@pytest.mark.parametrize(
    "url",
    [
        "localhost:1/v1",
        "nonsense",
        "ftp://x/v1",
        "http://",
        "http://x:port",
        "http://x:0",
        "http://a b",
        "http://me:secret@x/v1",
        "http://x?key=secret",
    ],
)
def test_a_base_url_of_the_environment_that_is_none_is_told_before_it_is_used(url: str) -> None:
    with pytest.raises(ResolveError, match="the environment variable OPENAI_BASE_URL holds no URL") as raised:
        resolve("gpt-4o", {**KEY, "OPENAI_BASE_URL": url})
    assert raised.value.key == "host"
    assert "secret" not in str(raised.value)


def test_an_empty_base_url_of_the_environment_counts_as_not_set() -> None:
    assert resolve("gpt-4o", {**KEY, "OPENAI_BASE_URL": " "}).base_url == OPENAI_URL


def test_settings_of_the_entry_are_kept() -> None:
    entry = LlmEntry(type="scripted", temperature=0.0, max_tokens=5, timeout=2.5, context_window=99)
    choice = resolve(entry, {})
    assert (choice.temperature, choice.max_tokens, choice.timeout, choice.context_window) == (0.0, 5, 2.5, 99)


def test_a_key_is_not_in_what_is_printed() -> None:
    entry = LlmEntry(model="gpt-4o", api_key="sk-secret")
    assert "sk-secret" not in repr(entry) + repr(resolve(entry, {}))
